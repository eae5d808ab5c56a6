package server_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// What was answered is there after kill -9, key generators go on above what
// they gave; batches are gone. Source: HTTP API, Documents (a write is answered
// once it is in the write-ahead log); Concepts, Key generators.
func TestKillKeepsWhatWasAnswered(t *testing.T) {
	dir := t.TempDir()
	s, cmd := child(t, dir)
	s.ok("POST", "/_api/database", `{"name":"d"}`)
	s.ok("POST", "/_db/d/_api/collection", `{"name":"c"}`)
	s.ok("POST", "/_db/d/_api/collection", `{"name":"auto","keyOptions":{"type":"autoincrement"}}`)
	s.ok("POST", "/_db/d/_api/index?collection=c", `{"type":"persistent","fields":["n"],"unique":true}`)
	s.ok("POST", "/_api/user", `{"user":"ann","passwd":"pw"}`)
	token := s.ok("POST", "/_open/auth", map[string]string{"username": "root", "password": rootPassword}).str("jwt")
	last := s.ok("POST", "/_db/d/_api/document/auto", `{}`).str("_key")
	batch := s.batch("")

	var answered atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 1000000 {
			if a := s.do("POST", "/_db/d/_api/document/c", fmt.Sprintf(`{"_key":"k%d","n":%d}`, i, i)); a.err != nil || a.code != 202 && a.code != 201 {
				return
			}
			answered.Store(int64(i + 1))
		}
	})
	eventually(t, "some writes", func() bool { return answered.Load() > 200 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	wg.Wait()
	t.Logf("killed (%v) after %d answered writes", err, answered.Load())

	again, cmd := child(t, dir)
	defer func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		t.Log(cmd.Wait())
	}()
	count, _ := again.ok("GET", "/_db/d/_api/collection/c/count", nil).get("count").(float64)
	if n := answered.Load(); int64(count) != n && int64(count) != n+1 {
		t.Errorf("%v documents, %d were answered", count, n)
	}
	again.ok("GET", fmt.Sprintf("/_db/d/_api/document/c/k%d", answered.Load()-1), nil)
	again.refused(409, 1210, "POST", "/_db/d/_api/document/c", `{"n":5}`)
	again.ok("GET", "/_api/user/ann", nil)
	if key := again.ok("POST", "/_db/d/_api/document/auto", `{}`).str("_key"); key == last || len(key) < len(last) {
		t.Errorf("key %s after %s", key, last)
	}
	again.refused(404, 1600, "PUT", "/_api/replication/batch/"+batch, `{"ttl":60}`)
	again.token = token
	again.ok("GET", "/_api/version", nil)
}

// A directory belongs to one mode.
func TestDirectoryKeepsItsMode(t *testing.T) {
	dir := t.TempDir()
	s, err := server.Start(server.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := server.Start(server.Config{Dir: dir, Mode: "cluster"}); err == nil {
		t.Error("a single server's directory became a cluster", s.Close())
	}
}

// A server that cannot listen leaves nothing open.
func TestTakenAddress(t *testing.T) {
	_, running := start(t, server.Config{})
	taken := strings.TrimPrefix(running.Endpoints()[0], "http://")
	dir := t.TempDir()
	if s, err := server.Start(server.Config{Dir: dir, Mode: "cluster", Coordinators: 2, ListenMore: []string{taken}}); err == nil {
		t.Fatal("two servers on one address", s.Close())
	}
	s, err := server.Start(server.Config{Dir: dir, Mode: "cluster"})
	if err != nil {
		t.Fatalf("the directory is still in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
