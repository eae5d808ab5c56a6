package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// maxViews is how many shards are held open as scrolls: a node allows 500 by default, for all clients
// together (search.max_open_scroll_context). Shards beyond are read later, and proved by
// their sequence numbers to be unchanged, or not proved.
const maxViews = 400

// pin is a snapshot whose every shard has begun: from that moment on the server
// holds what will be copied. Beside it stand open views for the digests.
type pin struct {
	s        *session
	info     plugins.PinInfo
	repo     *repository // nil: documents are exported, and why says for what reason
	why      string
	st       *state            // as it stood right before the snapshot
	missing  []string          // indices without all primaries, left out (safety backup only)
	moved    map[string]string // indices that changed while the pin was taken, and what of them
	views    map[string][]*view
	released bool
	copied   atomic.Bool // the files are stored: from then on progress tells of the digests
}

// view is a scroll over one shard, and the digest of what it has given.
type view struct {
	part   stretch
	scroll *scroll
	digest plugins.Digest
}

// Pin begins the snapshot and returns as soon as every shard holds its files.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	p, err := s.pin(ctx, run)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (s *session) pin(ctx context.Context, run plugins.Run) (_ *pin, err error) {
	if err := s.leftovers(ctx, run.Epoch); err != nil {
		return nil, err
	}
	p := &pin{s: s, moved: map[string]string{}, views: map[string][]*view{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Release(ctx))
		}
	}()
	p.repo, err = s.newRepository(ctx, run.Epoch)
	if errors.Is(err, errNoPlace) {
		p.why, err = err.Error(), nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	if p.st, err = s.state(ctx); err != nil {
		return nil, err
	}
	if err := p.gate(ctx, run); err != nil {
		return nil, err
	}
	p.info = plugins.PinInfo{At: time.Now(), Position: p.st.position()}
	if p.repo != nil {
		p.info.ID = p.repo.name
		err = p.begin(ctx, run)
	} else {
		p.info.ID = "export-" + newName(run.Epoch)
	}
	if err != nil {
		return nil, err
	}
	if err := p.open(ctx, run); err != nil {
		return nil, err
	}
	after, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	for name, x := range p.st.Indices {
		switch now := after.Indices[name]; {
		case now == nil || now.life() != x.life():
			p.moved[name] = "was deleted or replaced"
		case string(now.Definition) != string(x.Definition):
			p.moved[name] = "changed its mappings, settings or aliases"
		case now.position() != x.position():
			p.moved[name] = ""
		}
	}
	return p, nil
}

// position sums up all writes there have been.
func (st *state) position() string {
	var n int64
	for _, x := range st.Indices {
		for _, sh := range x.Shards {
			n += sh.MaxNo + 1
		}
	}
	return fmt.Sprintf("%d operations in %d indices", n, len(st.Indices))
}

