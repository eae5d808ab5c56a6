package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Limits of one transaction, below the server's 128 operations and 1.5 MiB.
const (
	txnOps   = 120
	txnBytes = 400 << 10
	writers  = 8
)

// Fill replaces all keys, leases, users and roles.
func (e *Engine) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	c, err := dial(members...)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := empty(ctx, c); err != nil {
		return fmt.Errorf("empty the server: %w", err)
	}
	data := makeContent(seed, size)
	for _, g := range data.grants {
		if err := grantLease(ctx, c, g); err != nil {
			return err
		}
	}
	if err := put(ctx, c, data.items); err != nil {
		return err
	}
	// A history: keys written again and keys deleted, so that versions and revisions are not all one.
	var again []item
	for i, it := range data.items {
		if i%97 == 0 {
			again = append(again, it)
		}
	}
	if err := put(ctx, c, again); err != nil {
		return err
	}
	if err := put(ctx, c, []item{{key: "/cso/deleted", value: "once"}}); err != nil {
		return err
	}
	if _, err := c.Delete(ctx, "/cso/deleted"); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return fillAuth(ctx, c, seed)
}

// empty removes everything but root and the product's own keys.
func empty(ctx context.Context, c *clientv3.Client) error {
	end := clientv3.GetPrefixRangeEnd(bookkeeping)
	for _, r := range []struct{ from, to string }{{"\x00", bookkeeping}, {end, "\x00"}} {
		if _, err := c.Delete(ctx, r.from, clientv3.WithRange(r.to)); err != nil {
			return fmt.Errorf("delete all keys: %w", err)
		}
	}
	leases, err := c.Leases(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range leases.Leases {
		if _, err := c.Revoke(ctx, l.ID); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("revoke a lease: %w", err)
		}
	}
	users, err := c.UserList(ctx)
	if err != nil {
		return fmt.Errorf("list users: %w", err)
	}
	for _, u := range users.Users {
		if u != "root" {
			if _, err := c.UserDelete(ctx, u); err != nil {
				return fmt.Errorf("delete user %q: %w", u, err)
			}
		}
	}
	roles, err := c.RoleList(ctx)
	if err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	for _, r := range roles.Roles {
		if r != "root" {
			if _, err := c.RoleDelete(ctx, r); err != nil {
				return fmt.Errorf("delete role %q: %w", r, err)
			}
		}
	}
	return nil
}

// grantLease makes a lease with a chosen ID, which the client's own Grant does not offer.
func grantLease(ctx context.Context, c *clientv3.Client, g grant) error {
	if _, err := clientv3.RetryLeaseClient(c).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: g.id, TTL: g.ttl}); err != nil {
		return fmt.Errorf("grant lease %x: %w", g.id, rpctypes.Error(err))
	}
	return nil
}

// put writes items in transactions, several at a time; keys must differ.
func put(ctx context.Context, c *clientv3.Client, items []item) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for len(items) > 0 {
		n, size := 0, 0
		var ops []clientv3.Op
		for n < len(items) && n < txnOps && (n == 0 || size+len(items[n].key)+len(items[n].value) < txnBytes) {
			it := items[n]
			ops = append(ops, clientv3.OpPut(it.key, it.value, clientv3.WithLease(clientv3.LeaseID(it.lease))))
			size += len(it.key) + len(it.value)
			n++
		}
		items = items[n:]
		g.Go(func() error {
			if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
				return fmt.Errorf("put %d keys: %w", len(ops), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// permission is what a role may do to a range; an empty end means one key.
type permission struct {
	key, end string
	kind     clientv3.PermissionType
}

const (
	mayRead  = clientv3.PermissionType(clientv3.PermRead)
	mayWrite = clientv3.PermissionType(clientv3.PermWrite)
	mayBoth  = clientv3.PermissionType(clientv3.PermReadWrite)
)

// roles have every form of permission: one key, prefix, range, from a key on, all, binary, none.
func roles() map[string][]permission {
	prefix := func(p string) string { return clientv3.GetPrefixRangeEnd(p) }
	return map[string][]permission{
		"tenant-read":    {{"/cso/tenants/", prefix("/cso/tenants/"), mayRead}},
		"config":         {{"/cso/config/", prefix("/cso/config/"), mayBoth}, {maintenanceKey, "", mayRead}},
		"session-writer": {{"/cso/sessions/", "/cso/sessions/8", mayWrite}, {"/cso/sessions/9", "/cso/sessions/a", mayRead}},
		"from-registry":  {{"/registry/", "\x00", mayRead}},
		"everything":     {{"\x00", "\x00", mayBoth}},
		"binary":         {{"\xff\x00", "\xff\xfe", mayBoth}, {"/awkward/newline\nand\ttab", "", mayWrite}},
		"empty role":     nil,
		"rôle-数":         {{"/awkward/", prefix("/awkward/"), mayRead}},
	}
}

// users and their roles, in the order they are made.
func users() []struct {
	name  string
	roles []string
} {
	return []struct {
		name  string
		roles []string
	}{
		{"cso-admin", []string{"everything"}},
		{"cspadmin", []string{"tenant-read", "config", "session-writer"}},
		{"haproxy_confd", []string{"config"}},
		{"idle", nil},
		{"two words", []string{"empty role"}},
		{"üser-数据", []string{"rôle-数", "binary"}},
		{withoutPassword, []string{"from-registry"}},
	}
}

// withoutPassword is a user that may log in only by certificate.
const withoutPassword = "certificate-only"

// Password is the one that Fill gives to a user.
func Password(user string, seed int64) string { return fmt.Sprintf("pw-%s-%d", user, seed) }

func fillAuth(ctx context.Context, c *clientv3.Client, seed int64) error {
	for name, permissions := range roles() {
		if err := addRole(ctx, c, name, permissions); err != nil {
			return err
		}
	}
	for _, u := range users() {
		if err := addUser(ctx, c, u.name, seed, u.roles); err != nil {
			return err
		}
	}
	return nil
}

func addRole(ctx context.Context, c *clientv3.Client, name string, permissions []permission) error {
	if _, err := c.RoleAdd(ctx, name); err != nil {
		return fmt.Errorf("add role %q: %w", name, err)
	}
	for _, p := range permissions {
		if _, err := c.RoleGrantPermission(ctx, name, p.key, p.end, p.kind); err != nil {
			return fmt.Errorf("grant to role %q: %w", name, err)
		}
	}
	return nil
}

func addUser(ctx context.Context, c *clientv3.Client, name string, seed int64, roles []string) error {
	password, options := Password(name, seed), &clientv3.UserAddOptions{}
	if strings.HasPrefix(name, withoutPassword) {
		password, options.NoPassword = "", true
	}
	if _, err := c.UserAddWithOptions(ctx, name, password, options); err != nil {
		return fmt.Errorf("add user %q: %w", name, err)
	}
	for _, r := range roles {
		if _, err := c.UserGrantRole(ctx, name, r); err != nil {
			return fmt.Errorf("grant %q to %q: %w", r, name, err)
		}
	}
	return nil
}
