package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// ErrExists means that a piece of this content id is stored already, with other bytes: it stays as it is.
var ErrExists = errors.New("stored already, and never replaced")

// Receiver stores one unit whose pieces another process has compressed and
// encrypted. It believes nothing it is told: a piece is kept only when its
// bytes have the announced size and SHA-256, a list only when every piece in
// it was received here or is vouched for by an earlier list of the same unit.
// It is safe for concurrent use.
type Receiver struct{ u *UnitWriter }

// Receive starts to receive a unit, or goes on with what an earlier attempt
// left. The errors are those of BeginUnit.
func (s *Store) Receive(ctx context.Context, ref Ref, id UnitID, w keys.Writer, o UnitOptions) (*Receiver, error) {
	u, err := s.BeginUnit(ctx, ref, id, w, o)
	if err != nil {
		return nil, err
	}
	u.guest = true
	return &Receiver{u: u}, nil
}

// Past are the newest lists of the unit, the newest first. They are read only.
func (r *Receiver) Past() []*manifest.UnitFile { return r.u.past.units }

// Known says whether the unit has this piece: from an earlier backup, then it
// is linked into this one, or from an attempt at this one.
func (r *Receiver) Known(id manifest.Hash) (manifest.Piece, bool, error) {
	p, ok := r.u.past.pieces[id]
	want := p.Piece
	if !ok {
		want = r.u.pieceLog.known[id]
	}
	want.ID = id
	i, err := r.u.claim(want, nil)
	if errors.Is(err, errGone) {
		return manifest.Piece{}, false, nil
	}
	if err != nil {
		return manifest.Piece{}, false, err
	}
	return r.piece(i), true, nil
}

func (r *Receiver) piece(i int) manifest.Piece {
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	return r.u.pieces[i]
}

// Put stores a piece: p.Stored bytes from body, whose SHA-256 must be
// p.SHA256 (else plugins.ErrCorrupt). What the unit has already stays as it is
// and is returned, with ErrExists when its bytes are others.
func (r *Receiver) Put(ctx context.Context, p manifest.Piece, body io.Reader) (manifest.Piece, error) {
	if err := manifest.ValidatePiece(p); err != nil {
		return manifest.Piece{}, fmt.Errorf("piece %s: %w: %w", p.ID, plugins.ErrData, err)
	}
	tmp, err := r.spool(ctx, p, body)
	if tmp != "" {
		defer r.u.s.root.Remove(tmp)
	}
	if err != nil {
		return manifest.Piece{}, fmt.Errorf("piece %s: %w", p.ID, spaceError(err))
	}
	i, err := r.u.claim(p, func() (string, manifest.Hash, int64, error) { return tmp, p.SHA256, p.Stored, nil })
	if err != nil {
		return manifest.Piece{}, fmt.Errorf("piece %s: %w", p.ID, spaceError(err))
	}
	have := r.piece(i)
	if have.SHA256 != p.SHA256 {
		return have, fmt.Errorf("piece %s: %w", p.ID, ErrExists)
	}
	return have, nil
}

// spool writes the body into a temporary file and proves it.
func (r *Receiver) spool(ctx context.Context, p manifest.Piece, body io.Reader) (string, error) {
	tmp := r.u.tmpDir + "/" + fsutil.TempName()
	f, err := r.u.s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(body, p.Stored+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return tmp, err
	}
	if ctx.Err() != nil {
		return tmp, context.Cause(ctx)
	}
	if n != p.Stored || manifest.Hash(h.Sum(nil)) != p.SHA256 {
		return tmp, fmt.Errorf("%w: %d bytes arrived, not the %d announced, or with another SHA-256: send it again", plugins.ErrCorrupt, n, p.Stored)
	}
	return tmp, nil
}

// Finish checks the list against what was received, makes everything durable
// and publishes it as unit.json. plugins.ErrData when it does not fit: then
// the unit may still be finished with a right one.
func (r *Receiver) Finish(ctx context.Context, f *manifest.UnitFile) (UnitSummary, error) {
	u := r.u
	if err := r.check(f); err != nil {
		return UnitSummary{}, fmt.Errorf("list of unit %s: %w: %w", u.id, plugins.ErrData, err)
	}
	defer u.Abort()
	return u.conclude(ctx, f)
}

