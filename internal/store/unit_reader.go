package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// UnitReader reads one unit of a complete backup. It implements
// plugins.ArtifactReader and is safe for concurrent use. While it is open the
// backup cannot be removed.
type UnitReader struct {
	o     *opener
	file  *manifest.UnitFile
	infos []plugins.ArtifactInfo
	packs packCache
	hold  *fsutil.Lock
	once  sync.Once
}

// OpenUnit opens a unit for reading, after proving the seal of the manifest,
// the unit's list and the identity. keys.ErrIdentity, manifest.ErrTampered,
// plugins.ErrCorrupt, ErrIncomplete, ErrNoSuchBackup, and plugins.ErrNotFound
// for a unit that the backup does not have.
func (s *Store) OpenUnit(ctx context.Context, ref Ref, id UnitID, r keys.Reader) (*UnitReader, error) {
	id = id.Normal()
	m, err := s.LoadManifest(ref, &r)
	if err != nil {
		return nil, err
	}
	k, err := keys.Unwrap(r, m.Keys)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", ref, err)
	}
	entry, ok := m.Unit(id)
	if !ok {
		return nil, fmt.Errorf("backup %s: unit %s: %w", ref, id, plugins.ErrNotFound)
	}
	hold, err := s.Hold(ref)
	if err != nil {
		return nil, err
	}
	u, err := s.openUnit(ctx, ref, id, &entry.SHA256, k.Content, r)
	if err != nil {
		hold.Unlock()
		return nil, err
	}
	u.hold = hold
	return u, nil
}

// openUnit opens a unit; want is the SHA-256 of its list as the manifest has it, nil before the seal.
func (s *Store) openUnit(ctx context.Context, ref Ref, id UnitID, want *manifest.Hash, content keys.Key, r keys.Reader) (*UnitReader, error) {
	dir, err := s.openUnitDir(ref, id)
	if err != nil {
		return nil, fmt.Errorf("unit %s of %s: %w: %w", id, ref, plugins.ErrCorrupt, err)
	}
	f, sum, err := readUnitFile(dir, ref, id)
	if err == nil && want != nil && sum != *want {
		err = fmt.Errorf("unit %s of %s: its unit.json is not the one the manifest names: %w", id, ref, plugins.ErrCorrupt)
	}
	if err != nil {
		dir.Close()
		if notExist(err) {
			err = fmt.Errorf("unit %s of %s: %w: %w", id, ref, plugins.ErrCorrupt, err)
		}
		return nil, err
	}
	u := &UnitReader{file: f, o: &opener{s: s, dir: dir, identities: r.Identities, key: content[:], intro: pieceIntro(f.Fingerprint, id)}}
	if err := u.readDigests(ctx, content); err != nil {
		u.packs.drop()
		dir.Close()
		return nil, fmt.Errorf("unit %s of %s: %w", id, ref, err)
	}
	return u, nil
}

// indexOrder gives the positions of a unit's artifacts in the order in which their indexes are stored.
func indexOrder(f *manifest.UnitFile) []int {
	order := make([]int, len(f.Artifacts))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := f.Artifacts[a].Index, f.Artifacts[b].Index
		if x.Piece != y.Piece {
			return x.Piece - y.Piece
		}
		return int(x.Offset - y.Offset)
	})
	return order
}

// readDigests reads the index of every artifact, pack by pack.
func (u *UnitReader) readDigests(ctx context.Context, content keys.Key) error {
	order := indexOrder(u.file)
	u.infos = make([]plugins.ArtifactInfo, len(order))
	var blob []byte
	var at manifest.Part // of blob
	for n, i := range order {
		a := u.file.Artifacts[i]
		// Equal artifacts share one index.
		if n == 0 || at.Piece != a.Index.Piece || at.Offset != a.Index.Offset || at.Length != a.Index.Length {
			var err error
			if blob, err = u.blob(ctx, a.Index, blob); err != nil {
				return fmt.Errorf("index of %q: %w", a.Name, err)
			}
			at = a.Index
		}
		d, _, err := decodeIndex(blob, len(a.Parts))
		if err != nil || manifest.DigestCheck(content, d) != a.Check || d.Records != a.Records {
			return fmt.Errorf("index of %q: %w", a.Name, errors.Join(plugins.ErrCorrupt, err))
		}
		u.infos[i] = plugins.ArtifactInfo{Artifact: a.Artifact, Records: a.Records, Bytes: a.Bytes, Digest: d}
	}
	return nil
}

