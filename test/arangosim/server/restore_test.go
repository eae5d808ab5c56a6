package server_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// What a dump gave goes back through the restore endpoints: the collection with
// its properties, data with new revisions or the old ones, indexes, views.
// Source: RestReplicationHandler.cpp handleCommandRestore*, arangorestore's RestoreFeature.cpp.
func TestRestoreEndpoints(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c","waitForSync":true,"keyOptions":{"type":"padded"}}`)
	s.ok("POST", "/_api/index?collection=c", `{"type":"persistent","fields":["n"],"unique":true,"name":"byN"}`)
	s.insert("c", 50)
	batch := s.batch("")
	definition := collectionsOf(t, s.ok("GET", "/_api/replication/inventory?batchId="+batch, nil))["c"]
	data := s.ok("GET", "/_api/replication/dump?collection=c&batchId="+batch, nil).body
	before := s.dump(batch, "c", "")

	path := "/_api/replication/restore-"
	s.refused(409, 1207, "PUT", path+"collection", definition)
	s.ok("PUT", path+"collection?overwrite=true", definition)
	if n := s.ok("GET", "/_api/collection/c/count", nil).get("count"); n != 0.0 {
		t.Errorf("%v documents after overwriting", n)
	}
	properties := s.ok("GET", "/_api/collection/c/properties", nil)
	if properties.get("waitForSync") != true || properties.get("keyOptions", "type") != "padded" {
		t.Errorf("properties %s", properties.body)
	}
	s.ok("PUT", path+"data?collection=c", data)
	s.ok("PUT", path+"indexes", definition)
	got := s.dump(s.batch(""), "c", "")
	fresh := 0
	for k, o := range got {
		if o["_rev"] != before[k]["_rev"] {
			fresh++
		}
		o["_rev"] = before[k]["_rev"]
	}
	if diff := cmp.Diff(before, got); diff != "" || fresh != 50 {
		t.Errorf("%d new revisions, want 50; documents:\n%s", fresh, diff)
	}
	s.refused(409, 1210, "POST", "/_api/document/c", `{"n":3}`)

	s.ok("PUT", "/_api/collection/c/truncate", nil)
	s.ok("PUT", path+"data?collection=c&preserveRevisionIds=true", data)
	if diff := cmp.Diff(before, s.dump(s.batch(""), "c", "")); diff != "" {
		t.Errorf("with preserveRevisionIds:\n%s", diff)
	}
	s.ok("PUT", path+"data?collection=c", `{"type":2302,"key":"k1"}`)
	if a := s.do("GET", "/_api/document/c/k1", nil); a.code != 404 {
		t.Errorf("after a removal marker: %d", a.code)
	}
	s.refused(404, 1203, "PUT", path+"data?collection=nosuch", data)
	s.ok("PUT", path+"view", `{"name":"v","type":"arangosearch","links":{}}`)
	s.refused(409, 1207, "PUT", path+"view", `{"name":"v","type":"arangosearch","links":{}}`)
	s.ok("PUT", path+"view?overwrite=true", `{"name":"v","type":"arangosearch","links":{"c":{}}}`)
}

// Two documents of one shard cannot share a revision, which is their local id.
// Source: arangodb pull request 18187 (restored revisions corrupt the primary index).
func TestRevisionIsUniqueInAShard(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	rev := s.ok("POST", "/_api/document/c", `{"_key":"a"}`).str("_rev")
	if kept := s.ok("POST", "/_api/document/c?isRestore=true", `{"_key":"b","_rev":"_abcdefghij"}`).str("_rev"); kept != "_abcdefghij" {
		t.Errorf("isRestore kept %q as revision", kept)
	}
	if a := s.do("POST", "/_api/document/c?isRestore=true", `{"_key":"c","_rev":"`+rev+`"}`); a.code < 400 {
		t.Errorf("a second document of revision %s: %d", rev, a.code)
	}
}

// Users go back by their name, hash and grants included: the old password works
// again. Source: RestReplicationHandler.cpp processRestoreUsersBatch.
func TestRestoreUsers(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/user", `{"user":"ann","passwd":"first"}`)
	s.ok("PUT", "/_api/user/ann/database/_system", `{"grant":"ro"}`)
	rows := s.ok("GET", "/_api/replication/dump?collection=_users&batchId="+s.batch(""), nil).body
	if !strings.Contains(string(rows), `"user":"ann"`) || strings.Contains(string(rows), "first") {
		t.Fatalf("rows of _users: %s", rows)
	}
	s.ok("PATCH", "/_api/user/ann", `{"passwd":"second"}`)
	s.ok("PUT", "/_api/user/ann/database/_system", `{"grant":"rw"}`)
	s.ok("PUT", "/_api/replication/restore-data?collection=_users", rows)
	if a := s.as("ann", "second").do("GET", "/_api/version", nil); a.code != 401 {
		t.Errorf("the later password: %d", a.code)
	}
	ann := s.as("ann", "first")
	ann.ok("GET", "/_api/version", nil)
	ann.refused(403, 11, "POST", "/_api/collection", `{"name":"c"}`)
}
