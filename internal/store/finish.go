package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// UnitMeta is what the maker of a unit knows about it, for the record.
type UnitMeta struct {
	Scope               plugins.Scope
	VM                  string
	ServerVersion       string
	Position            string
	Pin                 string
	PinnedAt            time.Time
	CopiedInMaintenance bool
	Consistency         string
	Warnings            []string
	Inexact             []plugins.Inexact
}

// Finish makes everything durable and lists it in unit.json. Every artifact
// must have ended. The UnitWriter is closed afterwards, whatever the result.
func (u *UnitWriter) Finish(ctx context.Context, m UnitMeta) (UnitSummary, error) {
	defer u.Abort()
	u.pending.Wait()
	if u.opt.Pin != "" && m.Pin != u.opt.Pin {
		return UnitSummary{}, fmt.Errorf("unit %s: finished with pin %q, begun with %q: %w", u.id, m.Pin, u.opt.Pin, plugins.ErrPinLost)
	}
	if err := u.flushPacks(); err != nil {
		return UnitSummary{}, fmt.Errorf("unit %s: %w", u.id, err)
	}
	f, err := u.list(m)
	if err != nil {
		return UnitSummary{}, fmt.Errorf("unit %s: %w", u.id, err)
	}
	if u.shelf != nil {
		return u.shelf.Publish(ctx, f)
	}
	return u.conclude(ctx, f)
}

// conclude makes what the list names durable, and publishes the list.
func (u *UnitWriter) conclude(ctx context.Context, f *manifest.UnitFile) (UnitSummary, error) {
	b, err := manifest.EncodeUnit(f)
	if err != nil {
		return UnitSummary{}, err
	}
	if err := u.settle(ctx, f); err != nil {
		return UnitSummary{}, fmt.Errorf("unit %s: %w", u.id, spaceError(err))
	}
	if err := u.s.at("unit"); err != nil {
		return UnitSummary{}, err
	}
	if err := fsutil.Publish(u.s.root, u.tmpDir, u.dir+"/"+fileUnit, b); err != nil {
		return UnitSummary{}, fmt.Errorf("unit %s: %w", u.id, spaceError(err))
	}
	if err := u.s.root.RemoveAll(u.tmpDir); err != nil {
		u.log.Warn("temporary directory left for the next cleanup", "err", err)
	}
	return f.Summary(manifest.SHA256(b)), nil
}

// list builds unit.json. Pieces that no artifact refers to are left out.
func (u *UnitWriter) list(m UnitMeta) (*manifest.UnitFile, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.ended:
		return nil, fmt.Errorf("the unit is ended: %w", context.Canceled)
	case u.failed != nil:
		return nil, u.failed
	case u.openCount != 0:
		return nil, fmt.Errorf("%d artifacts neither committed nor aborted: %w", u.openCount, plugins.ErrData)
	}
	f := &manifest.UnitFile{Backup: u.ref, Fingerprint: u.fingerprint, UnitHead: manifest.UnitHead{
		UnitID: u.id, Scope: m.Scope, VM: m.VM, ServerVersion: m.ServerVersion, Position: m.Position, Pin: m.Pin, PinnedAt: m.PinnedAt.UTC(),
		CopiedInMaintenance: m.CopiedInMaintenance, Consistency: m.Consistency, Warnings: m.Warnings, Inexact: m.Inexact,
	}}
	number := make([]int, len(u.pieces)) // 1 + place in the list
	use := func(p *manifest.Part, k *pack) {
		if k != nil {
			p.Piece = k.piece
		}
		if number[p.Piece] == 0 {
			f.Pieces = append(f.Pieces, u.pieces[p.Piece])
			number[p.Piece] = len(f.Pieces)
		}
		p.Piece = number[p.Piece] - 1
	}
	for _, a := range u.artifacts {
		f.Artifacts = append(f.Artifacts, a.Artifact)
	}
	slices.SortFunc(f.Artifacts, func(a, b manifest.Artifact) int { return strings.Compare(a.Name, b.Name) })
	for i := range f.Artifacts {
		a, from := &f.Artifacts[i], u.artifacts[f.Artifacts[i].Name]
		for j := range a.Parts {
			use(&a.Parts[j], from.data)
		}
		use(&a.Index, from.index)
		f.Records += a.Records
		f.Bytes += a.Bytes
	}
	for _, p := range f.Pieces {
		f.Stored += p.Stored
		if p.New {
			f.StoredNew += p.Stored
		}
	}
	f.Digest = manifest.UnitDigest(u.keys.ContentKey, f.Artifacts)
	return f, nil
}

// settle makes the pieces durable, then gives them their place among the
// objects, then makes all names durable. An object is therefore always whole.
func (u *UnitWriter) settle(ctx context.Context, f *manifest.UnitFile) error {
	if err := u.s.at("sync"); err != nil {
		return err
	}
	root := u.s.root
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	var synced atomic.Int64
	for _, p := range f.Pieces {
		if !p.New {
			continue
		}
		g.Go(func() error {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			synced.Add(1)
			return fsutil.SyncFile(root, u.dir+"/"+p.FileName())
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := u.s.at("objects"); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, p := range f.Pieces {
		if p.New {
			obj := objectPath(p.ID)
			dirs[obj[:len(dirObjects)+3]] = true
			if err := u.s.enter(u.dir+"/"+p.FileName(), obj, !u.guest); err != nil {
				return err
			}
		}
	}
	if err := u.dropStrays(f); err != nil {
		return err
	}
	for d := range dirs {
		if err := fsutil.SyncDir(root, d); err != nil {
			return err
		}
	}
	// An attempt that died may have made a directory without making its name durable.
	for _, d := range []string{dirObjects, u.dir} {
		if err := fsutil.SyncPath(root, d); err != nil {
			return err
		}
	}
	u.log.Debug("unit is durable", "pieces", len(f.Pieces), "synced", synced.Load())
	return nil
}

// enter links a durable piece among the objects. Another file of that name
// gives way, unless it is in use and replace is false: the backups that use
// it have their own links to it.
func (s *Store) enter(file, obj string, replace bool) error {
	if err := fsutil.MkdirAll(s.root, obj[:len(dirObjects)+3]); err != nil {
		return err
	}
	err := s.linkFile(file, obj)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := s.root.Lstat(file)
	if err != nil {
		return err
	}
	have, err := s.root.Lstat(obj)
	if err != nil {
		return err
	}
	if os.SameFile(fi, have) || (links(have) > 1 && !replace) {
		return nil
	}
	tmp := dirTmp + "/" + fsutil.TempName()
	if err := s.linkFile(file, tmp); err != nil {
		return err
	}
	return s.root.Rename(tmp, obj)
}

// dropStrays removes from the unit's directory what its list does not name:
// pieces of earlier attempts.
func (u *UnitWriter) dropStrays(f *manifest.UnitFile) error {
	keep := make(map[string]bool, len(f.Pieces))
	for _, p := range f.Pieces {
		keep[p.FileName()] = true
	}
	d, err := u.s.root.Open(u.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		es, err := d.ReadDir(1024)
		for _, e := range es {
			if !keep[e.Name()] {
				if err := u.s.root.RemoveAll(u.dir + "/" + e.Name()); err != nil {
					return err
				}
			}
		}
		if len(es) == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}
