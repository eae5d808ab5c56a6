package catalog

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/csobackup/cso_backupnrestore/internal/store"
)

// ErrAmbiguous means that several backups fit; the error names them.
var ErrAmbiguous = errors.New("several backups fit")

const maxNamed = 10 // candidates that an error names

// Resolve finds the backup that arg means:
//
//	NAME              its newest complete backup
//	NAME/TIMESTAMP    that one, or the only complete one whose time begins so
//	/path/of/it       the directory, below the store's root
//
// A damaged backup is found when it is named in full only. Safety backups are
// found by full name or path only. Errors: store.ErrNoSuchBackup,
// store.ErrIncomplete, ErrAmbiguous; each says what there is.
func Resolve(s *store.Store, arg string) (Entry, error) {
	name, prefix, err := split(s, arg)
	if err != nil {
		return Entry{}, err
	}
	ref := store.Ref{Name: name, Timestamp: prefix}
	if ref.Validate() == nil {
		e, err := Load(s, ref, nil)
		if err == nil && e.Status == Incomplete {
			return Entry{}, fmt.Errorf("backup %s: %w: it is still running or its run died", ref, store.ErrIncomplete)
		}
		if !errors.Is(err, store.ErrNoSuchBackup) {
			return e, err
		}
	}
	if ref.Safety() {
		return Entry{}, fmt.Errorf("%q: %w: name a safety backup in full: _safety/TIMESTAMP", arg, store.ErrNoSuchBackup)
	}
	all, err := List(s, Filter{Name: name})
	if err != nil {
		return Entry{}, err
	}
	var fit []Entry
	incomplete := 0
	for _, e := range all {
		if !strings.HasPrefix(e.Ref.Timestamp, prefix) {
			continue
		}
		if e.Status == Complete {
			fit = append(fit, e)
		}
		if e.Status == Incomplete {
			incomplete++
		}
	}
	switch {
	case len(fit) == 1 || (len(fit) > 1 && prefix == ""):
		return fit[0], nil
	case len(fit) > 1:
		return Entry{}, fmt.Errorf("%q: %w: %s", arg, ErrAmbiguous, names(fit))
	case incomplete > 0:
		return Entry{}, fmt.Errorf("%q: %w: %d incomplete and no complete one", arg, store.ErrIncomplete, incomplete)
	}
	return Entry{}, missing(s, arg, name, all)
}

// split takes arg apart into name and beginning of the timestamp.
func split(s *store.Store, arg string) (name, prefix string, err error) {
	given := arg
	if filepath.IsAbs(arg) {
		if arg, err = below(s, arg); err != nil {
			return "", "", err
		}
	}
	name, prefix, _ = strings.Cut(strings.TrimSuffix(arg, "/"), "/")
	if (!ValidName(name) && name != "_safety") || strings.ContainsAny(prefix, "/\x00") {
		return "", "", fmt.Errorf("%.200q: %w: give NAME, NAME/TIMESTAMP or the path of a backup's directory below %s", given, store.ErrNoSuchBackup, s.Path())
	}
	return name, prefix, nil
}

// below turns an absolute path into one relative to the store's root.
func below(s *store.Store, arg string) (string, error) {
	root, err := filepath.EvalSymlinks(s.Path())
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	dir, err := filepath.EvalSymlinks(arg)
	if err != nil {
		return "", fmt.Errorf("%q: %w: there is no such directory", arg, store.ErrNoSuchBackup)
	}
	rel, err := filepath.Rel(root, dir)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%q: %w: it is not below the backup root %s; a copy from elsewhere is adopted with import", arg, store.ErrNoSuchBackup, s.Path())
	}
	return rel, nil
}

func missing(s *store.Store, arg, name string, same []Entry) error {
	if len(same) > 0 {
		return fmt.Errorf("%q: %w: of %s there are %s", arg, store.ErrNoSuchBackup, name, names(same))
	}
	refs, err := s.Refs()
	if err != nil {
		return err
	}
	var have []string
	for _, r := range refs {
		if !r.Safety() && (len(have) == 0 || have[len(have)-1] != r.Name) {
			have = append(have, r.Name)
		}
	}
	if len(have) == 0 {
		return fmt.Errorf("%q: %w: there are no backups under %s", arg, store.ErrNoSuchBackup, s.Path())
	}
	return fmt.Errorf("%q: %w: there are backups named %s", arg, store.ErrNoSuchBackup, shorten(have))
}

func names(es []Entry) string {
	var out []string
	for _, e := range es {
		n := e.Ref.String()
		if e.Status != Complete {
			n += " (" + string(e.Status) + ")"
		}
		out = append(out, n)
	}
	return shorten(out)
}

func shorten(list []string) string {
	if len(list) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:maxNamed], ", "), len(list)-maxNamed)
	}
	return strings.Join(list, ", ")
}
