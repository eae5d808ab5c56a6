package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Wreck changes, deletes and adds keys, leases, users, roles and permissions.
// It leaves CSO's maintenance switch and root alone, because a restore does
// so, too, and users' passwords, which the API cannot bring back (a user that
// is deleted here loses its password for good, unless by disaster recovery).
func (e *Engine) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	c, err := dial(members...)
	if err != nil {
		return err
	}
	defer c.Close()
	r := rand.New(rand.NewPCG(uint64(seed), 0xbad))
	// Leases first, because wrecking keys frees some of them from their leases.
	if err := wreckLeases(ctx, c, r); err != nil {
		return err
	}
	if err := wreckKeys(ctx, c, r); err != nil {
		return err
	}
	return wreckAuth(ctx, c, seed)
}

func wreckLeases(ctx context.Context, c *clientv3.Client, r *rand.Rand) error {
	leases, err := c.Leases(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for i, l := range leases.Leases {
		if int64(l.ID)>>32 == bookkeepingLeases {
			continue
		}
		t, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			return fmt.Errorf("read lease %x: %w", l.ID, err)
		}
		switch i % 4 {
		case 0: // gone, and its keys with it
			if _, err := c.Revoke(ctx, l.ID); err != nil {
				return fmt.Errorf("revoke lease %x: %w", l.ID, err)
			}
		case 1: // the same ID with another time to live, keys lost
			if _, err := c.Revoke(ctx, l.ID); err != nil {
				return fmt.Errorf("revoke lease %x: %w", l.ID, err)
			}
			if err := grantLease(ctx, c, grant{int64(l.ID), 5000 + t.GrantedTTL%1000}); err != nil {
				return err
			}
		case 2: // keys freed from it
			for _, k := range t.Keys {
				if _, err := c.Put(ctx, string(k), "", clientv3.WithIgnoreValue()); err != nil {
					return fmt.Errorf("free a key: %w", err)
				}
			}
		}
	}
	added := grant{r.Int64N(1<<62) + 1, 9999}
	if err := grantLease(ctx, c, added); err != nil && !errors.Is(err, rpctypes.ErrLeaseExist) {
		return err
	}
	return put(ctx, c, []item{{"/cso/sessions/wrecker", "x", added.id}, {"/cso/config/leased-now", "x", added.id}})
}

func wreckKeys(ctx context.Context, c *clientv3.Client, r *rand.Rand) error {
	got, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	var changed []item
	var doomed []string
	for _, kv := range got.Kvs {
		k := string(kv.Key)
		if k == maintenanceKey || strings.HasPrefix(k, bookkeeping) {
			continue
		}
		awkward := strings.HasPrefix(k, "/awkward/") || k < "/" || k > "0"
		switch dice := r.IntN(100); {
		case dice < 5 || awkward && dice < 35:
			changed = append(changed, item{k, randomBytes(r, r.IntN(80)), kv.Lease})
		case dice < 10 || awkward && dice < 55:
			doomed = append(doomed, k)
		case dice < 11:
			changed = append(changed, item{k, "", kv.Lease})
		}
	}
	added := []item{{key: "\x00\x00", value: "a new lowest key"}, {key: strings.Repeat("\xff", 8), value: "a new highest key"},
		{key: "/added/large", value: randomBytes(r, 1_300_000)}}
	for n := range 50 {
		added = append(added, item{key: fmt.Sprintf("/added/%s/%d", randomBytes(r, 6), n), value: randomBytes(r, r.IntN(2000))})
	}
	// The former first and by itself: a second wreck finds the first one's additions among them.
	if err := put(ctx, c, changed); err != nil {
		return err
	}
	for len(doomed) > 0 {
		n := min(txnOps, len(doomed))
		var ops []clientv3.Op
		for _, k := range doomed[:n] {
			ops = append(ops, clientv3.OpDelete(k))
		}
		if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("delete keys: %w", err)
		}
		doomed = doomed[n:]
	}
	// A whole prefix goes at once, and one byte of a large value changes.
	if _, err := c.Delete(ctx, "/awkward/100k/", clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("delete a prefix: %w", err)
	}
	zeros := []byte(strings.Repeat("\x00", 1_000_000))
	zeros[len(zeros)/2] = 1
	return put(ctx, c, append(added, item{key: "/awkward/1MB-zeros", value: string(zeros)}))
}

// wreckAuth is written so that it can run twice: what is gone already is no error.
func wreckAuth(ctx context.Context, c *clientv3.Client, seed int64) error {
	end := clientv3.GetPrefixRangeEnd("/cso/tenants/")
	steps := []func() error{
		func() error { _, err := c.UserDelete(ctx, "haproxy_confd"); return err },
		func() error { return addUser(ctx, c, "intruder", seed, []string{"everything"}) },
		func() error { _, err := c.UserRevokeRole(ctx, "cspadmin", "session-writer"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "idle", "everything"); return err },
		func() error { _, err := c.RoleDelete(ctx, "rôle-数"); return err },
		func() error {
			return addRole(ctx, c, "backdoor", []permission{{"\x00", "\x00", mayBoth}})
		},
		func() error { _, err := c.RoleRevokePermission(ctx, "tenant-read", "/cso/tenants/", end); return err },
		func() error { _, err := c.RoleGrantPermission(ctx, "empty role", "/x", "", mayWrite); return err },
		func() error { // the same range, another right
			_, err := c.RoleGrantPermission(ctx, "config", "/cso/config/", clientv3.GetPrefixRangeEnd("/cso/config/"), mayRead)
			return err
		},
	}
	for _, step := range steps {
		if err := step(); err != nil && !doneBefore(err) {
			return fmt.Errorf("wreck users and roles: %w", err)
		}
	}
	return nil
}
