package etcd

import (
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// Keys that were found equal are not walked again, and not stored again by a
// safety backup, while the cluster is at the same revision; and only then.
func TestKeysAreKnownByTheirRevision(t *testing.T) {
	ctx := t.Context()
	b := start(t, lab.Options{})
	on := b.target(t, "central")
	b.fill(t, on, 3)
	c := b.client(t, on)
	defer c.Close()
	p := New()
	opened, err := p.Open(ctx, on)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	s := opened.(*session)
	m := plugintest.NewMemory()
	if _, err := s.Backup(ctx, newRun(t, 1, plugins.OpBackup), m); err != nil {
		t.Fatal(err)
	}
	keys := func(what string, reads bool, opens func()) {
		t.Helper()
		before := m.Opens()
		opens()
		const small = 5 // leases, users, roles, passwords, authentication
		if n := m.Opens() - before; (n > small) != reads {
			t.Errorf("%s: %d artifacts were opened, the keys read: want %v", what, n, reads)
		}
	}
	plan := func(changed ...string) func() {
		return func() {
			t.Helper()
			p, err := s.Plan(ctx, newRun(t, 2, plugins.OpInspect), m)
			if got := slices.Concat(p.Change, p.Add, p.Remove); err != nil || !slices.Equal(got, changed) {
				t.Errorf("plan: %v, %v, want %v", err, got, changed)
			}
		}
	}
	compare := func(differences int) func() {
		return func() {
			t.Helper()
			if diff, err := s.Compare(ctx, newRun(t, 2, plugins.OpRestore), m); err != nil || len(diff) != differences {
				t.Errorf("compare: %v, %+v", err, diff)
			}
		}
	}
	safety := func() []string {
		t.Helper()
		live := plugintest.NewMemory().After(m)
		if _, err := s.Backup(ctx, newRun(t, 2, plugins.OpSafety), live); err != nil {
			t.Fatal(err)
		}
		if diff := plugins.DiffDigests(map[string]plugins.Digest{artKeys: keysOf(live)}, []plugins.ArtifactInfo{{Artifact: plugins.Artifact{Name: artKeys}, Digest: keysOf(m)}}); len(live.Reused()) > 0 && len(diff) > 0 {
			t.Errorf("taken over, and not the same: %v", diff)
		}
		return live.Reused()
	}
	keys("first plan", true, plan())
	keys("second plan", false, plan())
	if got := safety(); !slices.Equal(got, []string{artKeys}) {
		t.Errorf("taken over from the backup: %v", got)
	}
	keys("proof", false, compare(0))
	if _, err := c.Put(ctx, "/new", "v"); err != nil {
		t.Fatal(err)
	}
	if got := safety(); len(got) > 0 {
		t.Errorf("taken over from the backup although somebody wrote: %v", got)
	}
	keys("proof after a write", true, compare(1))
	keys("plan after it", false, plan(artKeys+" (1)"))
	keys("proof again", true, compare(1))
	if _, err := c.Delete(ctx, "/new"); err != nil {
		t.Fatal(err)
	}
	keys("plan of what is equal again", true, plan())
	keys("proof of it", false, compare(0))
}
