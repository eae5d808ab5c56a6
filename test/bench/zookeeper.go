package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

func zookeeperChapter(ctx context.Context, b *bench) error {
	e, err := b.start(ctx, "zookeeper", "zookeeper", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	kind := "large"
	if b.small {
		kind = "small"
	}
	if err := e.Fill(ctx, 1, kind, "zookeeper"); err != nil {
		return err
	}
	watched, err := e.pids("zookeeper-1")
	if err != nil {
		return err
	}
	var last workflows.Result
	all := []contender{e.backup(ctx, "B", &last),
		{name: "node by node (data, access list, children), one client", run: func() (string, error) {
			n, err := nodeByNode(e.value("LAB_ZOOKEEPER_1_ADDR"), e.value("LAB_ZOOKEEPER_1_AUTH"))
			return fmt.Sprintf("%d znodes", n), err
		}}}
	b.page.say("## ZooKeeper 3.8\n\n%s\n\n### Backup\n", b.stamp())
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.report(f, all...)
	b.goals(goal{"the backup beside a walk node by node", 10, times(f[all[1].name], f[all[0].name].wall), times(f[all[1].name], slowest(last)), "the snapshot file is not used."})
	var res workflows.Result
	err = b.list(ctx, "Again, and back", watched,
		contender{name: "second backup", run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "backup", "-s", "B")
			return fmt.Sprintf("%s read, %s new", size(res.Bytes), size(res.New)), err
		}},
		contender{name: "restore, nothing has changed", run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "zookeeper")
			return fmt.Sprintf("restore alone %s", res.Units[0].Took.Round(10*time.Millisecond)), err
		}})
	if err != nil {
		return err
	}
	return e.memory()
}

// nodeByNode is what a plain client does: it asks for one znode after the other.
func nodeByNode(address, auth string) (int, error) {
	c, _, err := zk.Connect([]string{address}, 30*time.Second, zk.WithLogInfo(false))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	scheme, secret, _ := strings.Cut(auth, " ")
	if err := c.AddAuth(scheme, []byte(secret)); err != nil {
		return 0, err
	}
	n := 0
	var visit func(string) error
	visit = func(path string) error {
		n++
		if _, _, err := c.Get(path); err != nil {
			return err
		}
		if _, _, err := c.GetACL(path); err != nil {
			return err
		}
		children, _, err := c.Children(path)
		for _, child := range children {
			if err := visit(strings.TrimSuffix(path, "/") + "/" + child); err != nil && err != zk.ErrNoNode {
				return err
			}
		}
		return err
	}
	return n, visit("/")
}
