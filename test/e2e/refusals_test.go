package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// TestRefusals: each exit status of a refusal, and that nothing was touched.
func TestRefusals(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 2, "small"))
	good := b.fingerprint()
	b.backup("REFUSE")
	b.check(b.Wreck(ctx, 2))
	now := b.fingerprint()

	// refused runs a command that must fail with a code, before the fence.
	refused := func(t *testing.T, code problem.Code, args ...string) document {
		t.Helper()
		b := b.of(t)
		epoch := b.journal().Claim.Epoch
		d := b.ask([]int{code.Exit()}, nil, args...)
		if d.Error == nil || d.Error.Code != code || d.Error.Message == "" || d.Error.Hint == "" {
			t.Errorf("error: %+v", d.Error)
		}
		same(t, "epoch", epoch, b.journal().Claim.Epoch)
		b.settled()
		b.equal(now)
		return d
	}

	t.Run("no such backup", func(t *testing.T) {
		refused(t, problem.NoBackup, "-b", "restore", "-s", "NOSUCH")
		refused(t, problem.NoBackup, "-b", "backupdetails", "-s", "NOSUCH")
	})
	t.Run("usage", func(t *testing.T) {
		for _, args := range [][]string{
			{"-b", "backup"}, {"-b", "restore", "-s", "REFUSE", "-m", "yes"}, {"-b", "restore", "-s", "REFUSE", "-dr", "yes"},
			{"-b", "backup", "-s", "A", "-t", "etcd"}, {"-b", "nothing"}, {"-b", "restore", "-s", "REFUSE", "-t", "oracle"},
		} {
			refused(t, problem.Usage, args...)
		}
	})
	t.Run("identity away", func(t *testing.T) {
		at := b.path("state", "keys", "identity")
		b.check(os.Rename(at, at+".away"))
		defer func() { b.check(os.Rename(at+".away", at)) }()
		refused(t, problem.Key, "-b", "restore", "-s", "REFUSE")
	})
	t.Run("servers hold data", func(t *testing.T) {
		refused(t, problem.Confirm, "-b", "restore", "-s", "REFUSE", "-r", "yes")
		refused(t, problem.Confirm, "-b", "restore", "-s", "REFUSE", "-r", "yes", "--confirm", "OTHER")
	})

	b.restored("-s", "REFUSE")
	b.equal(good)
	now = good
	t.Run("busy", func(t *testing.T) {
		b := b.of(t)
		door := b.closeDoor()
		first := b.start("-b", "backup", "-s", "FIRST", "-m", "yes", "-o", "json")
		door.await()
		d := b.ask([]int{problem.Busy.Exit()}, nil, "-b", "restore", "-s", "REFUSE")
		if d.Error == nil || d.Error.Code != problem.Busy {
			t.Errorf("error: %+v", d.Error)
		}
		door.open()
		b.read(b.expect(first.wait(), fine...), nil)
		b.settled()
		b.equal(good)
	})
	t.Run("stored data damaged", func(t *testing.T) {
		b := b.of(t)
		ref := b.backup("FLIPPED")
		flipped := b.flip(ref, "secrets")
		refused(t, problem.Integrity, "-b", "restore", "-s", "FLIPPED")
		if !b.quarantined(flipped) {
			t.Error("the damaged object is not in quarantine")
		}
		var list []struct{ Backup, Status string }
		b.ask(fine, &list, "-b", "listbackups", "-s", "FLIPPED")
		same(t, "status in the list", "damaged", list[0].Status)
		var r workflows.Result
		b.ask(fine, &r, "-b", "backup", "-s", "ANEW")
		if r.New == 0 {
			t.Error("the damaged object was not stored anew")
		}
		b.check(b.Wreck(ctx, 4))
		b.restored("-s", "ANEW")
		b.equal(good)
	})
}

// flip changes one bit in the middle of one stored object, wherever it is linked.
func (b *bench) flip(ref, component string) string {
	b.t.Helper()
	var largest string
	var size int64
	b.check(filepath.WalkDir(b.path("backups", ref, component), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".age") {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Size() > size {
			largest, size = p, fi.Size()
		}
		return err
	}))
	f, err := os.OpenFile(largest, os.O_RDWR, 0)
	b.check(err)
	defer f.Close()
	one := make([]byte, 1)
	_, err = f.ReadAt(one, size/2)
	b.check(err)
	one[0] ^= 0x10
	_, err = f.WriteAt(one, size/2)
	b.check(err)
	return largest
}

// quarantined says whether a backup's damaged file has been taken out of reach of new backups.
func (b *bench) quarantined(file string) bool {
	b.t.Helper()
	dir := b.path("backups", ".cso", "quarantine")
	list, err := os.ReadDir(dir)
	b.check(err)
	bad, err := os.Stat(file)
	b.check(err)
	for _, e := range list {
		if fi, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && os.SameFile(fi, bad) {
			return true
		}
	}
	return false
}
