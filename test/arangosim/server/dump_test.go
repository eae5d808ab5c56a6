package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// A batch holds a snapshot: what is written afterwards is not in its dumps.
// Source: HTTP API, Replication, "Replication dump"; arangodump, "Limitations"
// (a single server's dump is consistent); RocksDBReplicationContext.cpp.
func TestDumpIsASnapshotUnderWrites(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	s.ok("POST", "/_api/collection", `{"name":"other"}`)
	s.insert("c", 500)
	s.insert("other", 50)
	before := s.dump(s.batch(""), "c", "")
	batch := s.batch("")

	stop, done := make(chan struct{}), sync.WaitGroup{}
	done.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s.do("PATCH", fmt.Sprintf("/_api/document/c/k%d", i%500), `{"n":-1}`)
			s.do("DELETE", fmt.Sprintf("/_api/document/c/k%d", (i*7+3)%500), nil)
			s.do("POST", "/_api/document/c", `{"new":true}`)
		}
	})
	time.Sleep(50 * time.Millisecond)
	got := s.dump(batch, "c", "&chunkSize=1000")
	close(stop)
	done.Wait()
	if diff := cmp.Diff(before, got); diff != "" {
		t.Errorf("the dump is not what the batch began with (-before +dump):\n%s", diff)
	}
	// Once more in the same batch, and another collection, long after the writes.
	if diff := cmp.Diff(before, s.dump(batch, "c", "")); diff != "" {
		t.Errorf("the second dump of the batch differs:\n%s", diff)
	}
	if n := len(s.dump(batch, "other", "")); n != 50 {
		t.Errorf("%d documents of the other collection, want 50", n)
	}
	if after := s.dump(s.batch(""), "c", ""); cmp.Equal(before, after) {
		t.Error("a new batch does not show what was written: the writer wrote nothing")
	}
}

// Chunks end at the size asked for, headers say whether more is there, an empty
// collection is 204. Source: RestReplicationHandler.cpp handleCommandDump,
// RocksDBRestReplicationHandler.cpp.
func TestDumpChunksAndHeaders(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	s.ok("POST", "/_api/collection", `{"name":"empty"}`)
	s.insert("c", 100)
	batch := s.batch("")
	path := "/_api/replication/dump?batchId=" + batch + "&collection="
	first := s.ok("GET", path+"c&chunkSize=1000&useEnvelope=false", nil)
	if n := len(first.body); n < 1000 || n > 1200 || first.header.Get("x-arango-replication-checkmore") != "true" {
		t.Errorf("%d bytes, headers %v; want a little over 1000 bytes and more to come", n, first.header)
	}
	if got := first.header.Get("Content-Type"); !strings.HasPrefix(got, "application/x-arango-dump") {
		t.Errorf("content type %q", got)
	}
	envelope := s.ok("GET", path+"c", nil)
	if line, _, _ := strings.Cut(string(envelope.body), "\n"); !strings.HasPrefix(line, `{"type":2300,"data":{"_key":`) {
		t.Errorf("a line with envelope: %s", line)
	}
	if a := s.ok("GET", path+"empty", nil); a.code != 204 || a.header.Get("x-arango-replication-checkmore") != "false" || a.header.Get("x-arango-replication-lastincluded") != "0" {
		t.Errorf("an empty collection: %d %v", a.code, a.header)
	}
	s.refused(404, 400, "GET", "/_api/replication/dump?collection=c&batchId=1", nil)
	s.refused(404, 400, "GET", "/_api/replication/dump?collection=c", nil)
}

// Numbers, text, order of attributes and depth come out as they went in.
// Source: VelocyPack specification (numbers keep 64 bits, attributes their
// order as VelocyPackHelper.cpp dumps them), HTTP API, Documents.
func TestDumpKeepsDocumentsAsWritten(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	deep := strings.Repeat(`{"a":[`, 60) + "1" + strings.Repeat("]}", 60)
	big := strings.Repeat("x", 16<<20)
	for i, attributes := range []string{
		`"z":1,"a":2,"m":{"y":null,"b":true}`,
		`"max":18446744073709551615,"min":-9223372036854775808,"one":9007199254740993`,
		`"f":0.1,"e":1e+100,"small":-1e-7,"big":1.7976931348623157e+308`,
		`"text":"grüß \"Gott\" 漢字 🙂 \\ \n \u0001","名":"é"`,
		`"deep":` + deep,
		`"empty":{},"list":[],"":"an empty name","$x":"odd"`,
		`"big16":"` + big + `"`,
	} {
		key := fmt.Sprint("k", i)
		s.ok("POST", "/_api/document/c", `{"_key":"`+key+`",`+attributes+`}`)
		batch := s.batch("")
		var line string
		for l := range strings.Lines(string(s.ok("GET", "/_api/replication/dump?useEnvelope=false&chunkSize=100000000&collection=c&batchId="+batch, nil).body)) {
			if strings.HasPrefix(l, `{"_key":"`+key+`"`) {
				line = strings.TrimSpace(l)
			}
		}
		if !strings.HasPrefix(line, `{"_key":"`+key+`","_id":"c/`+key+`","_rev":"`) || !strings.HasSuffix(line, `",`+attributes+`}`) {
			t.Errorf("written %.200s, dumped %.200s", attributes, line)
		}
	}
}

