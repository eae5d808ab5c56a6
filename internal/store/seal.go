package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func links(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 0
}

// subdirs lists the directories in a directory, sorted; links are none.
func (s *Store) subdirs(dir string) ([]string, error) {
	es, err := s.list(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range es {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// list gives what stands in a directory of the store, in no order.
func (s *Store) list(dir string) ([]fs.DirEntry, error) {
	d, err := s.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	es, err := d.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return es, nil
}

// Refs lists the directories of all backups, complete or not, safety backups
// included, by name and time.
func (s *Store) Refs() ([]Ref, error) {
	names, err := s.subdirs(".")
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var out []Ref
	for _, n := range names {
		if !manifest.ValidName(n) && n != manifest.SafetyName {
			continue
		}
		times, err := s.subdirs(n)
		if notExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		for _, t := range times {
			if r := (Ref{Name: n, Timestamp: t}); r.Validate() == nil {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// units lists the units that have a directory in a backup.
func (s *Store) units(ref Ref) ([]UnitID, error) {
	var out []UnitID
	cs, err := s.subdirs(ref.String())
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		if c == dirConfig {
			continue
		}
		is, err := s.subdirs(ref.String() + "/" + c)
		if err != nil {
			return nil, err
		}
		for _, i := range is {
			ms, err := s.subdirs(ref.String() + "/" + c + "/" + i)
			if err != nil {
				return nil, err
			}
			for _, m := range ms {
				out = append(out, UnitID{Component: c, Instance: i, Member: m})
			}
		}
	}
	return out, nil
}

// openUnitDir opens the directory of a unit, refusing symbolic links on the way.
func (s *Store) openUnitDir(ref Ref, id UnitID) (*os.Root, error) {
	if err := errors.Join(ref.Validate(), id.Validate()); err != nil {
		return nil, err
	}
	return fsutil.OpenDir(s.root, append([]string{ref.Name, ref.Timestamp}, id.Path()...)...)
}

// readUnit reads unit.json and its SHA-256.
func (s *Store) readUnit(ref Ref, id UnitID) (*manifest.UnitFile, manifest.Hash, error) {
	d, err := s.openUnitDir(ref, id)
	if err != nil {
		return nil, manifest.Hash{}, err
	}
	defer d.Close()
	return readUnitFile(d, ref, id)
}

func readUnitFile(d *os.Root, ref Ref, id UnitID) (*manifest.UnitFile, manifest.Hash, error) {
	b, err := fsutil.ReadBounded(d, fileUnit, manifest.MaxUnitFile)
	if err != nil {
		return nil, manifest.Hash{}, err
	}
	f, err := manifest.DecodeUnit(b)
	if err != nil {
		return nil, manifest.Hash{}, fmt.Errorf("unit %s of %s: %w: %w", id, ref, plugins.ErrCorrupt, err)
	}
	if f.Backup != ref || f.UnitID != id.Normal() {
		return nil, manifest.Hash{}, fmt.Errorf("unit %s of %s: %w: its unit.json is that of %s of %s", id, ref, plugins.ErrCorrupt, f.UnitID, f.Backup)
	}
	return f, manifest.SHA256(b), nil
}

// Summaries are the finished units of a backup, sealed or not, by path.
func (s *Store) Summaries(ref Ref) ([]UnitSummary, error) {
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	ids, err := s.units(ref)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", ref, err)
	}
	var out []UnitSummary
	for _, id := range ids {
		f, sum, err := s.readUnit(ref, id)
		if notExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f.Summary(sum))
	}
	return out, nil
}

// SealOptions are what a manifest is sealed with.
type SealOptions struct {
	Writer      keys.Writer
	ManifestKey keys.Key
	Files       map[string][]byte // stored in clear beside the manifest, by name: estate file, schedules, recipients
}

// Seal makes the backup complete: it checks that the units in m, if any are
// given, are exactly those on disk, fills in units, totals, files, recipients
// and wrapped keys, and writes manifest.json, which is never replaced. Sealing
// again with the same ID is without effect; with another one it is ErrSealed.
func (s *Store) Seal(ctx context.Context, ref Ref, m manifest.Manifest, o SealOptions) (manifest.Manifest, error) {
	fail := func(err error) (manifest.Manifest, error) {
		return manifest.Manifest{}, fmt.Errorf("seal %s: %w", ref, spaceError(err))
	}
	if err := ref.Validate(); err != nil {
		return fail(err)
	}
	if have, err := s.LoadManifest(ref, &keys.Reader{ManifestKey: &o.ManifestKey}); err == nil {
		if have.ID == m.ID && m.ID != "" {
			return have, nil
		}
		return fail(ErrSealed)
	} else if !errors.Is(err, ErrIncomplete) {
		return fail(err)
	}
	l, err := waitLock(ctx, s.root, fileLock, false)
	if err != nil {
		return fail(err)
	}
	defer l.Unlock()
	m.Backup = ref
	m.Fingerprint = o.Writer.Fingerprint()
	if err := s.gather(ref, &m); err != nil {
		return fail(err)
	}
	if err := s.sides(ref, &m, o.Files); err != nil {
		return fail(err)
	}
	m.Recipients = o.Writer.Lines
	if m.Keys, err = keys.Wrap(o.Writer, o.ManifestKey); err != nil {
		return fail(err)
	}
	b, err := manifest.Encode(m, o.ManifestKey)
	if err != nil {
		return fail(err)
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	if err := fsutil.SyncPath(s.root, ref.String()); err != nil {
		return fail(err)
	}
	if err := s.at("manifest"); err != nil {
		return fail(err)
	}
	if err := fsutil.Publish(s.root, dirTmp, ref.String()+"/"+fileManifest, b); err != nil {
		return fail(err)
	}
	return manifest.Decode(b)
}

// gather takes the units from disk and checks that their pieces are there.
func (s *Store) gather(ref Ref, m *manifest.Manifest) error {
	want := m.Units
	ids, err := s.units(ref)
	if err != nil {
		return err
	}
	m.Units = nil
	for _, id := range ids {
		f, sum, err := s.readUnit(ref, id)
		if err != nil {
			return fmt.Errorf("unit %s: %w: finish it, or remove its directory", id, err)
		}
		if f.Fingerprint != m.Fingerprint {
			return fmt.Errorf("unit %s: the recipients were changed while the backup ran: %w: start it again", id, keys.ErrKeys)
		}
		if err := s.present(ref, f); err != nil {
			return err
		}
		m.Units = append(m.Units, f.Summary(sum))
	}
	if want != nil {
		for _, u := range want {
			if have, ok := m.Unit(u.UnitID); !ok || have.SHA256 != u.SHA256 {
				return fmt.Errorf("unit %s: what is stored is not what was reported", u.UnitID)
			}
		}
		if len(want) != len(m.Units) {
			return fmt.Errorf("%d units are stored, %d were reported", len(m.Units), len(want))
		}
	}
	m.Sum()
	return nil
}

// present checks existence and size of every piece of a unit.
func (s *Store) present(ref Ref, f *manifest.UnitFile) error {
	d, err := s.openUnitDir(ref, f.UnitID)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, p := range f.Pieces {
		if fi, err := d.Lstat(p.FileName()); err != nil || !fi.Mode().IsRegular() || fi.Size() != p.Stored {
			return fmt.Errorf("unit %s: piece %s is missing or has another size: %w", f.UnitID, p.ID, plugins.ErrCorrupt)
		}
	}
	return nil
}

// sides stores the files that lie in clear beside the manifest.
func (s *Store) sides(ref Ref, m *manifest.Manifest, files map[string][]byte) error {
	dir := ref.String() + "/" + dirConfig
	m.Files = []manifest.SideFile{}
	if err := s.root.RemoveAll(dir); err != nil { // of a seal that did not come to its end
		return err
	}
	for name, b := range files {
		f := manifest.SideFile{Name: name, Size: int64(len(b)), SHA256: manifest.SHA256(b)}
		if err := manifest.ValidateSideFile(f); err != nil {
			return err
		}
		if err := fsutil.MkdirAll(s.root, dir); err != nil {
			return err
		}
		if err := fsutil.Publish(s.root, dirTmp, dir+"/"+name, b); err != nil {
			return err
		}
		m.Files = append(m.Files, f)
	}
	slices.SortFunc(m.Files, func(a, b manifest.SideFile) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// LoadManifest reads the manifest of a backup. With a reader its seal is
// checked (manifest.ErrTampered); with one that has identities only, the key
// comes out of the manifest itself. ErrNoSuchBackup, ErrIncomplete.
func (s *Store) LoadManifest(ref Ref, r *keys.Reader) (manifest.Manifest, error) {
	if err := ref.Validate(); err != nil {
		return manifest.Manifest{}, fmt.Errorf("%w: %w", ErrNoSuchBackup, err)
	}
	d, err := fsutil.OpenDir(s.root, ref.Name, ref.Timestamp)
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("backup %s: %w: %w", ref, ErrNoSuchBackup, err)
	}
	defer d.Close()
	return loadManifest(d, ref, r)
}

func loadManifest(d *os.Root, ref Ref, r *keys.Reader) (manifest.Manifest, error) {
	m, err := readManifest(d, r)
	if err == nil && m.Backup != ref && ref != (Ref{}) {
		err = fmt.Errorf("%w: its manifest is that of %s", plugins.ErrCorrupt, m.Backup)
	}
	switch {
	case err == nil:
		return m, nil
	case ref == (Ref{}): // a directory from elsewhere, whose name says nothing
		return manifest.Manifest{}, err
	}
	return manifest.Manifest{}, fmt.Errorf("backup %s: %w", ref, err)
}

// readManifest reads a manifest and, with a reader, checks its seal. What a
// newer version wrote (manifest.ErrFormat) or may not be read is not damaged.
func readManifest(d *os.Root, r *keys.Reader) (manifest.Manifest, error) {
	b, err := fsutil.ReadBounded(d, fileManifest, manifest.MaxManifest)
	var m manifest.Manifest
	if err == nil {
		m, err = manifest.Decode(b)
	}
	switch {
	case notExist(err):
		return manifest.Manifest{}, fmt.Errorf("%w: it has no manifest.json", ErrIncomplete)
	case errors.Is(err, manifest.ErrFormat), errors.Is(err, fs.ErrPermission):
		return manifest.Manifest{}, err
	case err != nil:
		return manifest.Manifest{}, fmt.Errorf("%w: %w", plugins.ErrCorrupt, err)
	case r != nil:
		err = checkSeal(b, m, *r)
	}
	return m, err
}

func checkSeal(b []byte, m manifest.Manifest, r keys.Reader) error {
	var o keys.Opened
	var err error
	if r.ManifestKey == nil {
		if o, err = keys.Unwrap(r, m.Keys); err != nil {
			return err
		}
	}
	k, err := r.ManifestKeyFor(o)
	if err != nil {
		return err
	}
	return manifest.CheckMAC(b, k)
}

// SideFile reads a file stored beside the manifest and checks its hash.
func (s *Store) SideFile(m manifest.Manifest, name string) ([]byte, error) {
	i := slices.IndexFunc(m.Files, func(f manifest.SideFile) bool { return f.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("backup %s: file %q: %w", m.Backup, name, plugins.ErrNotFound)
	}
	d, err := fsutil.OpenDir(s.root, m.Backup.Name, m.Backup.Timestamp, dirConfig)
	if err != nil {
		return nil, fmt.Errorf("backup %s: file %q: %w: %w", m.Backup, name, plugins.ErrCorrupt, err)
	}
	defer d.Close()
	return readSide(d, m.Files[i])
}

func readSide(d *os.Root, f manifest.SideFile) ([]byte, error) {
	b, err := fsutil.ReadBounded(d, f.Name, f.Size)
	if err != nil || manifest.SHA256(b) != f.SHA256 {
		return nil, fmt.Errorf("file %q: %w", f.Name, errors.Join(plugins.ErrCorrupt, err))
	}
	return b, nil
}
