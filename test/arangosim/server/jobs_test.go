package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// A job's answer is kept until it is fetched, once. Source: HTTP API, Jobs.
func TestJobKeepsItsAnswer(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/_api/document/c", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(s.user, s.key)
	req.Header.Set("x-arango-async", "store")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	id := resp.Header.Get("x-arango-async-id")
	if resp.StatusCode != 202 || id == "" {
		t.Fatalf("%d, id %q", resp.StatusCode, id)
	}
	eventually(t, "the job is done", func() bool { return s.do("GET", "/_api/job/"+id, nil).code == 200 })
	s.refused(400, 600, "PUT", "/_api/job/"+id, nil)
	if a := s.do("PUT", "/_api/job/"+id, nil); a.code != 404 {
		t.Errorf("fetched twice: %d", a.code)
	}
}

// Close ends everything that Start began: listeners, sweeper, queries, jobs, snapshots.
func TestCloseLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, err := server.Start(server.Config{Dir: t.TempDir(), Mode: "cluster", Coordinators: 3})
	if err != nil {
		t.Fatal(err)
	}
	c := sim{t: t, url: s.Endpoints()[0]}
	c.batch("?DBserver=" + c.dbServers()[0])
	req, err := http.NewRequestWithContext(t.Context(), "POST", c.url+"/_api/cursor", strings.NewReader(`{"query":"FOR i IN 1..1000 RETURN SLEEP(1)"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-arango-async", "store")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("closed after %s", d)
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}
