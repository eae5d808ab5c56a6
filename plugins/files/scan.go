package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// version identifies the content of an inode: any change of it sets the change time.
type version struct {
	Dev, Ino uint64
	CTime    int64
}

type entry struct {
	Path    string
	Meta    meta
	at      version
	settled bool // the change time was old enough when it was read: a later change must show
	chunks  []spool.Ref
}

// tree is what one scan saw, entries ascending by path.
type tree struct {
	entries   []entry
	special   []string // sockets, FIFOs, devices
	leftovers []string // temporary names of a killed restore
	settled   bool
	reread    int // files whose content was read, not taken over from an earlier scan
}

type scanner struct {
	statOnly bool              // sizes and readability only
	keep     *spool.Spool      // keeps contents, if set
	known    map[string]*entry // of an earlier scan with the same keep
	first    map[[2]uint64]string
	out      *tree
}

// granule is longer than the kernel's clock of file times may stand still.
const granule = 25 * time.Millisecond

// scan reads the trees. A file that changes while it is read is read again.
func (sc *scanner) scan(ctx context.Context, roots []string) (*tree, error) {
	sc.out, sc.first = &tree{settled: true}, map[[2]uint64]string{}
	for _, root := range roots {
		dir, base, err := openParent(root, root)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			sc.out.entries = append(sc.out.entries, entry{Path: root, Meta: meta{Type: typeAbsent}, settled: true})
			continue
		}
		if err != nil {
			return nil, err
		}
		n := len(sc.out.entries)
		err = sc.visit(ctx, dir, base, root)
		unix.Close(dir)
		if err != nil {
			return nil, err
		}
		if len(sc.out.entries) == n && !slices.Contains(sc.out.special, root) {
			sc.out.entries = append(sc.out.entries, entry{Path: root, Meta: meta{Type: typeAbsent}, settled: true})
		}
	}
	slices.SortFunc(sc.out.entries, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
	sc.links()
	return sc.out, nil
}

// links gives the content to the first name of a file in path order, whatever order the directories were read in.
func (sc *scanner) links() {
	es := sc.out.entries
	for i := range es {
		if es[i].Meta.Type != typeFile {
			continue
		}
		id := [2]uint64{es[i].at.Dev, es[i].at.Ino}
		if to, ok := sc.first[id]; ok {
			es[i].Meta, es[i].chunks = meta{Type: typeLink, Target: []byte(to)}, nil
			continue
		}
		sc.first[id] = es[i].Path
	}
}

func (sc *scanner) visit(ctx context.Context, dir int, name, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil // gone since the directory was read
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	if isTemporary(name) {
		sc.out.leftovers = append(sc.out.leftovers, path)
		return nil
	}
	if len(sc.out.entries) == maxEntries {
		return fmt.Errorf("%s: more than %d files: name narrower `paths` in the estate file: %w", path, maxEntries, plugins.ErrData)
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = sc.file(ctx, dir, name, path)
	case unix.S_IFDIR:
		err = sc.directory(ctx, dir, name, path)
	case unix.S_IFLNK:
		e := entry{Path: path, Meta: describe(st, typeSymlink), at: versionOf(st), settled: true}
		e.Meta.Mode = 0
		if e.Meta.Target, err = readlink(dir, name); err == nil {
			sc.out.entries = append(sc.out.entries, e)
		}
	default:
		sc.out.special = append(sc.out.special, path)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		sc.out.settled = false // replaced under our hands: the next pass sees what it is now
		return nil
	}
	var named *pathError
	if err != nil && !errors.As(err, &named) && ctx.Err() == nil {
		return &pathError{path, err}
	}
	return err
}

type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

func (sc *scanner) directory(ctx context.Context, dir int, name, path string) error {
	fd, err := openat(dir, name, unix.O_RDONLY|dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	e := entry{Path: path, Meta: describe(st, typeDir), at: versionOf(st), settled: true}
	if e.Meta.XAttrs, err = xattrs(fd); err != nil {
		return err
	}
	sc.out.entries = append(sc.out.entries, e)
	below, err := names(fd, ".")
	if err != nil {
		return err
	}
	for _, n := range below {
		if err := sc.visit(ctx, fd, n, filepath.Join(path, n)); err != nil {
			return err
		}
	}
	return nil
}

func (sc *scanner) file(ctx context.Context, dir int, name, path string) error {
	for try := 0; ; try++ {
		fd, err := openFile(dir, name)
		if err != nil {
			return err
		}
		e, ok, err := sc.content(ctx, fd, path)
		unix.Close(fd)
		if err != nil {
			return err
		}
		if ok {
			sc.out.settled = sc.out.settled && e.settled
			sc.out.entries = append(sc.out.entries, e)
			return nil
		}
		if try == 20 {
			return fmt.Errorf("changes faster than it can be read: stop the program that writes it: %w", plugins.ErrData)
		}
		if err := plugins.Sleep(ctx, granule); err != nil {
			return err
		}
	}
}

// content reads one file; false when it changed meanwhile.
func (sc *scanner) content(ctx context.Context, fd int, path string) (entry, bool, error) {
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return entry{}, false, err
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return entry{}, false, unix.ENOENT
	}
	e := entry{Path: path, Meta: describe(before, typeFile), at: versionOf(before)}
	e.Meta.Size = before.Size
	if sc.statOnly {
		e.settled = true
		return e, true, nil
	}
	if old := sc.known[path]; old != nil && old.settled && old.at == e.at && old.Meta.Type == typeFile {
		return *old, true, nil
	}
	e.settled = time.Since(time.Unix(0, e.at.CTime)) > granule
	var err error
	if e.Meta.XAttrs, err = xattrs(fd); err != nil {
		return e, false, err
	}
	sc.out.reread++
	h := sha256.New()
	buf := make([]byte, min(chunkSize, before.Size+1))
	var off int64
	for off < before.Size {
		if err := ctx.Err(); err != nil {
			return e, false, err
		}
		n, err := preadFull(fd, buf[:min(int64(len(buf)), before.Size-off)], off)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return e, false, nil
		}
		if err != nil {
			return e, false, err
		}
		h.Write(buf[:n])
		if sc.keep != nil {
			ref, err := sc.keep.Put(buf[:n])
			if err != nil {
				return e, false, err
			}
			e.chunks = append(e.chunks, ref)
		}
		off += int64(n)
	}
	e.Meta.SHA256 = h.Sum(nil)
	if err := unix.Fstat(fd, &after); err != nil {
		return e, false, err
	}
	return e, versionOf(after) == e.at && after.Size == before.Size, nil
}

func preadFull(fd int, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		k, err := unix.Pread(fd, p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		case k == 0:
			return n, io.ErrUnexpectedEOF
		default:
			n += k
		}
	}
	return n, nil
}

func describe(st unix.Stat_t, kind string) meta {
	return meta{Type: kind, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), MTime: st.Mtim.Nano()}
}

func versionOf(st unix.Stat_t) version {
	return version{Dev: uint64(st.Dev), Ino: st.Ino, CTime: st.Ctim.Nano()}
}
