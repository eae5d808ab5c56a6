package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// A hot backup waits for the global lock on writing: 408 when a transaction keeps it waiting, unless it may be inconsistent
// or may abort the transaction. Source: HTTP API, Hot backups, Create a backup.
func TestHotBackupLock(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	open := func(kind string) string {
		return s.ok("POST", "/_api/transaction/begin", `{"collections":{"`+kind+`":["c"]}}`).str("result", "id")
	}
	open("read") // in nobody's way
	s.ok("POST", "/_admin/backup/create", `{"label":"free"}`)
	id := open("write")
	begin := time.Now()
	s.refused(408, 18, "POST", "/_admin/backup/create", `{"label":"busy","timeout":1}`)
	if d := time.Since(begin); d < time.Second {
		t.Errorf("gave up after %s", d)
	}
	a := s.ok("POST", "/_admin/backup/create", `{"label":"loose","timeout":0,"allowInconsistent":true}`)
	if a.get("result", "potentiallyInconsistent") != true {
		t.Errorf("%s", a.body)
	}
	s.ok("POST", "/_admin/backup/create", `{"label":"forced","timeout":0,"force":true}`)
	if st := s.ok("GET", "/_api/transaction/"+id, nil).str("result", "status"); st != "aborted" {
		t.Errorf("the transaction is %s", st)
	}
}

// Putting a hot backup back replaces everything and keeps what was there as another one; Community has none before
// 3.12.5, and only its own version can be put back. Source: HTTP API, Hot backups, Restore a backup; arangobackup, Limitations.
func TestHotBackupRestore(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	s.insert("c", 3)
	id := s.ok("POST", "/_admin/backup/create", `{"label":"three"}`).str("result", "id")
	if !strings.HasSuffix(id, "_three") {
		t.Errorf("id %q", id)
	}
	s.insert("c", 0)
	s.ok("DELETE", "/_api/collection/c", nil)
	previous := s.ok("POST", "/_admin/backup/restore", map[string]string{"id": id}).str("result", "previous")
	if n := s.ok("GET", "/_api/collection/c/count", nil).get("count"); n != float64(3) {
		t.Errorf("%v documents", n)
	}
	s.ok("POST", "/_admin/backup/restore", map[string]string{"id": previous})
	s.refused(404, 1203, "GET", "/_api/collection/c", nil)
	s.ok("POST", "/_admin/backup/delete", map[string]string{"id": id})
	s.refused(404, 404, "POST", "/_admin/backup/restore", map[string]string{"id": id})

	old, _ := start(t, server.Config{Version: "3.11"})
	old.refused(404, 404, "POST", "/_admin/backup/list", `{}`)
}
