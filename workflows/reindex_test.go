package workflows

import (
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func TestReindex(t *testing.T) {
	for _, maintenance := range []bool{false, true} {
		w := newWorld()
		w.rebuildable = "mariadb"
		res, err := w.play(t, Reindex, ReindexInput{Index: []string{"a-*", "b"}, Maintenance: maintenance})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Units) != 1 || res.Units[0].Records != 100 || w.outcome != "done" || w.held != "" || w.discarded != "" {
			t.Errorf("result %+v, outcome %q, held %q, discarded %q", res, w.outcome, w.held, w.discarded)
		}
		if len(w.rebuilt) != 1 || w.rebuilt[0].Operation != plugins.OpReindex || w.rebuilt[0].Options["index"] != "a-*,b" {
			t.Errorf("the unit was told %+v", w.rebuilt)
		}
		if w.entered != maintenance || w.maintenance || w.gap == maintenance {
			t.Errorf("asked for maintenance %v: entered %v, still on %v, rebuilt outside of it %v", maintenance, w.entered, w.maintenance, w.gap)
		}
	}
}

func TestReindex_refusedWhereNothingIsDerived(t *testing.T) {
	w := newWorld()
	if _, err := w.play(t, Reindex, ReindexInput{}); code(err) != problem.Failed || w.claims != 0 {
		t.Errorf("error %v, %d claims: nothing can be rebuilt, so nothing is claimed", err, w.claims)
	}
	w.rebuildable = "mariadb"
	if _, err := w.play(t, Reindex, ReindexInput{Components: []string{"etcd"}}); code(err) != problem.Failed || w.claims != 0 {
		t.Errorf("error %v, %d claims: what was chosen cannot be rebuilt", err, w.claims)
	}
}

// A failed reindex leaves maintenance and closes the journal; no backup directory is discarded.
func TestReindex_failurePerPhase(t *testing.T) {
	for _, step := range []string{"Ping", "Fence", "Quiet", "EnterMaintenance", "Health", "ReindexUnit"} {
		w := newWorld()
		w.rebuildable = "mariadb"
		w.failing[step] = -1
		_, err := w.play(t, Reindex, ReindexInput{Maintenance: true})
		if err == nil || w.maintenance || w.held != "" || w.discarded != "" {
			t.Errorf("%s fails: error %v, maintenance %v, held %q, discarded %q", step, err, w.maintenance, w.held, w.discarded)
		}
		if claimed := !slices.Contains([]string{"Ping", "Fence"}, step); claimed && w.outcome != "failed" {
			t.Errorf("%s fails: the journal was closed with %q", step, w.outcome)
		}
	}
}
