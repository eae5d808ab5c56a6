package arangodb_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/test/lab/arangodb"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// server starts one simulated ArangoDB for a test.
func server(t *testing.T, version string) (*lab.Lab, engine.Member) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-arango-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Options{Dir: dir, Components: []string{"arangodb"}, ServersOnly: true, Versions: map[string]string{"arangodb": version}, Out: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	members, err := l.Members("arangodb", "")
	if err != nil {
		t.Fatal(err)
	}
	return l, members[0]
}

func fingerprint(t *testing.T, l *lab.Lab) (sum, text string) {
	t.Helper()
	var b bytes.Buffer
	sums, err := l.Fingerprint(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	return sums["arangodb"], b.String()
}

// request is plain HTTP as root: not the engine's client.
func request(t *testing.T, m engine.Member, method, path, body string) {
	t.Helper()
	_, options := (&arangodb.Engine{}).Target(m)
	password, err := os.ReadFile(options["password_file"])
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d%s", m.Ports["client"], path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("root", string(password))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if out, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		t.Fatalf("%s %s: HTTP %d %s", method, path, resp.StatusCode, out)
	}
}

// TestSimulatedOracle: equal seeds give equal content, a kill changes nothing, and each kind of object that is
// changed once changes the fingerprint.
func TestSimulatedOracle(t *testing.T) {
	for _, version := range []string{"", "3.11-cluster"} {
		t.Run("simulated "+version, func(t *testing.T) {
			l, m := server(t, version)
			ctx := t.Context()
			fill := func(seed int64) (string, string) {
				t.Helper()
				if err := l.Fill(ctx, seed, "small"); err != nil {
					t.Fatal(err)
				}
				return fingerprint(t, l)
			}
			other, _ := fill(6)
			want, text := fill(7)
			if other == want {
				t.Error("different seeds give the same content")
			}
			for _, kind := range []string{"analyzer", "collection", "database", "document", "function", "graph", "index", "task", "user", "view"} {
				if !strings.Contains(text, "\n"+kind+"\t") {
					t.Errorf("no line of kind %q", kind)
				}
			}
			if err := l.Kill(ctx, m.Name); err != nil {
				t.Fatal(err)
			}
			if err := l.StartMember(ctx, m.Name); err != nil {
				t.Fatal(err)
			}
			last, _ := fingerprint(t, l)
			if last != want {
				t.Error("a kill changed the content")
			}
			for _, x := range [][3]string{
				{"PATCH", "/_db/cso/_api/document/awkward/value-01", `{"v":-9223372036854775807}`},
				{"PUT", "/_db/cso/_api/document/awkward/value-20", `{"v":{"a":2,"z":1,"m":{"y":1,"b":2}},"after":1}`},
				{"DELETE", "/_db/cso/_api/document/links/link-0", ``},
				{"PUT", "/_db/cso/_api/collection/sites/properties", `{"schema":null}`},
				{"DELETE", "/_db/cso/_api/index/sites/by_name", ``},
				{"PATCH", "/_db/cso/_api/view/search/properties", `{"commitIntervalMsec":3000}`},
				{"DELETE", "/_db/cso/_api/analyzer/bars?force=true", ``},
				{"POST", "/_db/cso/_api/gharial/network/vertex", `{"collection":"audit"}`},
				{"POST", "/_db/cso/_api/aqlfunction", `{"name":"cso::twice","code":"function () { return 0; }"}`},
				{"DELETE", "/_db/cso/_api/tasks/nightly", ``},
				{"PATCH", "/_api/user/reader", `{"passwd":"changed"}`},
				{"PUT", "/_api/user/reader/database/cso/sites", `{"grant":"none"}`},
				{"PATCH", "/_api/user/idle", `{"active":true}`},
				{"POST", "/_api/database", `{"name":"one_more"}`},
				{"POST", "/_db/cso/_api/collection", `{"name":"one_more"}`},
			} {
				request(t, m, x[0], x[1], x[2])
				now, _ := fingerprint(t, l)
				if now == last {
					t.Errorf("%s %s: the fingerprint does not change", x[0], x[1])
				}
				last = now
			}
			if again, _ := fill(7); again != want {
				t.Error("equal seeds give different content")
			}
			for range 2 {
				if err := l.Wreck(ctx, 7); err != nil {
					t.Fatal(err)
				}
			}
			if wrecked, _ := fingerprint(t, l); wrecked == want {
				t.Error("wreck changed nothing")
			}
		})
	}
}
