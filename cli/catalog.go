package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// States of a backup's directory.
const (
	stateOK         = "ok"
	stateIncomplete = "incomplete" // no manifest: it runs, or it died
	stateDamaged    = "damaged"    // the manifest cannot be read, or a piece was found damaged
)

// stored is one backup of the catalog.
type stored struct {
	Ref      manifest.Ref
	State    string
	Why      string             // of a state that is not ok
	Manifest *manifest.Manifest // nil without a readable one
	Verified time.Time          // last full read; zero: never
}

// catalog lists what lies in the store, newest first.
func (a *app) catalog() ([]stored, error) {
	root, err := os.OpenRoot(a.paths.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, problem.New(problem.Failed, "run this as root on the installer-vm", "read the store: %w", err)
	}
	defer root.Close()
	names, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, problem.New(problem.Failed, "run this as root on the installer-vm", "read the store: %w", err)
	}
	var out []stored
	for _, n := range names {
		if !n.IsDir() || (!manifest.ValidName(n.Name()) && n.Name() != manifest.SafetyName) {
			continue
		}
		stamps, err := fs.ReadDir(root.FS(), n.Name())
		if err != nil {
			return nil, fmt.Errorf("read the store: %w", err)
		}
		for _, t := range stamps {
			r := manifest.Ref{Name: n.Name(), Timestamp: t.Name()}
			if t.IsDir() && r.Validate() == nil {
				out = append(out, read(root, r))
			}
		}
	}
	slices.SortStableFunc(out, func(x, y stored) int {
		if c := strings.Compare(y.Ref.Timestamp, x.Ref.Timestamp); c != 0 {
			return c
		}
		return strings.Compare(x.Ref.Name, y.Ref.Name)
	})
	return out, nil
}

func read(root *os.Root, r manifest.Ref) stored {
	s := stored{Ref: r, State: stateOK}
	b, err := fsutil.ReadBounded(root, r.String()+"/manifest.json", manifest.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		s.State, s.Why = stateIncomplete, "it has no manifest"
		return s
	}
	if err == nil {
		var m manifest.Manifest
		if m, err = manifest.Decode(b); err == nil {
			s.Manifest = &m
			return s
		}
	}
	s.State, s.Why = stateDamaged, err.Error()
	return s
}

// resolve finds the backup that a selector means: NAME (its newest complete
// one), NAME/TIMESTAMP or a unique prefix of it, or the directory's path.
func (a *app) resolve(_ context.Context, option, sel string) (string, error) {
	s, err := a.find(option, sel)
	if err != nil {
		return "", err
	}
	return s.Ref.String(), nil
}

func (a *app) find(option, sel string) (stored, error) {
	if err := checkSelector(option, sel); err != nil {
		return stored{}, err
	}
	if filepath.IsAbs(sel) {
		rel, err := a.below(sel)
		if err != nil {
			return stored{}, err
		}
		sel = rel
	}
	sel = strings.TrimRight(sel, "/")
	all, err := a.catalog()
	if err != nil {
		return stored{}, err
	}
	name, stamp, exact := strings.Cut(sel, "/")
	var fit []stored
	for _, s := range all {
		if s.Ref.Name == name && strings.HasPrefix(s.Ref.Timestamp, stamp) && (exact || !s.Ref.Safety()) {
			fit = append(fit, s)
		}
	}
	if !exact { // a bare name means its newest complete backup
		if i := slices.IndexFunc(fit, func(s stored) bool { return s.State != stateIncomplete }); i >= 0 {
			return fit[i], nil
		}
	}
	switch {
	case len(fit) == 0:
		return stored{}, a.noBackup(sel, all)
	case len(fit) > 1 && exact:
		return stored{}, problem.New(problem.NoBackup, fmt.Sprintf("write more of it, for example %s", fit[0].Ref), "%q fits %d backups", sel, len(fit))
	case fit[0].State == stateIncomplete:
		return stored{}, problem.New(problem.NoBackup, "see cso_backupnrestore listbackups", "%s is incomplete: it still runs, or it never finished", fit[0].Ref)
	}
	return fit[0], nil
}

// below turns a path into NAME/TIMESTAMP, following links on the way, and
// refuses one that leads out of the store.
func (a *app) below(p string) (string, error) {
	root, err := filepath.EvalSymlinks(a.paths.Root)
	if err != nil {
		return "", problem.New(problem.NoBackup, "see cso_backupnrestore doctor", "the store: %w", err)
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return "", problem.New(problem.NoBackup, "see cso_backupnrestore listbackups", "there is no backup at %s", p)
	}
	rel, err := filepath.Rel(root, real)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") || strings.Count(rel, "/") > 1 {
		return "", problem.New(problem.NoBackup, "backups lie in "+a.paths.Root+"/NAME/TIMESTAMP; adopt one from elsewhere with: cso_backupnrestore import DIR", "%s is not a backup of this store", p)
	}
	return rel, nil
}

func (a *app) noBackup(sel string, all []stored) error {
	hint := "see cso_backupnrestore listbackups"
	if len(all) == 0 {
		hint = "there are none in " + a.paths.Root + " yet; make one with: cso_backupnrestore -b backup -s NAME"
	}
	for _, s := range all {
		if strings.EqualFold(s.Ref.Name, strings.SplitN(sel, "/", 2)[0]) {
			hint = "the newest of that name is " + s.Ref.String()
			break
		}
	}
	return problem.New(problem.NoBackup, hint, "there is no backup %q", sel)
}

func (a *app) completeBackup(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := a.catalog()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, s := range all {
		if s.State != stateIncomplete {
			out = append(out, s.Ref.String())
		}
		if !s.Ref.Safety() && !slices.Contains(out, s.Ref.Name) {
			out = append(out, s.Ref.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// manifestBytes reads a manifest as it is stored.
func (a *app) manifestBytes(r manifest.Ref) ([]byte, error) {
	root, err := os.OpenRoot(a.paths.Root)
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	defer root.Close()
	return fsutil.ReadBounded(root, r.String()+"/manifest.json", manifest.MaxManifest)
}

// unitName writes a unit as everywhere else: etcd, etcd@east, secrets/vm1.
func unitName(u manifest.UnitID) string {
	return workflows.Unit{Component: u.Component, Instance: u.Instance, Member: u.Normal().Member}.String()
}
