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

// Import adopts a backup directory that was copied from a store, to anywhere
// or straight into its place below the root. The seal and every piece are
// proven first; pieces that the store has already are linked. The reader needs
// the identity. ErrSealed when the store holds another backup of that name and time.
func (s *Store) Import(ctx context.Context, dir string, r keys.Reader) (Ref, error) {
	ref, err := s.importDir(ctx, dir, r)
	if err != nil {
		return ref, fmt.Errorf("import %s: %w", dir, spaceError(err))
	}
	return ref, nil
}

// Peek reads the manifest of a copied backup directory without proving its seal.
func Peek(dir string) (manifest.Manifest, error) {
	src, err := os.OpenRoot(dir)
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("%w: %w", ErrNoSuchBackup, err)
	}
	defer src.Close()
	return loadManifest(src, Ref{}, nil)
}

func (s *Store) importDir(ctx context.Context, dir string, r keys.Reader) (Ref, error) {
	src, err := os.OpenRoot(dir)
	if err != nil {
		return Ref{}, fmt.Errorf("%w: %w", ErrNoSuchBackup, err)
	}
	defer src.Close()
	m, err := loadManifest(src, Ref{}, &r)
	if err != nil {
		return Ref{}, err
	}
	if _, err := keys.Unwrap(r, m.Keys); err != nil {
		return m.Backup, err
	}
	// One import at a time: a second one of the same backup finds it complete, not half there.
	alone, err := waitLock(ctx, s.root, fileImport, true)
	if err != nil {
		return m.Backup, err
	}
	defer alone.Unlock()
	l, err := waitLock(ctx, s.root, fileLock, false)
	if err != nil {
		return m.Backup, err
	}
	defer l.Unlock()
	inPlace := false
	if there, err := os.Stat(s.Dir(m.Backup)); err == nil {
		if here, err := src.Stat("."); err == nil {
			inPlace = os.SameFile(here, there)
		}
	}
	if !inPlace {
		if s.exists(m.Backup.String() + "/" + fileManifest) {
			return m.Backup, fmt.Errorf("%s: %w", m.Backup, ErrSealed)
		}
		if err := s.copyIn(ctx, src, m); err != nil {
			return m.Backup, err
		}
	}
	return m.Backup, s.adoptDir(ctx, src, m, r, inPlace)
}

// copyIn brings everything but the manifest into the store.
func (s *Store) copyIn(ctx context.Context, src *os.Root, m manifest.Manifest) error {
	for _, e := range m.Units {
		from, err := fsutil.OpenDir(src, e.Path()...)
		if err != nil {
			return fmt.Errorf("unit %s: %w: %w", e.UnitID, plugins.ErrCorrupt, err)
		}
		err = s.copyUnit(ctx, from, m.Backup, e)
		from.Close()
		if err != nil {
			return fmt.Errorf("unit %s: %w", e.UnitID, err)
		}
	}
	if len(m.Files) == 0 {
		return nil
	}
	from, err := fsutil.OpenDir(src, dirConfig)
	if err != nil {
		return fmt.Errorf("%w: %w", plugins.ErrCorrupt, err)
	}
	defer from.Close()
	dir := m.Backup.String() + "/" + dirConfig
	if err := fsutil.MkdirAll(s.root, dir); err != nil {
		return err
	}
	for _, f := range m.Files {
		b, err := readSide(from, f)
		if err != nil {
			return err
		}
		if err := s.publishSame(dir+"/"+f.Name, b); err != nil {
			return err
		}
	}
	return nil
}

// publishSame publishes a file, or finds it there with the same content. What
// an import that was refused has left, of a copy that was forged, gives way.
func (s *Store) publishSame(name string, b []byte) error {
	err := fsutil.Publish(s.root, dirTmp, name, b)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if have, err := fsutil.ReadBounded(s.root, name, int64(len(b))); err == nil && manifest.SHA256(have) == manifest.SHA256(b) {
		return nil
	}
	if err := s.root.Remove(name); err != nil {
		return err
	}
	return fsutil.Publish(s.root, dirTmp, name, b)
}

