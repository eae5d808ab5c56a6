package cassandra

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// content is what a table holds, row by row, independent of its files: for each
// span of tokens the digest of all that stays, and each cell that will expire.
type content struct {
	spans    []span
	lasting  []plugins.Digest // by span
	expiring map[[32]byte]int64
	overflow bool // more expiring cells than are kept
	rows     int64
}

func (c *content) total() (d plugins.Digest) {
	for _, l := range c.lasting {
		d.Merge(l)
	}
	return d
}

// expiringLimit is how many cells with an expiry a table may hold to be compared row by row.
const expiringLimit = 200_000

// raw takes a value as the bytes of the protocol; nil is null.
type raw []byte

// UnmarshalCQL implements gocql.Unmarshaler.
func (r *raw) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	if data == nil {
		*r = nil
		return nil
	}
	if *r = append((*r)[:0], data...); *r == nil {
		*r = raw{}
	}
	return nil
}

// column is one column of a table as system_schema tells.
type column struct {
	name, kind, typ string // kind: partition_key, clustering, regular, static
	position        int
}

func (c column) key() bool     { return c.kind == "partition_key" || c.kind == "clustering" }
func (c column) counter() bool { return c.typ == "counter" }

// multi says whether the column holds cells of their own for each element.
func (c column) multi() bool {
	for _, p := range []string{"map<", "set<", "list<"} {
		if strings.HasPrefix(c.typ, p) {
			return true
		}
	}
	return false
}

func (s *session) columns(ctx context.Context, t tableName) ([]column, error) {
	it := s.c.Query("SELECT column_name, kind, type, position FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?", t.keyspace, t.table).WithContext(ctx).Iter()
	var out []column
	var c column
	for it.Scan(&c.name, &c.kind, &c.typ, &c.position) {
		out = append(out, c)
	}
	if err := it.Close(); err != nil {
		return nil, s.cfg.wrap(ctx, "read columns of "+t.String(), err)
	}
	order := map[string]int{"partition_key": 0, "clustering": 1, "static": 2, "regular": 3}
	slices.SortFunc(out, func(a, b column) int {
		if d := order[a.kind] - order[b.kind]; d != 0 {
			return d
		}
		if d := a.position - b.position; d != 0 && a.key() {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return out, nil
}

// scan reads a table from all its replicas, span by span.
func (s *session) scan(ctx context.Context, run plugins.Run, t tableName, spans []span) (*content, error) {
	cols, err := s.columns(ctx, t)
	if err != nil {
		return nil, err
	}
	udt, err := s.structures(ctx, t.keyspace)
	if err != nil {
		return nil, err
	}
	q := s.selection(t, cols, udt)
	if q.level, err = s.everyReplica(ctx, t.keyspace); err != nil {
		return nil, err
	}
	out := &content{spans: spans, lasting: make([]plugins.Digest, len(spans)), expiring: map[[32]byte]int64{}}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, min(4, run.Parallel)))
	for i, sp := range spans {
		g.Go(func() error {
			r := reader{cols: q.cols, now: time.Now, content: &content{expiring: map[[32]byte]int64{}}}
			if err := s.scanSpan(gctx, q, sp, &r); err != nil {
				return s.cfg.wrap(gctx, "read "+t.String(), err)
			}
			mu.Lock()
			defer mu.Unlock()
			out.lasting[i] = r.lasting
			out.rows += r.content.rows
			for k, v := range r.content.expiring {
				out.expiring[k] = v
			}
			out.overflow = out.overflow || r.content.overflow || len(out.expiring) > expiringLimit
			return nil
		})
	}
	return out, errors.Join(g.Wait(), ctx.Err())
}

// structures names the user-defined types of a keyspace.
func (s *session) structures(ctx context.Context, keyspace string) (map[string]bool, error) {
	out := map[string]bool{}
	it := s.c.Query("SELECT type_name FROM system_schema.types WHERE keyspace_name = ?", keyspace).WithContext(ctx).Iter()
	var n string
	for it.Scan(&n) {
		out[n] = true
	}
	if err := it.Close(); err != nil {
		return nil, s.cfg.wrap(ctx, "read types of "+keyspace, err)
	}
	return out, nil
}

// selected is one column in the result: its value, and where the server can tell its write time and time to live.
type selected struct {
	column
	times, elements bool
}

type selection struct {
	cols  []selected
	text  string
	level gocql.Consistency
}

// everyReplica is the consistency that reads from all nodes that hold a copy. ALL asks for as many as the
// keyspace wants, even where the ring has fewer nodes.
func (s *session) everyReplica(ctx context.Context, keyspace string) (gocql.Consistency, error) {
	r, err := s.readRing(ctx)
	if err != nil {
		return 0, err
	}
	var repl map[string]string
	if err := s.c.Query("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", keyspace).WithContext(ctx).Scan(&repl); err != nil {
		return 0, s.cfg.wrap(ctx, "read replication", err)
	}
	want := 0
	for k, v := range repl {
		if k != "class" {
			want += copies(v)
		}
	}
	if n := len(r.Nodes); n < want && n < 3 {
		return []gocql.Consistency{gocql.One, gocql.One, gocql.Two}[n], nil
	}
	return gocql.All, nil
}

func (s *session) selection(t tableName, cols []column, udt map[string]bool) selection {
	var out selection
	var list, keys []string
	for _, c := range cols {
		sel := selected{column: c}
		list = append(list, quote(c.name))
		if c.kind == "partition_key" {
			keys = append(keys, quote(c.name))
		}
		if !c.key() && !c.counter() {
			sel.elements = c.multi() || udt[unquote(c.typ)]
			sel.times = !sel.elements || s.v5 // CASSANDRA-8877: collections tell their times from 5.0 on
		}
		if sel.times {
			list = append(list, "WRITETIME("+quote(c.name)+")", "TTL("+quote(c.name)+")")
		}
		out.cols = append(out.cols, sel)
	}
	token := "token(" + strings.Join(keys, ", ") + ")"
	out.text = "SELECT " + strings.Join(list, ", ") + " FROM " + t.cql() + " WHERE " + token + " > ? AND " + token + " <= ?"
	return out
}

func (s *session) scanSpan(ctx context.Context, q selection, sp span, r *reader) error {
	it := s.c.Query(q.text, sp.from, sp.to).Consistency(q.level).Idempotent(true).WithContext(ctx).Iter()
	meta := it.Columns()
	var dest []any
	widths := make([]int, len(meta))
	var values []*raw
	for i, m := range meta {
		widths[i] = 1
		if tuple, ok := m.TypeInfo.(gocql.TupleTypeInfo); ok {
			widths[i] = len(tuple.Elems)
		}
		for range widths[i] {
			v := new(raw)
			values, dest = append(values, v), append(dest, v)
		}
	}
	for it.Scan(dest...) {
		at := 0
		next := func() [][]byte {
			n := widths[0]
			if at < len(widths) {
				n = widths[at]
			}
			at++
			out := make([][]byte, n)
			for i := range out {
				out[i] = *values[0]
				values = values[1:]
			}
			return out
		}
		all := values
		r.row(next)
		values = all
	}
	return it.Close()
}

// reader turns rows into digests.
type reader struct {
	cols    []selected
	now     func() time.Time
	lasting plugins.Digest
	content *content
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(append(b, 1), uint64(len(v))), v...)
}

