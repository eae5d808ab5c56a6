package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// Hold keeps a complete backup from being removed until the lock is let go.
func (s *Store) Hold(ref Ref) (*fsutil.Lock, error) {
	l, err := fsutil.TryLockExisting(s.root, ref.String()+"/"+fileManifest, false)
	if errors.Is(err, fsutil.ErrBusy) {
		return nil, fmt.Errorf("backup %s: %w: it is being removed", ref, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", ref, err)
	}
	return l, nil
}

// Remove removes one backup, its manifest first. Other backups keep the pieces
// they share with it; space is freed by Cleanup. ErrInUse while it is read.
func (s *Store) Remove(ctx context.Context, ref Ref) error {
	if err := ref.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSuchBackup, err)
	}
	d, err := fsutil.OpenDir(s.root, ref.Name, ref.Timestamp)
	if err != nil {
		return fmt.Errorf("backup %s: %w: %w", ref, ErrNoSuchBackup, err)
	}
	d.Close()
	l, err := waitLock(ctx, s.root, fileLock, false)
	if err != nil {
		return fmt.Errorf("backup %s: %w", ref, err)
	}
	defer l.Unlock()
	return s.remove(ref)
}

func (s *Store) remove(ref Ref) error {
	dir := ref.String()
	l, err := fsutil.TryLockExisting(s.root, dir+"/"+fileManifest, true)
	switch {
	case err == nil:
		defer l.Unlock()
		if err := s.root.Remove(dir + "/" + fileManifest); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
		if err := fsutil.SyncDir(s.root, dir); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
	case errors.Is(err, fsutil.ErrBusy):
		return fmt.Errorf("backup %s: %w: a restore, verification or drill reads it", ref, ErrInUse)
	case !notExist(err) && !errors.Is(err, fsutil.ErrNotRegular):
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	if err := s.at("removing"); err != nil {
		return err
	}
	for _, p := range []string{dir, statePath(ref)} {
		if err := s.root.RemoveAll(p); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
	}
	if err := s.root.Remove(ref.Name); err == nil { // succeeds for the last backup of the name only
		return fsutil.SyncDir(s.root, ".")
	}
	return fsutil.SyncDir(s.root, ref.Name)
}

// CleanupReport is what Cleanup removed.
type CleanupReport struct {
	Incomplete []Ref `json:"incomplete,omitempty"`
	Temporary  int   `json:"temporary"` // files and directories of runs that died
	Objects    int   `json:"objects"`   // that no backup uses any more
	Bytes      int64 `json:"bytes"`     // freed by them
}

// Cleanup removes incomplete backups but those in keep, what dead runs left,
// and objects that no backup uses. It waits until no unit is being written.
func (s *Store) Cleanup(ctx context.Context, keep ...Ref) (CleanupReport, error) {
	var rep CleanupReport
	l, err := waitLock(ctx, s.root, fileLock, true)
	if err != nil {
		return rep, fmt.Errorf("cleanup: %w", err)
	}
	defer l.Unlock()
	refs, err := s.Refs()
	if err != nil {
		return rep, fmt.Errorf("cleanup: %w", err)
	}
	for _, r := range refs {
		if ctx.Err() != nil {
			return rep, context.Cause(ctx)
		}
		if slices.Contains(keep, r) || s.exists(r.String()+"/"+fileManifest) {
			continue
		}
		if err := s.remove(r); err != nil {
			return rep, fmt.Errorf("cleanup: %w", err)
		}
		rep.Incomplete = append(rep.Incomplete, r)
	}
	if err := s.cleanTmp(&rep, keep); err != nil {
		return rep, fmt.Errorf("cleanup: %w", err)
	}
	if err := s.cleanObjects(ctx, &rep); err != nil {
		return rep, fmt.Errorf("cleanup: %w", err)
	}
	return rep, nil
}

func (s *Store) cleanTmp(rep *CleanupReport, keep []Ref) error {
	es, err := s.list(dirTmp)
	if err != nil {
		return err
	}
	for _, e := range es {
		kept := slices.ContainsFunc(keep, func(r Ref) bool { return strings.HasPrefix(e.Name(), r.Name+"~"+r.Timestamp+"~") })
		ours := strings.HasPrefix(e.Name(), "t-") || strings.Contains(e.Name(), "~")
		if kept || !ours {
			continue
		}
		if err := s.root.RemoveAll(dirTmp + "/" + e.Name()); err != nil {
			return err
		}
		rep.Temporary++
	}
	return nil
}

func (s *Store) cleanObjects(ctx context.Context, rep *CleanupReport) error {
	dirs, err := s.subdirs(dirObjects)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.cleanObjectDir(dirObjects+"/"+dir, rep); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) cleanObjectDir(dir string, rep *CleanupReport) error {
	es, err := s.list(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() || links(fi) != 1 {
			continue
		}
		if err := s.root.Remove(dir + "/" + e.Name()); err != nil {
			return err
		}
		rep.Objects++
		rep.Bytes += fi.Size()
	}
	return nil
}

// Quarantine puts a damaged piece of a backup aside, so that the next backup
// stores it anew, and marks every backup that shares the damaged file.
func (s *Store) Quarantine(ctx context.Context, ref Ref, d Damage) ([]Ref, error) {
	if err := errors.Join(ref.Validate(), d.Unit.Validate()); err != nil {
		return nil, err
	}
	file := "/" + d.Unit.String() + "/" + manifest.Piece{ID: d.Piece}.FileName()
	bad, err := s.root.Lstat(ref.String() + file)
	if err != nil && !notExist(err) {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	marked := []Ref{ref}
	if bad != nil {
		refs, err := s.Refs()
		if err != nil {
			return nil, fmt.Errorf("quarantine: %w", err)
		}
		for _, r := range refs {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if fi, err := s.root.Lstat(r.String() + file); err == nil && r != ref && os.SameFile(fi, bad) {
				marked = append(marked, r)
			}
		}
	}
	e := Event{Kind: EventDamaged, Problems: []string{d.Unit.String() + ": " + d.Reason}}
	for _, r := range marked {
		if err := s.appendEvent(r, e); err != nil {
			return nil, err
		}
	}
	obj := objectPath(d.Piece)
	if fi, err := s.root.Lstat(obj); bad == nil || err != nil || !os.SameFile(fi, bad) {
		return marked, nil
	}
	if err := s.root.Rename(obj, dirQuarantine+"/"+d.Piece.String()+"-"+fsutil.TempName()); err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	return marked, errors.Join(fsutil.SyncDir(s.root, dirQuarantine), fsutil.SyncDir(s.root, path.Dir(obj)))
}
