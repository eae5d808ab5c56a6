package zookeeper_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper"
)

// BenchmarkWalk compares a backup's reading of a large tree with the walk of
// an ordinary client: data, access list and children of one znode after another.
func BenchmarkWalk(b *testing.B) {
	l := servers(b, 1, "zookeeper")
	on := target(b, l, "central")
	must(b, l.Fill(context.Background(), 1, "large", unit(on)))
	blind := on
	blind.Members = append([]plugins.Member(nil), on.Members...)
	blind.Members[0].Options = map[string]string{"auth_file": on.Members[0].Options["auth_file"]}
	for name, t := range map[string]plugins.Target{"plugin with data_dir": on, "plugin without data_dir": blind} {
		b.Run(name, func(b *testing.B) {
			n := int64(0)
			for b.Loop() {
				s, err := zookeeper.New().Open(context.Background(), t)
				must(b, err)
				w := plugins.NewDigester()
				_, err = s.Backup(context.Background(), plugins.Run{Operation: plugins.OpBackup, Scratch: b.TempDir(), Log: slog.New(slog.DiscardHandler)}, w)
				must(b, err)
				n += w.Digests()["tree"].Records
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "znodes/s")
		})
	}
	for name, clients := range map[string]int{"node by node": 1, "node by node, 64 at once": 64} {
		b.Run(name, func(b *testing.B) {
			n := int64(0)
			for b.Loop() {
				n += nodeByNode(b, on, clients)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "znodes/s")
		})
	}
}

func nodeByNode(b *testing.B, on plugins.Target, workers int) int64 {
	c := client(b, on, 0)
	defer c.Close()
	var n atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan struct{}, workers-1)
	var visit func(p string)
	visit = func(p string) {
		_, _, err := c.Get(p)
		if err == nil {
			_, _, err = c.GetACL(p)
		}
		var names []string
		if err == nil {
			names, _, err = c.Children(p)
		}
		if err != nil && err != zk.ErrNoNode {
			b.Error(p, err)
			return
		}
		n.Add(1)
		for _, x := range names {
			select {
			case slots <- struct{}{}:
				wg.Go(func() { visit(join(p, x)); <-slots })
			default:
				visit(join(p, x))
			}
		}
	}
	visit("/")
	wg.Wait()
	return n.Load()
}
