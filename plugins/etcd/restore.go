package etcd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Limits of a transaction: below the server's defaults of 128 operations (the
// epoch key takes one) and 1.5 MiB; halved where the server is set lower.
const (
	txnOps   = 127
	txnBytes = 1 << 20
	inFlight = 8
)

// grantedFile, in the scratch directory, says when leases were granted last.
const grantedFile = "etcd-leases-granted"

// Restore makes leases and keys equal to the backup: leases first, then keys
// that differ, then what appeared later is removed. It may be killed anywhere
// and run again.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep, err := s.restore(ctx, run, r)
	if err != nil {
		return rep, fmt.Errorf("restore %s: %w", s.cfg.target, err)
	}
	return rep, nil
}

func (s *session) restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (rep plugins.Report, err error) {
	want, err := read(ctx, r)
	if err != nil {
		return rep, err
	}
	same, err := s.untouched(ctx, run, r, want)
	if err != nil {
		return rep, err
	}
	g, err := s.begin(ctx, run)
	if err != nil {
		return rep, err
	}
	w := &restorer{s: s, g: g, run: run, want: want}
	rep.Consistency = "key by key; all of it at the end"
	if same {
		st, err := s.c.Status(ctx, s.c.Endpoints()[0])
		if err != nil {
			return rep, s.cfg.wrap("ask for the status", err)
		}
		rep.ServerVersion = st.Version
	} else if rep.ServerVersion, err = w.change(ctx, r); err != nil {
		return rep, err
	}
	if err := g.end(ctx); err != nil {
		return rep, err
	}
	now, err := s.c.Get(ctx, epochKey)
	if err != nil {
		return rep, s.cfg.wrap("read the revision", err)
	}
	rep.Position = position(now.Header.Revision, now.Header.ClusterId)
	rep.Records, rep.Bytes = w.puts.Load(), w.bytes.Load()
	rep.Removed = w.removed
	for _, changed := range []bool{w.puts.Load()+w.deletes > 0, w.leaseChanges > 0} {
		if changed {
			rep.Artifacts++
		} else {
			rep.Unchanged++
		}
	}
	return rep, nil
}

// change looks at the live data and changes what differs. It gives back the server's version.
func (w *restorer) change(ctx context.Context, r plugins.ArtifactReader) (version string, err error) {
	v, err := w.s.look(ctx, w.run)
	if err != nil {
		return "", err
	}
	regranted, err := w.leases(ctx, v)
	if err == nil && regranted {
		// A lease that was granted anew has lost its keys: look again.
		if err = v.close(); err == nil {
			v, err = w.s.look(ctx, w.run)
		}
		if err != nil {
			return "", err
		}
	}
	if err == nil {
		err = w.keys(ctx, v, r)
	}
	if err = errors.Join(err, v.close()); err != nil {
		return v.version, err
	}
	return v.version, w.removeLeases(ctx, v)
}

// restorer is the state of one attempt.
type restorer struct {
	s    *session
	g    *guard
	run  plugins.Run
	want *stored

	puts, bytes  atomic.Int64
	deletes      int64
	removed      int
	leaseChanges int
}

// leases grants what is missing. A lease whose time differs must go first, and its keys with it.
func (w *restorer) leases(ctx context.Context, v *view) (regranted bool, err error) {
	for key, ttl := range w.want.leases {
		id := leaseID(key)
		n, err := strconv.ParseInt(string(ttl), 10, 64)
		if err != nil {
			return false, fmt.Errorf("lease %x: %w: %w", id, plugins.ErrData, err)
		}
		live, ok := v.leases[id]
		if ok && live.granted == n {
			continue
		}
		if err := w.g.check(ctx); err != nil {
			return false, err
		}
		if ok {
			regranted = true
			if _, err := w.s.c.Revoke(ctx, clientv3.LeaseID(id)); ignore(err, rpctypes.ErrLeaseNotFound) != nil {
				return false, w.s.cfg.wrap("revoke a lease of another time", err)
			}
		}
		if err := w.grant(ctx, id, n); err != nil {
			return false, err
		}
		w.leaseChanges++
	}
	if w.leaseChanges == 0 {
		return false, nil
	}
	stamp := time.Now().UTC().Format(time.RFC3339)
	return regranted, os.WriteFile(filepath.Join(w.run.Scratch, grantedFile), []byte(stamp), 0o600)
}

func (w *restorer) grant(ctx context.Context, id, ttl int64) error {
	if err := ignore(grant(ctx, w.s.c, id, ttl), rpctypes.ErrLeaseExist); err != nil {
		return w.s.cfg.wrap("grant a lease", err)
	}
	return nil
}

// granted is when this run granted leases, or zero.
func granted(run plugins.Run) time.Time {
	b, err := os.ReadFile(filepath.Join(run.Scratch, grantedFile))
	if err != nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, string(b))
	if err != nil {
		return time.Time{}
	}
	return at
}

// removeLeases revokes leases that are not in the backup. None of them holds a key any more that is.
func (w *restorer) removeLeases(ctx context.Context, v *view) error {
	for id := range v.leases {
		if _, ok := w.want.leases[leaseKey(id)]; ok {
			continue
		}
		if err := w.g.check(ctx); err != nil {
			return err
		}
		if _, err := w.s.c.Revoke(ctx, clientv3.LeaseID(id)); ignore(err, rpctypes.ErrLeaseNotFound) != nil {
			return w.s.cfg.wrap("revoke a lease that appeared later", err)
		}
		w.leaseChanges++
		w.removed++
	}
	return nil
}

