package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// UnitOptions are the choices of BeginUnit.
type UnitOptions struct {
	// Pin is the view that every artifact must carry; empty: not checked. A unit that was stored under
	// another pin is stored again.
	Pin string
	// Redo stores a finished unit again even under the same pin.
	Redo bool
	Log  *slog.Logger // nil: slog.Default()
}

// UnitWriter stores one unit of one backup. It implements
// plugins.ArtifactWriter and is safe for concurrent use.
type UnitWriter struct {
	s           *Store
	ref         Ref
	id          UnitID
	keys        keys.Writer
	fingerprint string
	intro       string
	cutter      cutter
	opt         UnitOptions
	log         *slog.Logger
	dir, tmpDir string // below the root
	locks       []*fsutil.Lock
	pieceLog    *pieceLog
	past        *past
	shelf       Shelf           // nil: the store is this one
	away        context.Context // of the shelf's calls
	guest       bool            // pieces come from outside: no object of another unit gives way to them

	mu        sync.Mutex
	pieces    []manifest.Piece
	claims    map[manifest.Hash]*claim
	artifacts map[string]*artifact // nil while open
	openCount int
	failed    error // of a piece or pack: the unit cannot be finished
	ended     bool

	packMu sync.Mutex // never held together with mu
	packs  [2]*pack   // being filled: data, index
	packed map[manifest.Hash]packedPart

	pending   sync.WaitGroup // pieces on their way
	plain     atomic.Int64
	storedNew atomic.Int64
}

type artifact struct {
	manifest.Artifact
	data, index *pack // not nil: the part lies in this pack, whose piece is known later
}

type claim struct {
	done  chan struct{}
	piece int
	err   error
}

// BeginUnit starts to store a unit, or goes on with what an earlier attempt
// left. ErrSealed when the backup is complete; ErrFinished when the unit is
// stored already under the same pin (see Summaries); ErrInUse while another
// attempt writes it.
func (s *Store) BeginUnit(ctx context.Context, ref Ref, id UnitID, w keys.Writer, o UnitOptions) (*UnitWriter, error) {
	id = id.Normal()
	if err := errors.Join(ref.Validate(), id.Validate()); err != nil {
		return nil, err
	}
	u, err := s.newUnit(ref, id, w, o)
	if err != nil {
		return nil, err
	}
	if err := u.begin(ctx); err != nil {
		u.unlock()
		return nil, fmt.Errorf("unit %s of %s: %w", id, ref, spaceError(err))
	}
	return u, nil
}

