package server_test

import (
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// Ordered faults hit the requests they name, as often as they say, and no other:
// this is the simulator's own and has no counterpart at the vendor's.
func TestFaults(t *testing.T) {
	s, running := start(t, server.Config{Mode: "cluster", Coordinators: 2})
	s.ok("POST", "/_api/collection", `{"name":"c","replicationFactor":1}`)
	s.insert("c", 200)
	order := func(fault string) { s.ok("PUT", "/_sim/faults", "["+fault+"]") }
	version := func() answer { return s.do("GET", "/_api/version", nil) }

	order(`{"path":"/_api/version","skip":1,"count":2,"kind":"status"}`)
	var codes []int
	for range 4 {
		codes = append(codes, version().code)
	}
	if codes[0] != 200 || codes[1] != 503 || codes[2] != 503 || codes[3] != 200 {
		t.Errorf("codes %v, want 200 503 503 200", codes)
	}
	if hits := s.ok("GET", "/_sim/faults", nil).get(0, "hits"); hits != 2.0 {
		t.Errorf("%v hits, want 2", hits)
	}
	order(`{"path":"/_api/version","kind":"status","status":421,"errorNum":1496}`)
	s.refused(421, 1496, "GET", "/_api/version", nil)
	// Go's client repeats a GET by itself when a connection that it used before breaks.
	order(`{"path":"/_api/document","kind":"abort","method":"POST"}`)
	if a := s.do("POST", "/_api/document/c", `{"_key":"lost"}`); a.err == nil {
		t.Errorf("an aborted request: %d", a.code)
	}
	order(`{"path":"/_api/version","kind":"delay","seconds":0.3}`)
	if begin := time.Now(); version().code != 200 || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("delayed for %s", time.Since(begin))
	}
	order(`{"path":"/_api/version","kind":"status","count":-1,"node":"Coordinator0002"}`)
	if a, b := version().code, s.at(running.Endpoints()[1]).do("GET", "/_api/version", nil).code; a != 200 || b != 503 {
		t.Errorf("first coordinator %d, second %d; want 200 and 503", a, b)
	}
	for shard, holders := range s.shards("c") {
		batch := s.batch("?DBserver=" + holders[0])
		path := "/_api/replication/dump?collection=" + shard + "&batchId=" + batch + "&DBserver=" + holders[0]
		order(`{"path":"/_api/replication/dump","kind":"truncate"}`)
		if a := s.do("GET", path, nil); a.err == nil || a.code != 200 || len(a.body) == 0 {
			t.Errorf("a truncated dump: %d, %d bytes, %v", a.code, len(a.body), a.err)
		}
		if n := len(s.dump(s.batch("?DBserver="+holders[0]), shard, "&DBserver="+holders[0])); n != 200 {
			t.Errorf("%d documents after the truncated answer, want 200", n)
		}
	}
	if a := s.do("PUT", "/_sim/faults", `[{"kind":"nosuch"}]`); a.code != 400 {
		t.Errorf("an unknown fault: %d", a.code)
	}
}
