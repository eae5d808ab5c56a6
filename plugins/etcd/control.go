package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// How long the control program may take, and a server until it answers.
const (
	controlTimeout = 2 * time.Minute
	startTimeout   = 2 * time.Minute
)

// control stops and starts a server: [program, stop|start|status, member].
type control struct{ program, member string }

func (c control) run(ctx context.Context, verb string) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, verb, c.member)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A server that the program left in the background may hold the pipe open.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		said := strings.TrimSpace(out.String())
		return fmt.Errorf("control program %s %s %s: %w: it said %.500q: run it by hand to see why", c.program, verb, c.member, err, said)
	}
	return nil
}

// clean takes the product's own keys and leases, and all alarms, out of a
// database file that no server has open. It counts the rows that stay.
func clean(ctx context.Context, cfg *config, file string) (rows int64, err error) {
	db, err := bolt.Open(file, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return 0, fmt.Errorf("open the snapshot: %w: %w", plugins.ErrCorrupt, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		var drop [][]byte
		err := each(tx, bucketKey, func(k, b []byte) error {
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(b, &kv); err != nil {
				return err
			}
			// Every revision of the key goes, deletions too: the server then finds that it never existed.
			if cfg.own(kv.GetKey()) {
				drop = append(drop, bytes.Clone(k))
			} else {
				rows++
			}
			return ctx.Err()
		})
		if err = errors.Join(err, remove(tx, bucketKey, drop)); err != nil {
			return err
		}
		drop = nil
		err = each(tx, bucketLease, func(k, b []byte) error {
			var l leasepb.Lease
			if err := proto.Unmarshal(b, &l); err != nil {
				return err
			}
			if _, own := epochOf(l.GetID(), l.GetTTL()); own {
				drop = append(drop, bytes.Clone(k))
			}
			return nil
		})
		if err = errors.Join(err, remove(tx, bucketLease, drop)); err != nil {
			return err
		}
		drop = nil
		err = each(tx, bucketAlarm, func(k, _ []byte) error { drop = append(drop, bytes.Clone(k)); return nil })
		return errors.Join(err, remove(tx, bucketAlarm, drop))
	})
	return rows, errors.Join(err, db.Close())
}

func remove(tx *bolt.Tx, bucket []byte, keys [][]byte) error {
	for _, k := range keys {
		if err := tx.Bucket(bucket).Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// sameOwner gives the tree at fresh the owner of the data directory, or of
// the one kept aside, or of the folder they stand in: the server may not run as we do.
func sameOwner(dir, fresh, before string) error {
	var like fs.FileInfo
	var err error
	for _, p := range []string{dir, before, filepath.Dir(dir)} {
		if like, err = os.Stat(p); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	return filepath.WalkDir(fresh, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(st.Uid), int(st.Gid))
	})
}
