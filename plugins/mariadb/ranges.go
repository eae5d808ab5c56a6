package mariadb

import (
	"bytes"
	"encoding/hex"
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

// where is the clause for the live rows of a stretch that has some.
func (sp *span) where() string {
	if sp.hi == "" {
		return " WHERE " + sp.lo
	}
	return " WHERE " + sp.lo + " AND NOT " + sp.hi
}

// differ finds where a table, read as its ordered artifact was read, differs
// from it; no spans: nowhere. A stretch ends where the live rows of a piece begin.
func differ(pieces []plugins.PieceInfo, r rangeSum) *difference {
	d := &difference{live: r.digest}
	open := false // the last span can still grow
	for i, p := range pieces {
		var x pieceSum
		if n := i - r.from; n >= 0 && n < len(r.at) {
			x = r.at[n]
		}
		if open && x.live.Records > 0 {
			d.spans[len(d.spans)-1].hi = x.begins
			open = false
		}
		if x.live == p.Digest {
			continue
		}
		if !open {
			d.spans, open = append(d.spans, span{from: i, lo: x.begins, live: x.live}), true
		}
		d.spans[len(d.spans)-1].to = i + 1
		d.bytes += p.Bytes
	}
	return d
}

// tellTable is differ by two indexes: that of the backup and that of a
// backup of what is live.
func tellTable(pieces, have []plugins.PieceInfo) (d difference) {
	open := false
	for i, j := 0, 0; i < len(pieces) || j < len(have); {
		if i < len(pieces) && j < len(have) && samePiece(pieces[i], have[j]) {
			i, j, open = i+1, j+1, false
			continue
		}
		if !open {
			d.spans = append(d.spans, span{from: i, to: i, has: [2]int{j, j}})
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
		open = !apart(pieces, i, have, j)
	}
	for _, p := range have {
		d.live.Merge(p.Digest)
	}
	return d
}

// apart says whether all pieces before i and j end before all others begin: the stretch can end here.
func apart(pieces []plugins.PieceInfo, i int, have []plugins.PieceInfo, j int) bool {
	for _, x := range []struct {
		list []plugins.PieceInfo
		at   int
	}{{pieces, i}, {have, j}} {
		for _, y := range []struct {
			list []plugins.PieceInfo
			at   int
		}{{pieces, i}, {have, j}} {
			if x.at > 0 && y.at < len(y.list) && bytes.Compare(x.list[x.at-1].Last, y.list[y.at].First) >= 0 {
				return false
			}
		}
	}
	return true
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
