package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	labetcd "github.com/csobackup/cso_backupnrestore/test/lab/etcd"
)

func TestMain(m *testing.M) { plugintest.Main(m, New()) }

// bench is a lab of etcd servers, with TLS and authentication.
type bench struct {
	lab *lab.Lab
	eng engine.Engine
}

func start(t *testing.T, o lab.Options) *bench {
	t.Helper()
	o.ServersOnly = true
	if o.Components == nil {
		o.Components = []string{"etcd"}
	}
	// The tests make thousands of small writes, each of which a server syncs: memory saves minutes.
	if dir, err := os.MkdirTemp("/dev/shm", "cso-etcd-"); err == nil {
		o.Dir = dir
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	l, err := lab.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	e, err := l.Engine("etcd")
	if err != nil {
		t.Fatal(err)
	}
	return &bench{l, e}
}

func (b *bench) members(t testing.TB, instance string) []engine.Member {
	t.Helper()
	ms, err := b.lab.Members("etcd", instance)
	if err != nil || len(ms) == 0 {
		t.Fatalf("members of %q: %d, %v", instance, len(ms), err)
	}
	return ms
}

func (b *bench) target(t testing.TB, instance string) plugins.Target {
	t.Helper()
	out := plugins.Target{Component: "etcd", Instance: instance}
	for _, m := range b.members(t, instance) {
		address, options, err := b.lab.Target(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		out.Members = append(out.Members, plugins.Member{Name: m.Name, VM: "installer-vm", Address: address, Options: options})
	}
	return out
}

func (b *bench) client(t testing.TB, on plugins.Target) *clientv3.Client {
	t.Helper()
	c, err := labetcd.Client(b.members(t, on.Instance)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *bench) fill(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	if err := b.eng.Fill(context.Background(), b.members(t, on.Instance), seed, "small"); err != nil {
		t.Fatal(err)
	}
	b.compact(t, on)
}

// compact drops the history, as servers in use do by themselves: without it
// every case would carry the writes of all cases before it.
func (b *bench) compact(t testing.TB, on plugins.Target) {
	t.Helper()
	ctx := context.Background()
	c := b.client(t, on)
	defer c.Close()
	r, err := c.Get(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		t.Fatal(err)
	}
	for _, ep := range c.Endpoints() {
		if _, err := c.Defragment(ctx, ep); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) wreck(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	if err := b.eng.Wreck(context.Background(), b.members(t, on.Instance), seed); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) fingerprint(t testing.TB, on plugins.Target) string {
	t.Helper()
	var out strings.Builder
	if err := b.eng.Fingerprint(context.Background(), b.members(t, on.Instance), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (b *bench) clear(t testing.TB, on plugins.Target) {
	t.Helper()
	ctx := context.Background()
	c := b.client(t, on)
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ls, err := c.Leases(ctx)
	must(err)
	for _, l := range ls.Leases {
		if _, own := epochOf(int64(l.ID), leaseTime); !own {
			_, err = c.Revoke(ctx, l.ID)
			must(err)
		}
	}
	_, err = c.Delete(ctx, "\x00", clientv3.WithRange(ownPrefix))
	must(err)
	_, err = c.Delete(ctx, clientv3.GetPrefixRangeEnd(ownPrefix), clientv3.WithFromKey())
	must(err)
	// The switch is not the user's data; Fill leaves it off, too.
	_, err = c.Put(ctx, defaultSwitchKey, "false")
	must(err)
	us, err := c.UserList(ctx)
	must(err)
	for _, u := range us.Users {
		if u != "root" {
			_, err = c.UserDelete(ctx, u)
			must(err)
		}
	}
	rs, err := c.RoleList(ctx)
	must(err)
	for _, r := range rs.Roles {
		if r != "root" {
			_, err = c.RoleDelete(ctx, r)
			must(err)
		}
	}
}

// writer counts up in two keys, in one transaction.
func (b *bench) writer(t testing.TB, on plugins.Target) func() {
	c := b.client(t, on)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; ctx.Err() == nil; n++ {
			v := fmt.Sprint(n)
			ops := []clientv3.Op{clientv3.OpPut("/ledger/a", v), clientv3.OpPut("/zledger/b", v)}
			if n%5 == 0 {
				ops = append(ops, clientv3.OpDelete("/awkward/empty"))
			}
			_, _ = c.Txn(ctx).Then(ops...).Commit()
		}
	}()
	return func() {
		cancel()
		<-done
		_ = c.Close()
	}
}

func (b *bench) invariant(t testing.TB, on plugins.Target) {
	c := b.client(t, on)
	defer c.Close()
	r, err := c.Txn(context.Background()).Then(clientv3.OpGet("/ledger/a"), clientv3.OpGet("/zledger/b")).Commit()
	if err != nil {
		t.Fatal(err)
	}
	if a, z := fmt.Sprint(r.Responses[0].GetResponseRange().Kvs), fmt.Sprint(r.Responses[1].GetResponseRange().Kvs); len(r.Responses[0].GetResponseRange().Kvs) != 1 ||
		string(r.Responses[0].GetResponseRange().Kvs[0].Value) != string(r.Responses[1].GetResponseRange().Kvs[0].Value) {
		t.Errorf("torn: %s and %s", a, z)
	}
}

// large writes 80 MB in 16,000 keys.
func (b *bench) large(t testing.TB, on plugins.Target) {
	c := b.client(t, on)
	defer c.Close()
	v := strings.Repeat("0123456789abcdef", 312)
	for i := 0; i < 16_000; {
		var ops []clientv3.Op
		for range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/large/%08d", i*7919%100_000_007), v))
			i++
		}
		if _, err := c.Txn(context.Background()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) position(t testing.TB, on plugins.Target) string {
	c := b.client(t, on)
	defer c.Close()
	r, err := c.Get(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.Header.Revision)
}

func (b *bench) harness(t *testing.T, versions string) plugintest.Harness {
	return plugintest.Harness{
		Plugin: New(), Target: b.target(t, "central"), Versions: versions,
		Fill: b.fill, Clear: b.clear, Wreck: b.wreck, Fingerprint: b.fingerprint, Position: b.position,
		Writer: b.writer, Invariant: b.invariant, Kills: 3,
	}
}

func TestConformance(t *testing.T) {
	b := start(t, lab.Options{Components: []string{"etcd", "etcd@east"}})
	h := b.harness(t, "etcd 3.4 (Debian), one member, TLS, authentication")
	east := b.target(t, "east")
	h.Second = &east
	h.Large, h.MemoryLimit = b.large, 128<<20 // of which 64 are the test store's, for a piece of a file
	plugintest.Run(t, h)
}

func TestConformanceCluster(t *testing.T) {
	b := start(t, lab.Options{Members: 3})
	h := b.harness(t, "etcd 3.4 (Debian), three members, TLS, authentication")
	h.Kills = 1
	plugintest.Run(t, h)
}

func TestConformanceNewest(t *testing.T) {
	b := start(t, lab.Options{Versions: map[string]string{"etcd": "3.7"}})
	h := b.harness(t, "etcd 3.7.3, one member, TLS, authentication")
	h.Kills = 1
	plugintest.Run(t, h)
}
