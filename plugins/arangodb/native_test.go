package arangodb_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// TestSimulatedNative: collections, indexes, views and documents made through the interface of arangorestore come out as those
// made in the documented way, on empty servers and on wrecked ones; where the server refuses that interface, in whole or in
// part, the documented way is taken.
func TestSimulatedNative(t *testing.T) {
	all := []string{"restore-collection", "restore-indexes", "restore-view", "/_db/shop/_api/replication/restore-data"}
	everyMode(t, func(t *testing.T, w *world) {
		for _, c := range []struct {
			name    string
			native  bool
			refused []string
		}{{name: "documented"}, {name: "native", native: true}, {"without restore-view", true, all[2:3]}, {"refused", true, all}} {
			for _, m := range w.on.Members {
				delete(m.Options, "native")
				if c.native {
					m.Options["native"] = "yes"
				}
			}
			for i, prepare := range []func(){func() { clearAll(t, w.on) }, func() { wreck(t, w.on, 6) }} {
				prepare()
				list := []fault{}
				for _, path := range all {
					f := fault{"path": path, "kind": "delay", "count": -1}
					if slices.Contains(c.refused, path) {
						f = fault{"path": path, "kind": "status", "status": 404, "count": -1}
					}
					list = append(list, f)
				}
				w.control(t, "PUT", "faults", list, nil)
				must(t, restore(t, w.on, w.clean))
				var now []struct {
					Path string
					Hits int
				}
				w.control(t, "GET", "faults", obj{}, &now)
				for _, f := range now {
					if used := f.Hits > 0; used != c.native && (i == 0 || used) { // the wreck leaves some kinds alone
						t.Errorf("%s: %d requests to %s", c.name, f.Hits, f.Path)
					}
				}
				w.control(t, "PUT", "faults", []fault{}, nil)
				w.same(t)
			}
			m := plugintest.NewMemory()
			_, err := backUp(t, w.on, m)
			must(t, err)
			if !maps.Equal(digests(m), digests(w.clean)) {
				t.Errorf("%s: the next backup differs from the first", c.name)
			}
		}
		run := newRun(t, plugins.OpRestore)
		rep, err := w.restoreRun(t, run)
		must(t, err)
		if rep.Artifacts > 0 || rep.Records > 0 {
			t.Errorf("a second restore wrote: %+v", rep)
		}
	})
}
