package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cso_backupnrestore": func() { os.Exit(Main()) }})
}

// TestScript runs the command as a process. Where a script needs a store, the
// command `backup NAME/TIMESTAMP [maintenance|broken|warning]` makes a real one.
func TestScript(t *testing.T) {
	cmds := hostileCommands()
	cmds["backup"], cmds["exitcode"], cmds["corrupt"] = scriptBackup, scriptExit, scriptCorrupt
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("CSO_BACKUP_ROOT", filepath.Join(e.WorkDir, "backups"))
			e.Setenv("CSO_BACKUP_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("CSO_BACKUP_ESTATE", filepath.Join(e.WorkDir, "estate.yaml"))
			e.Setenv("CSO_BACKUP_TEMPORAL", "127.0.0.1:1") // nobody listens there
			e.Setenv("TZ", "America/Los_Angeles")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: cmds,
	})
}

// scriptExit runs the command and compares its exit status: exitcode 64 cso_backupnrestore …
func scriptExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N command…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// scriptCorrupt changes one character of a file: corrupt FILE OLD NEW.
func scriptCorrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: corrupt FILE OLD NEW")
	}
	f := ts.MkAbs(args[0])
	old := ts.ReadFile(f)
	changed := strings.Replace(old, args[1], args[2], 1)
	if changed == old {
		ts.Fatalf("%s does not hold %q", f, args[1])
	}
	ts.Check(os.WriteFile(f, []byte(changed), 0o600))
}

func scriptBackup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: backup NAME/TIMESTAMP [maintenance|broken|warning|partial]…")
	}
	ref, err := manifest.ParseRef(args[0])
	ts.Check(err)
	ts.Check(makeBackup(ts.Getenv("CSO_BACKUP_ROOT"), filepath.Join(ts.Getenv("CSO_BACKUP_STATE"), "keys"), ref, strings.Join(args[1:], " ")))
}

// makeBackup stores a small backup for real; "partial" leaves it without a manifest.
func makeBackup(root, keyDir string, ref manifest.Ref, how string) error {
	if _, err := keys.Ensure(keyDir); err != nil {
		return err
	}
	w, err := keys.LoadWriter(keyDir)
	if err != nil {
		return err
	}
	r, err := keys.LoadReader(keyDir)
	if err != nil {
		return err
	}
	s, err := store.Open(root)
	if err != nil {
		return err
	}
	defer s.Close()
	at, err := ref.Time()
	if err != nil {
		return err
	}
	for i, id := range []manifest.UnitID{{Component: "etcd", Instance: "central", Member: "cluster"}, {Component: "mariadb", Instance: "east", Member: "cluster"}, {Component: "secrets", Instance: "central", Member: "installer-vm"}} {
		meta := store.UnitMeta{Scope: plugins.ScopeCluster, VM: "installer-vm", ServerVersion: "3.4.30", Pin: "pin-1", PinnedAt: at.Add(time.Second), Position: "revision 12", Consistency: "one revision"}
		if i == 2 {
			meta.Scope, meta.ServerVersion, meta.Position = plugins.ScopeNode, "", ""
			meta.Inexact = []plugins.Inexact{{What: "sockets", Why: "they belong to processes"}}
		}
		if i == 1 && strings.Contains(how, "warning") {
			meta.Warnings = []string{"a broken view \x1b[31m was left out"}
		}
		if err := storeUnit(s, ref, id, w, meta); err != nil {
			return err
		}
	}
	if strings.Contains(how, "partial") {
		return nil
	}
	op := plugins.OpBackup
	if ref.Safety() {
		op = plugins.OpSafety
	}
	asked := strings.Contains(how, "maintenance") || strings.Contains(how, "broken")
	held := strings.Contains(how, "maintenance")
	m := manifest.Manifest{
		Backup: ref, ID: "run-1", Tool: "test", Operation: op, Trigger: manifest.TriggerCLI, Epoch: 7, Started: at, Pinned: at.Add(time.Second), Ended: at.Add(31 * time.Second),
		Maintenance: manifest.Maintenance{Asked: asked, Held: held}, Consistent: !asked || held, Consistency: "all units pinned within 0.4s", PinSkewMS: 400,
	}
	if asked && !held {
		m.Consistency = manifest.NoConsistencyPoint
	}
	_, err = s.Seal(context.Background(), ref, m, store.SealOptions{Writer: w, ManifestKey: *r.ManifestKey, Files: map[string][]byte{"estate.yaml": []byte("vms: []\n")}})
	return err
}

func storeUnit(s *store.Store, ref manifest.Ref, id manifest.UnitID, w keys.Writer, meta store.UnitMeta) error {
	u, err := s.BeginUnit(context.Background(), ref, id, w, store.UnitOptions{Pin: meta.Pin})
	if err != nil {
		return err
	}
	defer u.Abort()
	a, err := u.Create(context.Background(), plugins.Artifact{Name: "data", Form: plugins.Ordered, Pin: meta.Pin})
	if err != nil {
		return err
	}
	for _, k := range []string{"a", "b", "c"} {
		if err := a.Put([]byte(k), []byte(strings.Repeat(k, 5000))); err != nil {
			return err
		}
	}
	if err := a.Commit(); err != nil {
		return err
	}
	_, err = u.Finish(context.Background(), meta)
	return err
}
