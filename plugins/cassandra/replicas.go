package cassandra

import (
	"slices"
	"strconv"
	"strings"
)

// place is a token and the node that owns the range up to it.
type place struct {
	token int64
	node  *node
}

// walk lists all tokens of the ring in order.
func (r ring) walk() []place {
	var out []place
	for i := range r.Nodes {
		for _, t := range r.Nodes[i].Tokens {
			if v, err := strconv.ParseInt(t, 10, 64); err == nil {
				out = append(out, place{v, &r.Nodes[i]})
			}
		}
	}
	slices.SortFunc(out, func(a, b place) int {
		switch {
		case a.token < b.token:
			return -1
		case a.token > b.token:
			return 1
		}
		return 0
	})
	return out
}

// uncovered counts the ranges of a keyspace of which no copy lies on a node that lives; first is a token of
// the first one. replication is the option of CREATE KEYSPACE.
func (r ring) uncovered(replication map[string]string, alive func(*node) bool) (ranges int, first int64) {
	all := r.walk()
	for i := range all {
		if !slices.ContainsFunc(replicas(all, i, replication), alive) {
			if ranges == 0 {
				first = all[i].token
			}
			ranges++
		}
	}
	return ranges, first
}

// replicas lists the nodes that hold the range that ends with the i-th token: SimpleStrategy takes the next
// nodes round the ring; NetworkTopologyStrategy takes in each datacenter the next
// nodes in racks not taken yet, and those it passed by once every rack is taken
// (https://cassandra.apache.org/doc/stable/cassandra/architecture/dynamo.html).
func replicas(all []place, i int, replication map[string]string) []*node {
	class := replication["class"]
	class = class[strings.LastIndex(class, ".")+1:]
	var out []*node
	switch class {
	case "NetworkTopologyStrategy":
		for dc, n := range replication {
			if dc != "class" {
				out = append(out, inDatacenter(all, i, dc, copies(n))...)
			}
		}
	case "SimpleStrategy":
		n := copies(replication["replication_factor"])
		for k := range all {
			nd := all[(i+k)%len(all)].node
			if len(out) < n && !slices.Contains(out, nd) {
				out = append(out, nd)
			}
		}
	default: // everywhere, or a strategy of the operator's own: all nodes at best
		for _, p := range all {
			if !slices.Contains(out, p.node) {
				out = append(out, p.node)
			}
		}
	}
	return out
}

// copies reads a replication factor; "3/1" is three copies of which one is transient and no full one.
func copies(s string) int {
	full, transient, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(full)
	if err != nil {
		return 0
	}
	t, _ := strconv.Atoi(transient)
	return n - t
}

func inDatacenter(all []place, i int, dc string, n int) []*node {
	racks := map[string]bool{}
	for _, p := range all {
		if p.node.DC == dc {
			racks[p.node.Rack] = true
		}
	}
	var out, passed []*node
	taken := map[string]bool{}
	for k := range all {
		nd := all[(i+k)%len(all)].node
		if nd.DC != dc || slices.Contains(out, nd) || slices.Contains(passed, nd) {
			continue
		}
		if len(taken) < len(racks) && taken[nd.Rack] {
			passed = append(passed, nd)
			continue
		}
		taken[nd.Rack] = true
		if out = append(out, nd); len(taken) == len(racks) {
			out, passed = append(out, passed...), nil
		}
	}
	return out[:min(n, len(out))]
}
