package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// conflicts is how often an index that somebody makes anew between deletion and restore is deleted again.
const conflicts = 5

// Restore makes indices, data streams and cluster objects equal to the backup.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: s.product.String()}
	if err := ctx.Err(); err != nil {
		return rep, err
	}
	c, err := s.claim(ctx, run)
	if err != nil {
		return rep, err
	}
	err = c.restore(ctx, run, r, &rep)
	if err != nil && !errors.Is(err, plugins.ErrFenced) {
		bctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), promptly)
		defer cancel()
		err = errors.Join(err, c.putBack(bctx))
	}
	return rep, err
}

// promptly is how long the clean-up of a failed attempt may take; what it does not reach, PostHook or a successor does.
const promptly = 1500 * time.Millisecond

func (c *claim) restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, rep *plugins.Report) error {
	s := c.s
	b, err := readContent(ctx, r)
	if err != nil {
		return err
	}
	if err := s.refresh(ctx); err != nil {
		return err
	}
	live, err := s.state(ctx)
	if err != nil {
		return err
	}
	d, err := s.difference(ctx, run, b, live, c.note, false)
	if err != nil {
		return err
	}
	rep.Unchanged = len(d.same)
	rep.Consistency = "as the backup"
	if !d.empty() {
		for _, err := range []error{s.compatible(b), s.membersThere(ctx, b, live)} {
			if err != nil {
				return err
			}
		}
		if err := c.apply(ctx, run, r, b, live, d, rep); err != nil {
			return err
		}
	}
	return c.finish(ctx, b, d, rep)
}

// compatible refuses a snapshot this server cannot read: of a newer version, or of the other product's later ones.
func (s *session) compatible(b *content) error {
	if b.mode != modeSnapshot {
		return nil
	}
	from := product{Version: b.version}
	if d, v, ok := strings.Cut(b.version, " "); ok {
		from = product{Version: v, Distribution: d}
	}
	switch {
	case from.Distribution == s.product.Distribution && compareVersions(from.Version, s.product.Version) <= 0:
		return nil
	case from.Distribution == "" && s.product.Distribution == "opensearch" && compareVersions(from.Version, "7.10.99") <= 0:
		return nil // OpenSearch reads snapshots of the version it came from
	}
	return fmt.Errorf("%s: the backup is a snapshot of %s and this server is %s: %w: restore onto that version or a later one of the same product", s.target, b.version, s.product, plugins.ErrVersion)
}

// compareVersions compares dotted numbers.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			_, _ = fmt.Sscanf(x[i], "%d", &m)
		}
		if i < len(y) {
			_, _ = fmt.Sscanf(y[i], "%d", &n)
		}
		if m != n {
			return m - n
		}
	}
	return 0
}

// membersThere refuses while a member is down that may hold the only copy of a shard.
func (s *session) membersThere(ctx context.Context, b *content, live *state) error {
	h, err := s.clusterHealth(ctx)
	if err != nil {
		return err
	}
	if h.Nodes >= len(s.target.Members) {
		return nil
	}
	var lone []string
	for name, x := range live.Indices {
		if x.Replicas == 0 || !x.complete() {
			lone = append(lone, name)
		}
	}
	for name, x := range b.indices {
		if strings.Contains(string(x.definition), `"index.number_of_replicas":"0"`) && !slices.Contains(lone, name) {
			lone = append(lone, name)
		}
	}
	if len(lone) == 0 {
		return nil
	}
	slices.Sort(lone)
	return fmt.Errorf("%s: %d of %d members are there, and these indices have no replica: %s: %w: bring the missing member back first", s.target, h.Nodes, len(s.target.Members), some(lone), plugins.ErrUnavailable)
}

