package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const dirFlags = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openParent opens the directory that holds path. What lies above the root is
// the administrator's and may contain symbolic links; below it none is followed.
func openParent(root, path string) (fd int, base string, err error) {
	top := filepath.Dir(root)
	fd, err = unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", &fs.PathError{Op: "open", Path: top, Err: err}
	}
	rel, err := filepath.Rel(top, path)
	if err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	names := strings.Split(rel, "/")
	for i, n := range names[:len(names)-1] {
		next, err := openat(fd, n, unix.O_PATH|dirFlags, 0)
		unix.Close(fd)
		if err != nil {
			return -1, "", &fs.PathError{Op: "open", Path: filepath.Join(top, filepath.Join(names[:i+1]...)), Err: err}
		}
		fd = next
	}
	return fd, names[len(names)-1], nil
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openFile opens for reading, without disturbing the access time where that is allowed.
func openFile(dir int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := openat(dir, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = openat(dir, name, flags, 0)
	}
	return fd, err
}

func names(dir int, name string) ([]string, error) {
	fd, err := openat(dir, name, unix.O_RDONLY|dirFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Readdirnames(-1)
}

func readlink(dir int, name string) ([]byte, error) {
	for n := 256; ; n *= 2 {
		b := make([]byte, n)
		k, err := unix.Readlinkat(dir, name, b)
		if err != nil {
			return nil, err
		}
		if k < n {
			return b[:k], nil
		}
	}
}

// kept says which extended attributes belong to a backup.
func kept(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

func noAttributes(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODATA)
}

func xattrs(fd int) (map[string][]byte, error) {
	list := make([]byte, 64<<10) // the kernel's own limit
	n, err := unix.Flistxattr(fd, list)
	if err != nil {
		if noAttributes(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("extended attributes: %w", err)
	}
	var out map[string][]byte
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" || !kept(name) {
			continue
		}
		v := make([]byte, 64<<10)
		k, err := unix.Fgetxattr(fd, name, v)
		if err != nil {
			if noAttributes(err) {
				continue
			}
			return nil, fmt.Errorf("extended attribute %s: %w", name, err)
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = v[:k:k]
	}
	return out, nil
}

// apply gives an open file or directory its owner, mode, attributes and time, in
// the order in which none undoes another (chown clears setuid and capabilities).
func apply(fd int, m meta) error {
	if err := unix.Fchown(fd, m.UID, m.GID); err != nil {
		return fmt.Errorf("owner %d:%d: %w", m.UID, m.GID, err)
	}
	live, err := xattrs(fd)
	if err != nil {
		return err
	}
	for name := range live {
		if _, ok := m.XAttrs[name]; !ok {
			if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("remove extended attribute %s: %w", name, err)
			}
		}
	}
	if err := unix.Fchmod(fd, m.Mode); err != nil {
		return fmt.Errorf("mode %o: %w", m.Mode, err)
	}
	for name, v := range m.XAttrs {
		if err := unix.Fsetxattr(fd, name, v, 0); err != nil {
			return fmt.Errorf("extended attribute %s: %w: does this file system know it?", name, err)
		}
	}
	t := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(m.MTime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), t, 0); err != nil {
		return fmt.Errorf("modification time: %w", err)
	}
	return nil
}

const temporaryPrefix, temporarySuffix = ".cso-backup-", ".tmp"

// isTemporary recognises what a killed restore left behind; it is no data, and the next restore removes it.
func isTemporary(name string) bool {
	return strings.HasPrefix(name, temporaryPrefix) && strings.HasSuffix(name, temporarySuffix)
}

// removeAll removes name and what lies below it, never through a symbolic link.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := openat(dir, name, unix.O_RDONLY|dirFlags, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	below, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range below {
		if err := removeAll(fd, n); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
