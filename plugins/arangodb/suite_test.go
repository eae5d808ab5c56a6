package arangodb_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/arangodb"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

func harness(on plugins.Target, second *plugins.Target, versions string) plugintest.Harness {
	return plugintest.Harness{
		Plugin: arangodb.New(), Target: on, Second: second, Versions: versions,
		Fill: fill, Clear: clearAll, Wreck: wreck, Fingerprint: fingerprint,
		Position: position, Writer: writer, Invariant: invariant, Large: large, MemoryLimit: 64 << 20, TryWrite: tryWrite,
		Kills: 3,
	}
}

func TestConformanceSimulatedSingle(t *testing.T) {
	central, east := start(t, server.Config{Version: "3.12"}), start(t, server.Config{Version: "3.11"})
	second := east.target(t, "east")
	plugintest.Run(t, harness(central.target(t, "central"), &second, "SIMULATED ArangoDB 3.12, single server (a real one has not been run against)"))
}

// TestConformanceSimulatedFenced has the server's JWT secret: its sessions are Fencers.
func TestConformanceSimulatedFenced(t *testing.T) {
	s := start(t, server.Config{Version: "3.12", Mode: "cluster", Coordinators: 2})
	h := harness(s.superTarget(t, "central"), nil, "SIMULATED ArangoDB 3.12, cluster of 2 coordinators, as the super user (a real one has not been run against)")
	h.Kills, h.Large = 1, nil
	plugintest.Run(t, h)
}

// TestConformanceSimulatedOld is the oldest version.
func TestConformanceSimulatedOld(t *testing.T) {
	s := start(t, server.Config{Version: "3.8"})
	h := harness(s.target(t, "central"), nil, "SIMULATED ArangoDB 3.8, single server (a real one has not been run against)")
	h.Kills, h.Large = 1, nil
	plugintest.Run(t, h)
}

func TestConformanceSimulatedCluster(t *testing.T) {
	s := start(t, server.Config{Version: "3.12", Mode: "cluster", Coordinators: 2})
	h := harness(s.target(t, "central"), nil, "SIMULATED ArangoDB 3.12, cluster of 2 coordinators and 3 DB servers (a real one has not been run against)")
	h.Kills = 2
	plugintest.Run(t, h)
}

// position is the revision of every collection of users.
func position(t testing.TB, on plugins.Target) string {
	t.Helper()
	a := foreign(t, on)
	defer a.close()
	var b strings.Builder
	for _, db := range a.databases() {
		for _, c := range a.collections(db) {
			if c.IsSystem {
				continue
			}
			var r obj
			a.get(db, "/_api/collection/"+c.Name+"/revision", &r)
			fmt.Fprintf(&b, "%s/%s %v %v\n", db, c.Name, r["id"], r["revision"])
		}
	}
	return b.String()
}

const ledger = 20

// writer writes the same number into all documents of a ledger, in one request each time.
func writer(t testing.TB, on plugins.Target) (stop func()) {
	t.Helper()
	a := foreign(t, on)
	end, done := make(chan struct{}), make(chan struct{})
	set := func(i int) bool {
		// One request into one shard is one transaction.
		var docs []string
		for k := range ledger {
			docs = append(docs, fmt.Sprintf(`{"_key":"l%02d","n":%d}`, k, i))
		}
		code, _, err := a.try("POST", "_system", "/_api/document/ledger?overwriteMode=replace&silent=true", "["+strings.Join(docs, ",")+"]")
		if err == nil && code == 404 {
			_, _, err = a.try("POST", "_system", "/_api/collection", obj{"name": "ledger", "numberOfShards": 1, "replicationFactor": 1})
		}
		return err == nil
	}
	set(0)
	set(0)
	go func() {
		defer close(done)
		for i := 1; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			if !set(i) {
				return
			}
		}
	}()
	return func() { close(end); <-done; a.close() }
}

func invariant(t testing.TB, on plugins.Target) {
	t.Helper()
	a := foreign(t, on)
	defer a.close()
	seen := map[string]int{}
	n := 0
	for _, d := range a.docs("_system", "ledger") {
		_, num, _ := strings.Cut(d, `"n":`)
		seen[num]++
		n++
	}
	if len(seen) != 1 || n != ledger {
		t.Fatalf("torn: %d documents of %d, numbers %v", n, ledger, seen)
	}
}

// large adds 96 MiB of documents that do not compress.
func large(t testing.TB, on plugins.Target) { largeOf(t, on, 24) }

// largeOf adds n times 4 MiB.
func largeOf(t testing.TB, on plugins.Target, n int) {
	t.Helper()
	a := foreign(t, on)
	defer a.close()
	a.do("POST", "_system", "/_api/collection", obj{"name": "large", "numberOfShards": 2, "replicationFactor": 1})
	r := rand.NewChaCha8([32]byte{1})
	raw := make([]byte, 4096)
	for i := range n {
		var b strings.Builder
		for k := range 512 {
			r.Read(raw)
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"_key":"%02d-%03d","data":"%x"}`, (k*31+i)%97, i*512+k, raw)
		}
		a.do("POST", "_system", "/_api/document/large?silent=true", "["+b.String()+"]")
	}
}

func tryWrite(on plugins.Target) error {
	m := on.Members[0]
	pw, err := m.Secret("password")
	if err != nil {
		return err
	}
	a := &api{base: m.Address, user: cmp.Or(m.Options["user"], "root"), pw: pw, http: plainHTTP}
	code, out, err := a.try("POST", "_system", "/_api/document/settings?overwriteMode=replace", `{"_key":"try","n":1}`)
	if err == nil && code >= 300 {
		err = fmt.Errorf("HTTP %d %s", code, out)
	}
	plainHTTP.CloseIdleConnections()
	return err
}
