package etcd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// page is how many keys one answer holds; the server's work for a page grows
// with what lies behind it, so few large pages are cheapest.
const page = 20000

// Fingerprint lists every key with its value's hash and its lease, every lease
// with the TTL it was granted and the set of its keys, users with their roles,
// roles with their permissions, and whether authentication is on.
//
// Not compared, because it changes lawfully or because no client can see it:
// revisions and versions of keys, the time a lease has left, password hashes.
// All members of a cluster must hold the same keys, or there is no fingerprint.
func (e *Engine) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) error {
	c, err := dial(members[0])
	if err != nil {
		return err
	}
	defer c.Close()
	lines, revision, err := keyLines(ctx, c, 0)
	if err != nil {
		return err
	}
	for _, m := range members[1:] {
		if err := agrees(ctx, m, lines, revision); err != nil {
			return err
		}
	}
	for _, more := range []func(context.Context, *clientv3.Client) ([]string, error){leaseLines, userLines, roleLines} {
		ls, err := more(ctx, c)
		if err != nil {
			return err
		}
		lines = append(lines, ls...)
	}
	on, err := authenticationOn(ctx, members[0])
	if err != nil {
		return err
	}
	lines = append(lines, fmt.Sprintf("auth\t-\tenabled=%t", on))
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := io.WriteString(w, l+"\n"); err != nil {
			return fmt.Errorf("write the fingerprint: %w", err)
		}
	}
	return nil
}

func quote(s string) string { return strconv.QuoteToASCII(s) }

// keyLines reads all keys at one revision: the newest for 0, and then with a
// quorum; otherwise the given one, from this very member.
func keyLines(ctx context.Context, c *clientv3.Client, at int64) ([]string, int64, error) {
	var lines []string
	from := "\x00"
	for revision := at; ; {
		options := []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithLimit(page), clientv3.WithRev(revision)}
		if at != 0 {
			options = append(options, clientv3.WithSerializable())
		}
		got, err := c.Get(ctx, from, options...)
		if err != nil {
			return nil, 0, fmt.Errorf("read keys: %w", err)
		}
		if revision == 0 {
			revision = got.Header.Revision
		}
		for _, kv := range got.Kvs {
			if !strings.HasPrefix(string(kv.Key), bookkeeping) {
				lines = append(lines, fmt.Sprintf("key\t%s\tlease=%x length=%d sha256=%x", quote(string(kv.Key)), kv.Lease, len(kv.Value), sha256.Sum256(kv.Value)))
			}
		}
		if !got.More {
			return lines, revision, nil
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

// agrees compares another member's own copy with the first one's.
func agrees(ctx context.Context, m engine.Member, lines []string, revision int64) error {
	c, err := dial(m)
	if err != nil {
		return err
	}
	defer c.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		own, _, err := keyLines(ctx, c, revision)
		switch {
		case err == nil && slices.Equal(own, lines):
			return nil
		case err == nil:
			return fmt.Errorf("%s holds other keys than the first member at revision %d: the cluster has diverged", m.Name, revision)
		case !errors.Is(err, rpctypes.ErrFutureRev) || time.Now().After(deadline):
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		time.Sleep(20 * time.Millisecond) // a follower may be behind by a moment
	}
}

func leaseLines(ctx context.Context, c *clientv3.Client) ([]string, error) {
	leases, err := c.Leases(ctx)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var lines []string
	for _, l := range leases.Leases {
		if int64(l.ID)>>32 == bookkeepingLeases {
			continue
		}
		t, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			return nil, fmt.Errorf("read lease %x: %w", l.ID, err)
		}
		if t.TTL < 0 {
			continue // expired meanwhile, and its keys are gone as well
		}
		keys := make([]string, 0, len(t.Keys))
		for _, k := range t.Keys {
			keys = append(keys, quote(string(k)))
		}
		slices.Sort(keys)
		lines = append(lines, fmt.Sprintf("lease\t%016x\tttl=%d keys=%d sha256=%x", l.ID, t.GrantedTTL, len(keys), sha256.Sum256([]byte(strings.Join(keys, "\n")))))
	}
	return lines, nil
}

func userLines(ctx context.Context, c *clientv3.Client) ([]string, error) {
	users, err := c.UserList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	var lines []string
	for _, u := range users.Users {
		got, err := c.UserGet(ctx, u)
		if err != nil {
			return nil, fmt.Errorf("read user %q: %w", u, err)
		}
		slices.Sort(got.Roles)
		lines = append(lines, fmt.Sprintf("user\t%s\troles=%q", quote(u), got.Roles))
	}
	return lines, nil
}

func roleLines(ctx context.Context, c *clientv3.Client) ([]string, error) {
	roles, err := c.RoleList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	var lines []string
	for _, r := range roles.Roles {
		if r == "root" {
			continue // the server's own: 3.4 shows it without permissions, 3.7 with all
		}
		got, err := c.RoleGet(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("read role %q: %w", r, err)
		}
		var permissions []string
		for _, p := range got.Perm {
			permissions = append(permissions, fmt.Sprintf("%s %s-%s", p.PermType, quote(string(p.Key)), quote(string(p.RangeEnd))))
		}
		slices.Sort(permissions)
		lines = append(lines, fmt.Sprintf("role\t%s\t%s", quote(r), strings.Join(permissions, ", ")))
	}
	return lines, nil
}

// authenticationOn asks without a name: only a server that demands one refuses.
func authenticationOn(ctx context.Context, m engine.Member) (bool, error) {
	config, err := clientTLS(m)
	if err != nil {
		return false, err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint(m)}, DialTimeout: dialTimeout, TLS: config, Logger: zap.NewNop()})
	if err != nil {
		return false, fmt.Errorf("connect without a name: %w", err)
	}
	defer c.Close()
	_, err = c.Get(ctx, maintenanceKey)
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return true, nil
	}
	return false, fmt.Errorf("ask without a name: %w", err)
}

// CheckLogins names the users of Fill whose password does not open the server
// any more. Passwords are not part of the fingerprint, because the API cannot
// bring them back; a disaster recovery from a snapshot must.
func CheckLogins(ctx context.Context, m engine.Member, seed int64) (refused []string, err error) {
	config, err := clientTLS(m)
	if err != nil {
		return nil, err
	}
	for _, u := range users() {
		if u.name == withoutPassword {
			continue
		}
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint(m)}, DialTimeout: dialTimeout, TLS: config.Clone(), Logger: zap.NewNop(),
			Username: u.name, Password: Password(u.name, seed)})
		switch {
		case errors.Is(err, rpctypes.ErrAuthFailed):
			refused = append(refused, u.name)
			continue
		case err != nil:
			return nil, fmt.Errorf("log in as %q: %w", u.name, err)
		}
		if err := c.Close(); err != nil {
			return nil, fmt.Errorf("log out: %w", err)
		}
	}
	return refused, ctx.Err()
}
