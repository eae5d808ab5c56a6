package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// wanted is a znode of the backup that differs from the live one.
type wanted struct {
	path string
	acl  int32 // index in the live tree's table
	null bool
	data spool.Ref
	kind kind
	live *node // nil: to be created
	// what of a live znode differs
	setData, setACL bool
}

// padding is a sequence counter that must grow.
type padding struct {
	path       string
	have, want uint32
}

// delta is what separates the live tree from a backup.
type delta struct {
	first    []*node  // to be removed before anything is created: they are in the way
	add, set []wanted // ascending by path
	extra    []*node  // appeared later
	gone     []string // ephemeral znodes that go with the znode above them, or are in the way
	pads     []padding
	lapsed   []string // TTL and container znodes that may lawfully be gone
	equal    int
	bytes    int64
	fresh    map[string]bool // paths of the backup that are not live
}

func (d *delta) structure() bool { return len(d.first)+len(d.add)+len(d.set)+len(d.extra) > 0 }
func (d *delta) empty() bool     { return !d.structure() && len(d.pads) == 0 }

// compare reads the whole backup, checks it, and finds what differs from the
// live tree. The data of what must be written is kept in sp.
func (s *session) compare(ctx context.Context, r plugins.ArtifactReader, live *tree, sp *spool.Spool) (*delta, error) {
	kinds, known, err := loadKinds(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, n := range live.nodes {
		n.mark = false
	}
	d := &delta{fresh: map[string]bool{}}
	has := func(p string) bool { return d.has(live, p) }
	recreated := map[string]bool{}
	var buf []byte
	err = each(ctx, r, treeName, func(k, v []byte) error {
		w := wanted{path: string(k)}
		if err := checkPath(w.path, has); err != nil {
			return err
		}
		acl, data, ok := bytes.Cut(v, []byte{'\n'})
		if !ok || len(data) == 0 || strings.IndexByte("+-~", data[0]) < 0 || (data[0] == '~') != masked(w.path) || data[0] != '+' && len(data) > 1 {
			return fmt.Errorf("record %q of %s: %w", k, treeName, plugins.ErrCorrupt)
		}
		var err error
		if w.acl, err = live.acls.parse(string(acl)); err != nil {
			return fmt.Errorf("record %q: %w: %w", k, err, plugins.ErrCorrupt)
		}
		w.null, data, w.kind = data[0] == '-', data[1:], kinds[w.path]
		if w.live = live.nodes[w.path]; w.live == nil {
			d.fresh[w.path] = true
		}
		if _, ok := live.ephemerals[w.path]; ok {
			d.gone = append(d.gone, w.path)
		}
		if w.live != nil {
			w.live.mark = true
			if known && live.kindsKnown && w.live.kind != w.kind || recreated[path.Dir(w.path)] {
				recreated[w.path] = true
				d.first = append(d.first, w.live)
				w.live = nil
			}
		} else if recreated[path.Dir(w.path)] {
			recreated[w.path] = true
		}
		if w.live != nil {
			w.setACL = w.live.acl != w.acl
			if !masked(w.path) {
				now, err := live.spool.Get(w.live.data, &buf)
				if err != nil {
					return err
				}
				w.setData = w.live.null != w.null || !bytes.Equal(now, data)
			}
			if !w.setACL && !w.setData {
				d.equal++
				return nil
			}
		}
		if w.data, err = sp.Put(data); err != nil {
			return err
		}
		d.bytes += int64(len(k) + len(v))
		if w.live == nil {
			d.add = append(d.add, w)
		} else {
			d.set = append(d.set, w)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !has("/") {
		return nil, fmt.Errorf("the backup has no root: %w", plugins.ErrCorrupt)
	}
	for _, n := range live.sorted() {
		if n.mark {
			continue
		}
		if recreated[path.Dir(n.path)] {
			recreated[n.path] = true
			d.first = append(d.first, n)
		} else {
			d.extra = append(d.extra, n)
		}
	}
	d.doomed(live, recreated)
	for _, w := range d.add {
		if lapses(w.kind) {
			d.lapsed = append(d.lapsed, w.path)
		}
	}
	return d, d.counters(ctx, r, live)
}

// has says whether the backup holds the path, once it was read that far.
func (d *delta) has(live *tree, p string) bool {
	n := live.nodes[p]
	return n != nil && n.mark || d.fresh[p]
}

// doomed finds the ephemeral znodes below znodes that must go.
func (d *delta) doomed(live *tree, recreated map[string]bool) {
	if len(live.ephemerals) == 0 {
		return
	}
	going := map[string]bool{}
	for _, n := range d.extra {
		going[n.path] = true
	}
	for p := range live.ephemerals {
		if parent := path.Dir(p); going[parent] || recreated[parent] && live.nodes[parent] != nil {
			if !d.has(live, p) {
				d.gone = append(d.gone, p)
			}
		}
	}
}

// counters finds the sequence counters that stand lower than in the backup.
func (d *delta) counters(ctx context.Context, r plugins.ArtifactReader, live *tree) error {
	return each(ctx, r, statsName, func(k, v []byte) error {
		st, err := parseStats(v)
		if err != nil || !d.has(live, string(k)) {
			return fmt.Errorf("record %q of %s: %w", k, statsName, plugins.ErrCorrupt)
		}
		if n := live.nodes[string(k)]; n != nil && n.stat.creates < st.creates {
			d.pads = append(d.pads, padding{path: n.path, have: n.stat.creates, want: st.creates})
		}
		return nil
	})
}

func lapses(k kind) bool { return k != 0 }

// each reads an artifact to its end.
func each(ctx context.Context, r plugins.ArtifactReader, name string, f func(k, v []byte) error) error {
	rr, err := r.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", name, err)
	}
	defer rr.Close()
	for i := 0; ; i++ {
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		k, v, err := rr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("artifact %s: %w", name, err)
		}
		if err := f(k, v); err != nil {
			return err
		}
	}
}

// loadKinds reads the types; false when the backup does not know them.
func loadKinds(ctx context.Context, r plugins.ArtifactReader) (map[string]kind, bool, error) {
	known := false
	for _, a := range r.Artifacts() {
		if a.Name == kindsName {
			known = a.Attributes[knownAttr] == "known"
		}
	}
	out := map[string]kind{}
	err := each(ctx, r, kindsName, func(k, v []byte) error {
		var x kind
		if ms, ok := strings.CutPrefix(string(v), "ttl "); ok {
			n, err := strconv.ParseInt(ms, 10, 64)
			if err != nil || n <= 0 {
				return fmt.Errorf("record %q of %s: %w", k, kindsName, plugins.ErrCorrupt)
			}
			x = kind(n)
		} else if x = container; string(v) != "container" {
			return fmt.Errorf("record %q of %s: %w", k, kindsName, plugins.ErrCorrupt)
		}
		out[string(k)] = x
		return nil
	})
	return out, known, err
}

// checkPath refuses what no server would have given out, and what is not ours to write.
func checkPath(p string, seen func(string) bool) error {
	bad := func(why string) error {
		return fmt.Errorf("record %q of the backup: %s: it was not written by this product: %w", p, why, plugins.ErrData)
	}
	switch {
	case p == "/":
		return nil
	case !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsRune(p, 0) || !utf8.ValidString(p):
		return bad("no plain path")
	case owned(p):
		return bad("it belongs to the server")
	case !seen(path.Dir(p)) && !owned(path.Dir(p)):
		return bad("its parent is not in the backup")
	}
	return nil
}
