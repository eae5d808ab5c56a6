package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// fixedChapter measures what is paid whatever the data's size.
func fixedChapter(ctx context.Context, b *bench) error {
	e, err := b.start(ctx, "fixed", "mariadb", "etcd", "zookeeper", "secrets", "certificates")
	if err != nil {
		return err
	}
	defer e.stop()
	if err := e.Fill(ctx, 1, "small", "certificates"); err != nil {
		return err
	}
	watched, err := e.pids("mariadb-1", "etcd-1", "zookeeper-1")
	if err != nil {
		return err
	}
	b.page.say("## Fixed cost\n\n%s\n", b.stamp())
	var res workflows.Result
	tiny := contender{name: "backup of a tiny estate (5 components), from start of the command to seal", run: func() (string, error) {
		err := e.cso(ctx, &res, "-b", "backup", "-s", "TINY")
		return fmt.Sprintf("%s read", size(res.Bytes)), err
	}}
	held := contender{name: "the same with `-m yes`", run: func() (string, error) {
		err := e.cso(ctx, &res, "-b", "backup", "-s", "TINY", "-m", "yes")
		return fmt.Sprintf("%s in maintenance", res.Maintenance.Round(10*time.Millisecond)), err
	}}
	back := contender{name: "restore of it, nothing has changed", run: func() (string, error) {
		return "", e.cso(ctx, &res, "-b", "restore", "-s", "TINY")
	}}
	if err := b.list(ctx, "A tiny estate", watched, tiny, held, back); err != nil {
		return err
	}
	if err := e.multiply(res.Backup, 1000); err != nil {
		return err
	}
	return b.list(ctx, "Many backups", nil, contender{name: "`listbackups` of 1,000 backups", run: func() (string, error) {
		return "", e.cso(ctx, nil, "-b", "listbackups")
	}})
}

// multiply writes the manifest of a backup n times under other times: all that a list reads.
func (e *estate) multiply(backup string, n int) error {
	root := e.value("LAB_BACKUPS")
	k, err := keys.LoadReader(e.path("state", "keys"))
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(root, backup, "manifest.json"))
	if err != nil {
		return err
	}
	m, err := manifest.Decode(raw)
	if err != nil {
		return err
	}
	for i := range n {
		m.Backup.Timestamp = manifest.Timestamp(time.Date(2020, 1, 1, i, 0, 0, 0, time.UTC))
		text, err := manifest.Encode(m, *k.ManifestKey)
		dir := filepath.Join(root, m.Backup.String())
		if err = errors.Join(err, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "manifest.json"), text, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func (e *estate) path(elem ...string) string {
	return filepath.Join(append([]string{e.Dir()}, elem...)...)
}
