package arangodb_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// kept are the ids of the hot backups that the servers keep, in no order.
func (w *world) kept(t testing.TB) []string {
	t.Helper()
	a := foreign(t, w.on)
	defer a.close()
	var l struct {
		Result struct{ List map[string]obj }
	}
	must(t, json.Unmarshal(a.do("POST", "_system", "/_admin/backup/list", obj{}), &l))
	return slices.Collect(maps.Keys(l.Result.List))
}

// hotBackups are the labels of the hot backups that the servers keep, and the newest id.
func (w *world) hotBackups(t testing.TB) (labels []string, id string) {
	t.Helper()
	for _, n := range w.kept(t) {
		_, label, _ := strings.Cut(n, "_")
		labels, id = append(labels, label), max(id, n)
	}
	slices.Sort(labels)
	return labels, id
}

// restoreOver restores as a run does that has just taken its safety backup.
func (w *world) restoreOver(t testing.TB, run plugins.Run) (plugins.Report, error) {
	t.Helper()
	live := plugintest.NewMemory()
	_, err := backUp(t, w.on, live)
	must(t, err)
	run.Live = live
	return w.restoreRun(t, run)
}

func (w *world) restoreRun(t testing.TB, run plugins.Run) (rep plugins.Report, err error) {
	t.Helper()
	err = in(t, w.on, func(s plugins.Session) (err error) {
		if rep, err = s.Restore(t.Context(), run, w.clean); err != nil {
			return err
		}
		_, err = s.(plugins.AccountSwitcher).RestoreAccounts(t.Context(), run, w.clean)
		return err
	})
	return rep, err
}

var noDocuments = fault{"path": "/_api/document/customers", "method": "POST", "kind": "status", "status": 500, "count": -1}

// TestSimulatedHotNet: below a restore lies a hot backup from before its first write, which the vendor's own restore puts back;
// it outlives attempts and runs that die, and goes when everything is restored.
func TestSimulatedHotNet(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		wreck(t, w.on, 6)
		a := foreign(t, w.on)
		defer a.close()
		a.do("POST", "shop", "/_api/document/customers?overwriteMode=replace", `{"_key":"c00003","mail":"not restored"}`)
		wrecked := fingerprint(t, w.on)
		run := newRun(t, plugins.OpRestore)
		label := []string{fmt.Sprint("cso-backup-net-", run.Epoch)}
		w.faults(t, noDocuments)
		for range 2 { // a second attempt of the same run finds the net
			if _, err := w.restoreOver(t, run); err == nil {
				t.Fatal("documents are refused, and the restore ended well")
			}
			if got, _ := w.hotBackups(t); !slices.Equal(got, label) {
				t.Fatalf("hot backups %q, want %q", got, label)
			}
		}
		undo := run
		undo.Operation = plugins.OpRollback
		_, id := w.hotBackups(t)
		if _, err := w.restoreRun(t, undo); err == nil || !strings.Contains(err.Error(), "arangobackup restore --identifier "+id) {
			t.Errorf("a rollback that fails does not name the hot backup: %v", err)
		}
		w.faults(t)

		// What an operator can do with it.
		a.do("POST", "_system", "/_admin/backup/restore", obj{"id": id})
		w.dropAttempts(t, a)
		if d := cmp.Diff(strings.Split(wrecked, "\n"), strings.Split(fingerprint(t, w.on), "\n")); d != "" {
			t.Errorf("the hot backup is not of before the first write: %.2000s", d)
		}
		a.do("POST", "_system", "/_admin/backup/delete", obj{"id": w.failsafe(t)})

		// A run that adopts a half-written estate keeps it; one that has a safety backup of its own replaces it.
		w.faults(t, noDocuments)
		if _, err := w.restoreRun(t, newRun(t, plugins.OpRestore)); err == nil {
			t.Fatal("documents are refused, and the restore ended well")
		}
		if got, _ := w.hotBackups(t); !slices.Equal(got, label) {
			t.Errorf("hot backups %q after a run without a safety backup, want %q", got, label)
		}
		next := newRun(t, plugins.OpRestore)
		if _, err := w.restoreOver(t, next); err == nil {
			t.Fatal("documents are refused, and the restore ended well")
		}
		if got, _ := w.hotBackups(t); !slices.Equal(got, []string{fmt.Sprint("cso-backup-net-", next.Epoch)}) {
			t.Errorf("hot backups %q of the next run", got)
		}
		w.faults(t)
		_, err := w.restoreOver(t, next)
		must(t, err)
		w.same(t)
		if got, _ := w.hotBackups(t); len(got) > 0 {
			t.Errorf("hot backups %q after a complete restore", got)
		}

		// Nothing to write: none is made.
		made := w.count(t, "/_admin/backup/create")
		_, err = w.restoreOver(t, newRun(t, plugins.OpRestore))
		must(t, err)
		if n := made(); n != 0 {
			t.Errorf("%d hot backups below a restore that writes nothing", n)
		}
	})
}

// dropAttempts removes the accounts of attempts.
func (w *world) dropAttempts(t testing.TB, a *api) {
	t.Helper()
	var users struct{ Result []struct{ User string } }
	a.get("_system", "/_api/user", &users)
	for _, u := range users.Result {
		if strings.HasPrefix(u.User, "cso-backup-") {
			a.do("DELETE", "_system", "/_api/user/"+url.PathEscape(u.User), nil)
		}
	}
}

