package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// remembered lies in the scratch directory: the version of every entry as the
// restore left it. A difference found later is foreign exactly when the entry
// is no longer that version.
const remembered = "files-restored.json"

func remember(run plugins.Run, left map[string]version) error {
	if run.Scratch == "" {
		return nil
	}
	b, err := json.Marshal(left)
	if err == nil {
		err = os.WriteFile(filepath.Join(run.Scratch, remembered), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember what was restored: %w", err)
	}
	return nil
}

func recall(run plugins.Run) (map[string]version, error) {
	if run.Scratch == "" {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(run.Scratch, remembered))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m map[string]version
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", remembered, err)
	}
	return m, nil
}

// Compare says where the live trees differ from the backup.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	want, err := loadTree(ctx, r, s.roots)
	if err != nil {
		return nil, err
	}
	ours, err := recall(run)
	if err != nil {
		return nil, err
	}
	live, err := (&scanner{}).scan(ctx, s.roots)
	if err != nil {
		return nil, err
	}
	now := make(map[string]version, len(live.entries))
	for _, e := range live.entries {
		now[e.Path] = e.at
	}
	d := compare(want, live, s.roots)
	type group struct {
		kind    string
		foreign bool
	}
	groups := map[group][]string{}
	put := func(kind, path string) {
		left, restored := ours[path]
		at, exists := now[path]
		foreign := ours != nil && (restored != exists || left != at)
		g := group{kind, foreign}
		groups[g] = append(groups[g], path)
	}
	for _, i := range d.add {
		put("missing", want[i].Path)
	}
	for _, i := range d.change {
		put("changed", want[i].Path)
	}
	for _, p := range d.extra {
		put("extra", p)
	}
	var out []plugins.Difference
	for _, kind := range []string{"missing", "changed", "extra"} {
		for _, foreign := range []bool{false, true} {
			if p := groups[group{kind, foreign}]; len(p) > 0 {
				out = append(out, plugins.Difference{Artifact: treeName, Kind: kind, Detail: some(p), Foreign: foreign})
			}
		}
	}
	return out, nil
}

// Plan says which files a restore would change.
func (s *session) Plan(ctx context.Context, _ plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	var p plugins.Plan
	want, err := loadTree(ctx, r, s.roots)
	if errors.Is(err, plugins.ErrConfig) {
		p.Refusals = append(p.Refusals, err.Error())
		return p, nil
	}
	if err != nil {
		return p, err
	}
	live, err := (&scanner{}).scan(ctx, s.roots)
	if err != nil {
		return p, err
	}
	d := compare(want, live, s.roots)
	touched := map[int]bool{}
	for _, i := range d.add {
		touched[i] = true
		p.Add = append(p.Add, want[i].Path)
		p.Write += want[i].Meta.Size
	}
	for _, i := range d.change {
		touched[i] = true
		p.Change = append(p.Change, want[i].Path)
		p.Write += want[i].Meta.Size
	}
	for i, e := range want {
		if !touched[i] && e.Meta.Type != typeAbsent {
			p.Unchanged = append(p.Unchanged, e.Path)
		}
	}
	p.Remove, p.Space, p.Warnings = d.extra, p.Write, s.warnings(want)
	var st unix.Statfs_t
	if err := unix.Statfs(existing(s.roots[0]), &st); err == nil {
		p.Free = int64(st.Bavail) * st.Bsize
		if p.Free < p.Space {
			p.Refusals = append(p.Refusals, fmt.Sprintf("%d bytes are needed under %s and %d are free: make room", p.Space, s.roots[0], p.Free))
		}
	}
	return p, nil
}

// existing is the longest existing part of path.
func existing(path string) string {
	for {
		if _, err := os.Lstat(path); err == nil || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}
