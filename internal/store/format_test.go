package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// TestFormatOne: a backup that the first released format describes (its
// identity lies beside it) is adopted, verified and read, and its pieces are shared by a
// backup of now where the content id is made in the same way.
func TestFormatOne(t *testing.T) {
	t.Parallel()
	want := data{"table": table(1, 300, 100), "small": pairs("a", "1", "b", ""), "file": {form: plugins.File, file: bytes.Repeat([]byte("abc "), 9<<20)}}
	x := newSite(t)
	identity, err := os.ReadFile(filepath.Join("testdata", "format1", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if x.r, err = keys.ParseIdentity(identity); err != nil {
		t.Fatal(err)
	}
	ref, err := x.s.Import(t.Context(), mustAbs(t, "testdata/format1/backup"), x.r)
	if err != nil {
		t.Fatal(err)
	}
	x.compare(ref, want)
	rep, err := x.s.Verify(t.Context(), ref, VerifyOptions{Full: true, Reader: &x.r}, nil)
	if err != nil || rep.Err() != nil || !rep.Decoded || rep.Pieces != 4 {
		t.Errorf("%v: %+v", err, rep)
	}
	for _, p := range x.list(ref).Pieces {
		if p.Cut != 0 {
			t.Errorf("a piece of format 1 has a cut: %+v", p)
		}
	}
}

// TestStretches: the pieces of a file are named by their digest and place. What says otherwise is refused.
func TestStretches(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	long := noise(4, plugins.FileCut+1<<20)
	copy(long[plugins.FileCut:], long[:1<<20])
	d := data{"long": {form: plugins.File, file: long}, "twin": {form: plugins.File, file: long}, "half": {form: plugins.File, file: long[:1<<20]}}
	ref, _ := x.backup("B", d)
	x.compare(ref, d)
	f := x.list(ref)
	cuts := map[int64]int{}
	for _, p := range f.Pieces {
		cuts[p.Cut]++
	}
	if cuts[1] != 2 || cuts[2] != 1 { // the same bytes at another offset are another record of the digest
		t.Errorf("stretches by number: %v", cuts)
	}
	again, m := x.backup("B", d)
	x.compare(again, d)
	if m.Totals.StoredNew != 0 {
		t.Errorf("%d bytes of unchanged files are stored again", m.Totals.StoredNew)
	}
	o := x.open(ref).o
	for _, p := range f.Pieces {
		for _, cut := range []int64{0, 1, 2, 3} {
			q := p
			q.Cut = cut
			l, err := o.load(t.Context(), q)
			if err == nil {
				l.close()
			}
			if (err == nil) != (cut == p.Cut) {
				t.Errorf("piece of stretch %d read as stretch %d: %v", p.Cut, cut, err)
			}
		}
	}
}

// TestDense: what is said to be compressed is compressed only if much is gained.
func TestDense(t *testing.T) {
	t.Parallel()
	mixed := func(random int) []byte {
		b := noise(7, 4<<20)
		for at := 0; at < len(b); at += 4096 {
			clear(b[at+random : at+4096])
		}
		return b
	}
	for _, c := range []struct {
		random int
		dense  bool
		shrink bool
	}{{3600, false, true}, {3600, true, false}, {1000, true, true}} {
		x := newSite(t)
		ref := x.next("B")
		u := x.begin(ref, unitA, UnitOptions{})
		w, err := u.Create(t.Context(), plugins.Artifact{Name: "f", Form: plugins.File, Pin: "pin-1", Dense: c.dense})
		if err != nil {
			t.Fatal(err)
		}
		if err := put(w, content{form: plugins.File, file: mixed(c.random)}); err != nil {
			t.Fatal(err)
		}
		sum, err := u.Finish(t.Context(), meta)
		if err != nil {
			t.Fatal(err)
		}
		if got := sum.Stored < 4<<20*95/100; got != c.shrink {
			t.Errorf("%+v: stored in %d bytes", c, sum.Stored)
		}
		x.seal(ref)
		x.compare(ref, data{"f": {form: plugins.File, file: mixed(c.random)}})
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
