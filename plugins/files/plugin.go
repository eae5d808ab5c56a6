// Package files protects file trees: the one implementation behind the
// components secrets and certificates. It is a building block, not a
// component: plugins/secrets and plugins/certificates give it their names.
//
// A view of the trees is read at once and held in memory (beyond a bound in a
// file encrypted with a key that exists only in memory), so that secrets
// never lie in clear outside their own place. All file names are resolved one
// component at a time without following symbolic links.
package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	treeName    = "tree"
	contentName = "content"
)

// Plugin protects the trees that the member option `paths` names (a comma
// separated list of absolute files and directories).
type Plugin struct{ component, product string }

// New returns the plugin of the component; product is its name for people.
func New(component, product string) *Plugin { return &Plugin{component, product} }

// Info describes the plugin.
func (p *Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: p.component,
		Product:   p.product,
		Versions:  "any Linux file system with POSIX owners and modes",
		Scope:     plugins.ScopeNode,
		Inexact: []plugins.Inexact{
			{What: "access time, change time, birth time and inode number", Why: "the kernel lets nobody set them; the access time is not disturbed by a backup where the file's owner may ask for that"},
			{What: "sockets, FIFOs and device files", Why: "they belong to running programs; they are counted, reported and left alone"},
			{What: "extended attributes outside user.*, security.capability and the POSIX ACLs; those of symbolic links", Why: "labels such as SELinux's follow the policy of the machine, not the backup"},
			{What: "hard links to files outside the given paths", Why: "a changed file is replaced by a new one; the outside name keeps the old content"},
			{What: "which parts of a file are holes, and attributes of chattr", Why: "content is compared and written byte by byte"},
		},
	}
}

type session struct {
	target plugins.Target
	member plugins.Member
	roots  []string // absolute, clean, sorted, none below another
	state  string   // state directory of the product
}

var (
	_ plugins.Plugin  = (*Plugin)(nil)
	_ plugins.Session = (*session)(nil)
	_ plugins.Pinner  = (*session)(nil)
	_ plugins.Planner = (*session)(nil)
)

// Open reads the member's paths. Paths that would take in the product's own
// keys or its backups are refused with ErrConfig.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := t.Self()
	if err != nil {
		return nil, err
	}
	roots, err := parsePaths(m.Options["paths"])
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", t, m.Name, err)
	}
	s := &session{target: t, member: m, roots: roots, state: environment("CSO_BACKUP_STATE", "/var/lib/cso-backup")}
	own := map[string]string{
		s.state: "the product's own keys and state, which are never part of a backup",
		environment("CSO_BACKUP_ROOT", "/backups"): "the backups themselves",
	}
	for _, root := range roots {
		for dir, what := range own {
			if within(real(root), real(dir)) || within(real(dir), real(root)) {
				return nil, fmt.Errorf("%s on %s: path %s touches %s, %s: name narrower paths in the estate file: %w", t, m.Name, root, dir, what, plugins.ErrConfig)
			}
		}
	}
	return s, nil
}

func environment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return filepath.Clean(v)
	}
	return otherwise
}

// real is the path with the symbolic links of its existing part resolved.
func real(path string) string {
	rest := ""
	for p := path; ; p = filepath.Dir(p) {
		if r, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(r, rest)
		}
		if p == filepath.Dir(p) {
			return path
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
}

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func parsePaths(list string) ([]string, error) {
	var all []string
	for p := range strings.SplitSeq(list, ",") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) || filepath.Clean(p) == "/" {
			return nil, fmt.Errorf("path %q: give absolute paths other than / in `paths`: %w", p, plugins.ErrConfig)
		}
		all = append(all, filepath.Clean(p))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no `paths` in the estate file: name files and directories, separated by commas: %w", plugins.ErrConfig)
	}
	slices.Sort(all)
	roots := all[:0]
	for _, p := range all {
		if !slices.ContainsFunc(roots, func(r string) bool { return within(p, r) }) {
			roots = append(roots, p)
		}
	}
	return roots, nil
}

// Health says whether all paths exist and can be read.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	h := plugins.Health{Grade: plugins.Green, Version: "files", Members: len(s.target.Members), Empty: true}
	sc := scanner{statOnly: true}
	t, err := sc.scan(ctx, s.roots)
	if err != nil && ctx.Err() != nil {
		return h, err
	}
	if err != nil {
		h.Grade, h.Empty = plugins.Red, false
		h.Reasons = append(h.Reasons, err.Error())
		return h, nil
	}
	for _, e := range t.entries {
		switch e.Meta.Type {
		case typeAbsent:
			// Not RED: a lost path is what a restore is for.
			h.Grade = plugins.Amber
			h.Reasons = append(h.Reasons, fmt.Sprintf("path %s does not exist: correct `paths` in the estate file, or restore it", e.Path))
		case typeFile:
			h.Empty = false
			h.Estimate += e.Meta.Size
		case typeSymlink:
			h.Empty = false
			if slices.Contains(s.roots, e.Path) && h.Grade == plugins.Green {
				h.Grade = plugins.Amber
				h.Reasons = append(h.Reasons, fmt.Sprintf("path %s is a symbolic link and is kept as one: name its target in `paths` to protect that too", e.Path))
			}
		}
	}
	return h, nil
}

func (s *session) PreHook(ctx context.Context, _ plugins.Run) error  { return ctx.Err() }
func (s *session) PostHook(ctx context.Context, _ plugins.Run) error { return ctx.Err() }
func (s *session) Close() error                                      { return nil }
