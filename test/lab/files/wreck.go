package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Wreck changes content, modes, owners, times and links, swaps types, deletes
// and adds files, directories and links, and removes the single protected file.
func (e *Engine) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	r := rand.New(rand.NewPCG(uint64(seed), 0xbad))
	for _, m := range members {
		rs := roots(m)
		var paths []string
		err := filepath.WalkDir(rs[0], func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != rs[0] {
				paths = append(paths, path)
			}
			return errors.Join(err, ctx.Err())
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("list %s: %w", rs[0], err)
		}
		slices.Sort(paths)
		for _, p := range paths {
			if err := wreckOne(r, p); err != nil {
				return fmt.Errorf("wreck: %w", err)
			}
		}
		if err := add(r, rs[0]); err != nil {
			return fmt.Errorf("add: %w", err)
		}
		if err := os.RemoveAll(rs[1]); err != nil {
			return fmt.Errorf("remove %s: %w", rs[1], err)
		}
	}
	return nil
}

// wreckOne does something to about every second entry; entries that went with
// their directory are left out.
func wreckOne(r *rand.Rand, p string) error {
	info, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	isLink, isFile := info.Mode()&fs.ModeSymlink != 0, info.Mode().IsRegular()
	switch dice := r.IntN(18); {
	case dice == 0 && !info.IsDir():
		return os.Remove(p)
	case dice == 1 && !strings.Contains(p, "/deep"):
		return os.RemoveAll(p)
	case dice == 2 && isFile: // same length, same time: only the content tells
		b, err := os.ReadFile(p)
		if err != nil || len(b) == 0 {
			return err
		}
		b[r.IntN(len(b))] ^= 1
		st := unix.NsecToTimespec(info.ModTime().UnixNano())
		return errors.Join(os.WriteFile(p, b, 0o600), setTime(p, st))
	case dice == 3 && isFile:
		return os.WriteFile(p, []byte("wrecked\n"), 0o600)
	case dice == 4 && isFile:
		return os.Truncate(p, info.Size()/2)
	case dice == 5 && !isLink:
		return unix.Chmod(p, uint32(r.IntN(0o10000)))
	case dice == 6:
		return ignorePermission(unix.Lchown(p, r.IntN(3000), r.IntN(3000)))
	case dice == 7:
		return setTime(p, someTime(r))
	case dice == 8 && !info.IsDir(): // another type under the same name
		if err := os.Remove(p); err != nil {
			return err
		}
		if isLink {
			return os.WriteFile(p, []byte("was a link"), 0o600)
		}
		return os.Symlink("elsewhere", p)
	case dice == 9 && isFile:
		return errors.Join(os.Remove(p), os.MkdirAll(filepath.Join(p, "was a file"), 0o700))
	}
	return nil
}

func ignorePermission(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return nil
	}
	return err
}

func add(r *rand.Rand, root string) error {
	dir := filepath.Join(root, "added")
	// Anew each time: an earlier wreck may have made links and directories of its files.
	errs := []error{os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "nested", "twice"), 0o755)}
	for i := range 10 {
		errs = append(errs, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file %d", i)), password(r, r.IntN(5000)), 0o666))
	}
	if err := os.Symlink("added", filepath.Join(root, "added link")); err != nil && !errors.Is(err, fs.ErrExist) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, unix.Chmod(root, 0o777))...)
}
