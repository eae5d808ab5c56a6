package server_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

type tree struct {
	RangeMin, RangeMax string
	MaxDepth           int
	Count, Hash        uint64
	Nodes              []struct{ Count, Hash uint64 }
}

func (s sim) tree(batch, collection string) tree {
	s.t.Helper()
	var out tree
	a := s.ok("GET", "/_api/replication/revisions/tree?collection="+collection+"&batchId="+batch, nil)
	if err := json.Unmarshal(a.body, &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// A tree depends on the revisions that exist, and on nothing else; its leaves
// add up to its root. Source: HTTP API, Replication, "Get the Merkle tree";
// MerkleTree.h (hash of a node is the XOR over its revisions), RocksDBRestReplicationHandler.cpp.
func TestRevisionTree(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	if empty := s.tree(s.batch(""), "c"); empty.Count != 0 || empty.Hash != 0 {
		t.Errorf("the tree of an empty collection: count %d, hash %d", empty.Count, empty.Hash)
	}
	s.insert("c", 300)
	batch := s.batch("")
	was := s.tree(batch, "c")
	var count, hash uint64
	for _, n := range was.Nodes {
		count += n.Count
		hash ^= n.Hash
	}
	if was.Count != 300 || count != 300 || hash != was.Hash || was.MaxDepth != 6 {
		t.Errorf("count %d, leaves %d, hash %d, leaves %d, depth %d", was.Count, count, was.Hash, hash, was.MaxDepth)
	}
	s.ok("POST", "/_api/document/c", `{"_key":"more"}`)
	if diff := cmp.Diff(was, s.tree(batch, "c")); diff != "" {
		t.Errorf("the batch's tree changed with a later write:\n%s", diff)
	}
	if more := s.tree(s.batch(""), "c"); more.Count != 301 || more.Hash == was.Hash {
		t.Errorf("after an insert: count %d, same hash %t", more.Count, more.Hash == was.Hash)
	}
	s.ok("DELETE", "/_api/document/c/more", nil)
	if back := s.tree(s.batch(""), "c"); back.Hash != was.Hash || back.Count != was.Count {
		t.Error("insert and remove did not bring the tree back")
	}
	s.ok("PATCH", "/_api/document/c/k7", `{"n":7}`)
	if changed := s.tree(s.batch(""), "c"); changed.Hash == was.Hash || changed.Count != was.Count {
		t.Error("a change left the tree's hash, or changed its count")
	}
	s.refused(404, 1600, "GET", "/_api/replication/revisions/tree?collection=c&batchId=1", nil)
}

// Ranges list the revisions that exist, documents give them back; a revision
// that does not exist is an empty object. Source: RocksDBRestReplicationHandler.cpp
// handleCommandRevisionRanges, handleCommandRevisionDocuments.
func TestRevisionRangesAndDocuments(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	s.insert("c", 120)
	batch := s.batch("")
	documents := s.dump(batch, "c", "")
	tr := s.tree(batch, "c")
	path := "/_api/replication/revisions/"
	var ranges struct{ Ranges [][]string }
	a := s.ok("PUT", path+"ranges?collection=c&batchId="+batch, [][]string{{tr.RangeMin, tr.RangeMax}, {tr.RangeMin, tr.RangeMin}})
	if err := json.Unmarshal(a.body, &ranges); err != nil {
		t.Fatal(err)
	}
	if len(ranges.Ranges) != 2 || len(ranges.Ranges[0]) != 120 {
		t.Fatalf("ranges %.300s", a.body)
	}
	s.ok("DELETE", "/_api/document/c/k5", nil)
	var got []map[string]any
	a = s.ok("PUT", path+"documents?collection=c&batchId="+batch, append(ranges.Ranges[0], "_0000000000"))
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 121 || len(got[120]) != 0 {
		t.Fatalf("%d documents, the last %v; want 120 and an empty object", len(got), got[len(got)-1])
	}
	found := map[string]map[string]any{}
	for i, o := range got[:120] {
		if o["_rev"] != ranges.Ranges[0][i] {
			t.Errorf("document %v stands for revision %s", o, ranges.Ranges[0][i])
		}
		found[o["_key"].(string)] = o
	}
	if diff := cmp.Diff(documents, found); diff != "" {
		t.Errorf("documents by revision and by dump differ:\n%s", diff)
	}
	s.refused(400, 400, "PUT", path+"ranges?collection=c&batchId="+batch, `{"no":"array"}`)
}

// The checksum changes with keys always, with revisions and data when asked,
// and is the same for the same content. Source: HTTP API, Collections, "Get the
// collection checksum".
func TestChecksum(t *testing.T) {
	s, _ := start(t, server.Config{})
	for _, c := range []string{"a", "b"} {
		s.ok("POST", "/_api/collection", `{"name":"`+c+`"}`)
		s.insert(c, 50)
	}
	sum := func(c, query string) string {
		return s.ok("GET", "/_api/collection/"+c+"/checksum"+query, nil).str("checksum")
	}
	if sum("a", "") != sum("b", "") || sum("a", "?withData=true") != sum("b", "?withData=true") {
		t.Error("the same content has different checksums")
	}
	if sum("a", "?withRevisions=true") == sum("b", "?withRevisions=true") {
		t.Error("different revisions have the same checksum")
	}
	keys, data := sum("a", ""), sum("a", "?withData=true")
	s.ok("PATCH", "/_api/document/a/k1", `{"n":-1}`)
	if sum("a", "") != keys || sum("a", "?withData=true") == data {
		t.Error("a change of data shows in the checksum of keys, or not in that of data")
	}
	s.ok("DELETE", "/_api/document/a/k1", nil)
	if sum("a", "") == keys {
		t.Error("a removal does not show in the checksum of keys")
	}
}
