package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// difference is where a live table differs from its artifact: stretches of
// pieces whose rows are not those of the backup. The digests of the pieces
// stand in the backup's index, so finding them reads no piece.
type difference struct {
	spans []span
	live  plugins.Digest         // of all live rows
	bytes int64                  // of the pieces in the spans
	told  plugins.ArtifactReader // holds the live rows; nil: they are read from the server
}

// span is a stretch of pieces with the live rows that stand in their place:
// those from lo (included) to hi (excluded).
type span struct {
	from, to int            // pieces, to excluded
	live     plugins.Digest // of the live rows
	lo, hi   string         // SQL conditions; empty: no bound
	has      [2]int         // pieces of told, the second excluded
}

// scan sorts rows, which come in the order of their keys, into the pieces of
// an artifact.
type scan struct {
	plan   rowPlan
	pieces []plugins.PieceInfo
	at     int // piece of the current rows
	cur    plugins.Digest
	begins string // condition for the first of them, empty before it
	all    plugins.Digest
	out    difference
	open   bool // the last span can still grow
}

func (s *scan) row(m *recordMaker, key, value []byte) {
	h := plugins.RecordHash(key, value)
	next := s.at
	for next+1 < len(s.pieces) && bytes.Compare(key, s.pieces[next+1].First) >= 0 {
		next++
	}
	if next != s.at {
		s.end(next)
	}
	if s.cur.Records == 0 {
		s.begins = m.keyLiterals(&s.plan)
	}
	s.cur.AddHash(h)
}

// end closes the current piece and those that no live row stands in before piece next.
func (s *scan) end(next int) {
	for ; s.at < next; s.at++ {
		s.all.Merge(s.cur)
		if s.cur == s.pieces[s.at].Digest {
			if s.open && s.cur.Records > 0 {
				s.out.spans[len(s.out.spans)-1].hi = s.begins
				s.open = false
			}
		} else {
			s.differs()
		}
		s.cur, s.begins = plugins.Digest{}, ""
	}
}

func (s *scan) differs() {
	if !s.open {
		s.out.spans = append(s.out.spans, span{from: s.at})
		s.open = true
	}
	sp := &s.out.spans[len(s.out.spans)-1]
	if sp.live.Records == 0 && s.cur.Records > 0 {
		sp.lo = s.begins
	}
	sp.live.Merge(s.cur)
	sp.to = s.at + 1
	s.out.bytes += s.pieces[s.at].Bytes
}

// scanTable reads a table as its ordered artifact was read and finds where
// they differ; no spans: nowhere. With ordered false the rows were out of
// order, so they are others.
func scanTable(ctx context.Context, c *sql.Conn, t *tableInfo, pieces []plugins.PieceInfo) (d difference, ordered bool, err error) {
	s := scan{plan: t.plan(false), pieces: pieces}
	if len(pieces) == 0 { // an empty artifact; all live rows are in its place
		s.pieces = []plugins.PieceInfo{{}}
	}
	err = readRecordsOf(ctx, c, s.plan, func(m *recordMaker, k, v []byte) error {
		s.row(m, k, v)
		return nil
	})
	if errors.Is(err, errOrder) {
		return difference{}, false, nil
	}
	s.end(len(s.pieces))
	s.out.live = s.all
	return s.out, true, err
}

// tellTable is scanTable by two indexes: that of the backup and that of a
// backup of what is live.
func tellTable(pieces, have []plugins.PieceInfo) (d difference) {
	open := false
	for i, j := 0, 0; i < len(pieces) || j < len(have); {
		if i < len(pieces) && j < len(have) && samePiece(pieces[i], have[j]) {
			i, j, open = i+1, j+1, false
			continue
		}
		if !open {
			d.spans, open = append(d.spans, span{from: i, to: i, has: [2]int{j, j}}), true
		}
		sp := &d.spans[len(d.spans)-1]
		// A piece that stands in both has no other piece beside it on either side, so the one that ends first goes.
		var c int
		switch {
		case i == len(pieces):
			c = 1
		case j == len(have):
			c = -1
		default:
			c = bytes.Compare(pieces[i].Last, have[j].Last)
		}
		if c <= 0 {
			d.bytes += pieces[i].Bytes
			i++
			sp.to = i
		}
		if c >= 0 {
			sp.live.Merge(have[j].Digest)
			j++
			sp.has[1] = j
		}
	}
	for _, p := range have {
		d.live.Merge(p.Digest)
	}
	return d
}

func samePiece(a, b plugins.PieceInfo) bool {
	return a.Digest == b.Digest && bytes.Equal(a.First, b.First) && bytes.Equal(a.Last, b.Last)
}

// keyColumns are the places of the key's columns among the stored ones; nil when one is not stored.
func (p *rowPlan) keyColumns() []int {
	out := make([]int, len(p.key))
	for i, k := range p.key {
		out[i] = -1
		for j, c := range p.columns {
			if c.name == k.column.name {
				out[i] = j
			}
		}
		if out[i] < 0 {
			return nil
		}
	}
	return out
}

// keyLiterals is the SQL condition for rows from the current one on.
func (m *recordMaker) keyLiterals(p *rowPlan) string {
	at := p.keyColumns()
	if at == nil {
		return ""
	}
	cond := ""
	for i := len(at) - 1; i >= 0; i-- {
		c := p.columns[at[i]]
		name, value := q(c.name), c.literal(m.cells[at[i]])
		if cond == "" {
			cond = name + ">=" + value
		} else {
			cond = "(" + name + ">=" + value + " AND (" + name + ">" + value + " OR " + cond + "))"
		}
	}
	return cond
}

// literal writes a cell, as readExpr gave it, so that the server compares it
// with the column in the column's own order.
func (c columnInfo) literal(cell []byte) string {
	switch c.dataType {
	case "date", "datetime", "timestamp":
		return "'" + string(cell) + "'"
	case "binary", "varbinary":
		return "X'" + hex.EncodeToString(cell) + "'"
	case "char", "varchar":
		return "_" + c.charset + " X'" + hex.EncodeToString(cell) + "'"
	}
	return strings.Clone(string(cell)) // a number
}