func (r *Receiver) check(f *manifest.UnitFile) error {
	u := r.u
	switch {
	case f.Backup != u.ref || f.UnitID != u.id:
		return fmt.Errorf("it is that of %s of %s", f.UnitID, f.Backup)
	case f.Fingerprint != u.fingerprint:
		return errors.New("it was made for other recipients: fetch the recipients again")
	case u.opt.Pin != "" && f.Pin != u.opt.Pin:
		return fmt.Errorf("it is of pin %q, begun with %q: %w", f.Pin, u.opt.Pin, plugins.ErrPinLost)
	case f.Digest != manifest.UnitDigest(u.keys.ContentKey, f.Artifacts):
		return errors.New("its digest does not fit its artifacts")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("the unit is ended: %w", context.Canceled)
	}
	have := make(map[manifest.Hash]manifest.Piece, len(u.pieces))
	for _, p := range u.pieces {
		have[p.ID] = p
	}
	for _, p := range f.Pieces {
		if q, ok := have[p.ID]; !ok || q != p {
			return fmt.Errorf("piece %s: %w, or not as listed", p.ID, fs.ErrNotExist)
		}
	}
	return nil
}

// Abort ends the attempt; what was received stays for the next one. Safe after Finish.
func (r *Receiver) Abort() { r.u.Abort() }

// Shelf is a unit of a store on another machine, seen by who fills it.
type Shelf interface {
	// Past are the newest lists of the unit, the newest first.
	Past() []*manifest.UnitFile
	// Known says whether the unit has the piece, and what it is.
	Known(ctx context.Context, id manifest.Hash) (manifest.Piece, bool, error)
	// Put sends a piece and returns what is stored under its id now.
	Put(ctx context.Context, p manifest.Piece, stored io.Reader) (manifest.Piece, error)
	// Publish ends the unit with its list.
	Publish(ctx context.Context, f *manifest.UnitFile) (UnitSummary, error)
}

// BeginShelf is BeginUnit for a unit that is stored elsewhere: this store
// holds only the pieces on their way there.
func (s *Store) BeginShelf(ctx context.Context, shelf Shelf, ref Ref, id UnitID, w keys.Writer, o UnitOptions) (*UnitWriter, error) {
	id = id.Normal()
	if err := errors.Join(ref.Validate(), id.Validate()); err != nil {
		return nil, err
	}
	u, err := s.newUnit(ref, id, w, o)
	if err != nil {
		return nil, err
	}
	u.shelf, u.away = shelf, ctx
	u.tmpDir += "~" + fsutil.TempName()
	if err := fsutil.MkdirAll(s.root, u.tmpDir); err != nil {
		return nil, fmt.Errorf("unit %s of %s: %w", id, ref, spaceError(err))
	}
	u.past = newPast()
	for _, f := range shelf.Past() {
		if f.Fingerprint == u.fingerprint {
			u.past.units = append(u.past.units, f)
			u.past.add(f, false, "")
		}
	}
	return u, nil
}

// ask asks the shelf for a piece.
func (u *UnitWriter) ask(want manifest.Piece) (manifest.Piece, bool, error) {
	p, ok, err := u.shelf.Known(u.away, want.ID)
	if err == nil && ok && (p.Bytes != want.Bytes || p.Cut != want.Cut) {
		err = fmt.Errorf("piece %s: the store has %d bytes under this content id, not %d: %w", want.ID, p.Bytes, want.Bytes, plugins.ErrCorrupt)
	}
	return p, ok && err == nil, err
}

// send brings a finished temporary file to the shelf.
func (u *UnitWriter) send(tmp string, p manifest.Piece) (manifest.Piece, error) {
	f, _, err := fsutil.OpenRegular(u.s.root, tmp)
	if err != nil {
		return p, err
	}
	defer f.Close()
	return u.shelf.Put(u.away, p, f)
}

// List reads the list of a unit, and its SHA-256; an error wraps fs.ErrNotExist when there is none.
func (s *Store) List(ref Ref, id UnitID) (*manifest.UnitFile, manifest.Hash, error) {
	return s.readUnit(ref, id.Normal())
}

// OpenStored opens the stored bytes of a piece that the list of a unit names.
func (s *Store) OpenStored(ref Ref, id UnitID, piece manifest.Hash) (io.ReadCloser, int64, error) {
	d, err := s.openUnitDir(ref, id.Normal())
	if err != nil {
		return nil, 0, err
	}
	defer d.Close()
	f, _, err := readUnitFile(d, ref, id)
	if err != nil {
		return nil, 0, err
	}
	for _, p := range f.Pieces {
		if p.ID == piece {
			r, fi, err := fsutil.OpenRegular(d, p.FileName())
			if err != nil {
				return nil, 0, fmt.Errorf("piece %s: %w: %w", piece, plugins.ErrCorrupt, err)
			}
			return r, fi.Size(), nil
		}
	}
	return nil, 0, fmt.Errorf("piece %s of unit %s of %s: %w", piece, id, ref, plugins.ErrNotFound)
}
