package cassandra

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// counting counts the calls of a node's admin that cost the start of a JVM.
type counting struct {
	admin
	snapshots, states int
}

func (c *counting) snapshot(ctx context.Context, tag string, keyspaces []string) error {
	c.snapshots++
	return c.admin.snapshot(ctx, tag, keyspaces)
}

func (c *counting) status(ctx context.Context) ([]string, error) {
	c.states++
	return c.admin.status(ctx)
}

// TestSafetyTells: a restore that follows its own safety backup knows from it what differs, and takes no snapshot to learn it. What
// somebody has written since the safety backup is noticed by the comparison afterwards, as foreign, and repaired. All that goes
// through the fence that the run has set.
func TestSafetyTells(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 111)
	want := r.print()
	m := r.backup()
	r.do(`DELETE FROM zoo."Rows" WHERE id = 1`, `ALTER ROLE "App Role" WITH LOGIN = false`, `CREATE ROLE late`)
	p := clustered{New()}
	calls := &counting{}
	with := func(do func(s plugins.Session) error) {
		t.Helper()
		s, err := p.Open(t.Context(), r.on)
		must(t, err)
		u := s.(*cluster).units[0]
		calls.admin = u.admin
		u.admin = calls
		must(t, do(s))
		must(t, s.Close())
	}
	run := newRun(t, plugins.OpSafety)
	safety := newMemory()
	with(func(s plugins.Session) error {
		if h, err := s.Health(t.Context()); err != nil || h.Grade != plugins.Green || calls.states != 1 {
			t.Errorf("health: %+v, %v, %d questions for the state of the ring, want one", h, err, calls.states)
		}
		if five() {
			must(t, s.(plugins.Fencer).Fence(t.Context(), run))
			must(t, s.(plugins.Fencer).Fence(t.Context(), run)) // the next step of the same run
		}
		_, err := s.Backup(t.Context(), run, safety)
		return err
	})
	if err := b.tryWrite(t)(r.on); five() && err == nil {
		t.Error("an ordinary write went through the fence")
	}
	r.do(`INSERT INTO zoo.changed (id, y) VALUES (9001, 'after the safety backup')`)
	run.Operation, run.Live = plugins.OpRestore, safety
	calls.snapshots = 0
	with(func(s plugins.Session) error {
		rep, err := s.Restore(t.Context(), run, m)
		if rep.Artifacts != 1 || calls.snapshots != 0 || calls.states != 1 {
			t.Errorf("%d tables restored, %d snapshots taken, %d questions in all: %+v", rep.Artifacts, calls.snapshots, calls.states, rep)
		}
		return err
	})
	with(func(s plugins.Session) error {
		diff, err := s.Compare(t.Context(), run, m)
		if !slices.ContainsFunc(diff, func(d plugins.Difference) bool {
			return d.Foreign && d.Artifact == r.on.Members[0].Name+"/"+contentArtifact(tableName{"zoo", "changed"})
		}) {
			t.Errorf("a write since the safety backup is not noticed: %+v", diff)
		}
		return err
	})
	run.Live = nil // a repair reads what is there
	with(func(s plugins.Session) error {
		if _, err := s.Restore(t.Context(), run, m); err != nil {
			return err
		}
		if _, err := s.(plugins.AccountSwitcher).RestoreAccounts(t.Context(), run, m); err != nil {
			return err
		}
		diff, err := s.Compare(t.Context(), run, m)
		if len(diff) > 0 {
			t.Errorf("after the repair: %+v", diff)
		}
		if five() {
			err = errors.Join(err, s.(plugins.Fencer).Unfence(t.Context(), run))
		}
		return err
	})
	r.same(want)
	must(t, b.tryWrite(t)(r.on))
}
