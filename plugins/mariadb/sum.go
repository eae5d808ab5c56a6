package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"slices"
	"sort"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Where a table is only to be compared, the ranges of a split table are
// digested by whichever connection reads them: digests add up in any order.

// rangeSum is what is known of one range, or of a whole table.
type rangeSum struct {
	digest      plugins.Digest
	first, last []byte // keys
	bytes       int64
	from        int        // piece of the artifact in whose place the first row stands
	at          []pieceSum // by piece, beginning with from; nil where no pieces were given
}

// pieceSum are the live rows in the place of one piece.
type pieceSum struct {
	live   plugins.Digest
	begins string // condition for the first of them, empty before it
}

// tally reads one plan's rows.
func (c *copier) tally(ctx context.Context, conn *sql.Conn, p rowPlan, pieces []plugins.PieceInfo) (r rangeSum, err error) {
	var told int64
	err = readRecordsOf(ctx, conn, p, func(m *recordMaker, k, v []byte) error {
		if pieces != nil {
			r.place(m, &p, pieces, k)
			r.at[len(r.at)-1].live.Add(k, v)
		} else {
			r.digest.Add(k, v)
		}
		if r.first == nil {
			r.first = slices.Clone(k)
		}
		r.last = append(r.last[:0], k...)
		if r.bytes += int64(len(k) + len(v)); r.bytes-told > 1<<20 {
			c.progress(p.table.name, r.bytes-told)
			told = r.bytes
		}
		return ctx.Err()
	})
	for _, x := range r.at {
		r.digest.Merge(x.live)
	}
	c.progress(p.table.name, r.bytes-told)
	return r, err
}

// place makes the piece in whose place a row stands the last one of at.
func (r *rangeSum) place(m *recordMaker, p *rowPlan, pieces []plugins.PieceInfo, key []byte) {
	if r.at == nil {
		r.from = max(0, sort.Search(len(pieces), func(i int) bool { return bytes.Compare(pieces[i].First, key) > 0 })-1)
		r.at = make([]pieceSum, 1, 8)
	}
	for i := r.from + len(r.at); i < len(pieces) && bytes.Compare(key, pieces[i].First) >= 0; i++ {
		r.at = append(r.at, pieceSum{})
	}
	if last := &r.at[len(r.at)-1]; last.live.Records == 0 {
		last.begins = m.keyLiterals(p)
	}
}

// sum reads one range that nobody reads yet; false: there is none left, or
// one has failed, which is the affair of the table's own reader.
func (s *split) sum(ctx context.Context, conn *sql.Conn, c *copier) bool {
	s.mu.Lock()
	i := s.next
	if i >= s.ranges || s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.next = i + 1
	s.busy.Add(1)
	s.mu.Unlock()
	defer s.busy.Done()
	r, err := c.tally(ctx, conn, s.plan(i), c.piecesOf(s.t))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[i] = r
	if s.err == nil {
		s.err = err
	}
	return true
}

// total waits for the ranges that others read and adds all of them up; the
// ranges follow each other in the order of keys.
func (s *split) total() (r rangeSum, err error) {
	s.busy.Wait()
	if s.err != nil {
		return r, s.err
	}
	for _, x := range s.sums {
		if x.digest.Records == 0 {
			continue
		}
		if r.digest.Records > 0 && bytes.Compare(x.first, r.last) <= 0 {
			return r, errOrder
		}
		if r.at == nil {
			r.from = x.from
		}
		for i, y := range x.at {
			if n := x.from + i - r.from; n == len(r.at)-1 {
				if r.at[n].live.Records == 0 {
					r.at[n].begins = y.begins
				}
				r.at[n].live.Merge(y.live)
			} else {
				r.at = append(r.at, make([]pieceSum, n-len(r.at)+1)...)
				r.at[n] = y
			}
		}
		r.digest.Merge(x.digest)
		r.bytes += x.bytes
		r.last = x.last
	}
	return r, nil
}

func (c *copier) piecesOf(t *tableInfo) []plugins.PieceInfo {
	if c.pieces == nil {
		return nil
	}
	return c.pieces(tableArtifact(t.schema, t.name))
}

// look is stream for a copier that stores nothing.
func (c *copier) look(ctx context.Context, conn *sql.Conn, name string, p rowPlan) error {
	var r rangeSum
	var err error
	form := plugins.Unordered
	if len(p.key) > 0 {
		form = plugins.Ordered
	}
	switch i := slices.IndexFunc(c.splits, func(s *split) bool { return s.t == p.table }); {
	case form == plugins.Unordered:
		r, err = c.tally(ctx, conn, p, nil)
	case i < 0:
		r, err = c.tally(ctx, conn, p, c.piecesOf(p.table))
	default:
		for c.splits[i].sum(ctx, conn, c) {
		}
		r, err = c.splits[i].total()
	}
	if err != nil {
		return err
	}
	c.rows.Add(r.digest.Records)
	c.artifacts.Add(1)
	c.sums(name, form, r)
	return nil
}

// known takes over what is known of a table instead of reading it: its
// digest, or, for a backup, what an earlier backup has stored of the same rows.
func (c *copier) known(ctx context.Context, t *tableInfo, name string) (done bool, err error) {
	k, ok := c.recall(t, name)
	if !ok {
		return false, nil
	}
	if c.sums != nil {
		c.sums(name, k.form, rangeSum{digest: k.digest})
		c.rows.Add(k.digest.Records)
		c.artifacts.Add(1)
		return true, nil
	}
	done, err = c.w.(plugins.Sharer).Share(ctx, c.artifact(name, k.form), k.digest)
	if done {
		c.rows.Add(k.digest.Records)
		c.artifacts.Add(1)
		c.progress(name, t.bytes)
	}
	return done, err
}

// recall says what is known of a table at the pin's point, where that is
// enough: for a digest, and for a safety backup, whose run has read the
// table a moment ago.
func (c *copier) recall(t *tableInfo, name string) (knownTable, bool) {
	if !t.innodb() || c.pieces != nil {
		return knownTable{}, false
	}
	if _, shares := c.w.(plugins.Sharer); c.sums == nil && (!shares || c.run.Operation != plugins.OpSafety) {
		return knownTable{}, false
	}
	form := plugins.Unordered
	if len(t.plan(c.unordered[name]).key) > 0 {
		form = plugins.Ordered
	}
	return c.pin.s.known.of(c.pin.stamp, name, form)
}

// survey digests tables over all connections; pieces may be nil.
func (s *session) survey(ctx context.Context, run plugins.Run, conns []*sql.Conn, list []*tableInfo, unordered map[string]bool,
	pieces func(name string) []plugins.PieceInfo, sums func(name string, form plugins.Form, r rangeSum)) error {
	c := &copier{pin: &pin{s: s}, run: run, unordered: unordered, pieces: pieces, sums: sums}
	for _, t := range list {
		c.total += t.bytes
	}
	return c.each(ctx, list, conns)
}
