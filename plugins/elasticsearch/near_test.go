package elasticsearch_test

import (
	"fmt"
	"strings"
	"testing"
)

// byTheirNode: the documents of a shard are asked for on the node that holds them. By way of another they would travel
// between the nodes, and be held by both.
func (s *stand) byTheirNode(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/spread", `{"settings":{"index.number_of_shards":3,"index.number_of_replicas":0,"index.routing.allocation.total_shards_per_node":1}}`)
	const docs, each = 300, 20_000
	var b strings.Builder
	for i := range docs {
		fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"text":%q}`+"\n", i, strings.Repeat(fmt.Sprintf("%d ", i%10), each/2))
	}
	a.do("POST", "/spread/_bulk?filter_path=errors&refresh=true", b.String())
	a.do("GET", "/_cluster/health/spread?wait_for_status=green&timeout=30s", nil)

	ses := open(t, s.on)
	before := a.travelled()
	_, rep := backup(t, ses)
	if between := a.travelled() - before; between > docs*each/10 {
		t.Errorf("the nodes sent each other %d bytes while %d documents of %d bytes were read: %+v", between, docs, each, rep)
	}
	a.clear()
}

// travelled is how many bytes the nodes have received from each other.
func (a *api) travelled() int64 {
	a.t.Helper()
	var ns struct {
		Nodes map[string]struct {
			Transport struct {
				Received int64 `json:"rx_size_in_bytes"`
			} `json:"transport"`
		} `json:"nodes"`
	}
	a.get("/_nodes/stats/transport?filter_path=nodes.*.transport.rx_size_in_bytes", &ns)
	var sum int64
	for _, n := range ns.Nodes {
		sum += n.Transport.Received
	}
	return sum
}
