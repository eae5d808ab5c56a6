package zookeeper_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/zookeeper"
)

// server starts one ZooKeeper 3.8 for a test.
func server(t *testing.T) (*lab.Lab, engine.Member, *zk.Conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-zookeeper-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Options{Dir: dir, Components: []string{"zookeeper"}, ServersOnly: true, Out: t.Output()})
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
	members, err := l.Members("zookeeper", "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := zookeeper.Client(t.Context(), members[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return l, members[0], c
}

func fingerprint(t *testing.T, l *lab.Lab) (sum, text string) {
	t.Helper()
	var b bytes.Buffer
	sums, err := l.Fingerprint(t.Context(), &b, "zookeeper")
	if err != nil {
		t.Fatal(err)
	}
	return sums["zookeeper"], b.String()
}

func fill(t *testing.T, l *lab.Lab, seed int64) {
	t.Helper()
	if err := l.Fill(t.Context(), seed, "small", "zookeeper"); err != nil {
		t.Fatal(err)
	}
}

// TestServer starts one server for all that is tried on it.
func TestServer(t *testing.T) {
	l, m, c := server(t)
	for name, test := range map[string]func(*testing.T, *lab.Lab, engine.Member, *zk.Conn){
		"judge": testJudge, "wreck": testWreck, "closed": testServerIsClosed,
	} {
		t.Run(name, func(t *testing.T) { test(t, l, m, c) })
	}
}

// testJudge corrupts one object of every kind, one after the other: each time
// the fingerprint must change.
func testJudge(t *testing.T, l *lab.Lab, _ engine.Member, c *zk.Conn) {
	fill(t, l, 21)
	first, text := fingerprint(t, l)
	open := zk.WorldACL(zk.PermAll)
	set := func(path string, data []byte) error { _, err := c.Set(path, data, -1); return err }
	create := func(path string, data []byte) error {
		_, err := c.Create(path, data, zk.FlagPersistent, open)
		return err
	}
	remove := func(path string) error { return c.Delete(path, -1) }
	acl := func(path string, acl ...zk.ACL) error { _, err := c.SetACL(path, acl, -1); return err }
	last := first
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"one bit of the largest node", func() error {
			data, _, err := c.Get("/awkward/largest")
			if err != nil || len(data) != zookeeper.Largest {
				t.Fatalf("the largest node has %d bytes: %v", len(data), err)
			}
			data[0] ^= 1
			return set("/awkward/largest", data)
		}},
		{"null becomes empty", func() error { return set("/awkward/null", []byte{}) }},
		{"empty becomes null", func() error { return set("/awkward/empty", nil) }},
		{"an inner node's data", func() error { return set("/awkward/inner", []byte("x")) }},
		{"the root's data", func() error { return set("/", nil) }},
		{"a node is gone", func() error { return remove("/awkward/one-zero") }},
		{"a node appears", func() error { return create("/awkward/one-zero\u00a0", nil) }},
		{"an ACL's permissions", func() error {
			return acl("/acl/read-only", zk.ACL{Perms: zk.PermRead | zk.PermAdmin, Scheme: "world", ID: "anyone"})
		}},
		{"an ACL's scheme", func() error { return acl("/acl/private", open...) }},
		{"an ACL's password", func() error { return acl("/acl/user-00", zk.DigestACL(1, "u0", "another")...) }},
		{"an ACL's order", func() error {
			was, _, err := c.GetACL("/acl/many")
			if err != nil || len(was) != 3 {
				t.Fatalf("ACL of three: %v, %v", was, err)
			}
			return acl("/acl/many", was[1], was[0], was[2])
		}},
		{"the root's ACL", func() error {
			return acl("/", zk.ACL{Perms: zk.PermAll &^ zk.PermDelete, Scheme: "world", ID: "anyone"})
		}},
		{"a quota's limit", func() error { return set("/zookeeper/quota/contrail/id/zookeeper_limits", []byte("count=1,bytes=-1")) }},
		{"a sequence's next number", func() error {
			if err := create("/cso/queues/nameless/pad", nil); err != nil {
				return err
			}
			return remove("/cso/queues/nameless/pad")
		}},
		{"a container becomes a plain node", func() error {
			if err := remove("/cso/containers/never-used"); err != nil {
				return err
			}
			return create("/cso/containers/never-used", nil)
		}},
		{"a TTL node becomes a plain node", func() error {
			if err := remove("/cso/ttl/month-0"); err != nil {
				return err
			}
			return create("/cso/ttl/month-0", []byte("ttl 0"))
		}},
		{"a plain node gets a time to live", func() error {
			if err := remove("/cso/ttl/month-0"); err != nil {
				return err
			}
			_, err := c.CreateTTL("/cso/ttl/month-0", []byte("ttl 0"), zk.FlagTTL, open, 720*time.Hour)
			return err
		}},
		{"a TTL node's time to live", func() error {
			if err := remove("/cso/ttl/month-0"); err != nil {
				return err
			}
			_, err := c.CreateTTL("/cso/ttl/month-0", []byte("ttl 0"), zk.FlagTTL, open, 720*time.Hour+time.Millisecond)
			return err
		}},
	} {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		sum, _ := fingerprint(t, l)
		if sum == last {
			t.Errorf("%s: not seen", s.name)
		}
		last = sum
	}
	// What changes lawfully must not be seen.
	before, listed := fingerprint(t, l)
	if strings.Count(listed, "ephemeral\t") != 2 {
		t.Error("the fill's two ephemeral nodes must live on after it, and be listed")
	}
	for _, s := range []struct {
		path  string
		flags int32
	}{{"/cso-backup", zk.FlagPersistent}, {"/cso-backup/epoch", zk.FlagPersistent}, {"/cso/ephemeral", zk.FlagEphemeral}} {
		if _, err := c.Create(s.path, nil, s.flags, open); err != nil {
			t.Fatal(err)
		}
	}
	if err := set("/awkward/two words", []byte("two words")); err != nil { // another version, the same content
		t.Fatal(err)
	}
	if after, _ := fingerprint(t, l); after != before {
		t.Error("ephemeral nodes, versions or the product's own nodes are summed")
	}
	fill(t, l, 21)
	sum, now := fingerprint(t, l)
	if sum != first {
		t.Errorf("equal seeds must give equal content:\n%s", cmp.Diff(strings.Split(text, "\n"), strings.Split(now, "\n")))
	}
}

