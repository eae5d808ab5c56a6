package mariadb

import (
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
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
	if diff, err := s.Compare(t.Context(), run, m); err != nil || len(diff) > 0 {
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
	return rep
}

func TestTortureComesBack(t *testing.T) {
	fill(t, 1)
	before := fingerprint(t)
	s := open(t)
	begin := time.Now()
	m := backup(t, s)
	t.Logf("backup took %v", time.Since(begin))
	if after := fingerprint(t); after != before {
		t.Fatal("the backup changed the server")
	}
	wreck(t, 2)
	begin = time.Now()
	rep := restore(t, s, m, newRun(t, plugins.OpRestore))
	t.Logf("restore: %d changed, %d unchanged, %d removed, %d records in %v", rep.Artifacts, rep.Unchanged, rep.Removed, rep.Records, time.Since(begin))
	sameFingerprint(t, before, fingerprint(t))
}
