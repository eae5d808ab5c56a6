package main

import (
	"context"
	"fmt"
	"time"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// The switch lives in the first instance, so that its own writes do not hide a revision made by the restore of the second.
func etcdChapter(ctx context.Context, b *bench) error {
	e, err := b.start(ctx, "etcd", "etcd", "etcd@east", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	kind := "large"
	if b.small {
		kind = "small"
	}
	if err := e.Fill(ctx, 1, kind, "etcd@east"); err != nil {
		return err
	}
	watched, err := e.pids("etcd-east-1")
	if err != nil {
		return err
	}
	env := []string{"ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=" + e.value("LAB_ETCD_2_ENDPOINT"), "ETCDCTL_CACERT=" + e.value("LAB_ETCD_2_CACERT"),
		"ETCDCTL_USER=" + e.value("LAB_ETCD_2_USER") + ":" + e.value("LAB_ETCD_2_PASSWORD"), "CTL=" + e.value("LAB_ETCDCTL")}
	status := `$CTL endpoint status -w json | python3 -c 'import json,sys; s=json.load(sys.stdin)[0]["Status"]; print(s["header"]["revision"])'`
	keys, err := b.sh(ctx, env, `$CTL get --prefix --keys-only --limit 0 "" | grep -c .`)
	if err != nil {
		return err
	}
	b.page.say("## etcd 3.4\n\n%s\n%s keys.\n", b.stamp(), keys)
	var last workflows.Result
	all := []contender{e.backup(ctx, "B", &last),
		{name: "`etcdctl snapshot save`", run: func() (string, error) {
			return b.sh(ctx, env, `rm -f $OUT/snap*; $CTL snapshot save $OUT/snap >/dev/null 2>&1; sync $OUT/snap; du -h $OUT/snap | cut -f1`)
		}}}
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.page.say("\n### Backup\n")
	b.report(f, all...)
	b.goals(goal{"the backup beside `etcdctl snapshot save`", 0.9, times(f[all[1].name], f[all[0].name].wall), times(f[all[1].name], slowest(last)),
		"the peer copies one file as it is; here its 51 MB and the sorted keys, for a restore into a running cluster, are hashed, compressed and encrypted. The pin, which streams the snapshot to the worker before, is in the whole command only."})
	var res workflows.Result
	noop := contender{name: "restore, nothing has changed", run: func() (string, error) {
		was, err := b.sh(ctx, env, status)
		if err != nil {
			return "", err
		}
		if err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "etcd@east"); err != nil {
			return "", err
		}
		is, err := b.sh(ctx, env, status)
		return fmt.Sprintf("restore alone %s; revision before %s, after %s", res.Units[0].Took.Round(10*time.Millisecond), was, is), err
	}}
	part := contender{name: "restore, half of the keys gone", prepare: func() error {
		_, err := b.sh(ctx, env, `$CTL del --prefix /cso/tenants/ >/dev/null`)
		return err
	}, run: func() (string, error) {
		err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "etcd@east")
		return fmt.Sprintf("restore alone %s, %d records", res.Units[0].Took.Round(10*time.Millisecond), res.Units[0].Records), err
	}}
	again := contender{name: "second backup", run: func() (string, error) {
		err := e.cso(ctx, &res, "-b", "backup", "-s", "B")
		return fmt.Sprintf("%s read, %s new", size(res.Bytes), size(res.New)), err
	}}
	if err := b.list(ctx, "Again, and back", watched, again, noop, part); err != nil {
		return err
	}
	return e.memory()
}

// list races contenders that have no peer and writes their table.
func (b *bench) list(ctx context.Context, title string, watched []int, all ...contender) error {
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	var lines []string
	for _, c := range all {
		lines = append(lines, fmt.Sprintf("| %s | %.2f | %.2f | %s |", c.name, f[c.name].wall.Seconds(), f[c.name].cpu.Seconds(), f[c.name].extra))
	}
	b.page.say("\n### %s\n", title)
	b.page.table("| what | wall s | CPU s | |", lines...)
	return nil
}
