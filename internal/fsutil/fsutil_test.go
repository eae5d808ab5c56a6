package fsutil

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func open(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, dir
}

func TestPublishNeverReplaces(t *testing.T) {
	r, dir := open(t)
	if err := Publish(r, ".", "a", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := Publish(r, ".", "a", []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := Replace(r, ".", "b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := Replace(r, ".", "b", []byte("three")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "one", "b": "three"} {
		b, err := ReadBounded(r, name, 10)
		if err != nil || string(b) != want {
			t.Errorf("%s: %q %v", name, b, err)
		}
		if fi, err := r.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
			t.Error(fi.Mode(), err)
		}
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 2 {
		t.Error("temporary files are left:", es, err)
	}
	if _, err := ReadBounded(r, "b", 4); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestOpenRegularRefuses(t *testing.T) {
	r, dir := open(t)
	if err := errors.Join(os.Symlink("/etc/passwd", dir+"/out"), os.WriteFile(dir+"/f", nil, 0o600), os.Symlink("f", dir+"/in"),
		syscall.Mkfifo(dir+"/pipe", 0o600), os.Mkdir(dir+"/dir", 0o700), os.Symlink("dir", dir+"/dirlink")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"out", "in", "pipe", "dir"} {
		if f, _, err := OpenRegular(r, n); !errors.Is(err, ErrNotRegular) {
			t.Error(n, f, err)
		}
	}
	if _, _, err := OpenRegular(r, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, _, err := OpenRegular(r, "../x"); err == nil {
		t.Error("left the root")
	}
	for _, p := range [][]string{{"dirlink"}, {"f"}, {".."}, {"dir", "..", ".."}} {
		if d, err := OpenDir(r, p...); err == nil {
			d.Close()
			t.Error("opened", p)
		}
	}
	if err := MkdirAll(r, "x/y/z"); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(r, "x", "y", "z")
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if fi, err := os.Stat(filepath.Join(dir, "x/y")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Error(fi.Mode(), err)
	}
}

// A reader beside a writer that replaces the file sees one or the other, never an error.
func TestReadBesideReplace(t *testing.T) {
	r, _ := open(t)
	if err := Replace(r, ".", "a", []byte("content")); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := Replace(r, ".", "a", []byte("content")); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 20000 {
		if b, err := ReadBounded(r, "a", 100); err != nil || string(b) != "content" {
			t.Fatalf("%q %v", b, err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLocks(t *testing.T) {
	r, _ := open(t)
	a, err := TryLock(r, "l", false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := TryLock(r, "l", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLockExisting(r, "l", true); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	a.Unlock()
	a.Unlock()
	b.Unlock()
	c, err := WaitLock(r, "l")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(r, "l", false); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	c.Unlock()
	(*Lock)(nil).Unlock()
}