func (c *claim) apply(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, b *content, live *state, d *delta, rep *plugins.Report) error {
	s := c.s
	var repo *repository
	if names := d.restore(); len(names) > 0 && b.mode == modeSnapshot {
		var err error
		if repo, err = s.stage(ctx, run, r, b, d, rep); err != nil {
			return err
		}
		defer func() {
			bctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), promptly)
			defer cancel()
			if err := repo.remove(bctx); err != nil {
				rep.Warnings = append(rep.Warnings, fmt.Sprintf("staged files in %s are removed by the next run: %v", repo.dir, err))
			}
		}()
	}
	if b.mode == modeExport {
		if err := s.proveExport(ctx, run, r, b, d); err != nil {
			return err
		}
	}
	// From here on the cluster changes.
	if err := c.check(ctx); err != nil {
		return err
	}
	if err := c.lift(ctx, live.Objects); err != nil {
		return err
	}
	if err := c.writeObjects(ctx, b, d); err != nil {
		return err
	}
	if err := c.setSettings(ctx, b, live, false); err != nil {
		return err
	}
	if err := c.removeIndices(ctx, live, slices.Concat(d.extra, d.change)); err != nil {
		return err
	}
	if b.mode == modeExport {
		if err := c.load(ctx, run, r, b, d, rep); err != nil {
			return err
		}
	} else if repo != nil {
		if err := c.fromSnapshot(ctx, run, repo, b, d); err != nil {
			return err
		}
	}
	for name, x := range b.indices {
		if x.closed() && slices.Contains(d.restore(), unitOf(b.streams, &state{}, name)) {
			if err := c.check(ctx); err != nil {
				return err
			}
			if err := s.c.post(ctx, "/"+esc(name)+"/_close?wait_for_active_shards=0", nil, nil); err != nil {
				return err
			}
		}
	}
	if err := c.setSettings(ctx, b, live, true); err != nil {
		return err
	}
	rep.Artifacts += len(d.add) + len(d.change) + len(d.writeObjects) + len(d.settings)
	rep.Removed += len(d.extra) + len(d.removeObjects)
	return nil
}

func (d *described) closed() bool { return strings.Contains(string(d.definition), `"state":"close"`) }

// stage puts the needed part of the repository back and has the server read its listing: a damaged piece
// ends the restore here, before anything was touched.
func (s *session) stage(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, b *content, d *delta, rep *plugins.Report) (_ *repository, err error) {
	repo, err := s.newRepository(ctx, run.Epoch)
	if errors.Is(err, errNoPlace) {
		return nil, fmt.Errorf("%s: this backup is a snapshot, and %w: %w: set path.repo on every node to a shared directory", s.target, err, plugins.ErrConfig)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, repo.remove(ctx))
		}
	}()
	if free := repo.free(); free > 0 && free < d.bytes {
		return nil, fmt.Errorf("%s: %d bytes are needed in path.repo and %d are free: %w: make room there", s.target, d.bytes, free, plugins.ErrSpace)
	}
	want, err := wantedFiles(ctx, r, b, d)
	if err != nil {
		return nil, err
	}
	n, err := repo.load(ctx, run, want, r)
	if err != nil {
		return nil, err
	}
	rep.Bytes += n
	var a struct {
		Snapshots []struct {
			State   string   `json:"state"`
			Indices []string `json:"indices"`
		} `json:"snapshots"`
	}
	if err := s.c.get(ctx, "/_snapshot/"+repo.name+"/"+snapshot, &a); err != nil {
		return nil, err
	}
	if len(a.Snapshots) != 1 || a.Snapshots[0].State != "SUCCESS" {
		return nil, fmt.Errorf("%s: the server does not find a whole snapshot in what was stored: %w", s.target, plugins.ErrCorrupt)
	}
	for name := range b.indices {
		if !slices.Contains(a.Snapshots[0].Indices, name) {
			return nil, fmt.Errorf("%s: index %s is not in the stored snapshot: %w", s.target, name, plugins.ErrCorrupt)
		}
	}
	return repo, nil
}

