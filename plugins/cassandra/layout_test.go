package cassandra

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// layout makes a ring: each node's datacenter, rack and tokens.
func layout(nodes ...string) ring {
	var r ring
	for i, n := range nodes {
		f := strings.Fields(n)
		r.Nodes = append(r.Nodes, node{HostID: fmt.Sprint("h", i), Address: fmt.Sprint("a", i), DC: f[0], Rack: f[1], Tokens: f[2:]})
	}
	return r
}

// TestReplicas: who holds a range, by both strategies.
func TestReplicas(t *testing.T) {
	simple := func(n int) map[string]string {
		return map[string]string{"class": "org.apache.cassandra.locator.SimpleStrategy", "replication_factor": fmt.Sprint(n)}
	}
	flat := layout("d r 0 30", "d r 10 40", "d r 20 50")
	racks := layout("d1 r1 0", "d1 r1 10", "d1 r2 20", "d1 r2 30", "d2 r1 5")
	for name, c := range map[string]struct {
		r    ring
		i    int
		repl map[string]string
		want string
	}{
		"one copy":                {flat, 0, simple(1), "h0"},
		"next nodes":              {flat, 1, simple(2), "h1 h2"},
		"round the ring":          {flat, 5, simple(3), "h2 h0 h1"},
		"more copies than nodes":  {flat, 0, simple(5), "h0 h1 h2"},
		"racks first":             {racks, 0, map[string]string{"class": "NetworkTopologyStrategy", "d1": "2"}, "h0 h2"},
		"racks, then passed ones": {racks, 0, map[string]string{"class": "NetworkTopologyStrategy", "d1": "3"}, "h0 h2 h1"},
		"transient copy":          {racks, 0, map[string]string{"class": "NetworkTopologyStrategy", "d1": "3/1"}, "h0 h2"},
		"other datacenter":        {racks, 0, map[string]string{"class": "NetworkTopologyStrategy", "d2": "1"}, "h4"},
		"everywhere":              {flat, 0, map[string]string{"class": "EverywhereStrategy"}, "h0 h1 h2"},
	} {
		var got []string
		for _, n := range replicas(c.r.walk(), c.i, c.repl) {
			got = append(got, n.HostID)
		}
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	dead := func(id string) func(*node) bool { return func(n *node) bool { return n.HostID != id } }
	if n, _ := flat.uncovered(simple(2), dead("h1")); n != 0 {
		t.Errorf("%d ranges uncovered with two copies and one node dead", n)
	}
	if n, first := flat.uncovered(simple(1), dead("h1")); n != 2 || first != 10 {
		t.Errorf("%d ranges uncovered, first %d: want 2, 10", n, first)
	}
}

// TestPlaces: when a node may take its own files for its own.
func TestPlaces(t *testing.T) {
	was := layout("d r 0 30", "d r 10 40", "d r 20 50")
	own := func(r ring, i int) ring {
		r.Nodes = append([]node{}, r.Nodes...)
		r.Nodes[i].Own = true
		return r
	}
	renamed := layout("d r 20 50", "d r 0 30", "d r 10 40")
	for name, c := range map[string]struct {
		live, was   ring
		same, alike bool
	}{
		"unchanged":       {own(was, 1), own(was, 1), true, true},
		"another node":    {own(was, 1), own(was, 2), false, true},
		"renamed":         {own(renamed, 2), own(was, 1), true, true},
		"was down":        {own(was, 1), was, false, true},
		"one node less":   {own(layout("d r 0 30", "d r 10 40"), 1), own(was, 1), false, false},
		"another's token": {own(layout("d r 0 31", "d r 10 40", "d r 20 50"), 1), own(was, 1), false, false},
		"another rack":    {own(layout("d r 0 30", "d r 10 40", "d s 20 50"), 1), own(was, 1), false, false},
	} {
		if got := c.live.same(c.was); got != c.same {
			t.Errorf("%s: same is %t", name, got)
		}
		if got := c.live.alike(c.was); got != c.alike {
			t.Errorf("%s: alike is %t", name, got)
		}
	}
}

// TestSpans: the primary spans of all nodes make the whole ring, each token once.
func TestSpans(t *testing.T) {
	r := layout("d r -9223372036854775808 30", "d r 10 9223372036854775807", "d r 20 50")
	for _, at := range []int64{math.MinInt64 + 1, -1, 0, 1, 10, 11, 30, 31, 50, 51, math.MaxInt64} {
		n := 0
		for _, nd := range r.Nodes {
			for _, s := range r.primary(nd.HostID, false) {
				if at > s.from && at <= s.to {
					n++
				}
			}
		}
		if n != 1 {
			t.Errorf("token %d is in %d spans", at, n)
		}
	}
}

// TestChecksum reads what a server writes into Digest.crc32, and what it never would.
func TestChecksum(t *testing.T) {
	for text, want := range map[string]struct {
		sum   uint32
		known bool
		err   error
	}{"123456": {123456, true, nil}, "4294967295\n": {math.MaxUint32, true, nil}, "": {err: plugins.ErrCorrupt}, "-1": {err: plugins.ErrCorrupt}, "4294967296": {err: plugins.ErrCorrupt}} {
		f := filepath.Join(t.TempDir(), "nb-1-big-Digest.crc32")
		must(t, os.WriteFile(f, []byte(text), 0o600))
		sum, known, err := checksum(f)
		if sum != want.sum || known != want.known || !errors.Is(err, want.err) {
			t.Errorf("%q: %d %t %v", text, sum, known, err)
		}
	}
	if _, known, err := checksum(filepath.Join(t.TempDir(), "none")); known || err != nil {
		t.Errorf("no file: %t, %v", known, err)
	}
}

// FuzzHeader: a Statistics.db may hold anything; nothing is read beyond its end.
func FuzzHeader(f *testing.F) {
	good := binary.BigEndian.AppendUint32(nil, 1)
	good = append(good, 0, 0, 0, 0)
	good = binary.BigEndian.AppendUint32(good, headerComponent)
	good = binary.BigEndian.AppendUint32(good, 20)
	f.Add(append(good, 0, 0, 0, 0, 'h'))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range []string{"nb-1-big-Statistics.db", "md-1-big-Statistics.db"} {
			file := filepath.Join(t.TempDir(), name)
			must(t, os.WriteFile(file, b, 0o600))
			if h, err := header(file); err == nil && len(h) != 64 {
				t.Errorf("header %q", h)
			} else if err != nil && !errors.Is(err, plugins.ErrData) {
				t.Errorf("%v", err)
			}
		}
	})
}

