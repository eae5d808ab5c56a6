package elasticsearch

import "testing"

// TestStretches: the parts of a shard cover every sequence number once, and small shards are left whole.
func TestStretches(t *testing.T) {
	for _, c := range []struct {
		docs, maxNo         int64
		primaries, parallel int
		parts               int
	}{
		{0, -1, 1, 4, 1},
		{5000, 4999, 1, 4, 1},
		{50_000, 49_999, 1, 4, 4},
		{50_000, 49_999, 1, 1, 1},
		{25_000, 900_000, 1, 4, 2},
		{1_000_000, 999_999, 2, 4, 4},
		{1_000_000, 999_999, 4, 4, 4},
		{1_000_000, 999_999, 3, 4, 6},
		{1_000_000, 1, 1, 8, 1}, // nested documents share the number of their parent
	} {
		x := &index{Primaries: c.primaries, Shards: map[int]shard{}}
		for k := range c.primaries {
			x.Shards[k] = shard{Docs: c.docs, MaxNo: c.maxNo}
		}
		parts := x.stretches(c.parallel)
		if len(parts) != c.parts {
			t.Errorf("%+v: %d parts: %+v", c, len(parts), parts)
		}
		next := map[int]int64{}
		last := map[int]bool{}
		for _, p := range parts {
			if p.from != next[p.shard] || last[p.shard] || p.to != 0 && p.to <= p.from {
				t.Errorf("%+v: part %+v where %d must begin", c, p, next[p.shard])
			}
			next[p.shard], last[p.shard] = p.to, p.to == 0
		}
		for k := range c.primaries {
			if !last[k] {
				t.Errorf("%+v: shard %d has no end: %+v", c, k, parts)
			}
		}
	}
}
