package cassandra

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// cluster is one session per node.
type cluster struct {
	names []string
	units []*session
}

var (
	_ plugins.Pinner          = (*cluster)(nil)
	_ plugins.Planner         = (*cluster)(nil)
	_ plugins.AccountSwitcher = (*cluster)(nil)
	_ plugins.Fencer          = (*cluster)(nil)
)

// each runs one call on every unit at the same time; when one fails the others are
// cancelled, as the workflow does once it gives up.
func (c *cluster) each(ctx context.Context, do func(ctx context.Context, i int, s *session) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(c.units))
	var wg sync.WaitGroup
	for i, s := range c.units {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if errs[i] = do(ctx, i, s); errs[i] != nil {
				cancel()
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// own gives a unit a scratch directory of its own, as on its own VM, and its own part of what is known.
func (c *cluster) own(run plugins.Run, i int) plugins.Run {
	run.Scratch = filepath.Join(run.Scratch, c.names[i])
	_ = os.MkdirAll(run.Scratch, 0o700)
	if run.Live != nil {
		run.Live = unitReader{run.Live, c.names[i]}
	}
	return run
}

func (c *cluster) tidy(run plugins.Run) {
	for _, n := range c.names {
		_ = os.Remove(filepath.Join(run.Scratch, n)) // stays when a unit has left something in it
	}
}

func (c *cluster) Health(ctx context.Context) (plugins.Health, error) { return c.units[0].Health(ctx) }

func (c *cluster) PreHook(ctx context.Context, run plugins.Run) error {
	return c.each(ctx, func(ctx context.Context, i int, s *session) error { return s.PreHook(ctx, run) })
}

func (c *cluster) PostHook(ctx context.Context, run plugins.Run) error {
	return c.each(ctx, func(ctx context.Context, i int, s *session) error { return s.PostHook(ctx, run) })
}

func (c *cluster) Close() error {
	return c.each(context.Background(), func(_ context.Context, _ int, s *session) error { return s.Close() })
}

func sum(a, b plugins.Report) plugins.Report {
	b.Artifacts += a.Artifacts
	b.Unchanged += a.Unchanged
	b.Removed += a.Removed
	b.Records += a.Records
	b.Bytes += a.Bytes
	b.Warnings = append(b.Warnings, a.Warnings...)
	return b
}

func (c *cluster) reports(ctx context.Context, do func(ctx context.Context, i int, s *session) (plugins.Report, error)) (plugins.Report, error) {
	all := make([]plugins.Report, len(c.units))
	err := c.each(ctx, func(ctx context.Context, i int, s *session) (err error) {
		all[i], err = do(ctx, i, s)
		return err
	})
	var out plugins.Report
	for _, r := range all {
		out = sum(out, r)
	}
	return out, err
}

func (c *cluster) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	p := &clusterPin{c: c, pins: make([]plugins.Pin, len(c.units))}
	err := c.each(ctx, func(ctx context.Context, i int, s *session) (err error) {
		pin, err := s.Pin(ctx, c.own(run, i))
		if err == nil {
			p.pins[i] = pin
		}
		return err
	})
	c.tidy(run)
	if err != nil {
		return nil, errors.Join(err, p.Release(context.WithoutCancel(ctx)))
	}
	return p, nil
}

type clusterPin struct {
	c    *cluster
	pins []plugins.Pin
}

func (p *clusterPin) Info() plugins.PinInfo { return p.pins[0].Info() }

func (p *clusterPin) Release(ctx context.Context) error {
	return p.c.each(ctx, func(_ context.Context, i int, _ *session) error {
		if p.pins[i] == nil {
			return nil
		}
		return p.pins[i].Release(ctx)
	})
}

func (p *clusterPin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	defer p.c.tidy(run)
	return p.c.reports(ctx, func(ctx context.Context, i int, _ *session) (plugins.Report, error) {
		return p.pins[i].Backup(ctx, p.c.own(run, i), unitWriter{w, p.c.names[i], p.Info().ID})
	})
}

func (c *cluster) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p, err := c.Pin(ctx, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := p.Backup(ctx, run, w)
	return rep, errors.Join(err, p.Release(context.WithoutCancel(ctx)))
}

func (c *cluster) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	return c.reports(ctx, func(ctx context.Context, i int, s *session) (plugins.Report, error) {
		return s.Restore(ctx, c.own(run, i), unitReader{r, c.names[i]})
	})
}

