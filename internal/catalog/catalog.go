// Package catalog lists the backups of a store and finds the one that an
// operator means. It reads manifests and the state beside them, no data.
package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Status of a backup.
type Status string

const (
	Complete   Status = "complete"
	Incomplete Status = "incomplete" // no manifest: running, or its run died
	Damaged    Status = "damaged"    // manifest or data is damaged or was tampered with
	Unreadable Status = "unreadable" // of a newer version of this program, or not to be read by this user
)

// Entry is one backup in the list. Of an incomplete backup only Ref, Path,
// Status, Safety and Time are known.
type Entry struct {
	Ref         store.Ref            `json:"backup"`
	Path        string               `json:"path"`
	Status      Status               `json:"status"`
	Problems    []string             `json:"problems,omitempty"` // of a damaged or unreadable one
	Safety      bool                 `json:"safety,omitempty"`
	Time        time.Time            `json:"time"` // of the data: the last pin, or the timestamp
	ID          string               `json:"id,omitempty"`
	Trigger     string               `json:"trigger,omitempty"`
	Tool        string               `json:"tool,omitempty"`
	Ended       time.Time            `json:"ended,omitzero"`
	Maintenance manifest.Maintenance `json:"maintenance"`
	Consistent  bool                 `json:"consistent"`
	Consistency string               `json:"consistency,omitempty"`
	Totals      manifest.Totals      `json:"totals"`
	Components  []string             `json:"components,omitempty"` // component, or component@instance
	Warnings    int                  `json:"warnings"`
	LastFull    time.Time            `json:"lastFullRead,omitzero"`
}

// Filter chooses entries. The zero value is all backups but safety backups.
type Filter struct {
	Name   string // only this backup name
	Safety bool   // safety backups too; they are listed last
	// Reader: check the seal of every manifest; a wrong one is listed as damaged.
	Reader *keys.Reader
}

// List lists backups, newest first within a name, names in order.
func List(s *store.Store, f Filter) ([]Entry, error) {
	refs, err := s.Refs()
	if err != nil {
		return nil, err
	}
	refs = slices.DeleteFunc(refs, func(r store.Ref) bool {
		return (r.Safety() && !f.Safety) || (f.Name != "" && r.Name != f.Name)
	})
	out := make([]Entry, len(refs))
	var g errgroup.Group
	g.SetLimit(4)
	for i, r := range refs {
		g.Go(func() (err error) {
			out[i], err = Load(s, r, f.Reader)
			if errors.Is(err, store.ErrNoSuchBackup) {
				return nil // removed meanwhile: its place stays empty
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out = slices.DeleteFunc(out, func(e Entry) bool { return e.Status == "" })
	slices.SortFunc(out, func(a, b Entry) int {
		if a.Safety != b.Safety {
			if a.Safety {
				return 1
			}
			return -1
		}
		if c := strings.Compare(a.Ref.Name, b.Ref.Name); c != 0 {
			return c
		}
		return strings.Compare(b.Ref.Timestamp, a.Ref.Timestamp)
	})
	return out, nil
}

// Load makes the entry of one backup. With a reader the seal is checked.
func Load(s *store.Store, ref store.Ref, r *keys.Reader) (Entry, error) {
	t, err := ref.Time()
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", store.ErrNoSuchBackup, err)
	}
	e := Entry{Ref: ref, Path: s.Dir(ref), Safety: ref.Safety(), Time: t}
	m, err := s.LoadManifest(ref, r)
	switch {
	case errors.Is(err, store.ErrNoSuchBackup):
		return Entry{}, err
	case errors.Is(err, store.ErrIncomplete):
		e.Status = Incomplete
		return e, nil
	case errors.Is(err, plugins.ErrCorrupt), errors.Is(err, manifest.ErrTampered):
		e.Status, e.Problems = Damaged, []string{err.Error()}
		return e, nil
	case errors.Is(err, manifest.ErrFormat), errors.Is(err, fs.ErrPermission):
		e.Status, e.Problems = Unreadable, []string{err.Error()}
		return e, nil
	case err != nil:
		return Entry{}, err
	}
	e.fill(m)
	st, err := s.State(ref)
	if err != nil {
		return Entry{}, err
	}
	e.Status, e.LastFull = Complete, st.LastFull
	if st.Damaged {
		e.Status, e.Problems = Damaged, st.Problems
	}
	return e, nil
}

func (e *Entry) fill(m manifest.Manifest) {
	if !m.Pinned.IsZero() {
		e.Time = m.Pinned
	}
	e.ID, e.Trigger, e.Tool, e.Ended = m.ID, m.Trigger, m.Tool, m.Ended
	e.Maintenance, e.Consistent, e.Consistency, e.Totals = m.Maintenance, m.Consistent, m.Consistency, m.Totals
	e.Warnings = len(m.Warnings)
	for _, u := range m.Units {
		e.Warnings += len(u.Warnings)
		t := plugins.Target{Component: u.Component, Instance: u.Instance}.String()
		if !slices.Contains(e.Components, t) {
			e.Components = append(e.Components, t)
		}
	}
}

// ValidName says whether a backup can have this name.
func ValidName(s string) bool { return manifest.ValidName(s) }
