package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// The guard lets the cluster itself refuse an attempt of an older epoch. Two parts:
//
// The epoch key holds the epoch that wrote last. Every transaction compares it,
// so that an attempt is refused once a newer one has written.
//
// The epoch lease makes a claim without a write. A restore that finds nothing
// to do must leave the revision alone, and yet stop an older attempt that wakes up
// later. A lease can be granted and revoked without a new revision, and its id
// can be chosen: each epoch has its own. An attempt grants its lease, then lists the leases; a
// higher epoch among them means that it is too late; lower ones are revoked.
// Every transaction puts the epoch key with the lease of its epoch, which the
// cluster refuses once that lease is revoked. Both requests go to one member, and
// that member has applied everything before the grant when it lists: of two
// attempts, at least the later one sees the other.
const (
	leaseTag  = 0x63736f62 << 32 // upper half of the ids of epoch leases
	leaseTime = 315_360_000      // seconds (ten years): as long as a frozen process may sleep
	maxEpoch  = 1<<32 - 1
)

func epochLease(epoch uint64) int64 { return leaseTag | int64(epoch) }

// epochOf says whether a lease is an epoch lease, and of which epoch.
func epochOf(id, ttl int64) (epoch uint64, own bool) {
	return uint64(id & maxEpoch), id>>32 == leaseTag>>32 && ttl == leaseTime
}

// claim is the value of the epoch key.
type claim struct {
	Epoch uint64 `json:"epoch"`
	Since int64  `json:"since"` // revision before the first write of the epoch
}

// guard belongs to one attempt. Its methods are safe for concurrent use.
type guard struct {
	s     *session
	epoch uint64
	lease clientv3.LeaseID
	mu    sync.Mutex
	value string // of the epoch key once claimed; empty: nothing written yet
}

// begin claims the cluster for the epoch of the run, without a new revision.
func (s *session) begin(ctx context.Context, run plugins.Run) (*guard, error) {
	if run.Epoch == 0 || run.Epoch > maxEpoch {
		return nil, fmt.Errorf("epoch %d is not between 1 and %d: %w", run.Epoch, uint64(maxEpoch), plugins.ErrData)
	}
	g := &guard{s: s, epoch: run.Epoch, lease: clientv3.LeaseID(epochLease(run.Epoch))}
	c, err := s.single(ctx)
	if err != nil {
		return nil, err
	}
	if err := grant(ctx, c, int64(g.lease), leaseTime); err != nil && !errors.Is(err, rpctypes.ErrLeaseExist) {
		return nil, s.cfg.wrap("claim the epoch", err)
	}
	ls, err := c.Leases(ctx)
	if err != nil {
		return nil, s.cfg.wrap("list leases", err)
	}
	for _, l := range ls.Leases {
		other, own := epochOf(int64(l.ID), leaseTime)
		if !own || other == g.epoch {
			continue
		}
		t, err := c.TimeToLive(ctx, l.ID)
		if err != nil {
			return nil, s.cfg.wrap("read a lease", err)
		}
		switch {
		case t.GrantedTTL != leaseTime: // somebody else's, of a like number
		case other > g.epoch:
			_, err := c.Revoke(ctx, g.lease)
			return nil, errors.Join(g.fenced(other), ignore(err, rpctypes.ErrLeaseNotFound))
		default:
			if _, err := c.Revoke(ctx, l.ID); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				return nil, s.cfg.wrap("revoke the lease of an older epoch", err)
			}
		}
	}
	if now, _, err := g.read(ctx); err != nil {
		return nil, err
	} else if now.Epoch > g.epoch {
		return nil, g.fenced(now.Epoch)
	}
	return g, nil
}

func grant(ctx context.Context, c *clientv3.Client, id, ttl int64) error {
	_, err := clientv3.RetryLeaseClient(c).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	return clientv3.ContextError(ctx, err)
}

func ignore(err error, kinds ...error) error {
	if slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) }) {
		return nil
	}
	return err
}

func (g *guard) fenced(by uint64) error {
	return fmt.Errorf("%s: epoch %d, the cluster belongs to epoch %d: %w", g.s.cfg.target, g.epoch, by, plugins.ErrFenced)
}

// read reads the epoch key.
func (g *guard) read(ctx context.Context) (claim, *clientv3.GetResponse, error) {
	r, err := g.s.c.Get(ctx, epochKey)
	if err != nil {
		return claim{}, nil, g.s.cfg.wrap("read the epoch", err)
	}
	return parseClaim(r), r, nil
}

func parseClaim(r *clientv3.GetResponse) claim {
	var c claim
	// A value that is none of ours counts as absent: it is overwritten by the next claim.
	if len(r.Kvs) == 0 || json.Unmarshal(r.Kvs[0].Value, &c) != nil {
		return claim{}
	}
	return c
}

// claim puts the claim before the first write; later calls return at once.
func (g *guard) claim(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.value == "" {
		now, r, err := g.read(ctx)
		if err != nil {
			return err
		}
		if now.Epoch > g.epoch {
			return g.fenced(now.Epoch)
		}
		mod := int64(0)
		if len(r.Kvs) > 0 {
			mod = r.Kvs[0].ModRevision
		}
		if now.Epoch < g.epoch {
			now = claim{g.epoch, r.Header.Revision}
		}
		value := string(canonical(now))
		t, err := g.s.c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(epochKey), "=", mod)).
			Then(clientv3.OpPut(epochKey, value, clientv3.WithLease(g.lease))).Commit()
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return g.gone()
		case err != nil:
			return g.s.cfg.wrap("write the epoch", err)
		case t.Succeeded:
			g.value = value
		}
	}
	return nil
}

// gone says why the epoch lease is missing.
func (g *guard) gone() error {
	return fmt.Errorf("%s: epoch %d was taken over by a newer one: %w", g.s.cfg.target, g.epoch, plugins.ErrFenced)
}

// check asks whether the epoch still holds the cluster. It is for requests that etcd cannot make
// conditional: leases, users and roles.
func (g *guard) check(ctx context.Context) error {
	t, err := g.s.c.TimeToLive(ctx, g.lease)
	if err != nil {
		return g.s.cfg.wrap("check the epoch", err)
	}
	if t.TTL <= 0 {
		return g.gone()
	}
	return nil
}

// commit runs operations in one transaction that holds only while this epoch does.
func (g *guard) commit(ctx context.Context, ops []clientv3.Op) error {
	for try := 0; ; try++ {
		t, err := g.s.c.Txn(ctx).If(clientv3.Compare(clientv3.Value(epochKey), "=", g.value)).
			Then(append(ops[:len(ops):len(ops)], clientv3.OpPut(epochKey, g.value, clientv3.WithLease(g.lease)))...).Commit()
		switch {
		case err == nil && !t.Succeeded:
			return g.gone()
		case err == nil:
			return nil
		case try < 8 && transient(err) && ctx.Err() == nil:
			// All operations may be repeated. A cluster that elects a leader answers again within seconds.
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
			continue
		}
		return err
	}
}

// end takes the epoch key off its lease, so that the next epoch, which revokes the lease, removes nothing.
func (g *guard) end(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.value == "" {
		return nil
	}
	t, err := g.s.c.Txn(ctx).If(clientv3.Compare(clientv3.Value(epochKey), "=", g.value)).
		Then(clientv3.OpPut(epochKey, g.value)).Commit()
	if err != nil {
		return g.s.cfg.wrap("close the epoch", err)
	}
	if !t.Succeeded {
		return g.gone()
	}
	return nil
}
