package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Wreck changes, deletes and adds nodes, data, ACLs, quotas, whole subtrees,
// container and TTL nodes.
//
// No living parent of sequential nodes gets or loses a child here: a counter
// only grows, so no restore could bring it back exactly. Such parents lose
// their children's data, or go as a whole and come back with a lower counter.
func (e *Engine) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	conns, err := dialSome(ctx, members[0])
	defer closeAll(conns)
	if err != nil {
		return err
	}
	c := conns[0]
	paths, err := list(ctx, conns, "/")
	if err != nil {
		return err
	}
	slices.Sort(paths)
	r := rand.New(rand.NewPCG(uint64(seed), 0xbad))
	if err := wreckNodes(ctx, c, r, paths); err != nil {
		return err
	}
	for _, subtree := range []string{"/awkward/deep/level0/level1", containers + "/locks", ttls + "/month-1", queues + "/orders", "/zookeeper/quota/contrail", "/config/topics"} {
		if err := removeTree(ctx, conns, subtree); err != nil {
			return err
		}
	}
	var added []node
	for i := range 40 {
		p := fmt.Sprintf("/added-%d-%d", seed, i)
		added = append(added, node{p, randomBytes(r, r.IntN(500)), open}, node{p + "/child", nil, private}, node{p + "/child/leaf", []byte{}, readOnly})
	}
	added = append(added, node{fmt.Sprintf("/awkward/deep/level0/new-%d", seed), nil, open}, node{fmt.Sprintf("/awkward/large-%d", seed), randomBytes(r, 900_000), open},
		node{queues + "/orders", []byte("another"), private}, node{queues + "/orders/order-0000000007", []byte("another"), open},
		node{"/zookeeper/quota/awkward", nil, open}, node{"/zookeeper/quota/awkward/zookeeper_limits", []byte("count=7000,bytes=-1"), open},
		node{"/zookeeper/quota/awkward/zookeeper_stats", []byte("count=0,bytes=0"), open})
	for _, n := range added {
		if _, err := c.Create(n.path, n.data, zk.FlagPersistent, n.acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return fmt.Errorf("add %s: %w", n.path, err)
		}
	}
	if _, err := c.Create(queues+"/orders/order-", nil, zk.FlagSequence, open); err != nil {
		return fmt.Errorf("add in sequence: %w", err)
	}
	if _, err := c.CreateContainer(fmt.Sprintf("%s/added-%d", containers, seed), nil, zk.FlagContainer, open); err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return fmt.Errorf("add a container: %w", err)
	}
	if _, err := c.CreateTTL(fmt.Sprintf("%s/added-%d", ttls, seed), nil, zk.FlagTTL, open, ttl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return fmt.Errorf("add a TTL node: %w", err)
	}
	if _, err := c.Set("/", []byte("wrecked"), -1); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return nil
}

// removeTree deletes a subtree; one that is gone already is no error.
func removeTree(ctx context.Context, conns []*zk.Conn, root string) error {
	paths, err := list(ctx, conns, root)
	if err != nil {
		return err
	}
	return remove(ctx, conns[0], paths)
}

// wreckNodes changes data and ACLs and deletes leaves here and there.
func wreckNodes(ctx context.Context, c *zk.Conn, r *rand.Rand, paths []string) error {
	inner := map[string]bool{}
	for _, p := range paths {
		inner[p[:strings.LastIndexByte(p, '/')]] = true
	}
	var changes []op
	var doomed []string
	var acls errgroup.Group // one by one: a multi has no operation for ACLs
	acls.SetLimit(4 * parallel)
	for _, p := range paths {
		dice := r.IntN(100)
		if strings.HasPrefix(p, "/awkward") || strings.HasPrefix(p, "/acl") {
			dice /= 4 // these few nodes matter most
		}
		special := strings.HasPrefix(p, queues) || strings.HasPrefix(p, containers) || strings.HasPrefix(p, ttls) || strings.HasPrefix(p, "/cso/live")
		switch {
		case strings.HasPrefix(p, "/zookeeper") || strings.HasPrefix(p, "/cso/live/"):
		case dice < 3:
			data := randomBytes(r, r.IntN(100))
			changes = append(changes, op{p, len(p) + len(data), &zk.SetDataRequest{Path: p, Data: data, Version: -1}})
		case dice < 4:
			changes = append(changes, op{p, len(p), &zk.SetDataRequest{Path: p, Data: nil, Version: -1}})
		case dice < 5:
			changes = append(changes, op{p, len(p), &zk.SetDataRequest{Path: p, Data: []byte{}, Version: -1}})
		case dice < 7:
			acl := [][]zk.ACL{open, readOnly, private, shared, network, many}[r.IntN(6)]
			acls.Go(func() error {
				if _, err := c.SetACL(p, acl, -1); err != nil {
					return fmt.Errorf("change the ACL of %s: %w", p, err)
				}
				return nil
			})
		case dice < 10 && !inner[p] && !special:
			doomed = append(doomed, p)
		}
	}
	if err := acls.Wait(); err != nil {
		return err
	}
	slices.SortStableFunc(changes, func(a, b op) int { return depth(a.path) - depth(b.path) })
	if err := apply(ctx, c, changes); err != nil {
		return err
	}
	if err := remove(ctx, c, doomed); err != nil {
		return err
	}
	// Never by chance: null becomes empty and the other way round, one byte of the largest changes.
	for _, swap := range []node{{"/awkward/null", []byte{}, nil}, {"/awkward/empty", nil, nil}} {
		if _, err := c.Set(swap.path, swap.data, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
			return fmt.Errorf("change %s: %w", swap.path, err)
		}
	}
	const large = "/awkward/inner/largest-below"
	data, _, err := c.Get(large)
	if err == nil && len(data) > 0 {
		data[len(data)/2] ^= 1
		_, err = c.Set(large, data, -1)
	}
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return fmt.Errorf("change %s: %w", large, err)
	}
	return nil
}