func (c *cluster) AccountArtifact(name string) bool {
	return strings.HasSuffix(name, "/"+accountsArtifact)
}

func (c *cluster) RestoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	return c.reports(ctx, func(ctx context.Context, i int, s *session) (plugins.Report, error) {
		return s.RestoreAccounts(ctx, c.own(run, i), unitReader{r, c.names[i]})
	})
}

func (c *cluster) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	var mu sync.Mutex
	out := map[string]plugins.Digest{}
	err := c.each(ctx, func(ctx context.Context, i int, s *session) error {
		d, err := s.Digest(ctx, c.own(run, i))
		mu.Lock()
		defer mu.Unlock()
		for n, v := range d {
			out[c.names[i]+"/"+n] = v
		}
		return err
	})
	return out, err
}

func (c *cluster) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	var mu sync.Mutex
	var out []plugins.Difference
	err := c.each(ctx, func(ctx context.Context, i int, s *session) error {
		d, err := s.Compare(ctx, c.own(run, i), unitReader{r, c.names[i]})
		mu.Lock()
		defer mu.Unlock()
		for _, one := range d {
			one.Artifact = c.names[i] + "/" + one.Artifact
			out = append(out, one)
		}
		return err
	})
	slices.SortFunc(out, func(a, b plugins.Difference) int { return strings.Compare(a.Artifact+a.Kind, b.Artifact+b.Kind) })
	return out, err
}

func (c *cluster) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	var mu sync.Mutex
	var out plugins.Plan
	err := c.each(ctx, func(ctx context.Context, i int, s *session) error {
		p, err := s.Plan(ctx, c.own(run, i), unitReader{r, c.names[i]})
		mu.Lock()
		defer mu.Unlock()
		out.Unchanged = append(out.Unchanged, p.Unchanged...)
		out.Change = append(out.Change, p.Change...)
		out.Add = append(out.Add, p.Add...)
		out.Remove = append(out.Remove, p.Remove...)
		out.Refusals = append(out.Refusals, p.Refusals...)
		return err
	})
	return out, err
}

func (c *cluster) Fence(ctx context.Context, run plugins.Run) error {
	return c.each(ctx, func(ctx context.Context, i int, s *session) error { return s.Fence(ctx, c.own(run, i)) })
}

func (c *cluster) Unfence(ctx context.Context, run plugins.Run) error {
	return c.each(ctx, func(_ context.Context, i int, s *session) error { return s.Unfence(ctx, c.own(run, i)) })
}

// unitWriter stores a unit's artifacts under the member's name.
type unitWriter struct {
	w      plugins.ArtifactWriter
	member string
	pin    string
}

func (u unitWriter) name(a plugins.Artifact) plugins.Artifact {
	a.Name, a.Pin = u.member+"/"+a.Name, u.pin
	return a
}

func (u unitWriter) Create(ctx context.Context, a plugins.Artifact) (plugins.RecordWriter, error) {
	return u.w.Create(ctx, u.name(a))
}

func (u unitWriter) Reuse(ctx context.Context, a plugins.Artifact) (bool, error) {
	return u.w.Reuse(ctx, u.name(a))
}

// unitReader gives back what unitWriter stored.
type unitReader struct {
	r      plugins.ArtifactReader
	member string
}

func (u unitReader) Artifacts() []plugins.ArtifactInfo {
	var out []plugins.ArtifactInfo
	for _, a := range u.r.Artifacts() {
		if n, ok := strings.CutPrefix(a.Name, u.member+"/"); ok {
			a.Name = n
			out = append(out, a)
		}
	}
	return out
}

func (u unitReader) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	return u.r.Open(ctx, u.member+"/"+name)
}

func (u unitReader) Pieces(ctx context.Context, name string) ([]plugins.PieceInfo, error) {
	return u.r.Pieces(ctx, u.member+"/"+name)
}

func (u unitReader) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	return u.r.OpenPieces(ctx, u.member+"/"+name, from, to)
}

// Members implements plugins.InstanceReader.
func (u unitReader) Members(context.Context) ([]string, error) {
	var out []string
	for _, a := range u.r.Artifacts() {
		m, _, _ := strings.Cut(a.Name, "/")
		if len(out) == 0 || out[len(out)-1] != m {
			out = append(out, m)
		}
	}
	return out, nil
}

// Member implements plugins.InstanceReader.
func (u unitReader) Member(_ context.Context, name string) (plugins.ArtifactReader, error) {
	return unitReader{u.r, name}, nil
}
