package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// The simulator's own tests: what the vendor's driver tests do not judge. Each
// names the vendor's page or source that it was written from: "HTTP API" is
// docs.arango.ai, Develop, HTTP API; files ending in .cpp and .h are those of
// github.com/arangodb/arangodb.

const rootPassword = "sim ulated"

// childVariable makes this test binary a simulator process (see TestKillKeepsWhatWasAnswered).
const childVariable = "ARANGOSIM_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		s, err := server.Start(server.Config{Dir: dir, Auth: true, Password: rootPassword})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.Endpoints()[0])
		select {}
	}
	os.Exit(m.Run())
}

// sim is a simulator under test, seen from one of its endpoints as one user.
type sim struct {
	t              *testing.T
	url, user, key string
	token          string
}

func start(t *testing.T, cfg server.Config) (sim, *server.Server) {
	t.Helper()
	cfg.Dir, cfg.Auth, cfg.Password = t.TempDir(), true, rootPassword
	s, err := server.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return sim{t: t, url: s.Endpoints()[0], user: "root", key: rootPassword}, s
}

func (s sim) as(user, password string) sim { s.user, s.key = user, password; return s }
func (s sim) at(url string) sim            { s.url = url; return s }

// answer is what came back; a broken connection has code 0.
type answer struct {
	t      *testing.T
	call   string
	code   int
	header http.Header
	body   []byte
	err    error // of the connection, or while reading the body
}

// do sends a request; body is text, bytes, nil, or anything that becomes JSON.
func (s sim) do(method, path string, body any) answer {
	s.t.Helper()
	var b []byte
	switch v := body.(type) {
	case nil:
	case string:
		b = []byte(v)
	case []byte:
		b = v
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			s.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.token != "" {
		req.Header.Set("Authorization", "bearer "+s.token)
	} else {
		req.SetBasicAuth(s.user, s.key)
	}
	a := answer{t: s.t, call: method + " " + path}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	a.code, a.header = resp.StatusCode, resp.Header
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// ok sends a request that must succeed.
func (s sim) ok(method, path string, body any) answer {
	s.t.Helper()
	a := s.do(method, path, body)
	if a.err != nil || a.code >= 300 {
		s.t.Fatalf("%s: %d %s %v", a.call, a.code, a.body, a.err)
	}
	return a
}

// refused sends a request that must be answered with this code and error number.
func (s sim) refused(code, num int, method, path string, body any) {
	s.t.Helper()
	a := s.do(method, path, body)
	if a.err != nil || a.code != code || a.get("errorNum") != float64(num) {
		s.t.Errorf("%s: %d %s %v, want %d with errorNum %d", a.call, a.code, a.body, a.err, code, num)
	}
}

// get reads a value of the JSON answer: names of attributes, or indexes of arrays as numbers.
func (a answer) get(path ...any) any {
	a.t.Helper()
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		a.t.Fatalf("%s: %v in %q", a.call, err, a.body)
	}
	for _, p := range path {
		switch p := p.(type) {
		case string:
			o, _ := v.(map[string]any)
			v = o[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func (a answer) str(path ...any) string { s, _ := a.get(path...).(string); return s }

// lines are the documents of a dump, by key.
func (a answer) lines() map[string]map[string]any {
	a.t.Helper()
	out := map[string]map[string]any{}
	for line := range strings.Lines(string(a.body)) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			a.t.Fatalf("%s: line %q: %v", a.call, line, err)
		}
		out[o["_key"].(string)] = o
	}
	return out
}

// batch opens a replication batch and answers its id.
func (s sim) batch(query string) string {
	s.t.Helper()
	id := s.ok("POST", "/_api/replication/batch"+query, `{"ttl":60}`).str("id")
	if id == "" {
		s.t.Fatal("a batch without an id")
	}
	return id
}

// dump reads a collection (in a cluster: a shard) to the end.
func (s sim) dump(batch, collection, query string) map[string]map[string]any {
	s.t.Helper()
	out := map[string]map[string]any{}
	for range 100000 {
		a := s.ok("GET", "/_api/replication/dump?useEnvelope=false&batchId="+batch+"&collection="+collection+query, nil)
		for k, o := range a.lines() {
			if out[k] != nil {
				s.t.Fatalf("key %s twice in the dump of %s", k, collection)
			}
			out[k] = o
		}
		if a.header.Get("x-arango-replication-checkmore") == "false" {
			return out
		}
	}
	s.t.Fatalf("the dump of %s does not end", collection)
	return nil
}

// insert writes n documents {"_key":"k<i>","n":<i>}.
func (s sim) insert(collection string, n int) {
	s.t.Helper()
	docs := make([]map[string]any, n)
	for i := range docs {
		docs[i] = map[string]any{"_key": fmt.Sprint("k", i), "n": i}
	}
	s.ok("POST", "/_api/document/"+collection+"?silent=true", docs)
}

// dbServers are the ids of the DB servers.
func (s sim) dbServers() []string {
	s.t.Helper()
	health, _ := s.ok("GET", "/_admin/cluster/health", nil).get("Health").(map[string]any)
	var out []string
	for id, o := range health {
		if o.(map[string]any)["Role"] == "DBServer" {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	if len(out) != 3 {
		s.t.Fatalf("%d DB servers in %v", len(out), health)
	}
	return out
}

// shards are the servers of each shard of a collection, the leader first.
func (s sim) shards(collection string) map[string][]string {
	s.t.Helper()
	var o struct{ Shards map[string][]string }
	if err := json.Unmarshal(s.ok("GET", "/_api/collection/"+collection+"/shards?details=true", nil).body, &o); err != nil {
		s.t.Fatal(err)
	}
	return o.Shards
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in 20 s: %s", what)
}

// child starts a simulator in a process of its own.
func child(t *testing.T, dir string) (sim, *exec.Cmd) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		t.Fatalf("the child's endpoint: %v", err)
	}
	return sim{t: t, url: strings.TrimSpace(string(line[:n])), user: "root", key: rootPassword}, cmd
}
