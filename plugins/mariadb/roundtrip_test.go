package mariadb

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	lab "github.com/csobackup/cso_backupnrestore/test/lab/mariadb"
)

// backup takes one of the live server into memory.
func backup(t *testing.T, s *session) *plugintest.Memory {
	t.Helper()
	m := plugintest.NewMemory()
	rep, err := s.Backup(t.Context(), newRun(t, plugins.OpBackup), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("backup: %d artifacts, %d records, %d bytes, %s, %s", rep.Artifacts, rep.Records, rep.Bytes, rep.Position, rep.Consistency)
	return m
}

// restore restores data and accounts, with the hooks around, and proves it equal.
func restore(t *testing.T, s *session, m plugins.ArtifactReader, run plugins.Run) plugins.Report {
	t.Helper()
	if err := s.PreHook(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	rep, err := s.Restore(t.Context(), run, m)
	if err != nil {
		t.Fatal(err)
	}
	diff, err := s.Compare(t.Context(), run, m)
	diff = slices.DeleteFunc(diff, func(d plugins.Difference) bool { return s.AccountArtifact(d.Artifact) })
	if err != nil || len(diff) > 0 {
		t.Fatalf("after the restore: %v, %+v", err, diff)
	}
	if _, err := s.RestoreAccounts(t.Context(), run, m); err != nil {
		t.Fatal(err)
	}
	if diff, err := s.Compare(t.Context(), run, m); err != nil || len(diff) > 0 {
		t.Fatalf("after the accounts: %v, %+v", err, diff)
	}
	if err := s.PostHook(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if left, err := s.leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("schemas left over: %q, %v", left, err)
	}
	if notes, err := column(t.Context(), s.db, "SELECT name FROM _cso_backup.journal"); err != nil || len(notes) > 0 {
		t.Errorf("entries left in the journal: %q, %v", notes, err)
	}
	return rep
}

// The torture data comes back, whenever the restore is killed in between; a
// second restore writes nothing; and a freshly installed server becomes the
// one that was backed up. Judged by the lab's own reading of the server.
func TestTortureComesBack(t *testing.T) {
	fill(t, 1)
	before := fingerprint(t)
	s := open(t)
	begin := time.Now()
	m := backup(t, s)
	t.Logf("backup took %v", time.Since(begin))
	for i, at := range []int{1, len(m.Artifacts()) / 4} {
		wreck(t, int64(20+i))
		run := newRun(t, plugins.OpRestore)
		_, err := s.Restore(t.Context(), run, m.Clone().KillAtArtifact(at))
		if !errors.Is(err, plugintest.ErrKilled) {
			t.Errorf("store died after %d artifacts: %v", at, err)
		}
		begin := time.Now()
		rep := restore(t, open(t), m, run)
		t.Logf("killed after %d artifacts; then %d changed, %d unchanged in %v", at, rep.Artifacts, rep.Unchanged, time.Since(begin))
		sameFingerprint(t, before, fingerprint(t))
	}
	gtid := ask(t, target(), "SELECT @@GLOBAL.gtid_binlog_pos")
	if rep := restore(t, open(t), m, newRun(t, plugins.OpRestore)); rep.Artifacts+rep.Removed != 0 {
		t.Errorf("a second restore changed something: %+v", rep)
	}
	if now := ask(t, target(), "SELECT @@GLOBAL.gtid_binlog_pos"); now != gtid {
		t.Errorf("a second restore wrote: %s, then %s", gtid, now)
	}
	ontoEmptyServer(t, m, before)
}

// TestThereAndBack: what a restore overwrites comes back too, as a rollback
// needs it. The wreck makes a foreign key anew, whereupon the server gives the
// index of another one a new name and place.
func TestThereAndBack(t *testing.T) {
	fill(t, 21)
	s := open(t)
	good, before := backup(t, s), fingerprint(t)
	wreck(t, 9)
	bad, after := backup(t, s), fingerprint(t)
	restore(t, open(t), good, newRun(t, plugins.OpRestore))
	sameFingerprint(t, before, fingerprint(t))
	restore(t, open(t), bad, newRun(t, plugins.OpRollback))
	sameFingerprint(t, after, fingerprint(t))
}

func ontoEmptyServer(t *testing.T, m *plugintest.Memory, before string) {
	t.Helper()
	if err := lab.Reset(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	s, err := New().Open(t.Context(), targetOf(second))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if h, err := s.Health(t.Context()); err != nil || !h.Empty {
		t.Errorf("health of a fresh server: %+v, %v", h, err)
	}
	restore(t, s.(*session), m, newRun(t, plugins.OpDisaster))
	// The accounts are the backup's now, so the administrator's password is the first server's.
	password, err := os.ReadFile(target().Members[0].Options["password_file"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(targetOf(second).Members[0].Options["password_file"], password, 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := lab.New().Fingerprint(t.Context(), second, &b); err != nil {
		t.Fatal(err)
	}
	sameFingerprint(t, before, b.String())
}
