package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

// claim is the right to write. The znode epochPath names the attempt that
// holds it and its version changes with every claim: each multi checks that version, so that
// an older attempt that wakes up changes nothing. Requests that cannot stand in a
// multi are safe because an attempt writes on one session, which owns an ephemeral
// znode: a successor waits until that has gone, and a session that ended cannot write.
type claim struct {
	version int32
}

func (c claim) check() zkwire.Request { return zkwire.Check(epochPath, c.version) }

// rank orders the operations of one epoch: what undoes a restore comes after it.
func rank(op plugins.Operation) int {
	if op == plugins.OpRollback {
		return 1
	}
	return 0
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// client opens a session of the ordinary client; the function closes it.
func (s *session) client(ctx context.Context, m plugins.Member) (*zk.Conn, func(), error) {
	dial := net.DialTimeout
	if s.tls != nil {
		dial = func(network, addr string, timeout time.Duration) (net.Conn, error) {
			return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, network, addr, s.tls)
		}
	}
	c, events, err := zk.Connect([]string{m.Address}, sessionTimeout, zk.WithLogger(quiet{}), zk.WithLogInfo(false), zk.WithDialer(dial))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", m.Address, plugins.ErrUnavailable, err)
	}
	stop := context.AfterFunc(ctx, c.Close)
	end := func() {
		if stop() {
			c.Close()
		}
	}
	t := time.NewTimer(connectTimeout)
	defer t.Stop()
	for c.State() != zk.StateHasSession {
		select {
		case <-events:
		case <-ctx.Done():
			end()
			return nil, nil, ctx.Err()
		case <-t.C:
			end()
			return nil, nil, fmt.Errorf("%s gave no session: %w", m.Address, plugins.ErrUnavailable)
		}
	}
	for _, a := range s.auth {
		if err := c.AddAuth(a.Scheme, []byte(a.Auth)); err != nil {
			end()
			return nil, nil, fmt.Errorf("%s: scheme %s: %w: %w", m.Address, a.Scheme, plugins.ErrAuth, err)
		}
	}
	return c, end, nil
}

// take claims the right to write for the session of conn.
func (s *session) take(ctx context.Context, run plugins.Run, m plugins.Member, conn *zkwire.Conn) (claim, error) {
	c, end, err := s.client(ctx, m)
	if err != nil {
		return claim{}, err
	}
	defer end()
	cl, err := s.write(c, run)
	if err == nil {
		err = s.wait(ctx, c, conn)
	}
	if ctx.Err() != nil {
		return cl, ctx.Err()
	}
	if err != nil {
		return cl, fmt.Errorf("%s: claim %s: %w", s.target, epochPath, err)
	}
	open := []zkwire.ACL{{Perms: 31, Scheme: "world", ID: "anyone"}}
	return cl, conn.Do(ctx, zkwire.Multi(cl.check(), zkwire.Create(holderPath, []byte(run.Attempt), open, zkwire.FlagEphemeral)), func(r zkwire.Reply) error {
		at, code, err := r.MultiResult()
		switch {
		case err != nil:
			return err
		case at == 0 || code == zkwire.NodeExists:
			return fmt.Errorf("%s: %w", s.target, plugins.ErrFenced)
		case code != zkwire.OK:
			return s.fault(holderPath, code)
		}
		return nil
	})
}

func (s *session) write(c *zk.Conn, run plugins.Run) (claim, error) {
	mine := fmt.Sprintf("%d %d %q", run.Epoch, rank(run.Operation), run.Attempt)
	for {
		b, st, err := c.Get(epochPath)
		if errors.Is(err, zk.ErrNoNode) {
			acl := zk.WorldACL(zk.PermAll)
			if len(s.auth) > 0 {
				acl = append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...)
			}
			if _, err := c.Create(ownPath, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				return claim{}, err
			}
			_, err := c.Create(epochPath, []byte(mine), 0, acl)
			if errors.Is(err, zk.ErrNodeExists) {
				continue
			}
			return claim{0}, err
		}
		if err != nil {
			return claim{}, err
		}
		var epoch uint64
		var r int
		if _, err := fmt.Sscanf(string(b), "%d %d", &epoch, &r); err != nil {
			return claim{}, fmt.Errorf("its data is not this product's: remove the znode: %w", plugins.ErrData)
		}
		if epoch > run.Epoch || epoch == run.Epoch && r > rank(run.Operation) {
			return claim{}, fmt.Errorf("held by operation %d: %w", epoch, plugins.ErrFenced)
		}
		st, err = c.Set(epochPath, []byte(mine), st.Version)
		if errors.Is(err, zk.ErrBadVersion) {
			continue
		}
		if err != nil {
			return claim{}, err
		}
		return claim{st.Version}, nil
	}
}

// wait lets the session of an earlier attempt end: the server ends it when its process died or stands still.
func (s *session) wait(ctx context.Context, c *zk.Conn, conn *zkwire.Conn) error {
	deadline := time.Now().Add(10 * sessionTimeout)
	for {
		ok, st, err := c.Exists(holderPath)
		if err != nil {
			return err
		}
		if !ok || st.EphemeralOwner == conn.Session() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("an earlier attempt still holds session 0x%x: end its process: %w", uint64(st.EphemeralOwner), plugins.ErrUnavailable)
		}
		if err := plugins.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
