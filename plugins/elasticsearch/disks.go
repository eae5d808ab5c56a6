package elasticsearch

import (
	"context"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// disk begins the names of the settings that say how full a disk may be.
const disk = "cluster.routing.allocation.disk."

// disks compares the fill of every node's disks with the watermarks in force: the cluster's settings, else the file of the node
// that answers, else the release's defaults, which the server puts in that order itself.
func (s *session) disks(ctx context.Context, worse func(plugins.Grade, string, ...any)) error {
	var all map[string]map[string]any
	if err := s.c.get(ctx, "/_cluster/settings?include_defaults=true&filter_path=*.cluster.routing.allocation.disk", &all); err != nil {
		return err
	}
	set := map[string]string{}
	for _, kind := range []string{"defaults", kindPersistent, kindTransient} {
		flatten("", all[kind], set)
	}
	if set[disk+"threshold_enabled"] == "false" {
		return nil
	}
	var ns struct {
		Nodes map[string]struct {
			Name string `json:"name"`
			FS   struct {
				Total struct {
					Total     int64 `json:"total_in_bytes"`
					Available int64 `json:"available_in_bytes"`
				} `json:"total"`
			} `json:"fs"`
		} `json:"nodes"`
	}
	if err := s.c.get(ctx, "/_nodes/stats/fs?filter_path=nodes.*.name,nodes.*.fs.total", &ns); err != nil {
		return err
	}
	low := watermark(set[disk+"watermark.low"], set[disk+"watermark.low.max_headroom"])
	flood := watermark(set[disk+"watermark.flood_stage"], set[disk+"watermark.flood_stage.max_headroom"])
	for _, n := range ns.Nodes {
		if n.FS.Total.Total <= 0 {
			continue
		}
		switch t, a := n.FS.Total.Total, n.FS.Total.Available; {
		case flood(t, a):
			worse(plugins.Red, "disk of %s is %d%% full: indices become read-only", n.Name, 100-100*a/t)
		case low(t, a):
			worse(plugins.Amber, "disk of %s is %d%% full: no more shards are placed there", n.Name, 100-100*a/t)
		}
	}
	return nil
}

// watermark reads "85%", "0.85" or an amount that must stay free, like "500mb". Of a share no more than headroom need stay free,
// where the release knows one (Elasticsearch from 8.5).
func watermark(mark, headroom string) func(total, available int64) bool {
	share := func(v float64) func(t, a int64) bool {
		most, limited := amount(headroom)
		return func(t, a int64) bool { return float64(t-a) >= v*float64(t) && (!limited || float64(a) <= most) }
	}
	if p, ok := strings.CutSuffix(mark, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		return func(t, a int64) bool { return err == nil && share(v/100)(t, a) }
	}
	if v, err := strconv.ParseFloat(mark, 64); err == nil && v <= 1 {
		return share(v)
	}
	least, ok := amount(mark)
	return func(_, a int64) bool { return ok && float64(a) <= least }
}

// amount reads "500mb" in bytes; "-1" is none.
func amount(s string) (float64, bool) {
	for _, u := range []struct {
		suffix string
		size   float64
	}{{"pb", 1 << 50}, {"tb", 1 << 40}, {"gb", 1 << 30}, {"mb", 1 << 20}, {"kb", 1 << 10}, {"b", 1}} {
		if p, ok := strings.CutSuffix(strings.ToLower(s), u.suffix); ok {
			v, err := strconv.ParseFloat(p, 64)
			return v * u.size, err == nil && v >= 0
		}
	}
	return 0, false
}