// keys puts what differs, many transactions at once, and then deletes what
// appeared later. The names of the latter wait in a file: they may be many.
func (w *restorer) keys(ctx context.Context, v *view, r plugins.ArtifactReader) (err error) {
	extra, err := os.CreateTemp(w.run.Scratch, "extra-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, extra.Close()) }()
	if err := os.Remove(extra.Name()); err != nil {
		return err
	}
	later := bufio.NewWriter(extra)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	b := &batch{send: func(ops []clientv3.Op, size int) error {
		if err := w.g.claim(gctx); err != nil {
			return err
		}
		g.Go(func() error {
			if err := w.commit(gctx, ops); err != nil {
				return err
			}
			w.puts.Add(int64(len(ops)))
			w.run.Report(plugins.Status{Phase: "load", Item: artKeys, Bytes: w.bytes.Add(int64(size))})
			return nil
		})
		return nil
	}}
	err = diffKeys(gctx, v, w.run.Scratch, r, func(key, want, live []byte) error {
		if want == nil {
			_, err := later.Write(append(binary.AppendUvarint(nil, uint64(len(key))), key...))
			w.deletes++
			return err
		}
		lease := clientv3.LeaseID(binary.BigEndian.Uint64(want))
		return b.add(clientv3.OpPut(string(key), string(want[8:]), clientv3.WithLease(lease)), len(key)+len(want))
	})
	if err == nil {
		err = b.flush()
	}
	// The error of a transaction is the cause, and the walk's only that it was cut short.
	if werr := g.Wait(); werr != nil {
		err = werr
	}
	if err = errors.Join(err, later.Flush()); err != nil {
		return err
	}
	return w.deleteKeys(ctx, extra)
}

func (w *restorer) deleteKeys(ctx context.Context, names io.ReadSeeker) error {
	if w.deletes == 0 {
		return nil
	}
	if _, err := names.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := w.g.claim(ctx); err != nil {
		return err
	}
	in := bufio.NewReader(names)
	b := &batch{send: func(ops []clientv3.Op, _ int) error { return w.commit(ctx, ops) }}
	for {
		n, err := binary.ReadUvarint(in)
		if err == io.EOF {
			return b.flush()
		}
		if err != nil {
			return err
		}
		key := make([]byte, n)
		if _, err := io.ReadFull(in, key); err != nil {
			return err
		}
		w.removed++
		if err := b.add(clientv3.OpDelete(string(key)), len(key)); err != nil {
			return err
		}
	}
}

// batch gathers operations up to the limits of a transaction.
type batch struct {
	ops  []clientv3.Op
	size int
	send func(ops []clientv3.Op, size int) error
}

func (b *batch) add(op clientv3.Op, size int) error {
	if len(b.ops) > 0 && (len(b.ops) == txnOps || b.size+size > txnBytes) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.ops = append(b.ops, op)
	b.size += size
	return nil
}

func (b *batch) flush() error {
	ops, size := b.ops, b.size
	b.ops, b.size = nil, 0
	if len(ops) == 0 {
		return nil
	}
	return b.send(ops, size)
}

// commit sends operations, in halves where the server's limits are lower.
func (w *restorer) commit(ctx context.Context, ops []clientv3.Op) error {
	err := w.g.commit(ctx, ops)
	for try := 0; errors.Is(err, rpctypes.ErrLeaseNotFound) && try < 3; try++ {
		// Either the epoch is lost, or a short lease ran out between its grant and its keys.
		if cerr := w.g.check(ctx); cerr != nil {
			return cerr
		}
		if cerr := w.renew(ctx); cerr != nil {
			return cerr
		}
		err = w.g.commit(ctx, ops)
	}
	if errors.Is(err, rpctypes.ErrTooManyOps) || errors.Is(err, rpctypes.ErrRequestTooLarge) {
		if len(ops) > 1 {
			half := len(ops) / 2
			if err := w.commit(ctx, ops[:half]); err != nil {
				return err
			}
			return w.commit(ctx, ops[half:])
		}
		// A value so near the server's limit that the guard does not fit beside it.
		if err := w.g.check(ctx); err != nil {
			return err
		}
		_, err = w.s.c.Do(ctx, ops[0])
	}
	if errors.Is(err, plugins.ErrFenced) {
		return err
	}
	return w.s.cfg.wrap("write keys", err)
}

// renew grants the leases of the backup that the cluster does not have.
func (w *restorer) renew(ctx context.Context) error {
	ls, err := w.s.c.Leases(ctx)
	if err != nil {
		return w.s.cfg.wrap("list leases", err)
	}
	have := map[string]bool{}
	for _, l := range ls.Leases {
		have[leaseKey(int64(l.ID))] = true
	}
	for key, ttl := range w.want.leases {
		if have[key] {
			continue
		}
		n, err := strconv.ParseInt(string(ttl), 10, 64)
		if err != nil {
			return fmt.Errorf("lease %x: %w: %w", leaseID(key), plugins.ErrData, err)
		}
		if err := w.grant(ctx, leaseID(key), n); err != nil {
			return err
		}
	}
	return nil
}