// row takes the values of one row, column by column.
func (r *reader) row(next func() [][]byte) {
	r.content.rows++
	now := r.now().Unix()
	var partition, key, value []byte
	lasting, cells := false, false
	for _, c := range r.cols {
		v := next()
		joined := v[0]
		if len(v) > 1 { // a tuple at the top comes in parts
			null := true
			var j []byte
			for _, p := range v {
				null = null && p == nil
				j = appendBytes(j, p)
			}
			if joined = j; null {
				joined = nil
			}
		}
		var wt, ttl []byte
		if c.times {
			wt, ttl = next()[0], next()[0]
		}
		if c.key() {
			key = appendBytes(key, joined)
			if c.kind == "partition_key" {
				partition = key
			}
			continue
		}
		if joined == nil {
			continue
		}
		cells = true
		at := key
		if c.kind == "static" {
			at = partition
		}
		name := appendBytes(nil, []byte(c.name))
		switch {
		case !c.times:
			lasting = true
			value = appendBytes(append(value, name...), joined)
		case c.elements:
			for i, e := range elements(c.column, joined, wt, ttl) {
				switch {
				case e.value == nil:
					continue
				case e.ttl > 0:
					r.expires(at, name, e, now)
					continue
				}
				lasting = true
				value = append(value, name...)
				if !c.multi() {
					value = binary.AppendUvarint(value, uint64(i))
				}
				value = appendBytes(appendBytes(value, e.value), e.written)
			}
		default:
			if e := (cell{joined, wt, seconds(ttl)}); e.ttl > 0 {
				r.expires(at, name, e, now)
			} else {
				lasting = true
				value = appendBytes(appendBytes(append(value, name...), joined), wt)
			}
		}
	}
	if lasting || !cells {
		r.lasting.Add(key, value)
	}
}

// cell is a value with its write time and time to live in seconds (0: for ever).
type cell struct {
	value, written []byte
	ttl            int64
}

func (r *reader) expires(key, name []byte, e cell, now int64) {
	if len(r.content.expiring) >= expiringLimit {
		r.content.overflow = true
		return
	}
	b := appendBytes(appendBytes(append(slices.Clone(key), name...), e.value), e.written)
	r.content.expiring[sha256.Sum256(b)] = now + e.ttl
}

func seconds(b []byte) int64 {
	if len(b) != 4 {
		return 0
	}
	return int64(int32(binary.BigEndian.Uint32(b)))
}

// elements splits a collection or structure into cells. Frozen ones have one time for all.
func elements(c column, value, wt, ttl []byte) []cell {
	if len(wt) == 8 || len(ttl) == 4 {
		return []cell{{value, wt, seconds(ttl)}}
	}
	times, lives := split(wt, true), split(ttl, true)
	parts := split(value, c.multi())
	if strings.HasPrefix(c.typ, "map<") {
		var pairs [][]byte
		for i := 0; i+1 < len(parts); i += 2 {
			pairs = append(pairs, appendBytes(appendBytes(nil, parts[i]), parts[i+1]))
		}
		parts = pairs
	}
	out := make([]cell, 0, len(parts))
	for i, p := range parts {
		e := cell{value: p}
		if i < len(times) {
			e.written = times[i]
		}
		if i < len(lives) {
			e.ttl = seconds(lives[i])
		}
		out = append(out, e)
	}
	return out
}

// split reads length-prefixed values; counted ones are preceded by their number, which does not
// count the two halves of a map's entries.
func split(b []byte, counted bool) [][]byte {
	if counted {
		if len(b) < 4 {
			return nil
		}
		b = b[4:]
	}
	var out [][]byte
	for len(b) >= 4 {
		n := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if n < 0 {
			out = append(out, nil)
			continue
		}
		if int(n) > len(b) {
			return append(out, b)
		}
		out = append(out, b[:n:n])
		b = b[n:]
	}
	return out
}

// digestKey is the key of a span's digest.
func (s span) key() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(s.from)^(1<<63))
}
