package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	memoryBound = 64 << 20 // bytes of content held in memory; what is above goes into the encrypted spool
	maxPasses   = 10
)

// pin is a view of the trees, read completely.
type pin struct {
	info  plugins.PinInfo
	tree  *tree
	spool *spool.Spool
	quiet bool
	moved []string // paths that changed between the last two passes
}

// Pin reads everything, again and again until nothing changes between two
// passes, so that the view is what stood there at one moment.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	return s.pin(ctx, run, run.Operation == plugins.OpBackup)
}

func (s *session) pin(ctx context.Context, run plugins.Run, complete bool) (*pin, error) {
	p := &pin{
		spool: spool.New(run.Scratch, memoryBound),
		info:  plugins.PinInfo{ID: rand.Text(), At: time.Now()},
	}
	if err := p.read(ctx, s.roots, complete); err != nil {
		return nil, errors.Join(fmt.Errorf("%s on %s: %w", s.target, s.member.Name, err), p.spool.Close())
	}
	return p, nil
}

func (p *pin) read(ctx context.Context, roots []string, complete bool) error {
	sc := scanner{keep: p.spool}
	for pass := range maxPasses {
		t, err := sc.scan(ctx, roots)
		if err != nil {
			return err
		}
		if pass > 0 {
			p.moved = changed(p.tree.entries, t.entries)
		}
		p.quiet = pass > 0 && len(p.moved) == 0 && t.settled
		p.tree = t
		if p.quiet {
			break
		}
		sc.known = map[string]*entry{}
		for i := range t.entries {
			sc.known[t.entries[i].Path] = &t.entries[i]
		}
		if !t.settled || pass > 0 {
			if err := plugins.Sleep(ctx, granule); err != nil {
				return err
			}
		}
	}
	p.info.At = time.Now()
	for _, e := range p.tree.entries {
		if complete && e.Meta.Type == typeAbsent {
			return fmt.Errorf("path %s does not exist: correct `paths` in the estate file: %w", e.Path, plugins.ErrNotFound)
		}
	}
	return nil
}

// changed lists the paths that are not the same in two scans; both ascend by path.
func changed(a, b []entry) []string {
	var out []string
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Path < b[0].Path:
			out, a = append(out, a[0].Path), a[1:]
		case len(a) == 0 || b[0].Path < a[0].Path:
			out, b = append(out, b[0].Path), b[1:]
		default:
			if a[0].at != b[0].at || !a[0].Meta.equal(b[0].Meta) {
				out = append(out, a[0].Path)
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

func (p *pin) Info() plugins.PinInfo { return p.info }

// Release forgets what was read.
func (p *pin) Release(context.Context) error { return p.spool.Close() }

// Backup writes two artifacts: the tree, and the contents in chunks.
func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: "files", Consistency: "one moment: nothing changed between two passes over the whole tree"}
	if !p.quiet {
		rep.Consistency = "each file is whole, but the tree changed while it was read"
		rep.Warnings = append(rep.Warnings, "kept changing while being read: "+some(p.moved))
	}
	if n := len(p.tree.special); n > 0 {
		rep.Inexact = append(rep.Inexact, plugins.Inexact{What: fmt.Sprintf("%d sockets, FIFOs or devices: %s", n, some(p.tree.special)),
			Why: "they belong to running programs and are not part of the backup"})
	}
	var total int64
	for _, e := range p.tree.entries {
		total += e.Meta.Size
	}
	put := func(name string, each func(put func(k, v []byte) error) error) error {
		rw, err := w.Create(ctx, plugins.Artifact{Name: name, Form: plugins.Ordered, Pin: p.info.ID})
		if err != nil {
			return fmt.Errorf("artifact %s: %w", name, err)
		}
		defer rw.Abort()
		err = each(func(k, v []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			rep.Records++
			rep.Bytes += int64(len(k) + len(v))
			run.Report(plugins.Status{Phase: "copy", Item: name, Bytes: rep.Bytes, Total: total})
			return rw.Put(k, v)
		})
		if err == nil {
			err = rw.Commit()
		}
		if err != nil {
			return fmt.Errorf("artifact %s: %w", name, err)
		}
		rep.Artifacts++
		return nil
	}
	err := put(treeName, func(put func(k, v []byte) error) error {
		for _, e := range p.tree.entries {
			if err := put([]byte(e.Path), e.Meta.encode()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return rep, err
	}
	return rep, put(contentName, func(put func(k, v []byte) error) error {
		var buf []byte
		for _, e := range p.tree.entries {
			var off int64
			for _, ref := range e.chunks {
				b, err := p.spool.Get(ref, &buf)
				if err != nil {
					return fmt.Errorf("%w: %w", err, plugins.ErrPinLost)
				}
				if err := put(contentKey(e.Path, off), b); err != nil {
					return err
				}
				off += int64(len(b))
			}
		}
		return nil
	})
}

// Backup pins and copies at once.
func (s *session) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	return s.backup(ctx, run, w, run.Operation == plugins.OpBackup)
}

func (s *session) backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter, complete bool) (plugins.Report, error) {
	p, err := s.pin(ctx, run, complete)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := p.Backup(ctx, run, w)
	return rep, errors.Join(err, p.Release(ctx))
}

// Digest reads the live trees.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	d := plugins.NewDigester()
	if _, err := s.backup(ctx, run, d, false); err != nil {
		return nil, err
	}
	return d.Digests(), nil
}

// some names up to twenty of the paths.
func some(paths []string) string {
	const most = 20
	paths = slices.Sorted(slices.Values(paths))
	if len(paths) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(paths[:most], ", "), len(paths)-most)
	}
	return strings.Join(paths, ", ")
}