// testWreck wants nodes and ACLs changed, nodes of every kind gone and new, and a second run to work.
func testWreck(t *testing.T, l *lab.Lab, _ engine.Member, _ *zk.Conn) {
	fill(t, l, 22)
	_, before := fingerprint(t, l)
	if err := l.Wreck(t.Context(), 5, "zookeeper"); err != nil {
		t.Fatal(err)
	}
	_, after := fingerprint(t, l)
	b, a := objects(before), objects(after)
	got := map[string][3]bool{}
	for k, v := range b {
		kind, _, _ := strings.Cut(k, "\t")
		now, ok := a[k]
		g := got[kind]
		g[0], g[1] = g[0] || ok && now != v, g[1] || !ok
		got[kind] = g
		// A counter that grew could not be brought back.
		if kind == "sequence" && ok && len(now) >= len(v) && now > v {
			t.Errorf("%s grew from %s to %s", k, v, now)
		}
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			kind, _, _ := strings.Cut(k, "\t")
			g := got[kind]
			g[2] = true
			got[kind] = g
		}
	}
	want := map[string][3]bool{"node": {true, true, true}, "acl": {true, true, true}, "kind": {false, true, true}, "sequence": {true, false, false}, "ephemeral": {}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changed, deleted, added (-want +got):\n%s", diff)
	}
	for _, seed := range []int64{5, 6} {
		if err := l.Wreck(t.Context(), seed, "zookeeper"); err != nil {
			t.Errorf("wreck again with seed %d: %v", seed, err)
		}
	}
}

func objects(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.SplitN(line, "\t", 3); len(f) == 3 {
			m[f[0]+"\t"+f[1]] = f[2]
		}
	}
	return m
}

// testServerIsClosed: only the super user reads what belongs to others.
func testServerIsClosed(t *testing.T, l *lab.Lab, m engine.Member, super *zk.Conn) {
	fill(t, l, 23)
	if _, _, err := super.Get("/acl/private"); err != nil {
		t.Errorf("the super user: %v", err)
	}
	address, options := zookeeper.New().Target(m)
	c, _, err := zk.Connect([]string{address}, 5*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AddAuth("digest", []byte("super:wrong")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Get("/acl/private"); err != zk.ErrNoAuth {
		t.Errorf("a wrong password: %v", err)
	}
	b, err := os.ReadFile(options["auth_file"])
	if err != nil || !strings.HasPrefix(string(b), "digest super:") {
		t.Errorf("the authentication file: %q, %v", b, err)
	}
	argv, _, err := zookeeper.New().Command(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.TrimSpace(strings.TrimPrefix(string(b), "digest super:")); strings.Contains(strings.Join(argv, " "), secret) {
		t.Error("the password stands in the argument vector")
	}
}
