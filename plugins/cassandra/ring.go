package cassandra

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// node is one node of the ring, as the cluster describes it.
type node struct {
	HostID  string   `json:"hostId"`
	Address string   `json:"address"`
	DC      string   `json:"dc"`
	Rack    string   `json:"rack"`
	Version string   `json:"version"`
	Tokens  []string `json:"tokens"` // sorted
	Own     bool     `json:"own"`    // the node of the unit
}

// ring is all nodes, sorted by host id.
type ring struct {
	Cluster     string `json:"cluster"`
	Partitioner string `json:"partitioner"`
	Nodes       []node `json:"nodes"`
}

// ringArtifact describes the ring at the moment of the pin.
const ringArtifact = "ring"

func (s *session) readRing(ctx context.Context) (ring, error) {
	var r ring
	var n node
	q := s.c.Query("SELECT cluster_name, partitioner, host_id, broadcast_address, data_center, rack, release_version, tokens FROM system.local")
	var addr string
	if err := q.WithContext(ctx).Scan(&r.Cluster, &r.Partitioner, &n.HostID, &addr, &n.DC, &n.Rack, &n.Version, &n.Tokens); err != nil {
		return r, s.cfg.wrap(ctx, "read the ring", err)
	}
	n.Address, n.Own = addr, s.down == nil
	r.Nodes = append(r.Nodes, n)
	it := s.c.Query("SELECT host_id, peer, data_center, rack, release_version, tokens FROM system.peers_v2").WithContext(ctx).Iter()
	for {
		n = node{}
		if !it.Scan(&n.HostID, &n.Address, &n.DC, &n.Rack, &n.Version, &n.Tokens) {
			break
		}
		r.Nodes = append(r.Nodes, n)
	}
	if err := it.Close(); err != nil {
		return r, s.cfg.wrap(ctx, "read the ring", err)
	}
	for i := range r.Nodes {
		slices.SortFunc(r.Nodes[i].Tokens, func(a, b string) int { return cmpToken(a, b) })
	}
	slices.SortFunc(r.Nodes, func(a, b node) int { return cmpString(a.HostID, b.HostID) })
	return r, nil
}

func cmpString(a, b string) int {
	if a < b {
		return -1
	} else if a > b {
		return 1
	}
	return 0
}

func cmpToken(a, b string) int {
	x, _ := strconv.ParseInt(a, 10, 64)
	y, _ := strconv.ParseInt(b, 10, 64)
	if x < y {
		return -1
	} else if x > y {
		return 1
	}
	return 0
}

// own is the unit's node; nil when it does not answer.
func (r ring) own() *node {
	for i := range r.Nodes {
		if r.Nodes[i].Own {
			return &r.Nodes[i]
		}
	}
	return nil
}

// same says whether a node can take the files that it had in another ring as its own: the whole ring
// is laid out alike, and the unit's node stands in the same place of it. Which partitions a
// node holds copies of depends on all of that.
func (r ring) same(o ring) bool {
	a, b := r.own(), o.own()
	return a != nil && b != nil && slices.Equal(a.Tokens, b.Tokens) && r.alike(o)
}

// alike says whether two rings are laid out alike, whatever their nodes are called.
func (r ring) alike(o ring) bool {
	places := func(r ring) []string {
		out := make([]string, 0, len(r.Nodes))
		for _, n := range r.Nodes {
			out = append(out, fmt.Sprintf("%q %q %q", n.DC, n.Rack, n.Tokens))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(places(r), places(o))
}

func writeRing(ctx context.Context, w plugins.ArtifactWriter, r ring, pin string) error {
	v, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeRecords(ctx, w, plugins.Artifact{Name: ringArtifact, Form: plugins.Ordered, Pin: pin, Volatile: true}, []record{{[]byte("ring"), v}})
}

func loadRing(ctx context.Context, r plugins.ArtifactReader) (ring, error) {
	var out ring
	rows, err := readRecords(ctx, r, ringArtifact)
	if err != nil {
		return out, err
	}
	if len(rows) != 1 || json.Unmarshal(rows[0].value, &out) != nil {
		return out, fmt.Errorf("artifact %q: %w: this backup was made by another version", ringArtifact, plugins.ErrData)
	}
	return out, nil
}

// span is a range of tokens: after from, up to and with to.
type span struct{ from, to int64 }

// spansWanted is into how many spans a scan is cut, so that they can run side by side.
const spansWanted = 16

// primary lists the spans whose first owner is the node; whole is the full ring. Each
// is cut so that there are about spansWanted.
func (r ring) primary(host string, whole bool) []span {
	type owned struct {
		token int64
		host  string
	}
	var all []owned
	for _, n := range r.Nodes {
		for _, t := range n.Tokens {
			v, err := strconv.ParseInt(t, 10, 64)
			if err == nil {
				all = append(all, owned{v, n.HostID})
			}
		}
	}
	slices.SortFunc(all, func(a, b owned) int {
		if a.token < b.token {
			return -1
		}
		return 1
	})
	var out []span
	if whole || len(all) == 0 {
		out = append(out, span{math.MinInt64, math.MaxInt64})
	} else {
		for i, o := range all {
			if o.host != host {
				continue
			}
			if i == 0 { // what is after the last token wraps round to the first
				out = append(out, span{math.MinInt64, o.token}, span{all[len(all)-1].token, math.MaxInt64})
			} else {
				out = append(out, span{all[i-1].token, o.token})
			}
		}
	}
	parts := max(1, (spansWanted+len(out)-1)/max(1, len(out)))
	var cut []span
	for _, s := range out {
		step := uint64(s.to-s.from) / uint64(parts)
		at := s.from
		for i := range parts {
			to := s.from + int64(step*uint64(i+1))
			if i == parts-1 || step == 0 {
				to = s.to
			}
			if to > at || i == parts-1 && to == s.to && at < to {
				cut = append(cut, span{at, to})
			}
			at = to
			if at == s.to {
				break
			}
		}
	}
	return cut
}
