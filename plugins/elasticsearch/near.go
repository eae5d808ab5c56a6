package elasticsearch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// homes are the nodes of the cluster that are members of the estate.
type homes struct {
	mu    sync.Mutex
	asked bool
	of    map[string]*client // node id → one that asks this member first
}

// introduction is how long a member may take to tell its node's id. Without it documents only come by way of another node.
const introduction = time.Second

// near asks first the member on whose node a shard's primary lies: documents do not travel from node to node before they
// come, and no second node holds them in its memory. Where that is not known, any member is asked.
func (s *session) near(ctx context.Context, x *index, shard int) *client {
	if len(s.c.bases) == 1 {
		return s.c
	}
	s.homes.mu.Lock()
	defer s.homes.mu.Unlock()
	if !s.homes.asked {
		s.homes.of = s.introduce(ctx)
		s.homes.asked = ctx.Err() == nil
	}
	if c := s.homes.of[x.Shards[shard].Node]; c != nil {
		return c
	}
	return s.c
}

// introduce asks all members at once for the ids of their nodes; those that do not answer are left out.
func (s *session) introduce(ctx context.Context) map[string]*client {
	ctx, cancel := context.WithTimeout(ctx, introduction)
	defer cancel()
	bases := s.c.bases
	ids := make([]string, len(bases))
	var wg sync.WaitGroup
	for i := range bases {
		wg.Go(func() { ids[i] = s.c.with(bases[i : i+1]).nodeID(ctx) })
	}
	wg.Wait()
	of := map[string]*client{}
	for i, id := range ids {
		if id != "" {
			of[id] = s.c.with(slices.Concat(bases[i:], bases[:i]))
		}
	}
	return of
}

// nodeID is the id of the node that answers; empty if none does.
func (c *client) nodeID(ctx context.Context) string {
	var ns struct {
		Nodes map[string]struct{} `json:"nodes"`
	}
	if c.get(ctx, "/_nodes/_local/http?filter_path=nodes.*.name", &ns) != nil {
		return ""
	}
	for id := range ns.Nodes {
		return id
	}
	return ""
}

// onShard is a search's preference for one shard, and for the copy of it on the node that is asked.
func onShard(shard int) string { return fmt.Sprintf("_shards:%d%%7C_local", shard) }
