package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// writer carries out one pass of a restore.
type writer struct {
	ctx   context.Context
	run   plugins.Run
	roots []string
	claim *claim
	spool *spool.Spool
	rep   *plugins.Report
	left  map[string]version // every entry as it was left
	aside []string           // replaced directories, removed at the end
	dirs  map[string]bool    // directories whose entries changed, to be synced
}

func (w *writer) write(want []entry, live *tree, d diff) error {
	w.dirs = map[string]bool{}
	todo := slices.Sorted(slices.Values(append(append([]int(nil), d.add...), d.change...)))
	for _, i := range todo { // parents stand before what is below them
		if want[i].Meta.Type != typeLink {
			if err := w.entry(want[i]); err != nil {
				return err
			}
		}
	}
	// A file that was replaced has a new inode: all its other names must follow.
	replaced := map[string]bool{}
	for _, i := range todo {
		replaced[want[i].Path] = true
	}
	for _, e := range want {
		if e.Meta.Type == typeLink && (replaced[e.Path] || replaced[string(e.Meta.Target)]) {
			if err := w.entry(e); err != nil {
				return err
			}
		}
	}
	if err := w.remove(d.extra, live.leftovers); err != nil {
		return err
	}
	if err := w.directories(want); err != nil {
		return err
	}
	for dir := range w.dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// in runs f with the directory of path open, while the claim is ours.
func (w *writer) in(path string, f func(dir int, base string) error) error {
	root := path
	for _, r := range w.roots {
		if within(path, r) {
			root = r
		}
	}
	err := w.ctx.Err()
	if err == nil {
		err = w.claim.check()
	}
	if err == nil && path == root {
		err = os.MkdirAll(filepath.Dir(root), 0o755)
	}
	var dir int
	var base string
	if err == nil {
		dir, base, err = openParent(root, path)
	}
	if err == nil {
		err = f(dir, base)
		unix.Close(dir)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", path, err)
	}
	return nil
}

func (w *writer) temporary() string {
	return fmt.Sprintf("%s%d-%s%s", temporaryPrefix, w.run.Epoch, rand.Text()[:10], temporarySuffix)
}

// entry writes one entry beside its place and moves it there in one step.
func (w *writer) entry(e entry) error {
	w.rep.Records++
	w.rep.Bytes += e.Meta.Size
	w.run.Report(plugins.Status{Phase: "load", Item: e.Path, Bytes: w.rep.Bytes})
	return w.in(e.Path, func(dir int, base string) error {
		var st unix.Stat_t
		err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		exists, isDir := err == nil, st.Mode&unix.S_IFMT == unix.S_IFDIR
		if e.Meta.Type == typeDir && exists && isDir {
			return nil // owner, mode and times follow when nothing below changes any more
		}
		tmp := w.temporary()
		if err := w.create(dir, tmp, e); err != nil {
			return errors.Join(err, removeAll(dir, tmp))
		}
		if exists && isDir != (e.Meta.Type == typeDir) {
			w.aside = append(w.aside, filepath.Join(filepath.Dir(e.Path), tmp))
		}
		if err := w.claim.check(); err != nil {
			return errors.Join(err, removeAll(dir, tmp))
		}
		if exists && isDir != (e.Meta.Type == typeDir) {
			err = unix.Renameat2(dir, tmp, dir, base, unix.RENAME_EXCHANGE)
		} else {
			err = unix.Renameat(dir, tmp, dir, base)
		}
		if err != nil {
			return errors.Join(err, removeAll(dir, tmp))
		}
		w.dirs[filepath.Dir(e.Path)] = true
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		w.left[e.Path] = versionOf(st)
		return nil
	})
}

func (w *writer) create(dir int, tmp string, e entry) error {
	switch e.Meta.Type {
	case typeDir:
		return unix.Mkdirat(dir, tmp, 0o700)
	case typeSymlink:
		if err := unix.Symlinkat(string(e.Meta.Target), dir, tmp); err != nil {
			return err
		}
		if err := unix.Fchownat(dir, tmp, e.Meta.UID, e.Meta.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		t := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(e.Meta.MTime)}
		return unix.UtimesNanoAt(dir, tmp, t, unix.AT_SYMLINK_NOFOLLOW)
	case typeLink:
		return w.link(dir, tmp, string(e.Meta.Target))
	}
	fd, err := openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	var buf []byte
	for _, ref := range e.chunks {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		b, err := w.spool.Get(ref, &buf)
		if err != nil {
			return err
		}
		if _, err := f.Write(b); err != nil {
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				return fmt.Errorf("%w: %w", err, plugins.ErrSpace)
			}
			return err
		}
	}
	if err := apply(fd, e.Meta); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// link gives the file target a further name; target is an entry of the backup and stands already.
func (w *writer) link(dir int, tmp, target string) error {
	for _, r := range w.roots {
		if within(target, r) {
			from, base, err := openParent(r, target)
			if err != nil {
				return err
			}
			defer unix.Close(from)
			return unix.Linkat(from, base, dir, tmp, 0)
		}
	}
	return fmt.Errorf("link to %s: %w", target, plugins.ErrData)
}

// remove takes away what appeared later, what was replaced, and leftovers of killed attempts.
func (w *writer) remove(extra, leftovers []string) error {
	var last string
	for _, p := range extra { // ascending: a directory stands before what is below it
		if last != "" && within(p, last) {
			w.rep.Removed++
			continue
		}
		last = p
		if err := w.gone(p, w.takeOut); err != nil {
			return err
		}
		w.rep.Removed++
	}
	for _, p := range append(leftovers, w.aside...) {
		if err := w.gone(p, removeAll); err != nil {
			return err
		}
	}
	return nil
}

// gone removes path, which may have gone already with the directory that held it.
func (w *writer) gone(path string, remove func(dir int, base string) error) error {
	err := w.in(path, remove)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	w.dirs[filepath.Dir(path)] = true
	return err
}

// directories sets owner, mode and times of directories, deepest first, where they differ.
func (w *writer) directories(want []entry) error {
	for _, e := range slices.Backward(want) {
		if e.Meta.Type != typeDir {
			continue
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		err := w.in(e.Path, func(dir int, base string) error {
			fd, err := openat(dir, base, unix.O_RDONLY|dirFlags, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			now := describe(st, typeDir)
			if now.XAttrs, err = xattrs(fd); err != nil || now.equal(e.Meta) {
				return err
			}
			w.dirs[e.Path] = true
			if err := apply(fd, e.Meta); err != nil {
				return err
			}
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			w.left[e.Path] = versionOf(st)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func syncDir(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil // it was removed, or is not ours
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// takeOut removes an entry by way of a temporary directory, see claim.
func (w *writer) takeOut(dir int, base string) error {
	tmp := w.temporary()
	if err := unix.Mkdirat(dir, tmp, 0o700); err != nil {
		return err
	}
	err := w.claim.check()
	if err == nil {
		var into int
		if into, err = openat(dir, tmp, unix.O_PATH|dirFlags, 0); err == nil {
			err = unix.Renameat(dir, base, into, base)
			unix.Close(into)
		}
	}
	return errors.Join(err, removeAll(dir, tmp))
}