// refresh makes all documents visible to search. Indices without all primaries are left out: the server would wait for
// each of them for a minute.
func (s *session) refresh(ctx context.Context) error {
	const opts = "/_refresh?expand_wildcards=open,hidden&allow_no_indices=true&ignore_unavailable=true"
	h, err := s.clusterHealth(ctx)
	if err != nil {
		return err
	}
	if h.Status != "red" {
		return s.c.post(ctx, "/_all"+opts, nil, nil)
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(h.Indices)) {
		if h.Indices[name].Status != "red" && !serverOwn(name) {
			names = append(names, esc(name))
		}
	}
	for part := range slices.Chunk(names, 50) {
		if err := s.c.post(ctx, "/"+strings.Join(part, ",")+opts, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// gate refuses what cannot be backed up whole. A safety backup takes what there is.
func (p *pin) gate(ctx context.Context, run plugins.Run) error {
	for _, name := range p.st.names() {
		if !p.st.Indices[name].complete() {
			p.missing = append(p.missing, name)
		}
	}
	if len(p.missing) > 0 && run.Operation != plugins.OpSafety {
		return fmt.Errorf("%s: no live primary for every shard of %s: %w: bring the missing member back, or delete the index, then back up again",
			p.s.target, some(p.missing), plugins.ErrUnavailable)
	}
	if p.repo == nil {
		return p.s.exportable(ctx, p.st)
	}
	var need int64
	for _, x := range p.st.Indices {
		need += x.Bytes
	}
	if free := p.repo.free(); free > 0 && free < need {
		return fmt.Errorf("%s: the snapshot needs about %d bytes in path.repo and %d are free: %w: make room there", p.s.target, need, free, plugins.ErrSpace)
	}
	return nil
}

// wanted are the indices and data streams to be snapshotted, by name.
func (p *pin) wanted() []string {
	out := slices.Collect(maps.Keys(p.st.Streams))
	for name, x := range p.st.Indices {
		if x.Stream == "" && !slices.Contains(p.missing, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// vanished is how long a snapshot may be unknown after its beginning before it counts as failed: a failure to write even its
// failure down leaves no trace.
const vanished = 3 * time.Second

// begin starts the snapshot and waits until every shard has begun: what it copies then no longer changes.
func (p *pin) begin(ctx context.Context, run plugins.Run) error {
	names := p.wanted()
	body := map[string]any{"indices": strings.Join(names, ","), "expand_wildcards": "all", "include_global_state": true, "partial": false,
		"metadata": map[string]any{"taken_by": "cso_backupnrestore", "backup": run.Backup}}
	if len(names) == 0 {
		body["indices"] = "-*"
	}
	path := "/_snapshot/" + p.repo.name + "/" + snapshot
	err := p.s.c.do(ctx, http.MethodPut, path+"?wait_for_completion=false", body, nil)
	if isFault(err, http.StatusForbidden, "security_exception") {
		body["include_global_state"] = false
		err = p.s.c.do(ctx, http.MethodPut, path+"?wait_for_completion=false", body, nil)
	}
	if err != nil {
		return err
	}
	for known := time.Now(); ; {
		var st struct {
			Snapshots []struct {
				State string `json:"state"`
				Stats struct {
					Init int `json:"initializing"`
				} `json:"shards_stats"`
			} `json:"snapshots"`
		}
		err := p.s.c.get(ctx, path+"/_status?filter_path=snapshots.state,snapshots.shards_stats.initializing", &st)
		if err == nil && len(st.Snapshots) == 1 && st.Snapshots[0].State != "INIT" && st.Snapshots[0].Stats.Init == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, plugins.ErrNotFound) {
			return err
		}
		if err == nil {
			known = time.Now()
		} else if time.Since(known) > vanished {
			return p.gone(err)
		}
		if err := plugins.Sleep(ctx, 30*time.Millisecond); err != nil {
			return err
		}
	}
}

// open holds views of all open shards.
func (p *pin) open(ctx context.Context, run plugins.Run) error {
	if p.repo == nil {
		return nil // an export reads each index once, when its turn comes
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, run.Parallel))
	n := 0
	for _, name := range p.st.names() {
		x := p.st.Indices[name]
		parts := x.parts(p.s.reading(x), run.Parallel)
		if n += len(parts); x.Closed || n > maxViews || !x.complete() {
			continue
		}
		for _, part := range parts {
			g.Go(func() error {
				v := &view{part: part}
				var err error
				v.scroll, err = p.s.scrollShard(gctx, x, part, func(h *hit) error { h.digestOf(&v.digest, true); return nil })
				mu.Lock()
				defer mu.Unlock()
				p.views[name] = append(p.views[name], v)
				if isFault(err, http.StatusNotFound, "") {
					return nil // deleted meanwhile: it counts as moved
				}
				return err
			})
		}
	}
	return g.Wait()
}

func (p *pin) Info() plugins.PinInfo { return p.info }

// Release closes the views and removes the repository with its files.
func (p *pin) Release(ctx context.Context) error {
	if p.released {
		return nil
	}
	p.released = true
	var ids []string
	for _, vs := range p.views {
		for _, v := range vs {
			if v.scroll != nil && v.scroll.id != "" {
				ids = append(ids, v.scroll.id)
				v.scroll.id = ""
			}
		}
	}
	p.s.endScrolls(ctx, ids)
	if p.repo == nil {
		return nil
	}
	return p.repo.remove(ctx)
}

// Backup copies the snapshot.
func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: p.s.product.String(), Position: p.info.Position}
	if p.released {
		return rep, fmt.Errorf("%s: %w", p.s.target, plugins.ErrPinLost)
	}
	if p.repo == nil {
		return p.export(ctx, run, w, rep)
	}
	rep.Consistency = "one snapshot of all indices: every shard as it stood when the snapshot began, each at its own moment, tenths of a second apart"
	// Documents are digested while the server still copies: both need only what the pin holds.
	var proof plugins.Report
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.describe(gctx, run, w, &proof) })
	g.Go(func() error {
		e := newEarly(p.repo, run, p.info.ID, w)
		if err := p.whileCopying(gctx, run, e); err != nil {
			return err
		}
		if err := p.repo.unregister(gctx); err != nil { // nobody else may write while it is copied
			return err
		}
		attrs := map[string]string{attrMode: modeSnapshot, attrVersion: p.s.product.String(), attrSnapshot: snapshot}
		defer p.copied.Store(true)
		return p.repo.save(gctx, run, p.info.ID, attrs, w, e, &rep)
	})
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return rep, ctx.Err()
		}
		return rep, err
	}
	rep.Artifacts += proof.Artifacts
	rep.Records += proof.Records
	rep.Bytes += proof.Bytes
	p.remarks(&rep)
	return rep, nil
}

