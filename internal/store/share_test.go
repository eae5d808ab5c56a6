package store

import (
	"bytes"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Pieces that are known to hold the same are stored by reference, among
// records that are written; what comes out is what a whole writing gives.
func TestSharePieces(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := data{"t": table(1, 80_000, 500)}
	ref, _ := x.backup("D", d)
	r := x.open(ref)
	info := r.Artifacts()[0]
	pieces, err := r.Pieces(t.Context(), "t")
	if err != nil || len(pieces) < 3 {
		t.Fatal(len(pieces), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	now := slices.Clone(d["t"].records)
	mid := len(pieces) / 2
	in := func(k []byte) bool {
		return bytes.Compare(k, pieces[mid].First) >= 0 && bytes.Compare(k, pieces[mid].Last) <= 0
	}
	var changed [][2][]byte
	for i := range now {
		if in(now[i][0]) {
			if len(changed) == 10 {
				now[i][1] = []byte("another value")
			}
			changed = append(changed, now[i])
		}
	}
	next := x.next("E")
	u := x.begin(next, unitA, UnitOptions{})
	create := func(name string) (plugins.RecordWriter, plugins.PieceSharer) {
		w, err := u.Create(t.Context(), plugins.Artifact{Name: name, Form: plugins.Ordered, Pin: "p2"})
		if err != nil {
			t.Fatal(err)
		}
		return w, w.(plugins.PieceSharer)
	}
	w, s := create("other")
	if ok, err := s.SharePieces(info.Digest, pieces, 0, 1); ok || err != nil {
		t.Error("an artifact of another name:", ok, err)
	}
	w.Abort()
	for _, wrong := range []struct {
		d      plugins.Digest
		pieces []plugins.PieceInfo
	}{{pieces[0].Digest, pieces}, {info.Digest, pieces[:mid]}, {pieces[0].Digest, pieces[:1]}} {
		w, s = create("t")
		if ok, err := s.SharePieces(wrong.d, wrong.pieces, 0, 1); ok || err != nil {
			t.Error("what no earlier artifact holds:", ok, err)
		}
		w.Abort()
	}
	w, s = create("t")
	if ok, err := s.SharePieces(info.Digest, pieces, 0, mid); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, rec := range changed {
		if err := w.Put(rec[0], rec[1]); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := s.SharePieces(info.Digest, pieces, mid+1, len(pieces)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if sum, err := u.Finish(t.Context(), meta); err != nil || sum.StoredNew == 0 || sum.StoredNew > sum.Stored/2 {
		t.Fatal(sum, err)
	}
	x.seal(next)
	x.compare(next, data{"t": {form: plugins.Ordered, records: now}})
	rep, err := x.s.Verify(t.Context(), next, VerifyOptions{Full: true, Reader: &x.r}, nil)
	if err != nil || rep.Err() != nil {
		t.Error(err, rep.Err())
	}

	// Records that do not follow each other are refused.
	u = x.begin(x.next("F"), unitA, UnitOptions{})
	defer u.Abort()
	w, s = create("t")
	if ok, err := s.SharePieces(info.Digest, pieces, 1, 2); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := s.SharePieces(info.Digest, pieces, 0, 1); ok || err == nil {
		t.Error("pieces in another order are taken:", ok, err)
	}
	w.Abort()
	w, s = create("t")
	if ok, err := s.SharePieces(info.Digest, pieces, 0, 1); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := w.Put(pieces[0].Last, nil); err == nil {
		t.Error("a key that stands in the piece before it is taken")
	}
	w.Abort()
}
