package mariadb

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// cutRows makes pieces of sorted keys, cut where the key alone says so.
func cutRows(rows map[string]string) (pieces []plugins.PieceInfo) {
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		if h := plugins.RecordHash([]byte(k), nil); len(pieces) == 0 || h[0] < 40 {
			pieces = append(pieces, plugins.PieceInfo{First: []byte(k)})
		}
		p := &pieces[len(pieces)-1]
		p.Last = []byte(k)
		p.Bytes += int64(len(k) + len(rows[k]))
		p.Digest.Add([]byte(k), []byte(rows[k]))
		p.Records++
	}
	return pieces
}

// Outside the stretches both sides have the same rows; inside, each side has
// all its rows of that part of the key space and nothing else.
func TestTellTable(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for round := range 500 {
		want, have := map[string]string{}, map[string]string{}
		for range r.IntN(300) {
			k := fmt.Sprintf("%04d", r.IntN(1000))
			want[k], have[k] = "v", "v"
		}
		for range r.IntN(6) {
			k := fmt.Sprintf("%04d", r.IntN(1000))
			switch r.IntN(4) {
			case 0:
				have[k] = "other"
			case 1:
				delete(have, k)
			case 2:
				want[k] = "new"
			default:
				from := fmt.Sprintf("%04d", r.IntN(1000))
				maps.DeleteFunc(have, func(k, _ string) bool { return k > from && k < from+"5" })
			}
		}
		a, b := cutRows(want), cutRows(have)
		if r.IntN(10) == 0 { // cuts that do not agree
			b = b[:0]
			for _, k := range slices.Sorted(maps.Keys(have)) {
				p := plugins.PieceInfo{First: []byte(k), Last: []byte(k), Records: 1}
				p.Digest.Add([]byte(k), []byte(have[k]))
				b = append(b, p)
			}
		}
		d := tellTable(a, b)
		var all, spans plugins.Digest
		for k, v := range have {
			all.Add([]byte(k), []byte(v))
		}
		i, j := 0, 0
		for _, sp := range d.spans {
			if sp.from-i != sp.has[0]-j || !slices.EqualFunc(a[i:sp.from], b[j:sp.has[0]], samePiece) {
				t.Fatalf("round %d: pieces before %+v are not equal", round, sp)
			}
			lo, hi := bounds(a[sp.from:sp.to], b[sp.has[0]:sp.has[1]])
			var n plugins.Digest
			for k, v := range have {
				if k >= lo && k <= hi {
					n.Add([]byte(k), []byte(v))
				}
			}
			if n != sp.live {
				t.Fatalf("round %d: %+v does not have the rows from %s to %s", round, sp, lo, hi)
			}
			spans.Merge(n)
			i, j = sp.to, sp.has[1]
		}
		if len(a)-i != len(b)-j || !slices.EqualFunc(a[i:], b[j:], samePiece) {
			t.Fatalf("round %d: pieces at the end are not equal", round)
		}
		if d.live != all {
			t.Fatalf("round %d: digest of the live rows is wrong", round)
		}
		if same := maps.Equal(want, have); same && len(d.spans) > 0 && spans.Records == 0 {
			t.Fatalf("round %d: equal, and yet %+v", round, d.spans)
		}
	}
}

func bounds(lists ...[]plugins.PieceInfo) (lo, hi string) {
	all := slices.Concat(lists...)
	first := slices.MinFunc(all, func(x, y plugins.PieceInfo) int { return bytes.Compare(x.First, y.First) })
	last := slices.MaxFunc(all, func(x, y plugins.PieceInfo) int { return cmp.Compare(string(x.Last), string(y.Last)) })
	return string(first.First), string(last.Last)
}