func (p *pin) remarks(rep *plugins.Report) {
	for _, name := range p.missing {
		rep.Inexact = append(rep.Inexact, plugins.Inexact{What: "index " + name, Why: "not all of its shards had a live copy: it is not in this backup"})
	}
	for _, k := range p.st.Foreign {
		rep.Inexact = append(rep.Inexact, plugins.Inexact{What: "cluster metadata of the kind " + k, Why: "this version does not know it: it lies in the snapshot's global state and is not restored"})
	}
	var large []string
	for _, name := range p.st.names() {
		if p.s.reading(p.st.Indices[name]) == readSample {
			large = append(large, name)
		}
	}
	if len(large) > 0 {
		rep.Consistency += "; documents of large indices proved by their files' checksums, all sequence numbers and a sample: " + some(large)
	}
	var written []string
	for _, name := range slices.Sorted(maps.Keys(p.moved)) {
		if why := p.moved[name]; why != "" {
			rep.Warnings = append(rep.Warnings, "index "+name+" "+why+" while the snapshot began")
		} else {
			written = append(written, name)
		}
	}
	if len(written) > 0 {
		rep.Warnings = append(rep.Warnings, "written to while the snapshot began, so that their documents are proved by the server's checksums only: "+some(written))
	}
}

// whileCopying waits for the end of the snapshot and stores meanwhile what is there already.
func (p *pin) whileCopying(ctx context.Context, run plugins.Run, e *early) error {
	over := make(chan struct{})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { defer close(over); return p.finish(gctx, run) })
	g.Go(func() error { return e.work(gctx, over) })
	return g.Wait()
}

// finish waits for the snapshot and demands that it is whole.
func (p *pin) finish(ctx context.Context, run plugins.Run) error {
	path := "/_snapshot/" + p.repo.name + "/" + snapshot
	for {
		var a struct {
			Snapshots []struct {
				State    string   `json:"state"`
				Reason   string   `json:"reason"`
				Indices  []string `json:"indices"`
				Failures []struct {
					Index  string `json:"index"`
					Reason string `json:"reason"`
				} `json:"failures"`
				Shards struct{ Total, Failed, Successful int } `json:"shards"`
			} `json:"snapshots"`
		}
		if err := p.s.c.get(ctx, path, &a); err != nil {
			if errors.Is(err, plugins.ErrNotFound) {
				return p.gone(err)
			}
			return err
		}
		if len(a.Snapshots) != 1 {
			return p.gone(nil)
		}
		d := a.Snapshots[0]
		switch {
		case d.State == "IN_PROGRESS":
			if err := p.watch(ctx, run, path); err != nil {
				return err
			}
			continue
		case d.State != "SUCCESS" || d.Shards.Failed > 0 || d.Shards.Successful != d.Shards.Total:
			why := d.Reason
			if len(d.Failures) > 0 {
				why = d.Failures[0].Index + ": " + d.Failures[0].Reason
			}
			if strings.Contains(why, "No space left on device") {
				return fmt.Errorf("%s: snapshot %s, %s: %w: make room in path.repo", p.s.target, d.State, limit(why, 300), plugins.ErrSpace)
			}
			return fmt.Errorf("%s: snapshot ended as %s with %d of %d shards, %s: %w: look at the cluster's health", p.s.target, d.State, d.Shards.Successful, d.Shards.Total, limit(why, 300), plugins.ErrUnavailable)
		}
		for name := range p.st.Indices {
			if !slices.Contains(d.Indices, name) && !slices.Contains(p.missing, name) {
				return fmt.Errorf("%s: index %s is not in the snapshot: %w: it was deleted while the snapshot began; back up again", p.s.target, name, plugins.ErrPinLost)
			}
		}
		return nil
	}
}

// gone says why a snapshot is not there any more.
func (p *pin) gone(err error) error {
	if free := p.repo.free(); free < 1<<20 {
		return fmt.Errorf("%s: the snapshot could not be written, %d bytes are free in path.repo: %w: make room there", p.s.target, free, plugins.ErrSpace)
	}
	return errors.Join(fmt.Errorf("%s: the snapshot is gone: %w: look at the log of the elected master", p.s.target, plugins.ErrPinLost), err)
}

func (p *pin) watch(ctx context.Context, run plugins.Run, path string) error {
	var st struct {
		Snapshots []struct {
			Stats struct {
				Total struct {
					Size int64 `json:"size_in_bytes"`
				} `json:"total"`
				Processed struct {
					Size int64 `json:"size_in_bytes"`
				} `json:"processed"`
			} `json:"stats"`
		} `json:"snapshots"`
	}
	if err := p.s.c.get(ctx, path+"/_status?filter_path=snapshots.stats", &st); err == nil && len(st.Snapshots) == 1 {
		run.Report(plugins.Status{Phase: "snapshot", Bytes: st.Snapshots[0].Stats.Processed.Size, Total: st.Snapshots[0].Stats.Total.Size})
	}
	return plugins.Sleep(ctx, 50*time.Millisecond)
}

// Backup pins and copies at once.
func (s *session) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p, err := s.pin(ctx, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := p.Backup(ctx, run, w)
	return rep, errors.Join(err, p.Release(ctx))
}

// some names up to five.
func some(names []string) string {
	if len(names) <= 5 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
}