// wantedFiles says which files a restore of these indices needs: all at the root, and the directory of each
// index, whose name the listing at the root tells.
func wantedFiles(ctx context.Context, r plugins.ArtifactReader, b *content, d *delta) (func(string) bool, error) {
	names := d.restore()
	dirs := map[string]bool{}
	found := false
	err := records(ctx, r, repositoryName, func(k, v []byte) error {
		if !strings.HasPrefix(string(k), "index-") || len(v) < 2 {
			return nil
		}
		var l struct {
			Indices map[string]struct {
				ID string `json:"id"`
			} `json:"indices"`
		}
		if err := json.Unmarshal(v[1:], &l); err != nil {
			return fmt.Errorf("artifact %s: %s: %w: %w", repositoryName, k, plugins.ErrCorrupt, err)
		}
		found = true
		for name, x := range l.Indices {
			if slices.Contains(names, unitOf(b.streams, &state{}, name)) {
				dirs[x.ID] = true
			}
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("artifact %s has no listing: %w", repositoryName, plugins.ErrCorrupt)
	}
	return func(path string) bool {
		rest, below := strings.CutPrefix(path, "indices/")
		id, _, _ := strings.Cut(rest, "/")
		return !below || dirs[id]
	}, err
}

func (c *claim) writeObjects(ctx context.Context, b *content, d *delta) error {
	step := func(key string, do func(kind, name string) error) error {
		if err := c.check(ctx); err != nil {
			return err
		}
		kind, name, _ := strings.Cut(key, "/")
		return do(kind, name)
	}
	var held []string // still used by a data stream that goes later
	for _, key := range d.removeObjects {
		err := step(key, func(kind, name string) error { return c.s.c.remove(ctx, objectPath(kind, name)) })
		if isFault(err, http.StatusBadRequest, "") {
			held = append(held, key)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, key := range d.writeObjects {
		err := step(key, func(kind, name string) error { return c.s.putObject(ctx, kind, name, b.objects[key]) })
		if err != nil {
			return err
		}
	}
	d.removeObjects = append(slices.DeleteFunc(d.removeObjects, func(k string) bool { return slices.Contains(held, k) }), held...)
	c.held = held
	return nil
}

// setSettings makes the cluster's settings those of the backup: first those go that the backup does not
// have, as they may stand in the restore's way; all is written at the end, the lifted ones included.
func (c *claim) setSettings(ctx context.Context, b *content, live *state, last bool) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	set := map[string]json.RawMessage{}
	now := live.Objects
	if last {
		var err error
		if now, err = c.s.objects(ctx, nil); err != nil {
			return err
		}
	}
	gone, write := splitObjects(now, b.objects, []string{kindPersistent, kindTransient})
	for _, k := range gone {
		if _, ok := c.note.Prior[k]; last || !ok {
			set[k] = nil
		}
	}
	if last {
		for _, k := range write {
			set[k] = b.objects[k]
		}
	}
	if err := c.s.setSettings(ctx, set); err != nil || !last {
		return err
	}
	c.note.Prior = nil
	return nil
}

// removeIndices deletes indices and data streams, and waits for nothing: the request returns when they are gone.
func (c *claim) removeIndices(ctx context.Context, live *state, units []string) error {
	var names []string
	for _, u := range units {
		if _, ok := live.Streams[u]; !ok {
			names = append(names, u)
			continue
		}
		if err := c.check(ctx); err != nil {
			return err
		}
		if err := c.s.c.remove(ctx, "/_data_stream/"+esc(u)); err != nil {
			return err
		}
	}
	if err := c.deleteIndices(ctx, names); err != nil {
		return err
	}
	for _, key := range c.held {
		kind, name, _ := strings.Cut(key, "/")
		if err := c.check(ctx); err != nil {
			return err
		}
		if err := c.s.c.remove(ctx, objectPath(kind, name)); err != nil {
			return err
		}
	}
	c.held = nil
	return nil
}

// fromSnapshot has the server restore, and waits until every primary is there.
func (c *claim) fromSnapshot(ctx context.Context, run plugins.Run, repo *repository, b *content, d *delta) error {
	s := c.s
	names := d.restore()
	body := map[string]any{"indices": strings.Join(names, ","), "include_global_state": false, "include_aliases": true, "partial": false}
	for try := 1; ; try++ {
		if err := c.check(ctx); err != nil {
			return err
		}
		err := s.c.post(ctx, "/_snapshot/"+repo.name+"/"+snapshot+"/_restore?wait_for_completion=false", body, nil)
		if err == nil {
			break
		}
		if isFault(err, http.StatusNotFound, "") {
			return errors.Join(c.fenced(), err)
		}
		if !strings.Contains(err.Error(), "same name already exists") || try == conflicts {
			return err
		}
		now, serr := s.state(ctx)
		if serr != nil {
			return serr
		}
		var again []string
		for _, n := range names {
			if now.Indices[n] != nil || now.Streams[n] != nil {
				again = append(again, n)
			}
		}
		if err := c.removeIndices(ctx, now, again); err != nil {
			return err
		}
	}
	for {
		running, err := s.restores(ctx, repo.name)
		if err != nil {
			return err
		}
		if !running {
			break
		}
		run.Report(plugins.Status{Phase: "restore", Total: d.bytes, Bytes: s.recovered(ctx, repo.name)})
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return s.awaitPrimaries(ctx, b, names)
}

// recovered is how many bytes the server has restored so far; 0 when it does not say.
func (s *session) recovered(ctx context.Context, repo string) int64 {
	all := map[string]struct {
		Shards []struct {
			Source struct {
				Repository string `json:"repository"`
			} `json:"source"`
			Index struct {
				Size struct {
					Recovered int64 `json:"recovered_in_bytes"`
				} `json:"size"`
			} `json:"index"`
		} `json:"shards"`
	}{}
	if s.c.get(ctx, "/_recovery?filter_path=*.shards.source.repository,*.shards.index.size.recovered_in_bytes", &all) != nil {
		return 0
	}
	var n int64
	for _, x := range all {
		for _, sh := range x.Shards {
			if sh.Source.Repository == repo {
				n += sh.Index.Size.Recovered
			}
		}
	}
	return n
}

// awaitPrimaries demands that every restored index has all its primaries.
func (s *session) awaitPrimaries(ctx context.Context, b *content, units []string) error {
	for deadline := time.Now().Add(time.Minute); ; {
		st, err := s.state(ctx)
		if err != nil {
			return err
		}
		var red []string
		for name := range b.indices {
			if slices.Contains(units, unitOf(b.streams, &state{}, name)) && (st.Indices[name] == nil || !st.Indices[name].complete()) {
				red = append(red, name)
			}
		}
		if len(red) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			slices.Sort(red)
			return fmt.Errorf("%s: after the restore not all shards of %s came up: %w: ask GET /_cluster/allocation/explain why", s.target, some(red), plugins.ErrUnavailable)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// finish remembers how everything must be found from now on, so that a later difference can be told apart from a failure.
func (c *claim) finish(ctx context.Context, b *content, d *delta, rep *plugins.Report) error {
	if err := c.s.refresh(ctx); err != nil {
		return err
	}
	live, err := c.s.state(ctx)
	if err != nil {
		return err
	}
	if b.mode == modeExport {
		if err := live.strip(); err != nil {
			return err
		}
	}
	was := c.note.Restored
	c.note.Restored, c.note.Seen = map[string]origin{}, map[string]seen{}
	for uuid, o := range was {
		for _, x := range live.Indices {
			if x.UUID == uuid {
				c.note.Restored[uuid] = o
			}
		}
	}
	restored := d.restore()
	for name, w := range b.indices {
		x := live.Indices[name]
		if x == nil {
			c.note.Seen[name] = seen{}
			continue
		}
		at := seen{Life: x.life(), Position: w.attrs[attrPosition], Right: string(x.Definition) == string(w.definition)}
		exact := b.mode == modeSnapshot && !w.unproved
		if !exact {
			at.Position = x.position()
		}
		c.note.Seen[name] = at
		if slices.Contains(restored, unitOf(b.streams, &state{}, name)) && (!exact || x.position() == at.Position) {
			c.note.Restored[x.UUID] = origin{Life: w.attrs[attrLife], Position: w.attrs[attrPosition], Pin: b.pin, At: x.position()}
		}
	}
	c.note.Wrong = nil
	for _, o := range differentObjectKeys(b.objects, c.note.prior(live.Objects)) {
		c.note.Wrong = append(c.note.Wrong, o)
		rep.Warnings = append(rep.Warnings, "not as in the backup: "+o)
	}
	// What an attempt before this one had lifted and this one had no reason to touch.
	if err := c.putBack(ctx); err != nil {
		return err
	}
	c.note.Finished = true
	return c.remember(ctx)
}

func differentObjectKeys(want, have map[string][]byte) []string {
	gone, write := splitObjects(have, want, append(slices.Clone(objectKinds), kindPersistent, kindTransient))
	return append(gone, write...)
}
