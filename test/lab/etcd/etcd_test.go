package etcd_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/etcd"
)

// server starts one etcd for a test: Debian's 3.4 for version "".
func server(t *testing.T, version string) (*lab.Lab, engine.Member, *clientv3.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-etcd-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Options{Dir: dir, Components: []string{"etcd"}, ServersOnly: true, Versions: map[string]string{"etcd": version}, Out: t.Output()})
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
	members, err := l.Members("etcd", "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := etcd.Client(members...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, members[0], c
}

func fingerprint(t *testing.T, l *lab.Lab) (sum, text string) {
	t.Helper()
	var b bytes.Buffer
	sums, err := l.Fingerprint(t.Context(), &b, "etcd")
	if err != nil {
		t.Fatal(err)
	}
	return sums["etcd"], b.String()
}

func fill(t *testing.T, l *lab.Lab, seed int64) {
	t.Helper()
	if err := l.Fill(t.Context(), seed, "small", "etcd"); err != nil {
		t.Fatal(err)
	}
}

// TestServer starts one server for all that is tried on Debian's version.
func TestServer(t *testing.T) {
	l, m, c := server(t, "")
	for name, test := range map[string]func(*testing.T, *lab.Lab, engine.Member, *clientv3.Client){
		"judge": testJudge, "wreck": testWreck, "closed": testServerIsClosed,
	} {
		t.Run(name, func(t *testing.T) { test(t, l, m, c) })
	}
}

