package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// InstanceReader reads one unit of a complete backup and, on demand, the units of
// the other members of its instance. It implements plugins.InstanceReader. A unit that the
// backup does not have holds nothing, if the backup has others of its instance.
type InstanceReader struct {
	own    *UnitReader // nil: the backup has no such unit
	open   func(ctx context.Context, member string) (*UnitReader, error)
	names  []string
	mu     sync.Mutex
	others map[string]*UnitReader
}

var _ plugins.InstanceReader = (*InstanceReader)(nil)

// OpenInstance opens a unit as OpenUnit does, with the way to its siblings.
func (s *Store) OpenInstance(ctx context.Context, ref Ref, id UnitID, r keys.Reader) (*InstanceReader, error) {
	id = id.Normal()
	m, err := s.LoadManifest(ref, &r)
	if err != nil {
		return nil, err
	}
	out := &InstanceReader{others: map[string]*UnitReader{}, open: func(ctx context.Context, member string) (*UnitReader, error) {
		sibling := id
		sibling.Member = member
		return s.OpenUnit(ctx, ref, sibling, r)
	}}
	for _, u := range m.Units {
		if u.Component == id.Component && u.Instance == id.Instance {
			out.names = append(out.names, u.Member)
		}
	}
	slices.Sort(out.names)
	out.own, err = s.OpenUnit(ctx, ref, id, r)
	if errors.Is(err, plugins.ErrNotFound) && len(out.names) > 0 && id.Member != manifest.ClusterMember {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Artifacts lists what the own unit holds, ascending by name.
func (r *InstanceReader) Artifacts() []plugins.ArtifactInfo {
	if r.own == nil {
		return nil
	}
	return r.own.Artifacts()
}

// Pieces lists the pieces of an Ordered artifact of the own unit.
func (r *InstanceReader) Pieces(ctx context.Context, name string) ([]plugins.PieceInfo, error) {
	if r.own == nil {
		return nil, fmt.Errorf("artifact %q: %w", name, plugins.ErrNotFound)
	}
	return r.own.Pieces(ctx, name)
}

// Open reads a whole artifact of the own unit.
func (r *InstanceReader) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	if r.own == nil {
		return nil, fmt.Errorf("artifact %q: %w", name, plugins.ErrNotFound)
	}
	return r.own.Open(ctx, name)
}

// OpenPieces reads some pieces of an Ordered artifact of the own unit.
func (r *InstanceReader) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	if r.own == nil {
		return nil, fmt.Errorf("artifact %q: %w", name, plugins.ErrNotFound)
	}
	return r.own.OpenPieces(ctx, name, from, to)
}

// Members names the members that the backup has units of, sorted.
func (r *InstanceReader) Members(context.Context) ([]string, error) {
	return slices.Clone(r.names), nil
}

// Member reads one of them; it stays open until Close.
func (r *InstanceReader) Member(ctx context.Context, name string) (plugins.ArtifactReader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u, ok := r.others[name]; ok {
		return u, nil
	}
	if !slices.Contains(r.names, name) {
		return nil, fmt.Errorf("member %q: %w", name, plugins.ErrNotFound)
	}
	u, err := r.open(ctx, name)
	if err != nil {
		return nil, err
	}
	r.others[name] = u
	return u, nil
}

// Close releases all units that were opened. Readers opened from them must be closed before.
func (r *InstanceReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.own != nil {
		errs = append(errs, r.own.Close())
	}
	for _, u := range r.others {
		errs = append(errs, u.Close())
	}
	return errors.Join(errs...)
}
