package arangodb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// TestSorterOrder sorts more than memory takes, over several shards, some values long.
func TestSorterOrder(t *testing.T) {
	for _, c := range []struct {
		name          string
		parts, n, len int
		limit         int
	}{
		{"in memory", 1, 1000, 20, runBytes}, {"runs", 1, 60_000, 400, runBytes}, {"runs of runs", 2, 100_000, 90, 64 << 10},
		{"long values", 3, 400, 40_000, runBytes}, {"empty", 2, 0, 0, runBytes},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := &stream{}
			defer st.close()
			val := make([]byte, c.len)
			for p := range c.parts {
				s := newSorter(t.TempDir())
				s.limit = c.limit
				st.parts = append(st.parts, s)
				for _, i := range rand.Perm(c.n) {
					copy(val, fmt.Sprint(i, "/", p))
					must(t, s.add(fmt.Appendf(nil, "%08d-%d", i, p), val))
				}
			}
			must(t, st.begin())
			for i := range c.n {
				for p := range c.parts {
					k, v, err := st.read()
					must(t, err)
					if string(k) != fmt.Sprintf("%08d-%d", i, p) || len(v) != c.len || !bytes.HasPrefix(v, fmt.Append(nil, i, "/", p)) {
						t.Fatalf("record %d of part %d: %s %.20q", i, p, k, v)
					}
				}
			}
			if _, _, err := st.read(); !errors.Is(err, io.EOF) {
				t.Fatalf("after the end: %v", err)
			}
		})
	}
}

func TestSorterRefusesAKeyTwice(t *testing.T) {
	st := &stream{}
	defer st.close()
	for range 2 {
		s := newSorter(t.TempDir())
		must(t, s.add([]byte("k"), []byte("v")))
		st.parts = append(st.parts, s)
	}
	must(t, st.begin())
	_, _, err := st.read()
	must(t, err)
	if _, _, err = st.read(); !errors.Is(err, plugins.ErrData) {
		t.Fatalf("the same key from two shards: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
