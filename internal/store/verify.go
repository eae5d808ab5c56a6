package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// VerifyOptions say how deep to look. Without Full and NewOnly, lists are
// checked and the existence and size of every piece.
type VerifyOptions struct {
	Full    bool // read every piece
	NewOnly bool // read the pieces that this backup stored itself
	// Of picks the units to look at, what is damaged elsewhere is no matter; nil: all. Only of a sealed backup.
	Of func(UnitID) bool
	// Reader: decode what is read, recount records and digests. nil: compare the SHA-256 of the stored bytes.
	Reader *keys.Reader
	// Unsealed: the backup has no manifest yet; the Reader must hold this host's content key.
	Unsealed bool
	// Quarantine puts damaged objects aside and marks every backup that uses them.
	Quarantine bool
}

// Damage is something found wrong.
type Damage struct {
	Unit   UnitID        `json:"unit"`
	Piece  manifest.Hash `json:"piece,omitzero"` // zero: the unit as a whole
	Reason string        `json:"reason"`
}

// VerifyReport is the outcome of Verify.
type VerifyReport struct {
	Ref     Ref      `json:"backup"`
	Full    bool     `json:"full"`
	Decoded bool     `json:"decoded"` // with keys
	Units   int      `json:"units"`
	Pieces  int      `json:"pieces"`
	Read    int64    `json:"read"` // stored bytes read
	Damage  []Damage `json:"damage,omitempty"`
	Marked  []Ref    `json:"marked,omitempty"` // backups marked as damaged because they share a damaged object
}

// Err is nil when nothing is damaged, else an error wrapping plugins.ErrCorrupt.
func (r VerifyReport) Err() error {
	if len(r.Damage) == 0 {
		return nil
	}
	d := r.Damage[0]
	where := "in unit"
	if n := len(r.Damage); n > 1 {
		where = fmt.Sprintf("in %d places, first in unit", n)
	}
	return fmt.Errorf("backup %s: %w %s %s: %s", r.Ref, plugins.ErrCorrupt, where, d.Unit, d.Reason)
}

