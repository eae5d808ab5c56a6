package elasticsearch

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// compatible refuses a snapshot this server cannot read: of a newer version, or of the other product's later ones.
func (s *session) compatible(b *content) error {
	if b.mode != modeSnapshot {
		return nil
	}
	from := product{Version: b.version}
	if d, v, ok := strings.Cut(b.version, " "); ok {
		from = product{Version: v, Distribution: d}
	}
	switch {
	case from.Distribution == s.product.Distribution && compareVersions(from.Version, s.product.Version) <= 0:
		return nil
	case from.Distribution == "" && s.product.Distribution == "opensearch" && compareVersions(from.Version, "7.10.99") <= 0:
		return nil // OpenSearch reads snapshots of the version it came from
	}
	return fmt.Errorf("%s: the backup is a snapshot of %s and this server is %s: %w: restore onto that version or a later one of the same product", s.target, b.version, s.product, plugins.ErrVersion)
}

// compareVersions compares dotted numbers.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			_, _ = fmt.Sscanf(x[i], "%d", &m)
		}
		if i < len(y) {
			_, _ = fmt.Sscanf(y[i], "%d", &n)
		}
		if m != n {
			return m - n
		}
	}
	return 0
}

// membersThere refuses while a member is down that may hold the only copy of a shard of what is about to be
// restored: its return would bring an old copy back, and until then a node is missing to place shards on.
func (s *session) membersThere(ctx context.Context, b *content, live *state, d *delta) error {
	h, err := s.clusterHealth(ctx)
	if err != nil {
		return err
	}
	if h.Nodes >= len(s.target.Members) {
		return nil
	}
	units := slices.Concat(d.add, d.change, d.extra)
	var lone []string
	for name, x := range live.Indices {
		if slices.Contains(units, unitOf(b.streams, live, name)) && (x.Replicas == 0 || !x.complete()) {
			lone = append(lone, name)
		}
	}
	for name, x := range b.indices {
		if slices.Contains(units, unitOf(b.streams, live, name)) && strings.Contains(string(x.definition), `"index.number_of_replicas":"0"`) && !slices.Contains(lone, name) {
			lone = append(lone, name)
		}
	}
	if len(lone) == 0 {
		return nil
	}
	slices.Sort(lone)
	return fmt.Errorf("%s: %d of %d members are there, and these indices have no replica: %s: %w: bring the missing member back first", s.target, h.Nodes, len(s.target.Members), some(lone), plugins.ErrUnavailable)
}

// streamsAllowed refuses data streams to a user of OpenSearch's security plugin, who may restore indices only: the plugin looks
// for the stream's name among the snapshot's indices (measured on 2.19.4). An administrator's certificate may.
func (s *session) streamsAllowed(ctx context.Context, b *content, d *delta) error {
	var names []string
	for _, u := range d.restore() {
		if _, ok := b.streams[u]; ok {
			names = append(names, u)
		}
	}
	if len(names) == 0 || b.mode != modeSnapshot {
		return nil
	}
	var who struct {
		User      string `json:"user_name"`
		Principal string `json:"principal"`
	}
	err := s.c.get(ctx, "/_plugins/_security/authinfo", &who)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || who.User == "" || who.Principal != "" {
		return nil // no such plugin, or a certificate
	}
	return fmt.Errorf("%s: the security plugin lets user %s restore no data streams (%s): %w: give client_cert_file and client_key_file of an administrator in the estate file", s.target, who.User, some(names), plugins.ErrAuth)
}