// blob reads a part as a whole, into buf if it is large enough.
func (u *UnitReader) blob(ctx context.Context, p manifest.Part, buf []byte) ([]byte, error) {
	l, err := u.loadPart(ctx, p)
	if err != nil {
		return nil, err
	}
	defer l.close()
	return readPart(l, p, buf)
}

func readPart(l *loaded, p manifest.Part, buf []byte) ([]byte, error) {
	if err := l.seek(p.Offset); err != nil {
		return nil, err
	}
	if int64(cap(buf)) < p.Length {
		buf = make([]byte, p.Length)
	}
	buf = buf[:p.Length]
	_, err := io.ReadFull(l, buf)
	return buf, err
}

// Close releases the unit. Readers opened from it must be closed before.
func (u *UnitReader) Close() error {
	u.once.Do(func() {
		u.packs.drop()
		u.o.dir.Close()
		u.hold.Unlock()
	})
	return nil
}

// Head is what the unit's list says about the unit as a whole.
func (u *UnitReader) Head() manifest.UnitHead { return u.file.UnitHead }

// Artifacts lists what the unit holds, ascending by name.
func (u *UnitReader) Artifacts() []plugins.ArtifactInfo { return slices.Clone(u.infos) }

func (u *UnitReader) find(name string) (*manifest.Artifact, error) {
	a, ok := u.file.Find(name)
	if !ok {
		return nil, fmt.Errorf("artifact %q: %w", name, plugins.ErrNotFound)
	}
	return a, nil
}

func (u *UnitReader) entries(ctx context.Context, a *manifest.Artifact) ([]indexEntry, error) {
	blob, err := u.blob(ctx, a.Index, nil)
	if err != nil {
		return nil, fmt.Errorf("index of %q: %w", a.Name, err)
	}
	_, es, err := decodeIndex(blob, len(a.Parts))
	if err != nil {
		return nil, fmt.Errorf("index of %q: %w: %w", a.Name, plugins.ErrCorrupt, err)
	}
	return es, nil
}

// Pieces lists the pieces of an Ordered artifact.
func (u *UnitReader) Pieces(ctx context.Context, name string) ([]plugins.PieceInfo, error) {
	a, err := u.find(name)
	if err != nil {
		return nil, err
	}
	if a.Form != plugins.Ordered {
		return nil, fmt.Errorf("artifact %q is not ordered: %w", name, plugins.ErrUnsupported)
	}
	es, err := u.entries(ctx, a)
	if err != nil {
		return nil, err
	}
	out := make([]plugins.PieceInfo, len(es))
	for i, e := range es {
		out[i] = plugins.PieceInfo{First: e.first, Last: e.last, Records: e.digest.Records, Bytes: e.bytes, Digest: e.digest}
	}
	return out, nil
}

// Open reads a whole artifact. A reader that finds no memory left to hold its
// pieces decodes them twice, once to prove and once to read, in about 2 MiB.
func (u *UnitReader) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	a, err := u.find(name)
	if err != nil {
		return nil, err
	}
	return u.reader(ctx, a, a.Parts), nil
}

// OpenPieces reads some pieces of an Ordered artifact.
func (u *UnitReader) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	a, err := u.find(name)
	if err != nil {
		return nil, err
	}
	if a.Form != plugins.Ordered || from < 0 || to < from || to > len(a.Parts) {
		return nil, fmt.Errorf("artifact %q: no pieces %d to %d: %w", name, from, to, plugins.ErrNotFound)
	}
	return u.reader(ctx, a, a.Parts[from:to]), nil
}

func (u *UnitReader) reader(ctx context.Context, a *manifest.Artifact, parts []manifest.Part) *recordReader {
	ctx, cancel := context.WithCancel(ctx)
	return &recordReader{u: u, ctx: ctx, cancel: cancel, a: a, parts: parts}
}
