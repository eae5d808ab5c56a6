package files

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// diff is what separates live trees from a backup.
type diff struct {
	add, change []int    // indices of the wanted entries
	extra       []string // live paths that are not in the backup
	same        []entry  // live entries that are as wanted
}

func (d diff) empty() bool { return len(d.add)+len(d.change)+len(d.extra) == 0 }

// compare finds the differences. Configured paths that the backup does not know are left out: they are
// named by uncovered.
func compare(want []entry, live *tree, roots []string) diff {
	index := make(map[string]int, len(want))
	for i, e := range want {
		index[e.Path] = i
	}
	var d diff
	seen := make(map[string]bool, len(live.entries))
	strange := uncovered(index, roots)
	for _, e := range live.entries {
		i, ok := index[e.Path]
		seen[e.Path] = true
		switch {
		case ok && want[i].Meta.equal(e.Meta):
			d.same = append(d.same, e)
		case ok && want[i].Meta.Type == typeAbsent:
			d.extra = append(d.extra, e.Path)
		case ok && e.Meta.Type == typeAbsent:
			d.add = append(d.add, i)
		case ok:
			d.change = append(d.change, i)
		case belowAny(e.Path, strange):
		default:
			d.extra = append(d.extra, e.Path)
		}
	}
	for i, e := range want {
		if !seen[e.Path] && e.Meta.Type != typeAbsent {
			d.add = append(d.add, i)
		}
	}
	return d
}

func uncovered(index map[string]int, roots []string) []string {
	var out []string
	for _, r := range roots {
		if _, ok := index[r]; !ok {
			out = append(out, r)
		}
	}
	return out
}

func belowAny(path string, roots []string) bool {
	for _, r := range roots {
		if within(path, r) {
			return true
		}
	}
	return false
}

// Restore makes the trees equal to the backup. Contents are read and checked
// completely before the first write; each file is replaced in one step;
// removals come last.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{Consistency: "each file replaced in one step, removals last"}
	fail := func(err error) (plugins.Report, error) {
		return rep, fmt.Errorf("%s on %s: %w", s.target, s.member.Name, err)
	}
	want, err := loadTree(ctx, r, s.roots)
	if err != nil {
		return fail(err)
	}
	c, err := takeClaim(s.state, s.target.String()+"/"+s.member.Name, run)
	if err != nil {
		return fail(err)
	}
	rep.Warnings = s.warnings(want)
	touched, left := map[string]bool{}, map[string]version{}
	for pass := 0; ; pass++ {
		live, err := (&scanner{}).scan(ctx, s.roots)
		if err != nil {
			return fail(err)
		}
		d := compare(want, live, s.roots)
		for _, e := range d.same {
			left[e.Path] = e.at
		}
		if d.empty() && len(live.leftovers) == 0 {
			break
		}
		if bad := ours(want, live, d, left); len(bad) > 0 {
			return fail(fmt.Errorf("%s are not as they were written: this file system cannot hold what the backup holds: %w", some(bad), plugins.ErrData))
		}
		if pass == 3 {
			rep.Warnings = append(rep.Warnings, "somebody else kept writing during the restore: "+some(paths(want, d)))
			break
		}
		if err := s.pass(ctx, run, r, c, want, live, d, &rep, touched, left); err != nil {
			return fail(err)
		}
	}
	rep.Artifacts, rep.Unchanged = len(touched), 2-len(touched)
	return rep, remember(run, left)
}

// ours are the entries that differ although nobody has touched them since we wrote them.
func ours(want []entry, live *tree, d diff, left map[string]version) []string {
	differs := make(map[string]bool, len(d.change))
	for _, i := range d.change {
		differs[want[i].Path] = true
	}
	var out []string
	for _, e := range live.entries {
		if at, wrote := left[e.Path]; differs[e.Path] && wrote && at == e.at {
			out = append(out, e.Path)
		}
	}
	return out
}

func (s *session) pass(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, c *claim, want []entry, live *tree, d diff, rep *plugins.Report, touched map[string]bool, left map[string]version) error {
	sp := spool.New(run.Scratch, memoryBound)
	defer sp.Close()
	needed := map[string]bool{}
	for _, list := range [][]int{d.add, d.change} {
		for _, i := range list {
			touched[treeName] = true
			if want[i].Meta.Type == typeFile {
				needed[want[i].Path], touched[contentName] = true, true
			}
		}
	}
	if len(d.extra) > 0 {
		touched[treeName] = true
	}
	if len(needed) > 0 {
		if err := loadContent(ctx, r, want, needed, sp); err != nil {
			return err
		}
	}
	w := &writer{ctx: ctx, run: run, roots: s.roots, claim: c, spool: sp, rep: rep, left: left}
	return w.write(want, live, d)
}

func paths(want []entry, d diff) []string {
	out := append([]string(nil), d.extra...)
	for _, i := range append(append([]int(nil), d.add...), d.change...) {
		out = append(out, want[i].Path)
	}
	return out
}

func (s *session) warnings(want []entry) []string {
	index := make(map[string]int, len(want))
	for i, e := range want {
		index[e.Path] = i
	}
	if u := uncovered(index, s.roots); len(u) > 0 {
		return []string{"not part of this backup and left as they are: " + strings.Join(u, ", ")}
	}
	return nil
}

// loadContent reads and checks all contents and keeps those that are needed.
func loadContent(ctx context.Context, r plugins.ArtifactReader, want []entry, needed map[string]bool, sp *spool.Spool) error {
	rr, err := r.Open(ctx, contentName)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", contentName, err)
	}
	defer rr.Close()
	var files []*entry
	for i := range want {
		if want[i].Meta.Type == typeFile {
			want[i].chunks = nil
			files = append(files, &want[i])
		}
	}
	k, v, err := rr.Next()
	for _, f := range files {
		h := sha256.New()
		var off int64
		for off < f.Meta.Size {
			if err := ctx.Err(); err != nil {
				return err
			}
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("content of %s ends early: %w", f.Path, plugins.ErrCorrupt)
			}
			if err != nil {
				return fmt.Errorf("artifact %s: %w", contentName, err)
			}
			if string(k) != string(contentKey(f.Path, off)) || len(v) == 0 {
				return fmt.Errorf("content of %s at byte %d is missing: %w", f.Path, off, plugins.ErrCorrupt)
			}
			h.Write(v)
			off += int64(len(v))
			if needed[f.Path] {
				ref, err := sp.Put(v)
				if err != nil {
					return err
				}
				f.chunks = append(f.chunks, ref)
			}
			k, v, err = rr.Next()
		}
		if off != f.Meta.Size || string(h.Sum(nil)) != string(f.Meta.SHA256) {
			return fmt.Errorf("content of %s does not match its checksum: %w", f.Path, plugins.ErrCorrupt)
		}
	}
	if !errors.Is(err, io.EOF) {
		if err == nil {
			n := len(k) - 9
			if n > 0 {
				return fmt.Errorf("content of %s at byte %d belongs to no file: %w", k[:n], binary.BigEndian.Uint64(k[n+1:]), plugins.ErrCorrupt)
			}
			err = plugins.ErrCorrupt
		}
		return fmt.Errorf("artifact %s: %w", contentName, err)
	}
	return nil
}
