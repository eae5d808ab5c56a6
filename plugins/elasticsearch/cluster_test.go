package elasticsearch_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// TestCluster runs on three real nodes: by default what only a cluster can show, by version the whole suite.
func TestCluster(t *testing.T) {
	for _, v := range versions() {
		if !long() && v != versions()[0] {
			continue
		}
		t.Run(v, func(t *testing.T) {
			s := begin(t, v, 3)
			if long() {
				t.Run("suite", s.suite)
				t.Run("restore table", s.table)
			} else {
				t.Run("unknown to the backup, wholly", s.fromNothing)
			}
			t.Run("reindex", s.reindexAll)
			t.Run("documents by their own node", s.byTheirNode)
			t.Run("one member down", s.memberDown)
		})
		if long() {
			t.Run(v+", each node its own directory", func(t *testing.T) {
				s := begin(t, v+"+localrepo", 3)
				s.exportTrip(t, s.on)
			})
		}
	}
}

// copies makes an index whose every shard has a replica on another node, and waits until they are all there.
func (a *api) copies(name string) {
	a.t.Helper()
	a.do("PUT", "/"+name, `{"settings":{"index.number_of_shards":3,"index.number_of_replicas":1,"index.unassigned.node_left.delayed_timeout":"0s"}}`)
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"n":%d}`+"\n", i, i)
	}
	a.do("POST", "/"+name+"/_bulk?filter_path=errors&refresh=true", b.String())
	a.do("GET", "/_cluster/health/"+name+"?wait_for_status=green&timeout=30s", nil)
}

// memberDown: with a live copy of every shard a backup succeeds and health is AMBER; without, it refuses and names what
// is missing, and so does a restore of what has no replica.
func (s *stand) memberDown(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.copies("kept")
	ses := open(t, s.on)
	full, _ := backup(t, ses)
	want := a.fingerprint()

	gone := s.on.Members[2]
	must(t, s.lab.Kill(t.Context(), gone.Name))
	a.nodes(2)
	h, err := ses.Health(t.Context())
	if must(t, err); h.Grade != plugins.Amber || !strings.Contains(strings.Join(h.Reasons, "; "), "2 of 3 members") {
		t.Errorf("health with a member down: %s %q", h.Grade, h.Reasons)
	}
	short, _ := backup(t, ses)
	a.do("PUT", "/kept/_doc/late?refresh=true", `{"n":1}`)
	restore(t, ses, short) // has replicas: it goes on
	same(t, want, a.fingerprint())
	must(t, s.lab.StartMember(t.Context(), gone.Name))
	a.nodes(3)
	a.do("GET", "/_cluster/health?wait_for_status=green&timeout=60s", nil)
	if d, err := ses.Compare(t.Context(), run(t, plugins.OpInspect), full); err != nil || len(d) > 0 {
		t.Errorf("after the member's return: %+v, %v", d, err)
	}

	// Now an index that lives on that member alone.
	a.do("PUT", "/lone", map[string]any{"settings": map[string]any{"index.number_of_shards": 1, "index.number_of_replicas": 0,
		"index.routing.allocation.require._name": s.nodeName(t, a, gone)}})
	a.do("PUT", "/lone/_doc/1?refresh=true", `{"n":1}`)
	lone, _ := backup(t, ses)
	want = a.fingerprint()
	a.do("PUT", "/lone/_doc/2?refresh=true", `{"n":2}`)
	must(t, s.lab.Kill(t.Context(), gone.Name))
	a.nodes(2)
	if h, err := ses.Health(t.Context()); err != nil || h.Grade != plugins.Red || !strings.Contains(strings.Join(h.Reasons, "; "), "lone") {
		t.Errorf("health with a shard missing: %+v, %v", h, err)
	}
	_, err = ses.Backup(t.Context(), run(t, plugins.OpBackup), plugintest.NewMemory())
	if !errors.Is(err, plugins.ErrUnavailable) || !strings.Contains(err.Error(), "lone") {
		t.Errorf("backup with a shard missing: %v", err)
	}
	r := run(t, plugins.OpSafety)
	safety := plugintest.NewMemory()
	rep, err := ses.Backup(t.Context(), r, safety)
	if err != nil || !strings.Contains(fmt.Sprint(rep.Inexact), "index lone") {
		t.Errorf("safety backup with a shard missing: %+v, %v", rep, err)
	}
	r = run(t, plugins.OpRestore)
	if _, err := ses.Restore(t.Context(), r, lone); !errors.Is(err, plugins.ErrUnavailable) || !strings.Contains(err.Error(), "lone") {
		t.Errorf("restore with a shard missing: %v", err)
	}
	p, err := ses.(plugins.Planner).Plan(t.Context(), r, lone)
	if must(t, err); !strings.Contains(strings.Join(p.Refusals, "; "), "lone") {
		t.Errorf("plan with a shard missing: %+v", p)
	}
	must(t, s.lab.StartMember(t.Context(), gone.Name))
	a.nodes(3)
	a.do("GET", "/_cluster/health?wait_for_status=green&timeout=60s", nil)
	restore(t, ses, lone)
	same(t, want, a.fingerprint())
	a.clear()
}

// nodes waits until the cluster has so many nodes.
func (a *api) nodes(n int) {
	a.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if code, b := a.try("GET", "/_cluster/health?filter_path=number_of_nodes", nil); code == 200 && strings.Contains(string(b), fmt.Sprintf(":%d}", n)) {
			return
		} else if time.Now().After(deadline) {
			a.t.Fatalf("%d nodes did not come about: %d %s", n, code, b)
		}
	}
}

// nodeName is what the cluster calls a member.
func (s *stand) nodeName(t *testing.T, a *api, m plugins.Member) string {
	t.Helper()
	var ns struct {
		Nodes map[string]struct {
			Name string `json:"name"`
			HTTP struct {
				Address string `json:"publish_address"`
			} `json:"http"`
		} `json:"nodes"`
	}
	a.get("/_nodes/http?filter_path=nodes.*.name,nodes.*.http.publish_address", &ns)
	for _, n := range ns.Nodes {
		if strings.HasSuffix(m.Address, n.HTTP.Address) {
			return n.Name
		}
	}
	t.Fatalf("no node at %s: %+v", m.Address, ns)
	return ""
}
