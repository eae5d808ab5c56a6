package server_test

import (
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// Each version has what it had. Source: Release notes, "What's new" and "API
// changes" of 3.10 (computed values, inverted indexes), 3.12 (parallel dump,
// mdi), 3.12.5 (hot backup in the Community Edition), 3.12.10 (applier and logger gone).
func TestVersions(t *testing.T) {
	for _, v := range []struct {
		asked, shown                             string
		computed, parallel, mdi, backup, applier bool
	}{
		{"3.8", "3.8.9", false, false, false, false, true},
		{"3.11", "3.11.14", true, false, false, false, true},
		{"3.12.4", "3.12.4", true, true, true, false, true},
		{"3.12", "3.12.6", true, true, true, true, true},
		{"3.12.10", "3.12.10", true, true, true, true, false},
	} {
		t.Run(v.asked, func(t *testing.T) {
			s, _ := start(t, server.Config{Version: v.asked})
			got := s.ok("GET", "/_api/version?details=true", nil)
			if got.str("version") != v.shown || got.str("license") != "community" || got.str("details", "simulated") != "true" {
				t.Errorf("%s", got.body)
			}
			made := s.ok("POST", "/_api/collection", `{"name":"c","computedValues":[{"name":"x","expression":"RETURN 1","overwrite":true}]}`)
			_, computed := made.get("computedValues").([]any)
			works := func(name string, want bool, a answer) {
				t.Helper()
				if (a.code < 300) != want {
					t.Errorf("%s: %d %s", name, a.code, a.body)
				}
			}
			if computed != v.computed {
				t.Errorf("computed values: %s", made.body)
			}
			works("parallel dump", v.parallel, s.do("POST", "/_api/dump/start", `{"shards":["c"]}`))
			works("mdi index", v.mdi, s.do("POST", "/_api/index?collection=c", `{"type":"mdi","fields":["x","y"],"fieldValueTypes":"double"}`))
			works("hot backup", v.backup, s.do("POST", "/_admin/backup/list", `{}`))
			works("applier", v.applier, s.do("GET", "/_api/replication/applier-state", nil))
			works("batch", true, s.do("POST", "/_api/replication/batch", `{"ttl":60}`))
		})
	}
	if _, err := server.Start(server.Config{Dir: t.TempDir(), Version: "three"}); err == nil {
		t.Error("a version that is none was accepted")
	}
}

// A hot backup brings everything back as it was, in the same server only.
// Source: HTTP API, Hot Backups.
func TestHotBackup(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	s.insert("c", 20)
	id := s.ok("POST", "/_admin/backup/create", `{"label":"mine"}`).str("result", "id")
	s.ok("PUT", "/_api/collection/c/truncate", nil)
	s.ok("POST", "/_api/collection", `{"name":"later"}`)
	if s.ok("POST", "/_admin/backup/list", `{}`).get("result", "list", id, "nrDBServers") != 3.0 {
		t.Errorf("the list lacks %s", id)
	}
	s.ok("POST", "/_admin/backup/restore", map[string]string{"id": id})
	eventually(t, "the restored cluster answers", func() bool { return s.do("GET", "/_admin/server/availability", nil).code == 200 })
	if n := s.ok("GET", "/_api/collection/c/count", nil).get("count"); n != 20.0 {
		t.Errorf("%v documents after the restore, want 20", n)
	}
	s.refused(404, 1203, "GET", "/_api/collection/later", nil)
	if a := s.do("POST", "/_admin/backup/restore", `{"id":"nosuch"}`); a.code < 400 {
		t.Errorf("an unknown backup: %d", a.code)
	}
}
