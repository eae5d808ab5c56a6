package elasticsearch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// homes says which member of the estate is which node of the cluster.
type homes struct {
	mu    sync.Mutex
	asked bool
	of    map[string]int // node id → index into the client's bases
}

// introduction is how long a member may take to tell its node's id. Without it documents only come by way of another node.
const introduction = time.Second

// near is the member on whose node a shard's primary lies, or anyMember. Asked there, documents do not travel from node to
// node before they come, and no second node holds them in its memory.
func (s *session) near(ctx context.Context, x *index, shard int) int {
	if len(s.c.bases) == 1 {
		return anyMember
	}
	s.homes.mu.Lock()
	defer s.homes.mu.Unlock()
	if !s.homes.asked {
		s.homes.of = s.introduce(ctx)
		s.homes.asked = ctx.Err() == nil
	}
	if n, ok := s.homes.of[x.Shards[shard].Node]; ok {
		return n
	}
	return anyMember
}

// introduce asks all members at once for the ids of their nodes; those that do not answer are left out.
func (s *session) introduce(ctx context.Context) map[string]int {
	ctx, cancel := context.WithTimeout(ctx, introduction)
	defer cancel()
	ids := make([]string, len(s.c.bases))
	var wg sync.WaitGroup
	for i, base := range s.c.bases {
		wg.Go(func() { ids[i] = s.c.nodeID(ctx, base) })
	}
	wg.Wait()
	of := map[string]int{}
	for i, id := range ids {
		if id != "" {
			of[id] = i
		}
	}
	return of
}

// nodeID is the id of the node that answers at one member's address; empty if none does.
func (c *client) nodeID(ctx context.Context, base string) string {
	const path = "/_nodes/_local/http?filter_path=nodes.*.name"
	resp, err := c.ask(ctx, base, http.MethodGet, path, "", nil)
	if err != nil {
		return ""
	}
	r, err := c.answer(http.MethodGet, path, resp)
	if err != nil {
		return ""
	}
	defer r.Close()
	var ns struct {
		Nodes map[string]struct{} `json:"nodes"`
	}
	if json.NewDecoder(r).Decode(&ns) != nil {
		return ""
	}
	for id := range ns.Nodes {
		return id
	}
	return ""
}

// onShard is a search's preference for one shard, and for the copy of it on the node that is asked.
func onShard(shard int) string { return fmt.Sprintf("_shards:%d%%7C_local", shard) }
