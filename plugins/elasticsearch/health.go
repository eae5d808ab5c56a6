package elasticsearch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

type clusterHealth struct {
	Status     string `json:"status"`
	Nodes      int    `json:"number_of_nodes"`
	Unassigned int    `json:"unassigned_shards"`
	Indices    map[string]struct {
		Status string `json:"status"`
	} `json:"indices"`
}

func (s *session) clusterHealth(ctx context.Context) (clusterHealth, error) {
	var h clusterHealth
	return h, s.c.get(ctx, "/_cluster/health?level=indices&expand_wildcards=all&filter_path=status,number_of_nodes,unassigned_shards,indices.*.status", &h)
}

// Health asks the cluster about its nodes, shards, disks and blocks.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	h := plugins.Health{Grade: plugins.Green, Version: s.product.String()}
	worse := func(g plugins.Grade, format string, args ...any) {
		if h.Grade != plugins.Red {
			h.Grade = g
		}
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
	}
	if !s.product.supported() {
		worse(plugins.Amber, "version %s is not one this product was proved on: Elasticsearch 7.10 to 8.x, OpenSearch 2.x", s.product)
	}
	c, err := s.clusterHealth(ctx)
	if err != nil {
		return h, err
	}
	h.Members = c.Nodes
	if n := len(s.target.Members); c.Nodes < n {
		worse(plugins.Amber, "%d of %d members are there", c.Nodes, n)
	}
	var red []string
	for name, x := range c.Indices {
		if x.Status == "red" && !strings.HasPrefix(name, own) {
			red = append(red, name)
		}
	}
	slices.Sort(red)
	switch {
	case len(red) > 0:
		worse(plugins.Red, "not all primary shards of %s are there", some(red))
	case c.Status == "red":
		worse(plugins.Red, "the cluster is red")
	case c.Status == "yellow":
		worse(plugins.Amber, "%d shards have no node: replicas that cannot be placed, or a member that is missing", c.Unassigned)
	}
	st, err := s.state(ctx)
	if err != nil {
		return h, err
	}
	for k, v := range st.Objects {
		if strings.Contains(k, "/cluster.blocks.read_only") && string(v) == `"true"` {
			worse(plugins.Red, "the cluster is read-only: setting %s", k)
		}
	}
	var blocked []string
	for name, x := range st.Indices {
		h.Estimate += x.Bytes
		if strings.Contains(string(x.Definition), `"index.blocks.read_only_allow_delete":"true"`) {
			blocked = append(blocked, name)
		}
	}
	if len(blocked) > 0 {
		slices.Sort(blocked)
		worse(plugins.Amber, "read-only because a disk was full: %s", some(blocked))
	}
	if err := s.disks(ctx, worse); err != nil {
		return h, err
	}
	if _, err := s.findPlace(ctx); isNoPlace(err) {
		worse(plugins.Amber, "%v: documents would be exported one by one, without their sequence numbers", err)
	} else if err != nil {
		return h, err
	}
	h.Empty = len(st.Indices) == 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(st.Objects)), func(k string) bool {
		return !strings.HasPrefix(k, kindPersistent+"/") && !strings.HasPrefix(k, kindTransient+"/")
	})
	return h, nil
}