func (s *Store) copyUnit(ctx context.Context, from *os.Root, ref Ref, e manifest.Unit) error {
	f, sum, err := readUnitFile(from, ref, e.UnitID)
	if notExist(err) {
		return fmt.Errorf("%w: it has no unit.json", plugins.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	if sum != e.SHA256 {
		return fmt.Errorf("its unit.json is not the one the manifest names: %w", plugins.ErrCorrupt)
	}
	raw, err := fsutil.ReadBounded(from, fileUnit, manifest.MaxUnitFile)
	if err != nil || manifest.SHA256(raw) != sum {
		return errors.Join(plugins.ErrCorrupt, err)
	}
	dir := unitPath(ref, e.UnitID)
	if err := fsutil.MkdirAll(s.root, dir); err != nil {
		return err
	}
	for _, p := range f.Pieces {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.copyPiece(from, dir, p); err != nil {
			return err
		}
	}
	if err := fsutil.SyncDir(s.root, dir); err != nil {
		return err
	}
	return s.publishSame(dir+"/"+fileUnit, raw)
}

// copyPiece links the piece from the objects when the same bytes are there,
// else copies it, synced.
func (s *Store) copyPiece(from *os.Root, dir string, p manifest.Piece) error {
	name := dir + "/" + p.FileName()
	if s.hashIs(name, p) {
		return nil
	}
	if s.exists(name) { // of an import that did not come to its end
		if err := s.root.Remove(name); err != nil {
			return err
		}
	}
	if s.hashIs(objectPath(p.ID), p) && s.linkFile(objectPath(p.ID), name) == nil {
		return nil
	}
	in, fi, err := fsutil.OpenRegular(from, p.FileName())
	if err != nil {
		return fmt.Errorf("piece %s: %w: %w", p.ID, plugins.ErrCorrupt, err)
	}
	defer in.Close()
	if fi.Size() != p.Stored {
		return fmt.Errorf("piece %s: %w: %d bytes, want %d", p.ID, plugins.ErrCorrupt, fi.Size(), p.Stored)
	}
	tmp := dirTmp + "/" + fsutil.TempName()
	out, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer s.root.Remove(tmp)
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if manifest.Hash(h.Sum(nil)) != p.SHA256 {
		return fmt.Errorf("piece %s: %w: SHA-256 of the stored bytes differs", p.ID, plugins.ErrCorrupt)
	}
	return s.linkFile(tmp, name)
}

// hashIs says whether a file of the store holds exactly the bytes of a piece.
func (s *Store) hashIs(name string, p manifest.Piece) bool {
	f, fi, err := fsutil.OpenRegular(s.root, name)
	if err != nil {
		return false
	}
	defer f.Close()
	if fi.Size() != p.Stored {
		return false
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && manifest.Hash(h.Sum(nil)) == p.SHA256
}

// adoptDir decodes everything, shares pieces with the objects, and writes the
// manifest last.
func (s *Store) adoptDir(ctx context.Context, src *os.Root, m manifest.Manifest, r keys.Reader, inPlace bool) error {
	o, err := keys.Unwrap(r, m.Keys)
	if err != nil {
		return err
	}
	r.ContentKey = &o.Content
	rep, err := s.Verify(ctx, m.Backup, VerifyOptions{Full: true, Reader: &r, Unsealed: !inPlace}, nil)
	if err != nil {
		return err
	}
	if err := rep.Err(); err != nil {
		return err
	}
	for _, e := range m.Units {
		f, sum, err := s.readUnit(m.Backup, e.UnitID)
		if err != nil {
			return err
		}
		if sum != e.SHA256 {
			return fmt.Errorf("unit %s: %w: its unit.json is not the one the manifest names", e.UnitID, plugins.ErrCorrupt)
		}
		for _, p := range f.Pieces {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := s.share(unitPath(m.Backup, e.UnitID)+"/"+p.FileName(), p); err != nil {
				return err
			}
		}
	}
	if inPlace {
		return nil
	}
	raw, err := fsutil.ReadBounded(src, fileManifest, manifest.MaxManifest)
	if err != nil {
		return err
	}
	if err := checkSeal(raw, m, r); err != nil {
		return err
	}
	return fsutil.Publish(s.root, dirTmp, m.Backup.String()+"/"+fileManifest, raw)
}

// share makes a proven piece and the object of its name one file: the object
// becomes a link to it, or, when the object holds the same bytes already, it
// becomes a link to the object, and the space of the copy is freed.
func (s *Store) share(file string, p manifest.Piece) error {
	obj := objectPath(p.ID)
	if err := s.enter(file, obj, false); err != nil {
		return err
	}
	a, err := s.root.Lstat(file)
	if err != nil {
		return err
	}
	if b, err := s.root.Lstat(obj); err != nil || os.SameFile(a, b) || !s.hashIs(obj, p) {
		return err
	}
	tmp := dirTmp + "/" + fsutil.TempName()
	if err := s.linkFile(obj, tmp); err != nil {
		return nil // no further link possible: the copy stays
	}
	return s.root.Rename(tmp, file)
}
