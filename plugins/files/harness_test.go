package files_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/certificates"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/plugins/secrets"
)

// stateMade tells a child process of the suite that it shares the state directory of its parent.
const stateMade = "FILES_TEST_STATE"

func TestMain(m *testing.M) {
	if os.Getenv(stateMade) != "" {
		plugintest.Main(m, secrets.New()) // does not return
	}
	dir, err := os.MkdirTemp("", "files-state-")
	if err != nil {
		panic(err)
	}
	os.Setenv(stateMade, "yes")
	os.Setenv("CSO_BACKUP_STATE", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// open gives a session on the paths.
func open(t *testing.T, paths ...string) plugins.Session {
	t.Helper()
	s, err := secrets.New().Open(t.Context(), target(paths...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func target(paths ...string) plugins.Target {
	return plugins.Target{Component: "secrets", Instance: "central", Members: []plugins.Member{
		{Name: "vm", VM: "vm", Options: map[string]string{"paths": strings.Join(paths, ", ")}}}}
}

var epoch uint64

// run is a run of the next epoch.
func run(t *testing.T, op plugins.Operation) plugins.Run {
	t.Helper()
	epoch++
	return plugins.Run{Epoch: epoch, Operation: op, Attempt: fmt.Sprint(t.Name(), epoch), Parallel: 1, Scratch: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill makes a tree with everything awkward in it.
func fill(t testing.TB, dir string) {
	t.Helper()
	p := func(n string) string { return filepath.Join(dir, n) }
	for _, d := range []string{"keys", "keys/deep/er", "empty", "a b\n\xff", "shared"} {
		must(t, os.MkdirAll(p(d), 0o755))
	}
	write := func(n, content string, mode uint32) {
		must(t, os.WriteFile(p(n), []byte(content), 0o600))
		must(t, unix.Chmod(p(n), mode))
	}
	write("password", "hunter2-canary", 0o400)
	write("none", "", 0o000)
	write("setuid", "x", 0o6755)
	write("keys/a", strings.Repeat("k", 3000), 0o600)
	write("keys/deep/er/big", strings.Repeat("0123456789", 250_000), 0o640)
	write("a b\n\xff/né\t\xfe", "bytes", 0o644)
	write("keys/a!", "sorts between a directory and its files", 0o644)
	must(t, os.Chown(p("keys/a"), 1234, 4321))
	must(t, os.Chown(p("setuid"), 7, 8))
	must(t, unix.Chmod(p("setuid"), 0o6755))
	must(t, unix.Chmod(p("shared"), 0o3777))
	must(t, os.Link(p("keys/a"), p("keys/zlink")))
	must(t, os.Link(p("keys/a"), p("shared/link")))
	must(t, os.Symlink("/nowhere/at all", p("dangling")))
	must(t, os.Symlink("keys", p("todir")))
	must(t, os.Lchown(p("todir"), 55, 66))
	must(t, unix.Setxattr(p("password"), "user.note", []byte{0, 1, 2}, 0))
	must(t, unix.Setxattr(p("keys"), "user.dir", []byte("d"), 0))
	old := []unix.Timespec{unix.NsecToTimespec(5), unix.NsecToTimespec(1234567890123456789)}
	for _, n := range []string{"dangling", "password", "keys/deep", "empty"} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p(n), old, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// wreck changes, deletes and adds at every level.
func wreck(t *testing.T, dir string) {
	t.Helper()
	p := func(n string) string { return filepath.Join(dir, n) }
	must(t, os.WriteFile(p("setuid"), []byte("y"), 0o600))
	must(t, os.Remove(p("password")))
	must(t, os.Mkdir(p("password"), 0o700))
	must(t, os.WriteFile(p("password/inside"), []byte("now a directory"), 0o600))
	must(t, os.RemoveAll(p("keys/deep")))
	must(t, os.WriteFile(p("keys/deep"), []byte("now a file"), 0o600))
	must(t, os.Remove(p("keys/zlink")))
	must(t, os.WriteFile(p("keys/zlink"), []byte("no longer linked"), 0o600))
	must(t, os.Remove(p("todir")))
	must(t, os.Symlink("/etc", p("todir")))
	must(t, os.Remove(p("empty")))
	must(t, os.Symlink("keys", p("empty")))
	must(t, unix.Chmod(p("shared"), 0o700))
	must(t, os.MkdirAll(p("later/sub"), 0o755))
	must(t, os.WriteFile(p("later/sub/file"), []byte("appeared later"), 0o600))
	must(t, os.Symlink("/etc/passwd", p("later/link")))
	must(t, os.WriteFile(p("keys/.cso-backup-1-LEFT.tmp"), []byte("of a killed restore"), 0o600))
}

// oracle describes a tree without any code of the plugin.
func oracle(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%q %v %d:%d %d", path, fi.Mode(), st.Uid, st.Gid, fi.ModTime().UnixNano())
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			first, ok := inodes[st.Ino]
			if !ok {
				inodes[st.Ino] = path
			}
			line += fmt.Sprintf(" %x same as %q", sha256.Sum256(b), first)
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			b := make([]byte, 1000)
			for _, a := range []string{"user.note", "user.dir"} {
				if n, err := unix.Getxattr(path, a, b); err == nil {
					line += fmt.Sprintf(" %s=%x", a, b[:n])
				}
			}
		}
		lines = append(lines, line)
		return nil
	})
	must(t, err)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// versions is inode and change time of everything: equal means not touched.
func versions(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		fmt.Fprintln(&b, path, st.Ino, st.Ctim)
		return nil
	}))
	return b.String()
}

func backup(t *testing.T, s plugins.Session) *plugintest.Memory {
	t.Helper()
	m := plugintest.NewMemory()
	_, err := s.Backup(t.Context(), run(t, plugins.OpBackup), m)
	must(t, err)
	return m
}

func digest(t *testing.T, s plugins.Session) map[string]plugins.Digest {
	t.Helper()
	d, err := s.Digest(t.Context(), run(t, plugins.OpInspect))
	must(t, err)
	return d
}

func differences(t *testing.T, s plugins.Session, r plugins.Run, m *plugintest.Memory) []plugins.Difference {
	t.Helper()
	d, err := s.Compare(t.Context(), r, m)
	must(t, err)
	return d
}

func withTimeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var _ = certificates.New
