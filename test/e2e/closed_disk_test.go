//go:build hostile

package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

const volume = 64 << 20 // bytes of the store

// TestDisk: the store's disk is full, or mounted read-only, in a backup and in
// a restore. Each ends with one error that says what to do, the estate is as
// it was, no backup is lost, and the same command succeeds afterwards.
func TestDisk(t *testing.T) {
	b := crowded.bench(t)
	t.Cleanup(func() {
		if err := unix.Unmount(b.path("backups"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	b.check(b.Fill(ctx, 61, "small"))
	good := b.fingerprint()
	ref := b.backup("GOOD")
	b.check(b.Wreck(ctx, 61, "etcd")) // a backup refuses an estate whose protected paths are gone
	now := b.fingerprint()

	refused := func(t *testing.T, hint string, args ...string) {
		t.Helper()
		b := b.of(t)
		d := b.ask([]int{problem.Failed.Exit()}, nil, args...)
		if d.Error == nil || d.Error.Code != problem.Failed || !strings.Contains(d.Error.Message+d.Error.Hint, hint) {
			t.Errorf("%v: %+v", args, d.Error)
		}
		b.settled()
		b.equal(now)
		e := b.want(fine, "list", "GOOD")
		if !strings.Contains(e.stdout, ref) {
			t.Errorf("the backup is gone:\n%s", e.stdout)
		}
	}
	t.Run("full", func(t *testing.T) {
		for _, spare := range []int{0, 64 << 10, 1 << 20} {
			b.of(t).fillDisk(spare)
			refused(t, "space", "-b", "backup", "-s", "CROWDED", "-m", "yes")
			b.of(t).fillDisk(spare)
			refused(t, "space", "-b", "restore", "-s", ref)
		}
		b.of(t).fillDisk(volume)
		b.of(t).backup("ROOM", "-m", "yes")
	})
	t.Run("read-only", func(t *testing.T) {
		b := b.of(t)
		b.check(unix.Mount("none", b.path("backups"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		writable := func() { b.check(unix.Mount("none", b.path("backups"), "", unix.MS_REMOUNT, "")) }
		defer writable()
		refused(t, "read-only", "-b", "backup", "-s", "FROZEN", "-m", "yes")
		refused(t, "read-only", "-b", "restore", "-s", ref)
	})
	b.restored("-s", ref)
	b.equal(good)
	b.want(fine, "verify", ref)
}

// fillDisk leaves so many bytes of the store's volume free, at most what there is.
func (b *bench) fillDisk(spare int) {
	b.t.Helper()
	name := b.path("backups", "filler")
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	if spare >= volume {
		return
	}
	f, err := os.Create(name)
	b.check(err)
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		b.t.Fatal(err)
	}
	fi, err := f.Stat()
	b.check(errors.Join(err, f.Truncate(max(0, fi.Size()-int64(spare))), f.Close()))
}
