package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// SharePieces refers to pieces of the newest earlier artifact of the same name
// that holds what the digest says. What each of them holds is believed, as it
// stands in the index of that artifact: their sum must be the digest, which
// lists keep as its MAC.
func (w *recordWriter) SharePieces(d plugins.Digest, pieces []plugins.PieceInfo, from, to int) (bool, error) {
	if err := w.check(); err != nil {
		return false, err
	}
	if w.a.Form != plugins.Ordered || from < 0 || to > len(pieces) || from >= to {
		return false, w.fail(fmt.Errorf("pieces %d to %d of %d: %w", from, to, len(pieces), plugins.ErrData))
	}
	if w.totalRecords+w.records > 0 && bytes.Compare(pieces[from].First, w.last) <= 0 {
		return false, w.fail(fmt.Errorf("keys out of order: %w: the plugin must write ascending unique keys", plugins.ErrData))
	}
	if !w.sourced {
		w.sourced = true
		w.source, w.sourceParts = w.u.earlier(w.a, d, pieces)
	}
	if w.source == nil {
		return false, nil
	}
	parts := slices.Clone(w.sourceParts[from:to])
	for i := range parts {
		var err error
		parts[i].Piece, err = w.u.claimPast(w.source.Pieces[parts[i].Piece])
		if errors.Is(err, errGone) {
			return false, nil
		}
		if err != nil {
			return false, w.fail(err)
		}
	}
	if w.records > 0 {
		if err := w.cut(); err != nil {
			return false, err
		}
	}
	for i, p := range parts {
		x := pieces[from+i]
		if err := w.enter(indexEntry{first: x.First, last: x.Last, bytes: x.Bytes, digest: x.Digest}, &part{p}); err != nil {
			return false, err
		}
		w.u.plain.Add(x.Bytes)
	}
	w.last = append(w.last[:0], pieces[to-1].Last...)
	return true, nil
}

// earlier finds the newest earlier artifact that holds what the digest says in
// pieces of its own that are as told.
func (u *UnitWriter) earlier(a plugins.Artifact, d plugins.Digest, pieces []plugins.PieceInfo) (*manifest.UnitFile, []manifest.Part) {
	var sum plugins.Digest
	for _, p := range pieces {
		sum.Merge(p.Digest)
	}
	if sum != d {
		return nil, nil
	}
	want := manifest.DigestCheck(u.keys.ContentKey, d)
	for _, f := range u.past.units {
		old, ok := f.Find(a.Name)
		if !ok || old.Form != a.Form || old.Check != want || len(old.Parts) != len(pieces) {
			continue
		}
		parts := old.Parts
		fits := true
		for j, p := range parts {
			fits = fits && p.ID == nil && p.Offset == 0 && p.Records == pieces[j].Digest.Records
		}
		if fits {
			return f, parts
		}
	}
	return nil, nil
}
