package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// maxPast is how many earlier backups of a unit are looked at for pieces to
// share; fewer, once so many pieces are known.
const (
	maxPast       = 4
	maxPastPieces = 250_000
)

// past is what earlier backups hold of the unit being stored.
type past struct {
	own    *manifest.UnitFile // finished under the same ref, not sealed
	units  []*manifest.UnitFile
	pieces map[manifest.Hash]pastPiece
	small  map[manifest.Hash]pastPart
	used   map[manifest.Hash]bool // packs: whether the newest backup that has one uses half of it
}

func newPast() *past {
	return &past{pieces: map[manifest.Hash]pastPiece{}, small: map[manifest.Hash]pastPart{}, used: map[manifest.Hash]bool{}}
}

type pastPiece struct {
	manifest.Piece
	file string // below the root: the link of the backup that vouches for it
}

type pastPart struct {
	piece          manifest.Piece
	offset, length int64
}

// loadPast reads the newest lists of the unit. Only what a unit.json lists is
// known to be durable and whole; other objects are not trusted.
func (s *Store) loadPast(ctx context.Context, ref Ref, id UnitID, fingerprint string, log *slog.Logger) (*past, error) {
	p := newPast()
	refs, err := s.Refs()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(b.Timestamp, a.Timestamp) })
	if i := slices.Index(refs, ref); i >= 0 {
		refs = slices.Insert(slices.Delete(refs, i, i+1), 0, ref)
	}
	for _, r := range refs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(p.units) >= maxPast || len(p.pieces) >= maxPastPieces {
			break
		}
		f, _, err := s.readUnit(r, id)
		if notExist(err) {
			continue
		}
		if err != nil {
			log.Warn("list of an earlier backup cannot be used", "earlier", r, "err", err)
			continue
		}
		if f.Fingerprint != fingerprint {
			continue
		}
		own := r == ref
		if own {
			p.own = f
		}
		p.units = append(p.units, f)
		p.add(f, own, unitPath(r, id))
	}
	return p, nil
}

func (p *past) add(f *manifest.UnitFile, own bool, dir string) {
	live := map[int]int64{}
	seen := map[[2]int64]bool{}
	each := func(do func(manifest.Part)) {
		for _, a := range f.Artifacts {
			do(a.Index)
			for _, q := range a.Parts {
				do(q)
			}
		}
	}
	each(func(q manifest.Part) {
		if at := [2]int64{int64(q.Piece), q.Offset}; q.ID != nil && !seen[at] {
			seen[at] = true
			live[q.Piece] += q.Length
		}
	})
	for i, n := range live {
		if _, ok := p.used[f.Pieces[i].ID]; !ok {
			p.used[f.Pieces[i].ID] = n*2 >= f.Pieces[i].Bytes
		}
	}
	each(func(q manifest.Part) {
		// A pack of which less than half is in use is left behind: what is still used moves to a new one.
		if q.ID == nil || !p.used[f.Pieces[q.Piece].ID] {
			return
		}
		if _, ok := p.small[*q.ID]; !ok {
			p.small[*q.ID] = pastPart{piece: f.Pieces[q.Piece], offset: q.Offset, length: q.Length}
		}
	})
	for _, q := range f.Pieces {
		if _, ok := p.pieces[q.ID]; !ok {
			q.New = q.New && own
			p.pieces[q.ID] = pastPiece{q, dir + "/" + q.FileName()}
		}
	}
}

// link finds the piece in the store and links it into the unit's directory.
func (u *UnitWriter) link(want manifest.Piece) (manifest.Piece, bool, error) {
	if u.shelf != nil {
		return u.ask(want)
	}
	if p, ok := u.past.pieces[want.ID]; ok && p.Bytes == want.Bytes {
		ok, err := u.linkObject(&p)
		if ok || err != nil {
			return p.Piece, ok, err
		}
	}
	if p, ok := u.pieceLog.known[want.ID]; ok && p.Bytes == want.Bytes && u.stillThere(p) {
		p.New = true
		return p, true, nil
	}
	return manifest.Piece{}, false, nil
}

// linkObject links an object if it is the very file that an earlier backup
// lists: another file of the same content id has another SHA-256.
func (u *UnitWriter) linkObject(p *pastPiece) (bool, error) {
	obj, name := objectPath(p.ID), u.dir+"/"+p.FileName()
	fi, err := u.s.root.Lstat(obj)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != p.Stored {
		return false, nil // gone, or damaged: the piece is stored anew
	}
	if vouched, err := u.s.root.Lstat(p.file); err != nil || !os.SameFile(fi, vouched) {
		return false, nil
	}
	if have, err := u.s.root.Lstat(name); err == nil {
		if os.SameFile(fi, have) {
			return true, nil
		}
		if err := u.s.root.Remove(name); err != nil {
			return false, fmt.Errorf("link piece: %w", err)
		}
	}
	switch err := u.s.linkFile(obj, name); {
	case err == nil:
		return true, nil
	case notExist(err):
		return false, nil
	case errors.Is(err, unix.EMLINK):
		p.New = true
		return true, u.copyObject(obj, p.Piece)
	default:
		return false, fmt.Errorf("link piece: %w", spaceError(err))
	}
}

