package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

const (
	sessionTimeout = 10 * time.Second
	connectLimit   = 5 * time.Second
	parallel       = 8
	batchOps       = 500
	batchBytes     = 500 << 10 // the server's limit for a packet is 1 MiB
)

// bookkeeping is the product's own corner of the tree: neither filled, wrecked nor judged.
const bookkeeping = "/cso-backup"

// dial connects as the super user; the connection also ends with ctx, which
// frees calls that wait for a server that does not come back.
func dial(ctx context.Context, m engine.Member) (*zk.Conn, error) {
	scheme, auth, err := credentials(m.Options["auth_file"])
	if err != nil {
		return nil, err
	}
	c, err := session(ctx, m, sessionTimeout, net.DialTimeout)
	if err != nil {
		return nil, err
	}
	if err := c.AddAuth(scheme, []byte(auth)); err != nil {
		c.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", m.Name, err)
	}
	return c, nil
}

// dialSome opens several connections to one member: the client handles one
// answer at a time, and the server is faster than that.
func dialSome(ctx context.Context, m engine.Member) ([]*zk.Conn, error) {
	var conns []*zk.Conn
	for range 4 {
		c, err := dial(ctx, m)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*zk.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// Client connects to a member as the super user; the caller closes it.
func Client(ctx context.Context, m engine.Member) (*zk.Conn, error) { return dial(ctx, m) }

// session connects without credentials and waits until the server has given a session.
func session(ctx context.Context, m engine.Member, timeout time.Duration, dialer zk.Dialer) (*zk.Conn, error) {
	c, events, err := zk.Connect([]string{address(m)}, timeout, zk.WithDialer(dialer), zk.WithLogInfo(false), zk.WithLogger(log.New(io.Discard, "", 0)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", m.Name, err)
	}
	limit := time.NewTimer(connectLimit)
	defer limit.Stop()
	for {
		select {
		case e := <-events:
			if e.State == zk.StateHasSession {
				context.AfterFunc(ctx, c.Close)
				return c, nil
			}
			continue
		case <-limit.C:
			err = errors.New("no session within " + connectLimit.String())
		case <-ctx.Done():
			err = ctx.Err()
		}
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", m.Name, err)
	}
}

// node is one znode to be made. nil and empty data differ.
type node struct {
	path string
	data []byte
	acl  []zk.ACL
}

func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

// create makes nodes in batches, level by level, so that parents come first.
func create(ctx context.Context, c *zk.Conn, nodes []node) error {
	ops := make([]op, 0, len(nodes))
	for _, n := range nodes {
		ops = append(ops, op{n.path, len(n.path) + len(n.data) + 60*len(n.acl), &zk.CreateRequest{Path: n.path, Data: n.data, Acl: n.acl, Flags: zk.FlagPersistent}})
	}
	slices.SortStableFunc(ops, func(a, b op) int { return depth(a.path) - depth(b.path) })
	return apply(ctx, c, ops)
}

// remove deletes nodes, the deepest first.
func remove(ctx context.Context, c *zk.Conn, paths []string) error {
	ops := make([]op, 0, len(paths))
	for _, p := range paths {
		ops = append(ops, op{p, len(p), &zk.DeleteRequest{Path: p, Version: -1}})
	}
	slices.SortStableFunc(ops, func(a, b op) int { return depth(b.path) - depth(a.path) })
	return apply(ctx, c, ops)
}

// op is one operation of a multi.
type op struct {
	path    string
	size    int
	request any
}

// apply sends operations in multis: one level of the tree after the other, several multis at a time.
func apply(ctx context.Context, c *zk.Conn, ops []op) error {
	for len(ops) > 0 {
		level := depth(ops[0].path)
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(parallel)
		for len(ops) > 0 && depth(ops[0].path) == level {
			n, size := 0, 0
			var batch []any
			for n < len(ops) && n < batchOps && depth(ops[n].path) == level && (n == 0 || size+ops[n].size < batchBytes) {
				batch = append(batch, ops[n].request)
				size += ops[n].size + 60
				n++
			}
			first := ops[0].path
			ops = ops[n:]
			g.Go(func() error {
				if gctx.Err() != nil {
					return gctx.Err()
				}
				if results, err := c.Multi(batch...); err != nil {
					for _, r := range results {
						if r.Error != nil {
							err = r.Error
							break
						}
					}
					return fmt.Errorf("write %d nodes from %s on: %w", len(batch), first, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// sequential matches names that a sequential create gives.
var sequential = regexp.MustCompile(`[0-9]{10}$`)

// leaveBehind makes ephemeral nodes whose session outlives the caller: the
// connection is cut, not closed, so the session ends only by its timeout.
func leaveBehind(ctx context.Context, m engine.Member, timeout time.Duration, paths ...string) error {
	var cut atomic.Bool
	var current atomic.Pointer[net.Conn]
	c, err := session(ctx, m, timeout, func(network, address string, limit time.Duration) (net.Conn, error) {
		if cut.Load() {
			return nil, errors.New("cut on purpose")
		}
		conn, err := net.DialTimeout(network, address, limit)
		if err == nil {
			current.Store(&conn)
		}
		return conn, err
	})
	if err != nil {
		return err
	}
	for _, p := range paths {
		if _, err := c.Create(p, []byte("alive"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
			c.Close()
			return fmt.Errorf("create %s: %w", p, err)
		}
	}
	cut.Store(true)
	_ = (*current.Load()).Close() // an error would mean that it is cut already
	c.Close()
	return nil
}
