package zookeeper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper"
)

func TestConformance(t *testing.T) {
	l := servers(t, 1, "zookeeper", "zookeeper@east")
	central, east := target(t, l, "central"), target(t, l, "east")
	ctx := context.Background()
	plugintest.Run(t, plugintest.Harness{
		Plugin: zookeeper.New(), Target: central, Second: &east,
		Versions:    "ZooKeeper 3.8.0, standalone, super digest",
		Fill:        func(t testing.TB, on plugins.Target, seed int64) { must(t, l.Fill(ctx, seed, "small", unit(on))) },
		Clear:       func(t testing.TB, on plugins.Target) { clearAll(t, on) },
		Wreck:       func(t testing.TB, on plugins.Target, seed int64) { must(t, l.Wreck(ctx, seed, unit(on))) },
		Fingerprint: func(t testing.TB, on plugins.Target) string { return fingerprint(t, l, on) },
		Writer:      writer,
		Invariant:   invariant,
		Large:       large,
		MemoryLimit: 80 << 20,
		Kills:       3,
	})
}

// clearAll removes everything a client may remove.
func clearAll(t testing.TB, on plugins.Target) {
	t.Helper()
	c := client(t, on, 0)
	defer c.Close()
	var remove func(p string, self bool)
	remove = func(p string, self bool) {
		children, _, err := c.Children(p)
		if errors.Is(err, zk.ErrNoNode) {
			return
		}
		must(t, err)
		for _, n := range children {
			if p == "/" && (n == "zookeeper" || n == "cso-backup") {
				continue
			}
			remove(join(p, n), true)
		}
		if self {
			if err := c.Delete(p, -1); !errors.Is(err, zk.ErrNoNode) {
				must(t, err)
			}
		}
	}
	remove("/", false)
	remove("/zookeeper/quota", false)
	_, err := c.Set("/", nil, -1)
	must(t, err)
	_, err = c.SetACL("/", zk.WorldACL(zk.PermAll), -1)
	must(t, err)
}

func join(p, n string) string {
	if p == "/" {
		return p + n
	}
	return p + "/" + n
}

// writer writes the same number into 200 znodes, in one multi each time, and makes and removes others.
func writer(t testing.TB, on plugins.Target) (stop func()) {
	t.Helper()
	c := client(t, on, 0)
	const n = 200
	_, err := c.Create("/ledger", nil, 0, zk.WorldACL(zk.PermAll))
	if !errors.Is(err, zk.ErrNodeExists) {
		must(t, err)
	}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			var ops []any
			for k := range n {
				p := fmt.Sprintf("/ledger/%03d", k)
				data := fmt.Appendf(nil, "%d", i)
				if ok, _, err := c.Exists(p); err == nil && ok {
					ops = append(ops, &zk.SetDataRequest{Path: p, Data: data, Version: -1})
				} else if err == nil {
					ops = append(ops, &zk.CreateRequest{Path: p, Data: data, Acl: zk.WorldACL(zk.PermAll)})
				}
			}
			if _, err := c.Multi(ops...); err != nil { // a restore took its znodes away
				if _, err := c.Create("/ledger", nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
					return
				}
			}
		}
	}()
	return func() { close(end); <-done; c.Close() }
}

func invariant(t testing.TB, on plugins.Target) {
	t.Helper()
	c := client(t, on, 0)
	defer c.Close()
	names, _, err := c.Children("/ledger")
	must(t, err)
	var first []byte
	for i, n := range names {
		b, _, err := c.Get("/ledger/" + n)
		must(t, err)
		if i == 0 {
			first = b
		} else if !bytes.Equal(b, first) {
			t.Fatalf("torn: %s holds %s, another %s", n, b, first)
		}
	}
}

// large adds 96 MiB of data that does not compress, in 24,576 znodes. The lab's servers have 256 MB of heap
// and keep the last 500 transactions thrice beside the tree, hence the small ones.
func large(t testing.TB, on plugins.Target) {
	t.Helper()
	c := client(t, on, 0)
	defer c.Close()
	_, err := c.Create("/large", nil, 0, zk.WorldACL(zk.PermAll))
	must(t, err)
	var g errgroup.Group
	for i := range 24 {
		g.Go(func() error {
			r := rand.NewChaCha8([32]byte{byte(i)})
			for k := range 256 {
				var ops []any
				for n := range 4 {
					data := make([]byte, 4096)
					r.Read(data)
					ops = append(ops, &zk.CreateRequest{Path: fmt.Sprintf("/large/%02d-%03d-%d", i, k, n), Data: data, Acl: zk.WorldACL(zk.PermAll)})
				}
				if _, err := c.Multi(ops...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
}