func (s *Store) linkFile(from, to string) error {
	if err := s.at("link"); err != nil {
		return err
	}
	return s.root.Link(from, to)
}

// copyObject makes a further copy of an object that has as many links as the
// file system allows.
func (u *UnitWriter) copyObject(obj string, p manifest.Piece) error {
	in, _, err := fsutil.OpenRegular(u.s.root, obj)
	if err != nil {
		return fmt.Errorf("copy piece: %w", err)
	}
	defer in.Close()
	tmp := u.tmpDir + "/" + fsutil.TempName()
	out, err := u.s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copy piece: %w", spaceError(err))
	}
	defer u.s.root.Remove(tmp)
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy piece: %w", spaceError(err))
	}
	if manifest.Hash(h.Sum(nil)) != p.SHA256 {
		return fmt.Errorf("copy piece %s: %w: run verify, which puts it aside, then back up again", p.ID, plugins.ErrCorrupt)
	}
	return u.publish(tmp, p)
}

// stillThere re-reads a piece that an attempt which died has left.
func (u *UnitWriter) stillThere(p manifest.Piece) bool {
	f, fi, err := fsutil.OpenRegular(u.s.root, u.dir+"/"+p.FileName())
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	if fi.Size() != p.Stored {
		return false
	}
	_, err = io.Copy(h, f)
	return err == nil && manifest.Hash(h.Sum(nil)) == p.SHA256
}

// claimPast is claim for a piece that can only be linked; errGone when it cannot.
func (u *UnitWriter) claimPast(p manifest.Piece) (int, error) {
	return u.claim(p, nil)
}

// Reuse refers to the newest earlier artifact of the same name and Identity.
func (u *UnitWriter) Reuse(ctx context.Context, a plugins.Artifact) (bool, error) {
	if a.Identity == "" {
		return false, nil
	}
	return u.refer(ctx, a, func(old *manifest.Artifact) bool { return old.Identity == a.Identity })
}

// refer stores an artifact by reference to the newest earlier one that is the same.
func (u *UnitWriter) refer(ctx context.Context, a plugins.Artifact, same func(*manifest.Artifact) bool) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	for _, f := range u.past.units {
		found, ok := f.Find(a.Name)
		if !ok || found.Form != a.Form || !same(found) {
			continue
		}
		if err := u.register(a); err != nil {
			return false, err
		}
		old := *found
		old.Artifact, old.Parts = a, slices.Clone(old.Parts)
		err := u.adopt(f, &old)
		if err == nil {
			u.plain.Add(old.Bytes)
			u.commit(&artifact{Artifact: old})
			return true, nil
		}
		u.forget(a.Name)
		if !errors.Is(err, errGone) {
			return false, err
		}
	}
	return false, nil
}

// Share refers to the newest earlier artifact of the same name and form that
// holds what the digest says; lists keep a digest as its MAC.
func (u *UnitWriter) Share(ctx context.Context, a plugins.Artifact, d plugins.Digest) (bool, error) {
	want := manifest.DigestCheck(u.keys.ContentKey, d)
	return u.refer(ctx, a, func(old *manifest.Artifact) bool { return old.Check == want && old.Records == d.Records })
}

// adopt links the pieces of an artifact of f and renumbers its parts.
func (u *UnitWriter) adopt(f *manifest.UnitFile, a *manifest.Artifact) (err error) {
	for i := range a.Parts {
		if a.Parts[i].Piece, err = u.claimPast(f.Pieces[a.Parts[i].Piece]); err != nil {
			return err
		}
	}
	a.Index.Piece, err = u.claimPast(f.Pieces[a.Index.Piece])
	return err
}

// pieceLog remembers, for the next attempt, what the pieces of this one are.
// It is not synced: whoever believes it reads the piece again.
type pieceLog struct {
	f     *os.File
	known map[manifest.Hash]manifest.Piece
}

const maxLogLine = 1 << 10

func openPieceLog(root *os.Root, name string) (*pieceLog, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	l := &pieceLog{f: f, known: map[manifest.Hash]manifest.Piece{}}
	in := bufio.NewScanner(f)
	in.Buffer(nil, maxLogLine)
	for in.Scan() {
		var p manifest.Piece
		if json.Unmarshal(in.Bytes(), &p) == nil { // the last line may be cut off
			l.known[p.ID] = p
		}
	}
	// A cut-off line must not swallow the next one.
	if _, err := f.Write([]byte("\n")); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

func (l *pieceLog) add(p manifest.Piece) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// One write to a file in append mode: lines of several goroutines do not mix.
	_, err = l.f.Write(append(b, '\n'))
	return spaceError(err)
}

func (l *pieceLog) close() { l.f.Close() }
