package elasticsearch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// delta is what a restore has to do.
type delta struct {
	same, add, change, extra []string          // indices that are no part of a data stream, and data streams
	why                      map[string]string // of what changed
	removeObjects            []string          // "kind/name", in order
	writeObjects             []string
	settings                 []string // "kind/name" of cluster settings that differ
	bytes                    int64    // of the indices to restore
}

func (d *delta) empty() bool {
	return len(d.add)+len(d.change)+len(d.extra)+len(d.removeObjects)+len(d.writeObjects)+len(d.settings) == 0
}

// restore lists what comes out of the snapshot.
func (d *delta) restore() []string {
	return slices.Sorted(slices.Values(slices.Concat(d.add, d.change)))
}

// unitOf is what an index is deleted and restored with: its data stream, or itself.
func unitOf(streams map[string][]byte, st *state, name string) string {
	if x := st.Indices[name]; x != nil && x.Stream != "" {
		return x.Stream
	}
	for s, b := range streams {
		if strings.Contains(string(b), strconv.Quote(name)) {
			return s
		}
	}
	return name
}

// difference compares the live cluster with the backup. Documents are read only where neither the
// definition nor the position of an index already shows that it is another one, or the very same.
func (s *session) difference(ctx context.Context, run plugins.Run, c *content, live *state, n note, proof bool) (*delta, error) {
	d := &delta{why: map[string]string{}}
	if c.mode == modeExport {
		if err := live.strip(); err != nil {
			return nil, err
		}
	}
	units := map[string]string{} // unit → why it differs; "": not
	for name, b := range c.streams {
		units[name] = ""
		if l, ok := live.Streams[name]; ok && string(l) != string(b) {
			units[name] = "generation or backing indices"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.indices)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		u := unitOf(c.streams, &state{}, name)
		if _, ok := units[u]; !ok {
			units[u] = ""
		}
		x := live.Indices[name]
		if x == nil {
			if _, isStream := live.Streams[u]; isStream {
				units[u] = "a backing index is missing"
			}
			continue
		}
		if units[u] != "" && !proof {
			continue
		}
		why, err := s.differs(ctx, run, c, x, c.indices[name], n, proof)
		if err != nil {
			return nil, err
		}
		if why != "" {
			units[u] = why
		}
	}
	for _, u := range slices.Sorted(maps.Keys(units)) {
		_, stream := live.Streams[u]
		switch x := live.Indices[u]; {
		case x == nil && !stream, x != nil && x.Stream != "" && c.indices[u] != nil:
			d.add = append(d.add, u)
		case units[u] != "":
			d.change = append(d.change, u)
			d.why[u] = units[u]
		default:
			d.same = append(d.same, u)
		}
	}
	for name, x := range live.Indices {
		if _, ok := units[name]; !ok && x.Stream == "" {
			d.extra = append(d.extra, name)
		}
	}
	for name := range live.Streams {
		if _, ok := units[name]; !ok {
			d.extra = append(d.extra, name)
		}
	}
	slices.Sort(d.extra)
	restored := d.restore()
	for name, x := range c.indices {
		if slices.Contains(restored, unitOf(c.streams, &state{}, name)) {
			b, _ := strconv.ParseInt(x.attrs[attrBytes], 10, 64)
			d.bytes += b
		}
	}
	was := n.prior(live.Objects)
	d.removeObjects, d.writeObjects = splitObjects(was, c.objects, objectKinds)
	gone, set := splitObjects(was, c.objects, []string{kindPersistent, kindTransient})
	d.settings = append(gone, set...)
	return d, nil
}

// differs says how an index differs from the backup; empty: it does not. With proof, documents are read in any case.
func (s *session) differs(ctx context.Context, run plugins.Run, c *content, x *index, d *described, n note, proof bool) (string, error) {
	if string(x.Definition) != string(d.definition) && !d.unsure {
		return "definition: " + differentPart(d.definition, x.Definition), nil
	}
	o, restored := n.Restored[x.UUID]
	known := restored && x.History == "" && o.Life == d.attrs[attrLife] && o.Position == d.attrs[attrPosition] && o.At == x.position() && (o.Pin == c.pin || !d.unproved)
	known = known || !d.unproved && x.life() == d.attrs[attrLife] && x.position() == d.attrs[attrPosition]
	if d.sampled() && !known {
		return "documents: it is not the index of the backup, which is too large to compare", nil
	}
	if d.unproved || x.Closed {
		if !known || !x.complete() {
			return "documents", nil
		}
		return "", nil
	}
	if known && !proof {
		return "", nil
	}
	if !x.complete() {
		return "not all shards have a live copy", nil
	}
	how := readAll
	switch {
	case c.mode == modeExport:
		how = readPortable
	case d.sampled():
		how = readSample
	case len(d.documents) != x.Primaries:
		return "number of shards", nil
	}
	recs, err := s.digestIndex(ctx, run, x, how, func(k int64) {
		run.Report(plugins.Status{Phase: "digest", Item: x.Name, Bytes: k})
	})
	if err != nil {
		return "", err
	}
	if how == readSample && !agree(recs, d.documents) || how != readSample && !maps.EqualFunc(recs, d.documents, func(a, b []byte) bool { return string(a) == string(b) }) {
		return "documents: " + strings.Join(unequalShards(recs, d.documents), ", "), nil
	}
	return "", nil
}

func unequalShards(live, want map[string][]byte) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if string(live[k]) != string(want[k]) && len(out) < 5 {
			l, _, _ := strings.Cut(string(live[k]), ":")
			w, _, _ := strings.Cut(string(want[k]), ":")
			out = append(out, fmt.Sprintf("%s holds %s, in the backup %s", k, l, w))
		}
	}
	return out
}

// differentPart names the part of a definition that differs.
func differentPart(want, live []byte) string {
	parts := func(b []byte) map[string]string {
		m := map[string]string{}
		_ = members(b, func(k, v []byte) error { m[string(k)] = string(v); return nil })
		return m
	}
	w, l := parts(want), parts(live)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(w)) {
		if w[k] != l[k] {
			out = append(out, k)
		}
	}
	return strings.Join(out, ", ")
}
