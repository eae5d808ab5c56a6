// Package fsutil publishes files so that they survive a crash: written under
// a temporary name, synced, given their final name in one step, and the
// directory synced after it. All paths are resolved inside an [os.Root].
package fsutil

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// ErrBusy means that another process, or another part of this one, holds the lock.
var ErrBusy = errors.New("in use by another process")

// ErrNotRegular means that a name leads to something else than a regular
// file: a symbolic link, a device, a pipe, a directory.
var ErrNotRegular = errors.New("not a regular file")

// MakeRoot opens a directory, which is made (0700) when it is missing.
func MakeRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// Publish writes data under a temporary name in tmp, syncs it and links it to
// name, which must not exist yet (else an error wrapping [fs.ErrExist] and
// nothing is changed). Both directories lie in root. It returns when file and
// directory are on disk.
func Publish(root *os.Root, tmp, name string, data []byte) error {
	t, err := writeTemp(root, tmp, data)
	if err != nil {
		return err
	}
	defer root.Remove(t)
	if err := root.Link(t, name); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return SyncDir(root, path.Dir(name))
}

// Replace is Publish for a name that may exist: the old content or the new
// one is there at any moment, never a mixture and never nothing.
func Replace(root *os.Root, tmp, name string, data []byte) error {
	t, err := writeTemp(root, tmp, data)
	if err != nil {
		return err
	}
	if err := root.Rename(t, name); err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", name, err), root.Remove(t))
	}
	return SyncDir(root, path.Dir(name))
}

func writeTemp(root *os.Root, dir string, data []byte) (string, error) {
	name := path.Join(dir, TempName())
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("write %s: %w", name, err), root.Remove(name))
	}
	return name, nil
}

// TempName is a fresh file name for temporary files.
func TempName() string { return "t-" + rand.Text() }

// SyncDir makes the names in a directory durable.
func SyncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// SyncPath makes the names in a directory and in all its parents durable.
func SyncPath(root *os.Root, dir string) error {
	for ; ; dir = path.Dir(dir) {
		if err := SyncDir(root, dir); err != nil || dir == "." {
			return err
		}
	}
}

// SyncFile makes the content of a file durable.
func SyncFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// OpenRegular opens a regular file for reading. A symbolic link as the last
// element, a pipe or a device is refused (ErrNotRegular) without blocking. A
// file that Replace puts in its place meanwhile is as good.
func OpenRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	for try := 1; ; try++ {
		li, err := root.Lstat(name)
		if err != nil {
			return nil, nil, err
		}
		if !li.Mode().IsRegular() {
			return nil, nil, fmt.Errorf("%s: %w", name, ErrNotRegular)
		}
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, nil, err
		}
		fi, err := f.Stat()
		if err == nil && os.SameFile(li, fi) {
			return f, fi, nil
		}
		f.Close()
		switch {
		case err != nil:
			return nil, nil, err
		case !fi.Mode().IsRegular() || try == replaceTries:
			return nil, nil, fmt.Errorf("%s: %w", name, ErrNotRegular)
		}
	}
}

// replaceTries is how often a file may be replaced between a look and its opening.
const replaceTries = 100

// ErrTooLarge means that a file is larger than its kind may be.
var ErrTooLarge = errors.New("file is larger than allowed")

// ReadBounded reads a whole regular file of at most limit bytes; the size is
// checked before anything is allocated, and again while reading.
func ReadBounded(root *os.Root, name string, limit int64) ([]byte, error) {
	f, fi, err := OpenRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", name, fi.Size(), limit, ErrTooLarge)
	}
	b := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// ReadFile reads a whole regular file of at most limit bytes by its path. A
// symbolic link is followed; a pipe or a device is refused without blocking.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w", name, ErrNotRegular)
	case fi.Size() > limit:
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", name, fi.Size(), limit, ErrTooLarge)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// OpenDir opens a directory below root, element by element, and refuses
// symbolic links on the way, also those that stay inside root.
func OpenDir(root *os.Root, dir ...string) (*os.Root, error) {
	cur, own := root, false
	for _, e := range dir {
		next, err := openElement(cur, e)
		if own {
			cur.Close()
		}
		if err != nil {
			return nil, err
		}
		cur, own = next, true
	}
	if !own {
		return root.OpenRoot(".")
	}
	return cur, nil
}

func openElement(cur *os.Root, e string) (*os.Root, error) {
	li, err := cur.Lstat(e)
	if err != nil {
		return nil, err
	}
	if !li.IsDir() {
		return nil, fmt.Errorf("%s: not a directory: %w", e, fs.ErrInvalid)
	}
	next, err := cur.OpenRoot(e)
	if err != nil {
		return nil, err
	}
	if fi, err := next.Stat("."); err != nil || !os.SameFile(li, fi) {
		next.Close()
		return nil, errors.Join(fmt.Errorf("%s: changed while it was opened: %w", e, fs.ErrInvalid), err)
	}
	return next, nil
}

// MkdirAll makes a directory with its parents, mode 0700, and makes the new
// names durable.
func MkdirAll(root *os.Root, dir string) error {
	if _, err := root.Lstat(dir); err == nil {
		return nil
	}
	if parent := path.Dir(dir); parent != "." {
		if err := MkdirAll(root, parent); err != nil {
			return err
		}
	}
	if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(root, path.Dir(dir))
}

// Lock is a held flock(2); it ends with the process at the latest.
type Lock struct{ f *os.File }

// TryLock takes a lock on a file, made when absent (mode 0600), without
// waiting: ErrBusy when it is held in a conflicting mode.
func TryLock(root *os.Root, name string, exclusive bool) (*Lock, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return lockFile(f, exclusive)
}

// TryLockExisting is TryLock for a file that must exist and is only read.
func TryLockExisting(root *os.Root, name string, exclusive bool) (*Lock, error) {
	f, _, err := OpenRegular(root, name)
	if err != nil {
		return nil, err
	}
	return lockFile(f, exclusive)
}

func lockFile(f *os.File, exclusive bool) (*Lock, error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	if err := flock(f, how|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", f.Name(), ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &Lock{f: f}, nil
}

// WaitLock is an exclusive TryLock that waits its turn. It is meant for locks
// held for moments only.
func WaitLock(root *os.Root, name string) (*Lock, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return &Lock{f: f}, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Unlock lets go; safe to call twice and on nil.
func (l *Lock) Unlock() {
	if l != nil && l.f != nil {
		l.f.Close()
		l.f = nil
	}
}