// failsafe is the copy that the server makes of what a hot backup replaces.
func (w *world) failsafe(t testing.TB) string {
	t.Helper()
	ids := w.kept(t)
	i := slices.IndexFunc(ids, func(id string) bool { return strings.HasPrefix(id, "FAILSAFE") })
	if i < 0 {
		t.Fatalf("no failsafe in %v", ids)
	}
	return ids[i]
}

// TestSimulatedHotLeftOver: what a dead run has left goes before the next backup, and not with a restore's own copies.
func TestSimulatedHotLeftOver(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		a.do("POST", "shop", "/_api/document/customers?overwriteMode=replace", `{"_key":"c00003","mail":"not restored"}`)
		w.faults(t, noDocuments, fault{"path": "/_admin/backup/create", "kind": "abort"}) // whose answer is lost: asked for again
		if _, err := w.restoreOver(t, newRun(t, plugins.OpRestore)); err == nil {
			t.Fatal("documents are refused, and the restore ended well")
		}
		w.faults(t)
		a.do("POST", "_system", "/_admin/backup/create", obj{"label": "of-an-administrator"})
		for op, want := range map[plugins.Operation]int{plugins.OpSafety: 2, plugins.OpRestore: 2} {
			must(t, in(t, w.on, func(s plugins.Session) error { return s.PreHook(t.Context(), newRun(t, op)) }))
			if got, _ := w.hotBackups(t); len(got) != want {
				t.Errorf("before %s: hot backups %q", op, got)
			}
		}
		met := w.faults(t, fault{"path": "/_admin/backup/delete", "kind": "status", "count": 2})
		must(t, in(t, w.on, func(s plugins.Session) error { return s.PreHook(t.Context(), newRun(t, plugins.OpBackup)) }))
		met()
		if got, _ := w.hotBackups(t); !slices.Equal(got, []string{"of-an-administrator"}) {
			t.Errorf("before a backup: hot backups %q", got)
		}
	})
}

// TestSimulatedHotRefused: a restore that gets no net goes on, and says so where the servers could have made one.
func TestSimulatedHotRefused(t *testing.T) {
	create := "/_admin/backup/create"
	for _, c := range []struct {
		name    string
		version string
		option  string
		fault   fault
		warns   string
	}{
		{name: "lock timeout", version: "3.12", fault: fault{"path": create, "kind": "status", "status": 408, "errorNum": 18, "count": -1}, warns: "kept writing"},
		{name: "no space", version: "3.12", fault: fault{"path": create, "kind": "status", "status": 500, "count": -1}, warns: "no hot backup"},
		{name: "Community 3.11", version: "3.11"},
		{name: "Community 3.12.4", version: "3.12.4"},
		{name: "not wanted", version: "3.12", option: "no", fault: fault{"path": create, "kind": "status", "status": 500, "count": -1}},
	} {
		t.Run("simulated "+c.name, func(t *testing.T) {
			w := newWorld(t, server.Config{Version: c.version, Mode: "cluster", Coordinators: 2})
			for _, m := range w.on.Members {
				m.Options["hot_backup"] = c.option
			}
			wreck(t, w.on, 6)
			met := func() {}
			if c.fault != nil {
				met = w.faults(t, c.fault)
			}
			rep, err := w.restoreOver(t, newRun(t, plugins.OpRestore))
			must(t, err)
			if c.warns != "" {
				met()
			}
			if got := strings.Join(rep.Warnings, " "); (got == "") != (c.warns == "") || !strings.Contains(got, c.warns) {
				t.Errorf("warnings %q, want %q", got, c.warns)
			}
			w.faults(t)
			w.same(t)
		})
	}
}

// TestSimulatedHotBeside: on demand one hot backup is kept beside the newest backup, and its id is in the manifest.
func TestSimulatedHotBeside(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		for _, m := range w.on.Members {
			m.Options["hot_backup"] = "always"
		}
		last := ""
		for range 2 {
			rep, err := backUp(t, w.on, plugintest.NewMemory())
			must(t, err)
			labels, id := w.hotBackups(t)
			if len(labels) != 1 || id == last || !strings.Contains(rep.Consistency, id) || len(rep.Warnings) > 0 {
				t.Errorf("hot backups %q, newest %s, before %s; the report says %q, %q", labels, id, last, rep.Consistency, rep.Warnings)
			}
			last = id
		}
		met := w.faults(t, fault{"path": "/_admin/backup/create", "kind": "status", "status": 408, "errorNum": 18, "count": -1})
		rep, err := backUp(t, w.on, plugintest.NewMemory())
		must(t, err)
		met()
		if _, id := w.hotBackups(t); id != last || !strings.Contains(strings.Join(rep.Warnings, " "), "kept writing") {
			t.Errorf("no lock: newest %s, before %s, warnings %q", id, last, rep.Warnings)
		}
		for _, m := range w.on.Members {
			m.Options["hot_backup"] = "restore"
		}
		must(t, in(t, w.on, func(s plugins.Session) error { return s.PreHook(t.Context(), newRun(t, plugins.OpBackup)) }))
		if got, _ := w.hotBackups(t); len(got) > 0 {
			t.Errorf("hot backups %q although none is wanted any more", got)
		}
		for _, m := range w.on.Members {
			m.Options["hot_backup"] = "sometimes"
		}
		if _, err := backUp(t, w.on, plugintest.NewMemory()); !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("an unknown value: %v", err)
		}
	})
}
