package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"pgregory.net/rapid"
)

// The vector of the SipHash paper, appendix A: key 00…0f, input 00…0e.
func TestSipHashVector(t *testing.T) {
	t.Parallel()
	var k, in []byte
	for i := range 16 {
		k = append(k, byte(i))
	}
	for i := range 15 {
		in = append(in, byte(i))
	}
	c := cutter{binary.LittleEndian.Uint64(k), binary.LittleEndian.Uint64(k[8:])}
	if got := c.hash(in); got != 0xa129ca6149be45e5 {
		t.Fatalf("%x", got)
	}
}

// cuts are the keys that begin a piece, as Put decides.
func cuts(c cutter, keys []int, size int) []int {
	var out []int
	held := 0
	for i, k := range keys {
		if i > 0 && (c.before(fmt.Appendf(nil, "%08d", k), size) || held+size > forcedPiece) {
			out = append(out, k)
			held = 0
		}
		held += size
	}
	return out
}

func TestCutsAreLocal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newCutter(keys.Key(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")))
		n := rapid.IntRange(100, 3000).Draw(t, "n")
		size := rapid.IntRange(10<<10, 1<<20).Draw(t, "size")
		var all []int
		for i := range n {
			all = append(all, i*2)
		}
		before := cuts(c, all, size)
		if !slices.Equal(before, cuts(c, slices.Clone(all), size)) {
			t.Fatal("same data, other cuts")
		}
		at := rapid.IntRange(1, n-1).Draw(t, "at")
		after := cuts(c, slices.Insert(slices.Clone(all), at, at*2-1), size)
		// Up to the cut before the insert, and from the next cut by hash on, nothing moves.
		resync := slices.IndexFunc(all, func(k int) bool { return k >= at*2 && c.before(fmt.Appendf(nil, "%08d", k), size) })
		outside := func(k int) bool { return k < at*2-1 || (resync >= 0 && k >= all[resync]) }
		keep := func(in []int) (out []int) {
			for _, k := range in {
				if outside(k) {
					out = append(out, k)
				}
			}
			return out
		}
		if !slices.Equal(keep(before), keep(after)) {
			t.Fatalf("insert at %d moved cuts: %v %v", at, before, after)
		}
	})
}

func TestCutsAverage(t *testing.T) {
	t.Parallel()
	c := newCutter(keys.Key{1})
	for _, size := range []int{200, 5000, 300_000} {
		n, total := 0, 2<<30
		for i := range total / size {
			if c.before(binary.BigEndian.AppendUint64(nil, uint64(i)), size) {
				n++
			}
		}
		if avg := total / max(n, 1); avg < 6<<20 || avg > 11<<20 {
			t.Errorf("records of %d bytes: %d bytes a piece on average", size, avg)
		}
	}
}

// One record more, less or changed stores about one piece anew.
func TestInsertStoresOnePiece(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	base := table(1, 60_000, 1000)
	_, m := x.backup("D", data{"t": base})
	if n := len(x.list(m.Backup).Pieces); n < 4 {
		t.Fatalf("%d pieces: too few to show anything", n)
	}
	mid := slices.Clone(base.records)
	mid = slices.Insert(mid, 30_000, [2][]byte{[]byte("key-000299995"), bytes.Repeat([]byte("x"), 1000)})
	mid = append(mid[:100], mid[101:]...)
	mid[59_000] = [2][]byte{mid[59_000][0], []byte("changed")}
	d := data{"t": {form: base.form, records: mid}}
	ref, _ := x.backup("D", d)
	x.compare(ref, d)
	fresh := 0
	for _, p := range x.list(ref).Pieces {
		if p.New {
			fresh++
		}
	}
	if fresh > 4 { // three places, and the index
		t.Errorf("%d new pieces for three changed records", fresh)
	}
}