// FuzzElements: values as they come from the wire, whatever their lengths say.
func FuzzElements(f *testing.F) {
	f.Add("map<text, int>", []byte{0, 0, 0, 1, 0, 0, 0, 1, 'a', 0, 0, 0, 1, 'b'}, []byte{0, 0, 0, 1, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{})
	f.Add("addr", []byte{0, 0, 0, 1, 'a', 255, 255, 255, 255}, []byte{}, []byte{})
	f.Fuzz(func(_ *testing.T, typ string, value, wt, ttl []byte) {
		elements(column{typ: typ}, value, wt, ttl)
		_, _ = resource(typ)
		_ = signature(typ)
		_, _ = parseTable(typ)
		_, _, _ = parseTag(typ)
	})
}

func TestScarce(t *testing.T) {
	const gb = 1 << 30
	for _, c := range []struct {
		free, total, tables int64
		want                bool
	}{
		{20 * gb, 250 * gb, gb, false}, // 92% full, and room for twenty copies
		{20 * gb, 250 * gb, 20 * gb, true},
		{120 * gb, 250 * gb, 130 * gb, true}, // half full, and no room for one
		{room - 1, gb, 0, true},
		{0, 0, gb, false}, // unknown
	} {
		if got := scarce(c.free, c.total, c.tables); got != c.want {
			t.Errorf("%d of %d bytes free, tables of %d: scarce is %v", c.free, c.total, c.tables, got)
		}
	}
}
