package server_test

import (
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// Rights on databases and collections are enforced, * stands for all others.
// Source: Operations, "Managing users" (access levels); HTTP API, Users;
// ExecContext.h, GeneralServer's 401 for a database without access.
func TestGrantsAreEnforced(t *testing.T) {
	root, _ := start(t, server.Config{})
	for _, db := range []string{"open", "shut", "partly"} {
		root.ok("POST", "/_api/database", `{"name":"`+db+`"}`)
		for _, c := range []string{"c", "secret"} {
			root.ok("POST", "/_db/"+db+"/_api/collection", `{"name":"`+c+`"}`)
			root.ok("POST", "/_db/"+db+"/_api/document/"+c, `{"_key":"k"}`)
		}
	}
	root.ok("POST", "/_api/user", `{"user":"ann","passwd":"pw"}`)
	root.ok("PUT", "/_api/user/ann/database/open", `{"grant":"rw"}`)
	root.ok("PUT", "/_api/user/ann/database/partly", `{"grant":"ro"}`)
	root.ok("PUT", "/_api/user/ann/database/partly/c", `{"grant":"rw"}`)
	root.ok("PUT", "/_api/user/ann/database/partly/secret", `{"grant":"none"}`)
	ann := root.as("ann", "pw")

	ann.ok("POST", "/_db/open/_api/document/c", `{}`)
	ann.ok("POST", "/_db/open/_api/collection", `{"name":"mine"}`)
	if a := ann.do("GET", "/_db/shut/_api/document/c/k", nil); a.code != 401 {
		t.Errorf("a database without access: %d %s", a.code, a.body)
	}
	ann.ok("POST", "/_db/partly/_api/document/c", `{}`)
	ann.refused(403, 11, "POST", "/_db/partly/_api/collection", `{"name":"mine"}`)
	ann.refused(403, 11, "GET", "/_db/partly/_api/document/secret/k", nil)
	ann.refused(403, 11, "PUT", "/_db/partly/_api/replication/restore-collection", `{"parameters":{"name":"x"}}`)
	if n := len(ann.ok("GET", "/_api/database/user", nil).get("result").([]any)); n != 2 {
		t.Errorf("%d databases to be seen, want 2", n)
	}

	// Administration needs rw on _system.
	for _, call := range [][2]string{{"POST", "/_api/user"}, {"POST", "/_api/database"}, {"PUT", "/_admin/server/mode"}, {"POST", "/_admin/backup/list"}} {
		if a := ann.do(call[0], call[1], `{}`); a.code != 401 && a.code != 403 {
			t.Errorf("%s %s as a plain user: %d", call[0], call[1], a.code)
		}
	}
	// Dumping _users needs it too, and reading it as documents is closed to everybody.
	root.ok("PUT", "/_api/user/ann/database/_system", `{"grant":"ro"}`)
	if a := ann.do("GET", "/_api/replication/dump?collection=_users&batchId="+root.batch(""), nil); a.code != 403 {
		t.Errorf("a plain user dumps _users: %d", a.code)
	}
	root.refused(403, 11, "PUT", "/_api/document/_users?onlyget=true", `["1"]`)
	// A right on * is for databases without one of their own.
	root.ok("PUT", "/_api/user/ann/database/*", `{"grant":"ro"}`)
	ann.ok("GET", "/_db/shut/_api/document/c/k", nil)
	ann.refused(403, 11, "POST", "/_db/shut/_api/document/c", `{}`)
	root.ok("DELETE", "/_api/user/ann/database/*", nil)
	if a := ann.do("GET", "/_db/shut/_api/document/c/k", nil); a.code != 401 {
		t.Errorf("after the right was taken away: %d", a.code)
	}
}

// Wrong passwords, tokens of others, inactive and removed users stay outside.
// Source: HTTP API, Authentication; Users, "active".
func TestAuthentication(t *testing.T) {
	root, _ := start(t, server.Config{})
	root.ok("POST", "/_api/user", `{"user":"ann","passwd":"pw"}`)
	root.ok("PUT", "/_api/user/ann/database/_system", `{"grant":"ro"}`)
	ann := root.as("ann", "pw")
	token := ann.ok("POST", "/_open/auth", `{"username":"ann","password":"pw"}`).str("jwt")
	bearer := root
	bearer.token = token
	bearer.ok("GET", "/_api/version", nil)
	bearer.token = token[:len(token)-4] + "AAAA"
	for name, a := range map[string]answer{
		"a forged token":   bearer.do("GET", "/_api/version", nil),
		"a wrong password": root.as("ann", "no").do("GET", "/_api/version", nil),
		"an unknown user":  root.as("bob", "pw").do("GET", "/_api/version", nil),
		"a wrong login":    root.do("POST", "/_open/auth", `{"username":"ann","password":"no"}`),
	} {
		if a.code != 401 {
			t.Errorf("%s: %d", name, a.code)
		}
	}
	root.ok("PATCH", "/_api/user/ann", `{"active":false}`)
	bearer.token = token
	if a := bearer.do("GET", "/_api/version", nil); a.code != 401 {
		t.Errorf("the token of an inactive user: %d", a.code)
	}
	if a := ann.do("GET", "/_api/version", nil); a.code != 401 {
		t.Errorf("an inactive user: %d", a.code)
	}
	root.ok("DELETE", "/_api/user/ann", nil)
	root.refused(404, 1703, "GET", "/_api/user/ann", nil)
}

// Read-only mode holds on all coordinators until it is taken back: writes are
// refused with 1004, definitions with 11, reads and dumps go on. Source: HTTP
// API, Administration, "Server mode"; ServerState.cpp propagateClusterReadOnly.
func TestReadOnlyMode(t *testing.T) {
	one, running := start(t, server.Config{Mode: "cluster", Coordinators: 2})
	two := one.at(running.Endpoints()[1])
	one.ok("POST", "/_api/collection", `{"name":"c"}`)
	one.insert("c", 5)
	if got := one.ok("PUT", "/_admin/server/mode", `{"mode":"readonly"}`).str("mode"); got != "readonly" {
		t.Errorf("mode %q", got)
	}
	for _, s := range []sim{one, two} {
		s.refused(403, 1004, "POST", "/_api/document/c", `{}`)
		s.refused(403, 1004, "PATCH", "/_api/document/c/k1", `{"n":2}`)
		s.refused(403, 1004, "POST", "/_api/index?collection=c", `{"type":"persistent","fields":["x"]}`)
		s.refused(403, 1004, "POST", "/_api/cursor", `{"query":"INSERT {} INTO c"}`)
		s.refused(403, 11, "POST", "/_api/collection", `{"name":"new"}`)
		s.refused(403, 11, "DELETE", "/_api/collection/c", nil)
		s.refused(403, 11, "POST", "/_api/database", `{"name":"new"}`)
		if s.ok("GET", "/_admin/server/mode", nil).str("mode") != "readonly" || s.ok("GET", "/_admin/server/availability", nil).str("mode") != "readonly" {
			t.Error("the mode is not shown")
		}
		s.ok("GET", "/_api/document/c/k1", nil)
		for shard, holders := range s.shards("c") {
			if n := len(s.dump(s.batch("?DBserver="+holders[0]), shard, "&DBserver="+holders[0])); n != 5 {
				t.Errorf("%d documents dumped in read-only mode", n)
			}
		}
	}
	one.refused(400, 10, "PUT", "/_admin/server/mode", `{"mode":"other"}`)
	two.ok("PUT", "/_admin/server/mode", `{"mode":"default"}`)
	one.ok("POST", "/_api/document/c", `{}`)
}
