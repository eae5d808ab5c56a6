package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/buildinfo"
	"github.com/csobackup/cso_backupnrestore/internal/catalog"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// openStore opens the store for reading the catalog; nil when there is none
// yet, because looking must not make one.
func (a *app) openStore() (*store.Store, error) {
	if _, err := os.Lstat(a.paths.Root); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := a.checkRoot(); err != nil {
		return nil, err
	}
	s, err := store.Open(a.paths.Root)
	if err != nil {
		return nil, problem.New(problem.Failed, "see cso_backupnrestore doctor", "open the store: %w", err)
	}
	return s, nil
}

// checkRoot refuses what is in the place of the store and is none: above all a
// link to a volume that is not mounted must not pass for an empty store.
func (a *app) checkRoot() error {
	switch st, err := os.Stat(a.paths.Root); {
	case errors.Is(err, fs.ErrNotExist):
		if to, err := os.Readlink(a.paths.Root); err == nil {
			return problem.New(problem.Failed, "mount the volume, or correct the link", "the store %s is a link to %s, which does not exist", a.paths.Root, to)
		}
	case err == nil && !st.IsDir():
		return problem.New(problem.Failed, "move it away, or name another directory in CSO_BACKUP_ROOT", "the store %s is not a directory", a.paths.Root)
	}
	return nil
}

// reader is what this host can check seals with; nil when it cannot.
func (a *app) reader() *keys.Reader {
	r, err := keys.LoadReader(a.paths.Keys())
	if err != nil {
		return nil
	}
	return &r
}

// keyError says which key is missing and where it comes from.
func (a *app) keyError(err error) error {
	hint := "put back the copy of the identity as " + a.identityFile()
	if !errors.Is(err, keys.ErrIdentity) {
		hint = "put that file back from your copy; or move " + a.paths.Keys() + " away, put the identity alone into a new one, and adopt the keys out of a backup: cso_backupnrestore import DIR"
	}
	return problem.New(problem.Key, hint, "%w", err)
}

// find finds the backup that a selector means: NAME (its newest complete
// one), NAME/TIMESTAMP or a unique prefix of it, or the directory's path.
func (a *app) find(option, sel string) (catalog.Entry, error) {
	if err := checkSelector(option, sel); err != nil {
		return catalog.Entry{}, err
	}
	s, err := a.openStore()
	if err != nil {
		return catalog.Entry{}, err
	}
	if s == nil {
		return catalog.Entry{}, problem.New(problem.NoBackup, "make one with: cso_backupnrestore -b backup -s NAME", "%q: no such backup: there is no store at %s yet", sel, a.paths.Root)
	}
	defer s.Close()
	e, err := catalog.Resolve(s, sel)
	if err != nil || strings.Contains(sel, e.Ref.Timestamp) {
		return e, storeError(err)
	}
	// Who names a backup without its time means the newest one; if that cannot be used it must be said.
	same, err := catalog.List(s, catalog.Filter{Name: e.Ref.Name})
	for _, x := range same {
		if x.Ref.Timestamp > e.Ref.Timestamp && (x.Status == catalog.Damaged || x.Status == catalog.Unreadable) {
			a.note("the newer %s is %s and passed over: this is %s", x.Ref, x.Status, e.Ref)
		}
	}
	return e, err
}

// resolve is find for those who need the name only.
func (a *app) resolve(_ context.Context, option, sel string) (string, error) {
	e, err := a.find(option, sel)
	if err == nil && e.Totals.Units == 0 { // its manifest cannot be read: say why here, before anything starts
		var s *store.Store
		if s, err = a.openStore(); err == nil {
			_, err = s.LoadManifest(e.Ref, nil)
			err = errors.Join(storeError(err), s.Close())
		}
	}
	return e.Ref.String(), err
}

// storeError gives the store's errors their codes.
func storeError(err error) error {
	const list = "see cso_backupnrestore listbackups"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNoSuchBackup), errors.Is(err, store.ErrIncomplete):
		return problem.New(problem.NoBackup, list, "%w", err)
	case errors.Is(err, catalog.ErrAmbiguous):
		return problem.New(problem.NoBackup, "write more of the timestamp; "+list, "%w", err)
	case errors.Is(err, keys.ErrIdentity), errors.Is(err, keys.ErrKeys):
		return problem.New(problem.Key, "put the identity that this backup was made with back from your copy; see cso_backupnrestore doctor", "%w", err)
	case errors.Is(err, manifest.ErrTampered), errors.Is(err, manifest.ErrDamaged), errors.Is(err, plugins.ErrCorrupt):
		return problem.New(problem.Integrity, "restore from another backup or copy; "+list, "%w", err)
	case errors.Is(err, manifest.ErrFormat):
		return problem.New(problem.Failed, "the backup is not damaged: install the version that wrote it; this is "+buildinfo.Version(), "%w", err)
	}
	return err
}

// entries lists the backups, newest first within a name.
func (a *app) entries(f catalog.Filter) ([]catalog.Entry, error) {
	s, err := a.openStore()
	if err != nil || s == nil {
		return nil, err
	}
	defer s.Close()
	return catalog.List(s, f)
}

// unitName writes a unit as everywhere else: component@instance/member, defaults left out.
func unitName(u manifest.UnitID) string {
	return workflows.Unit{Component: u.Component, Instance: u.Instance, Member: u.Normal().Member}.String()
}

func (a *app) completeBackup(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := a.entries(catalog.Filter{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, e := range all {
		if e.Status == catalog.Incomplete {
			continue
		}
		if !slices.Contains(out, e.Ref.Name) {
			out = append(out, e.Ref.Name)
		}
		out = append(out, e.Ref.String())
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