// A batch ends when its time is over, and each use begins the time anew.
// Source: HTTP API, Replication, "Create a new dump batch", "Prolong".
func TestBatchEndsWithItsTime(t *testing.T) {
	t.Parallel() // it mostly sleeps
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	id := s.ok("POST", "/_api/replication/batch", `{"ttl":3}`).str("id")
	for range 5 {
		time.Sleep(700 * time.Millisecond)
		if a := s.ok("PUT", "/_api/replication/batch/"+id, `{"ttl":3}`); a.code != 204 {
			t.Errorf("prolonged: %d", a.code)
		}
	}
	eventually(t, "the batch ends", func() bool {
		time.Sleep(3200 * time.Millisecond)
		return s.do("PUT", "/_api/replication/batch/"+id, `{"ttl":3}`).code == 404
	})
	s.refused(404, 400, "GET", "/_api/replication/dump?collection=c&batchId="+id, nil)
	s.refused(404, 1600, "DELETE", "/_api/replication/batch/"+id, nil)
	kept := s.batch("")
	s.ok("POST", "/_sim/expire-batches", nil)
	s.refused(404, 400, "GET", "/_api/replication/dump?collection=c&batchId="+kept, nil)
	deleted := s.batch("")
	s.ok("DELETE", "/_api/replication/batch/"+deleted, nil)
	s.refused(404, 1600, "DELETE", "/_api/replication/batch/"+deleted, nil)
}

// The parallel dump of 3.12: batches by number, each can be asked for again
// until lastBatch says that it has arrived; 204 at the end; a snapshot too.
// Source: RestDumpHandler.cpp, RocksDBDumpManager.cpp; arangodump of 3.12.
func TestParallelDump(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"a"}`)
	s.ok("POST", "/_api/collection", `{"name":"b"}`)
	s.insert("a", 300)
	s.insert("b", 200)
	begin := s.ok("POST", "/_api/dump/start", `{"batchSize":2000,"prefetchCount":2,"parallelism":2,"shards":["a","b"]}`)
	id := begin.header.Get("x-arango-dump-id")
	if begin.code != 201 || !strings.HasPrefix(id, "dump-") {
		t.Fatalf("start: %d, id %q", begin.code, id)
	}
	s.ok("PUT", "/_api/collection/a/truncate", nil)

	found := map[string]map[string]bool{"a": {}, "b": {}}
	next := func(n int, more string) answer {
		return s.ok("POST", fmt.Sprintf("/_api/dump/next/%s?batchId=%d%s", id, n, more), nil)
	}
	more, n := "", 0
	for ; ; n++ {
		got := next(n, more)
		if got.code == 204 {
			break
		}
		if again := next(n, ""); string(again.body) != string(got.body) {
			t.Fatalf("batch %d asked for again differs", n)
		}
		for key := range got.lines() {
			found[got.header.Get("x-arango-dump-shard-id")][key] = true
		}
		more = fmt.Sprintf("&lastBatch=%d", n)
	}
	if len(found["a"]) != 300 || len(found["b"]) != 200 || n < 5 {
		t.Errorf("%d and %d documents in %d batches, want 300 and 200 in several", len(found["a"]), len(found["b"]), n)
	}
	s.ok("DELETE", "/_api/dump/"+id, nil)
	s.refused(404, 36, "POST", "/_api/dump/next/"+id+"?batchId=0", nil)
	s.refused(404, 1203, "POST", "/_api/dump/start", `{"shards":["nosuch"]}`)
}

// In a cluster a batch belongs to one DB server, which dumps the shards that it
// holds; a coordinator forwards. Source: RestReplicationHandler.cpp
// (forwardingTarget), arangodump's DumpFeature.cpp.
func TestDumpByShardInACluster(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"c","numberOfShards":5,"replicationFactor":1}`)
	s.insert("c", 400)
	s.refused(400, 10, "POST", "/_api/replication/batch", `{"ttl":60}`)
	batches := map[string]string{}
	for _, id := range s.dbServers() {
		batches[id] = s.batch("?DBserver=" + id)
	}
	s.ok("PUT", "/_api/collection/c/truncate", nil)
	total := map[string]bool{}
	for shard, holders := range s.shards("c") {
		part := s.dump(batches[holders[0]], shard, "&DBserver="+holders[0])
		if len(part) == 0 {
			t.Errorf("shard %s is empty", shard)
		}
		for key := range part {
			total[key] = true
		}
		for _, other := range s.dbServers() {
			if other != holders[0] {
				s.refused(400, 400, "GET", "/_api/replication/dump?collection="+shard+"&batchId="+batches[other]+"&DBserver="+other, nil)
				s.refused(404, 400, "GET", "/_api/replication/dump?collection="+shard+"&batchId="+batches[other]+"&DBserver="+holders[0], nil)
			}
		}
	}
	if len(total) != 400 {
		t.Errorf("%d documents in all shards, want 400", len(total))
	}
}
