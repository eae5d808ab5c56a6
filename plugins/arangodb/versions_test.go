package arangodb_test

import (
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// TestSimulatedVersions is a short run on every version that is supported, single and cluster: backup, unchanged second backup,
// restore onto wrecked and onto empty servers, a restore that finds nothing to do. The whole suite runs on some of them.
func TestSimulatedVersions(t *testing.T) {
	for _, version := range []string{"3.8", "3.11", "3.12", "3.12.10"} {
		for _, mode := range []string{"single", "cluster"} {
			t.Run("simulated "+version+" "+mode, func(t *testing.T) {
				cfg := server.Config{Version: version, Mode: mode}
				words := "one snapshot of the whole server"
				if mode == "cluster" {
					cfg.Coordinators, words = 3, "one moment of the whole cluster"
				}
				w := newWorld(t, cfg)
				next := plugintest.NewMemory().After(w.clean)
				rep, err := backUp(t, w.on, next)
				must(t, err)
				if !strings.HasPrefix(rep.Consistency, words) || !strings.HasPrefix(rep.ServerVersion, version) || len(next.Reused()) < 6 {
					t.Errorf("version %s, %d artifacts not read again, consistency: %s", rep.ServerVersion, len(next.Reused()), rep.Consistency)
				}
				for _, prepare := range []func(){func() { wreck(t, w.on, 11) }, func() { clearAll(t, w.on) }} {
					prepare()
					must(t, restore(t, w.on, w.clean))
					w.same(t)
				}
				rep, err = w.restoreRun(t, newRun(t, plugins.OpRestore))
				must(t, err)
				if rep.Artifacts+rep.Removed > 0 || rep.Records > 0 {
					t.Errorf("a second restore wrote: %+v", rep)
				}
			})
		}
	}
}

// TestSimulatedCoordinatorDies: the coordinator in use dies in the middle of a backup, then of a restore: the other one goes on.
func TestSimulatedCoordinatorDies(t *testing.T) {
	w := newWorld(t, modes[1])
	var first string
	for _, n := range w.nodes(t, "coordinator") {
		if strings.HasSuffix(n.URL, strings.TrimPrefix(w.urls[0], "http://")) {
			first = n.ID
		}
	}
	living := w.on
	living.Members = w.on.Members[1:]
	die := func() { w.control(t, "POST", "kill", map[string]string{"server": first}, nil) }
	h := &hook{Memory: plugintest.NewMemory(), then: die}
	h.n.Store(4)
	_, err := backUp(t, w.on, h)
	must(t, err)
	for n, d := range digests(w.clean) {
		if digests(h.Memory)[n] != d {
			t.Errorf("artifact %s differs", n)
		}
	}
	if tryWrite(w.on) == nil {
		t.Fatal("the first coordinator lives: nothing was tested")
	}
	w.control(t, "POST", "revive", map[string]string{"server": first}, nil)
	wreck(t, w.on, 6)
	opens := &opening{Memory: w.clean, then: die}
	opens.n.Store(5)
	must(t, restore(t, w.on, opens))
	if tryWrite(w.on) == nil {
		t.Fatal("the first coordinator lives: nothing was tested")
	}
	if got := fingerprint(t, living); got != w.print {
		t.Error("the fingerprint differs")
	}
}
