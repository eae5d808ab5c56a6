package arangodb

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A hot backup is a copy that the servers keep among their own files, of all of them at one moment:
// https://docs.arango.ai/arangodb/stable/develop/http-api/hot-backups/. It is made and put back within seconds, but cannot be
// read, and fits only the same version with the same number of DB servers. So it is no part of a backup, but a net: below
// a restore, from before its first write until accounts are restored too; and, if asked for, beside the newest backup. Its
// label says whose it is, so that whoever comes after a death finds it.
const (
	hotNet  = "cso-backup-net-" // and the epoch: below a restore
	hotPin  = "cso-backup-pin-" // and the epoch: beside a backup
	hotLock = 30                // seconds to wait for the servers' global lock on writing
)

// Values of the option hot_backup.
const (
	hotRestore = "restore" // the default
	hotAlways  = "always"
	hotNever   = "no"
)

type hotBackup struct {
	id    string // TIME_LABEL
	epoch uint64
}

func (s *session) hotOption(run plugins.Run) (string, error) {
	o := cmp.Or(s.options(run, "hot_backup"), hotRestore)
	if !slices.Contains([]string{hotRestore, hotAlways, hotNever}, o) {
		return "", fmt.Errorf("%s: hot_backup %q: use restore, always or no: %w", s.target, o, plugins.ErrConfig)
	}
	return o, nil
}

// hotBackups lists the product's own of one kind, oldest first. False: these servers make none.
func (s *session) hotBackups(ctx context.Context, kind string) ([]hotBackup, bool, error) {
	a, err := s.c.do(ctx, call{method: "POST", db: systemDB, path: "/_admin/backup/list", body: map[string]any{}})
	if statused(err, 404, 405, 501) { // an edition or a version without
		return nil, false, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("list hot backups: %w", err)
	}
	var l struct {
		Result struct {
			List map[string]struct{ ID string }
		}
	}
	if err := a.decode(&l); err != nil {
		return nil, true, fmt.Errorf("list hot backups: %w", err)
	}
	var out []hotBackup
	for _, id := range sortedKeys(l.Result.List) { // they begin with the time
		_, label, _ := strings.Cut(id, "_")
		if n, ok := strings.CutPrefix(label, kind); ok {
			if epoch, err := strconv.ParseUint(n, 10, 64); err == nil {
				out = append(out, hotBackup{id, epoch})
			}
		}
	}
	return out, true, nil
}

func (s *session) makeHot(ctx context.Context, kind string, run plugins.Run) (string, error) {
	body := map[string]any{"label": kind + strconv.FormatUint(run.Epoch, 10), "timeout": hotLock}
	a, err := s.c.do(ctx, call{method: "POST", db: systemDB, path: "/_admin/backup/create", body: body, timeout: 2 * hotLock * time.Second})
	if statused(err, 408) {
		return "", fmt.Errorf("a transaction kept writing for %d s: %w", hotLock, err)
	}
	if err != nil {
		return "", err
	}
	var r struct{ Result struct{ ID string } }
	if err := a.decode(&r); err != nil {
		return "", err
	}
	return r.Result.ID, nil
}

// dropHot deletes those of a list that a condition names.
func (s *session) dropHot(ctx context.Context, list []hotBackup, gone func(hotBackup) bool) error {
	for _, h := range list {
		if !gone(h) {
			continue
		}
		_, err := s.c.do(ctx, call{method: "POST", db: systemDB, path: "/_admin/backup/delete", body: map[string]any{"id": h.id}})
		if err != nil && !statused(err, 404) {
			return fmt.Errorf("delete hot backup %s: %w", h.id, err)
		}
	}
	return nil
}

// safetyNet is the hot backup below one restore.
type safetyNet struct {
	once sync.Once
	made string // id; empty: there is none of this attempt's making
	warn string
}

// spread makes the net, once, before the first write. Without one the restore goes on: it has the safety backup.
func (n *safetyNet) spread(ctx context.Context, s *session, run plugins.Run) {
	n.once.Do(func() {
		// Where no safety backup was taken a moment ago, what is there now is half written, or not worth keeping.
		if o, err := s.hotOption(run); err != nil || o == hotNever || run.Operation != plugins.OpRestore || run.Live == nil {
			return
		}
		list, can, err := s.hotBackups(ctx, hotNet)
		mine := slices.ContainsFunc(list, func(h hotBackup) bool { return h.epoch == run.Epoch })
		if err == nil && can && !mine {
			if n.made, err = s.makeHot(ctx, hotNet, run); err == nil {
				err = s.dropHot(ctx, list, func(hotBackup) bool { return true })
			}
		}
		if err != nil {
			n.warn = fmt.Sprintf("no hot backup below this restore: %v: the safety backup is not affected; set hot_backup to no if the servers are not to make any", err)
		}
	})
}

// furl deletes the net: everything is restored.
func (s *session) furl(ctx context.Context) error {
	list, _, err := s.hotBackups(ctx, hotNet)
	if err == nil {
		err = s.dropHot(ctx, list, func(hotBackup) bool { return true })
	}
	return err
}

// below names the net to somebody whose rollback has failed.
func (s *session) below(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	list, _, lerr := s.hotBackups(ctx, hotNet)
	if lerr != nil || len(list) == 0 {
		return err
	}
	return fmt.Errorf("%w: the servers also keep all that was there before as hot backup %s: `arangobackup restore --identifier %s` puts it back", err, list[0].id, list[0].id)
}

// sweepHot deletes what runs that are over have left: a backup does not begin while a restore is unresolved.
func (s *session) sweepHot(ctx context.Context, run plugins.Run) error {
	o, err := s.hotOption(run)
	if err != nil || run.Operation != plugins.OpBackup {
		return err
	}
	for _, kind := range []string{hotNet, hotPin} {
		if kind == hotPin && o == hotAlways {
			continue // it goes when there is a newer one
		}
		list, can, err := s.hotBackups(ctx, kind)
		if err == nil && can {
			err = s.dropHot(ctx, list, func(h hotBackup) bool { return h.epoch < run.Epoch })
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			run.Log.Warn("hot backups of earlier runs are kept by the servers", "error", err)
		}
	}
	return nil
}

// beside makes a hot backup beside a backup, if asked for, and deletes those beside earlier ones. It returns words for the manifest.
func (s *session) beside(ctx context.Context, run plugins.Run) (words, warn string, err error) {
	if o, err := s.hotOption(run); err != nil || o != hotAlways || run.Operation != plugins.OpBackup {
		return "", "", err
	}
	list, can, err := s.hotBackups(ctx, hotPin)
	if !can {
		return "", "hot_backup is always, but these servers make none (Enterprise Edition, or Community from 3.12.5)", nil
	}
	id := ""
	if err == nil {
		id, err = s.makeHot(ctx, hotPin, run)
	}
	if err == nil {
		words = "; the servers keep hot backup " + id + " of a moment before until the next backup"
		err = s.dropHot(ctx, list, func(h hotBackup) bool { return h.epoch <= run.Epoch })
	}
	if err != nil {
		warn = fmt.Sprintf("hot backup: %v", err)
	}
	return words, warn, ended(ctx, ctx.Err())
}