// Verify reads a backup and reports what is damaged; the result is recorded
// beside the backup. progress, which may be nil, is called from several
// goroutines with the stored bytes read so far, of total. The error says that
// it could not be verified at all; damage of data is in the report.
func (s *Store) Verify(ctx context.Context, ref Ref, o VerifyOptions, progress func(done, total int64)) (VerifyReport, error) {
	v := verifier{s: s, ctx: ctx, o: o, progress: progress, rep: VerifyReport{Ref: ref, Full: o.Full, Decoded: o.Reader != nil}}
	if err := v.prepare(ref); err != nil {
		return v.rep, fmt.Errorf("verify: %w", err)
	}
	defer v.hold.Unlock()
	if err := v.run(); err != nil {
		return v.rep, fmt.Errorf("verify %s: %w", ref, err)
	}
	e := Event{Kind: EventVerify, OK: len(v.rep.Damage) == 0, Full: v.rep.Full, Keys: o.Reader != nil, Read: v.rep.Read}
	for _, d := range v.rep.Damage {
		e.Problems = append(e.Problems, d.Unit.String()+": "+d.Reason)
	}
	if err := s.appendEvent(ref, e); err != nil {
		return v.rep, err
	}
	if o.Quarantine {
		for _, d := range v.rep.Damage {
			if d.Piece == (manifest.Hash{}) {
				continue
			}
			refs, err := s.Quarantine(ctx, ref, d)
			if err != nil {
				return v.rep, err
			}
			v.rep.Marked = append(v.rep.Marked, refs...)
		}
		slices.SortFunc(v.rep.Marked, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
		v.rep.Marked = slices.Compact(v.rep.Marked)
	}
	return v.rep, nil
}

type verifier struct {
	s        *Store
	ctx      context.Context
	o        VerifyOptions
	progress func(done, total int64)
	hold     *fsutil.Lock
	content  keys.Key
	units    []UnitID
	want     map[UnitID]manifest.Hash // SHA-256 of unit.json, from the manifest
	m        *manifest.Manifest

	mu    sync.Mutex
	rep   VerifyReport
	total int64
}

func (v *verifier) prepare(ref Ref) (err error) {
	if v.o.Unsealed {
		if v.units, err = v.s.units(ref); err != nil {
			return fmt.Errorf("%w: %w", ErrNoSuchBackup, err)
		}
		if v.o.Reader != nil {
			if v.o.Reader.ContentKey == nil {
				return fmt.Errorf("backup %s: %w: the content key of this host is needed before the seal", ref, keys.ErrKeys)
			}
			v.content = *v.o.Reader.ContentKey
		}
		return nil
	}
	m, err := v.s.LoadManifest(ref, v.o.Reader)
	if err != nil {
		return err
	}
	if v.o.Reader != nil {
		k, err := keys.Unwrap(*v.o.Reader, m.Keys)
		if err != nil {
			return err
		}
		v.content = k.Content
	}
	v.m, v.want = &m, map[UnitID]manifest.Hash{}
	for _, u := range m.Units {
		if v.o.Of != nil && !v.o.Of(u.UnitID) {
			continue
		}
		v.units = append(v.units, u.UnitID)
		v.want[u.UnitID] = u.SHA256
		v.total += u.Stored
		if !v.o.Full {
			v.total -= u.Stored - u.StoredNew
		}
	}
	v.rep.Full = v.o.Full && len(v.units) == len(m.Units) // a part that is whole says nothing of the rest
	v.hold, err = v.s.Hold(ref)
	return err
}

func (v *verifier) run() error {
	if v.m != nil {
		for _, f := range v.m.Files {
			if _, err := v.s.SideFile(*v.m, f.Name); err != nil {
				v.damage(Damage{Reason: err.Error()})
			}
		}
	}
	for _, id := range v.units {
		if err := v.unit(id); err != nil {
			return err
		}
		v.rep.Units++
	}
	return nil
}

func (v *verifier) damage(d Damage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := func(o Damage) bool { return d.Piece != (manifest.Hash{}) && o.Unit == d.Unit && o.Piece == d.Piece }
	if !slices.ContainsFunc(v.rep.Damage, same) {
		v.rep.Damage = append(v.rep.Damage, d)
	}
}

// found records damage; other errors end the verification.
func (v *verifier) found(id UnitID, piece manifest.Hash, err error) error {
	if err == nil || (!errors.Is(err, plugins.ErrCorrupt) && !notExist(err)) {
		return err
	}
	v.damage(Damage{Unit: id, Piece: piece, Reason: err.Error()})
	return nil
}

func (v *verifier) unit(id UnitID) error {
	dir, err := v.s.openUnitDir(v.rep.Ref, id)
	if err != nil {
		return v.found(id, manifest.Hash{}, err)
	}
	defer dir.Close()
	f, sum, err := readUnitFile(dir, v.rep.Ref, id)
	if err == nil && v.want != nil && sum != v.want[id] {
		err = fmt.Errorf("unit.json is not the one the manifest names: %w", plugins.ErrCorrupt)
	}
	if err != nil {
		return v.found(id, manifest.Hash{}, err)
	}
	c := unitCheck{v: v, id: id, f: f}
	c.o = &opener{s: v.s, dir: dir, key: v.content[:], intro: pieceIntro(f.Fingerprint, id)}
	deep := v.o.Reader != nil && (v.o.Full || v.o.NewOnly)
	if deep {
		c.o.identities = v.o.Reader.Identities
		if err := c.plan(v.ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(v.ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for i, p := range f.Pieces {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			read := v.o.Full || (v.o.NewOnly && p.New)
			var err error
			switch {
			case !read:
				err = c.stat(p)
			case deep:
				err = c.decode(ctx, i)
			default:
				err = c.hash(p)
			}
			v.count(p, read)
			return v.found(id, p.ID, err)
		})
	}
	return g.Wait()
}

func (v *verifier) count(p manifest.Piece, read bool) {
	v.mu.Lock()
	v.rep.Pieces++
	if read {
		v.rep.Read += p.Stored
	}
	done := v.rep.Read
	v.mu.Unlock()
	if v.progress != nil && read {
		v.progress(done, max(v.total, done))
	}
}

// unitCheck verifies the pieces of one unit.
type unitCheck struct {
	v     *verifier
	id    UnitID
	f     *manifest.UnitFile
	o     *opener
	parts [][]partCheck // by piece
}

func (c *unitCheck) stat(p manifest.Piece) error {
	fi, err := c.o.dir.Lstat(p.FileName())
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != p.Stored {
		return fmt.Errorf("piece %s: %w: missing, or of another size", p.ID, plugins.ErrCorrupt)
	}
	return nil
}

func (c *unitCheck) hash(p manifest.Piece) error {
	if err := c.stat(p); err != nil {
		return err
	}
	f, _, err := fsutil.OpenRegular(c.o.dir, p.FileName())
	if err != nil {
		return c.o.corrupt(p, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return c.o.corrupt(p, err)
	}
	if manifest.Hash(h.Sum(nil)) != p.SHA256 {
		return c.o.corrupt(p, errors.New("SHA-256 of the stored bytes differs"))
	}
	return nil
}