// testJudge corrupts one object of every kind, one after the other: each time
// the fingerprint must change.
func testJudge(t *testing.T, l *lab.Lab, m engine.Member, c *clientv3.Client) {
	ctx := t.Context()
	fill(t, l, 11)
	first, text := fingerprint(t, l)
	if again, _ := fingerprint(t, l); again != first {
		t.Fatal("two fingerprints of the same content differ")
	}
	leases, err := c.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// A lease without keys, so that revoking and granting it again changes the TTL only.
	var idle clientv3.LeaseID
	for _, l := range leases.Leases {
		if ttl, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys()); err != nil {
			t.Fatal(err)
		} else if len(ttl.Keys) == 0 {
			idle = l.ID
		}
	}
	if idle == 0 {
		t.Fatal("the fill made no lease without keys")
	}
	grant := func(id, ttl int64) error {
		_, err := clientv3.RetryLeaseClient(c).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
		return err
	}
	put := func(k, v string, o ...clientv3.OpOption) error { _, err := c.Put(ctx, k, v, o...); return err }
	large, err := c.Get(ctx, "/awkward/1.4MB")
	if err != nil || len(large.Kvs) != 1 {
		t.Fatalf("the large value: %v", err)
	}
	last := first
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"one bit of a large value", func() error {
			v := large.Kvs[0].Value
			v[len(v)-1] ^= 1
			return put("/awkward/1.4MB", string(v))
		}},
		{"an empty value that gets a zero byte", func() error { return put("/awkward/empty", "\x00") }},
		{"a key is gone", func() error { _, err := c.Delete(ctx, "/awkward/empty"); return err }},
		{"a key appears", func() error { return put("/awkward/empty\x00", "") }},
		{"a key loses its lease", func() error { return put("\x00leased\xff\xfe", "\x00") }},
		{"a key gets a lease", func() error { return put("\x00leased\xff\xfe", "\x00", clientv3.WithLease(1)) }},
		{"a key changes its lease", func() error { return put("\x00leased\xff\xfe", "\x00", clientv3.WithLease(idle)) }},
		{"the maintenance switch", func() error { return put("/lb/maintenance", "true") }},
		{"a lease is gone", func() error { _, err := c.Revoke(ctx, idle); return err }},
		{"a lease appears", func() error { return grant(int64(idle), 7777) }},
		{"a lease's time to live", func() error {
			if _, err := c.Revoke(ctx, idle); err != nil {
				return err
			}
			return grant(int64(idle), 7778)
		}},
		{"a user appears", func() error { _, err := c.UserAdd(ctx, "x", "x"); return err }},
		{"a user is gone", func() error { _, err := c.UserDelete(ctx, "two words"); return err }},
		{"a user gets a role", func() error { _, err := c.UserGrantRole(ctx, "idle", "config"); return err }},
		{"a user loses a role", func() error { _, err := c.UserRevokeRole(ctx, "cspadmin", "config"); return err }},
		{"a role appears", func() error { _, err := c.RoleAdd(ctx, "x"); return err }},
		{"a role is gone", func() error { _, err := c.RoleDelete(ctx, "empty role"); return err }},
		{"a permission's kind", func() error {
			_, err := c.RoleGrantPermission(ctx, "from-registry", "/registry/", "\x00", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		}},
		{"a permission's end", func() error {
			if _, err := c.RoleRevokePermission(ctx, "everything", "\x00", "\x00"); err != nil {
				return err
			}
			_, err := c.RoleGrantPermission(ctx, "everything", "\x00", "\x01", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		}},
		{"authentication off", func() error { _, err := c.AuthDisable(ctx); return err }},
		{"authentication on", func() error { _, err := c.AuthEnable(ctx); return err }},
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
	if err := put("/cso-backup/epoch", "7"); err != nil {
		t.Fatal(err)
	}
	if err := put("/awkward/unchanged", "v"); err != nil {
		t.Fatal(err)
	}
	before, _ := fingerprint(t, l)
	if err := put("/awkward/unchanged", "v"); err != nil { // another revision, the same content
		t.Fatal(err)
	}
	if _, err := c.KeepAliveOnce(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if after, _ := fingerprint(t, l); after != before {
		t.Error("revisions, a lease's remaining time or the product's own keys are summed")
	}
	// The fill brings everything back, passwords included.
	if refused, err := etcd.CheckLogins(ctx, m, 11); err != nil || !cmp.Equal(refused, []string{"two words"}) {
		t.Errorf("refused log-ins: %q, %v; want only the deleted user", refused, err)
	}
	fill(t, l, 11)
	sum, now := fingerprint(t, l)
	if sum != first {
		t.Errorf("equal seeds must give equal content:\n%s", cmp.Diff(strings.Split(text, "\n"), strings.Split(now, "\n")))
	}
	if refused, err := etcd.CheckLogins(ctx, m, 11); err != nil || len(refused) > 0 {
		t.Errorf("refused log-ins: %q, %v", refused, err)
	}
}

// testWreck wants every kind of line changed, deleted and added, and a second run to work.
func testWreck(t *testing.T, l *lab.Lab, _ engine.Member, c *clientv3.Client) {
	fill(t, l, 12)
	_, before := fingerprint(t, l)
	if err := l.Wreck(t.Context(), 3, "etcd"); err != nil {
		t.Fatal(err)
	}
	_, after := fingerprint(t, l)
	changed, gone, added := compare(before, after)
	want := map[string][3]bool{"key": {true, true, true}, "lease": {true, true, true}, "user": {true, true, true}, "role": {true, true, true}}
	got := map[string][3]bool{}
	for kind := range want {
		got[kind] = [3]bool{changed[kind] > 0, gone[kind] > 0, added[kind] > 0}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changed, deleted, added (-want +got):\n%s", diff)
	}
	switchKey, err := c.Get(t.Context(), "/lb/maintenance")
	if err != nil || len(switchKey.Kvs) != 1 || string(switchKey.Kvs[0].Value) != "false" {
		t.Errorf("the maintenance switch must be left alone: %v, %v", switchKey, err)
	}
	for _, seed := range []int64{3, 4} {
		if err := l.Wreck(t.Context(), seed, "etcd"); err != nil {
			t.Errorf("wreck again with seed %d: %v", seed, err)
		}
	}
	fill(t, l, 13)
	if _, other := fingerprint(t, l); other == before {
		t.Error("another seed must give other content")
	}
}

// compare counts, by kind, objects whose value differs, that are gone and that are new.
func compare(before, after string) (changed, gone, added map[string]int) {
	read := func(text string) map[string]string {
		objects := map[string]string{}
		for line := range strings.Lines(text) {
			if f := strings.SplitN(line, "\t", 3); len(f) == 3 {
				objects[f[0]+"\t"+f[1]] = f[2]
			}
		}
		return objects
	}
	changed, gone, added = map[string]int{}, map[string]int{}, map[string]int{}
	b, a := read(before), read(after)
	for k, v := range b {
		kind, _, _ := strings.Cut(k, "\t")
		if now, ok := a[k]; !ok {
			gone[kind]++
		} else if now != v {
			changed[kind]++
		}
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			kind, _, _ := strings.Cut(k, "\t")
			added[kind]++
		}
	}
	return changed, gone, added
}

// TestNewest runs on 3.7, built from source: it must hold and show the same content as 3.4.
func TestNewest(t *testing.T) {
	newest, m, c := server(t, "3.7")
	status, err := c.Status(t.Context(), c.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("runs on etcd %s", status.Version)
	if !strings.HasPrefix(status.Version, "3.7.") {
		t.Errorf("asked for 3.7, got %s", status.Version)
	}
	fill(t, newest, 14)
	old, _, _ := server(t, "")
	fill(t, old, 14)
	_, want := fingerprint(t, old)
	_, got := fingerprint(t, newest)
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("3.4 and 3.7 (-3.4 +3.7):\n%s", diff)
	}
	if refused, err := etcd.CheckLogins(t.Context(), m, 14); err != nil || len(refused) > 0 {
		t.Errorf("refused log-ins: %q, %v", refused, err)
	}
	if err := newest.Wreck(t.Context(), 1, "etcd"); err != nil {
		t.Error(err)
	}
}

// testServerIsClosed: without a password and without TLS nothing is answered,
// and what a user of the lab is told to type works.
func testServerIsClosed(t *testing.T, l *lab.Lab, m engine.Member, _ *clientv3.Client) {
	lines, err := l.Env()
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, line := range lines {
		k, v, _ := strings.Cut(line, "=")
		env[k] = v
	}
	ctl := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), env["LAB_ETCDCTL"], append([]string{"--command-timeout=2s", "--dial-timeout=2s"}, args...)...)
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	endpoint := "--endpoints=" + env["LAB_ETCD_1_ENDPOINT"]
	out, err := ctl(endpoint, "--cacert="+env["LAB_ETCD_1_CACERT"], "--user=root:"+env["LAB_ETCD_1_PASSWORD"], "user", "get", "root")
	if err != nil || !strings.Contains(out, "root") {
		t.Errorf("with everything: %v\n%s", err, out)
	}
	for name, args := range map[string][]string{
		"without a user":        {endpoint, "--cacert=" + env["LAB_ETCD_1_CACERT"]},
		"with a wrong password": {endpoint, "--cacert=" + env["LAB_ETCD_1_CACERT"], "--user=root:wrong"},
		"without the CA":        {endpoint, "--user=root:" + env["LAB_ETCD_1_PASSWORD"]},
		"without TLS":           {strings.Replace(endpoint, "https", "http", 1), "--user=root:" + env["LAB_ETCD_1_PASSWORD"]},
	} {
		if out, err := ctl(append(args, "get", "x")...); err == nil {
			t.Errorf("%s: answered %q", name, out)
		}
	}
	for _, private := range []string{"root.password", "server.key", "pki/ca.key"} {
		if info, err := os.Stat(filepath.Join(m.Dir, private)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", private, info, err)
		}
	}
}