func (s *Store) newUnit(ref Ref, id UnitID, w keys.Writer, o UnitOptions) (*UnitWriter, error) {
	if len(w.Recipients) == 0 {
		return nil, fmt.Errorf("unit %s: no recipients: %w", id, keys.ErrKeys)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	u := &UnitWriter{
		s: s, ref: ref, id: id, keys: w, fingerprint: w.Fingerprint(), opt: o, log: o.Log.With("backup", ref, "unit", id),
		cutter: newCutter(w.ContentKey), dir: unitPath(ref, id),
		tmpDir:    path.Join(dirTmp, ref.Name+"~"+ref.Timestamp+"~"+id.Component+"~"+id.Instance+"~"+id.Member),
		claims:    map[manifest.Hash]*claim{},
		artifacts: map[string]*artifact{},
		packed:    map[manifest.Hash]packedPart{},
	}
	u.intro = pieceIntro(u.fingerprint, id)
	return u, nil
}

func (u *UnitWriter) begin(ctx context.Context) error {
	l, err := waitLock(ctx, u.s.root, fileLock, false)
	if err != nil {
		return err
	}
	u.locks = append(u.locks, l)
	if err := fsutil.MkdirAll(u.s.root, u.tmpDir); err != nil {
		return err
	}
	l, err = fsutil.TryLock(u.s.root, u.tmpDir+"/lock", true)
	if errors.Is(err, fsutil.ErrBusy) {
		return fmt.Errorf("%w: another attempt is writing it", ErrInUse)
	}
	if err != nil {
		return err
	}
	u.locks = append(u.locks, l)
	if u.s.exists(u.ref.String() + "/" + fileManifest) {
		return ErrSealed
	}
	if err := fsutil.MkdirAll(u.s.root, u.dir); err != nil {
		return err
	}
	d, err := fsutil.OpenDir(u.s.root, append([]string{u.ref.Name, u.ref.Timestamp}, u.id.Path()...)...)
	if err != nil {
		return err
	}
	d.Close()
	if u.past, err = u.s.loadPast(ctx, u.ref, u.id, u.fingerprint, u.log); err != nil {
		return err
	}
	if err := u.supersede(); err != nil {
		return err
	}
	u.pieceLog, err = openPieceLog(u.s.root, u.tmpDir+"/"+filePieceLog)
	return err
}

// supersede handles a unit.json that an earlier attempt finished. The backup
// is not sealed, so the list may go; its pieces stay and enter by content id.
func (u *UnitWriter) supersede() error {
	if u.past.own == nil {
		return nil
	}
	if !u.opt.Redo && (u.opt.Pin == "" || u.past.own.Pin == u.opt.Pin) {
		return ErrFinished
	}
	if err := u.s.root.Remove(u.dir + "/" + fileUnit); err != nil {
		return err
	}
	return fsutil.SyncDir(u.s.root, u.dir)
}

// Stats are the bytes taken in so far, and those this attempt wrote to the store.
func (u *UnitWriter) Stats() (plain, stored int64) { return u.plain.Load(), u.storedNew.Load() }

// claim gives the piece with p's content id and size a place in the unit: the one it
// has, or a link to a stored object, or what write leaves in a temporary file.
// Equal pieces that arrive at once are stored once. Without write, only a
// link will do, else errGone.
func (u *UnitWriter) claim(p manifest.Piece, write func() (tmp string, sum manifest.Hash, n int64, err error)) (int, error) {
	id := p.ID
	u.mu.Lock()
	for c := u.claims[id]; c != nil; c = u.claims[id] {
		u.mu.Unlock()
		<-c.done
		if write == nil || !errors.Is(c.err, errGone) {
			return c.piece, c.err
		}
		u.mu.Lock()
	}
	c := &claim{done: make(chan struct{})}
	u.claims[id] = c
	u.mu.Unlock()
	defer close(c.done)
	have, ok, err := u.link(p)
	if err == nil && !ok && write == nil {
		err = errGone
	}
	if err == nil && !ok {
		have = manifest.Piece{ID: id, Bytes: p.Bytes, Cut: p.Cut, New: true}
		var tmp string
		if tmp, have.SHA256, have.Stored, err = write(); err == nil {
			have, err = u.place(tmp, have)
			u.storedNew.Add(have.Stored)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		c.err = err
		if errors.Is(err, errGone) {
			delete(u.claims, id)
		} else {
			u.failed = errors.Join(u.failed, err)
		}
		return 0, err
	}
	c.piece = len(u.pieces)
	u.pieces = append(u.pieces, have)
	return c.piece, nil
}

// place puts a finished temporary file where the unit's pieces are.
func (u *UnitWriter) place(tmp string, p manifest.Piece) (manifest.Piece, error) {
	if u.shelf != nil {
		return u.send(tmp, p)
	}
	return p, u.publish(tmp, p)
}

// publish gives a finished temporary file its name in the unit's directory.
// It is synced in Finish.
func (u *UnitWriter) publish(tmp string, p manifest.Piece) error {
	if err := u.s.at("piece"); err != nil {
		return err
	}
	name := u.dir + "/" + p.FileName()
	if u.s.exists(name) {
		// Left by an attempt that died before it could vouch for the file. Nothing refers to it.
		if err := u.s.root.Remove(name); err != nil {
			return fmt.Errorf("store piece: %w", err)
		}
	}
	if err := u.s.root.Link(tmp, name); err != nil {
		return fmt.Errorf("store piece: %w", spaceError(err))
	}
	return u.pieceLog.add(p)
}

// Abort ends the attempt. What was stored stays for the next attempt, or for
// cleanup. Safe after Finish, then without effect.
func (u *UnitWriter) Abort() {
	u.mu.Lock()
	ended := u.ended
	u.ended = true
	u.mu.Unlock()
	u.pending.Wait()
	if !ended {
		u.dropPacks()
		u.unlock()
	}
}

func (u *UnitWriter) unlock() {
	if u.shelf != nil {
		if err := u.s.root.RemoveAll(u.tmpDir); err != nil {
			u.log.Warn("temporary directory left for the next cleanup", "err", err)
		}
	}
	if u.pieceLog != nil {
		u.pieceLog.close()
	}
	for _, l := range u.locks {
		l.Unlock()
	}
	u.locks = nil
}

// Create begins an artifact. At most 48 artifacts are open at once in one
// Store; a further Create waits for one to end.
func (u *UnitWriter) Create(ctx context.Context, a plugins.Artifact) (plugins.RecordWriter, error) {
	if err := u.register(a); err != nil {
		return nil, err
	}
	select {
	case u.s.open <- struct{}{}:
	case <-ctx.Done():
		u.forget(a.Name)
		return nil, context.Cause(ctx)
	}
	w := &recordWriter{u: u, ctx: ctx, a: a}
	w.cur = w.newBuild()
	return w, nil
}

func (u *UnitWriter) register(a plugins.Artifact) error {
	if err := manifest.ValidateArtifact(a); err != nil {
		return err
	}
	if u.opt.Pin != "" && a.Pin != u.opt.Pin {
		return fmt.Errorf("artifact %q is of pin %q, the unit of %q: %w", a.Name, a.Pin, u.opt.Pin, plugins.ErrPinLost)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("artifact %q: the unit is ended: %w", a.Name, context.Canceled)
	}
	if u.failed != nil {
		return u.failed
	}
	if _, ok := u.artifacts[a.Name]; ok {
		return fmt.Errorf("artifact %q: written twice: %w", a.Name, plugins.ErrData)
	}
	u.artifacts[a.Name] = nil
	u.openCount++
	return nil
}

func (u *UnitWriter) forget(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.artifacts, name)
	u.openCount--
}

func (u *UnitWriter) commit(a *artifact) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.artifacts[a.Name] = a
	u.openCount--
}
