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
		for _, err := range []error{s.compatible(b), s.membersThere(ctx, b, live, d), s.streamsAllowed(ctx, b, d)} {
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

func (c *claim) apply(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, b *content, live *state, d *delta, rep *plugins.Report) error {
	s := c.s
	var repo *repository
	if names := d.restore(); len(names) > 0 && b.mode == modeSnapshot {
		var err error
		if repo, err = s.stage(ctx, run, r, b, d, rep); err != nil {
			return err
		}
		defer func() {
			if err := repo.remove(ctx); err != nil {
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
	closing := false
	for name, x := range b.indices {
		if x.closed() && slices.Contains(d.restore(), unitOf(b.streams, &state{}, name)) {
			if err := c.check(ctx); err != nil {
				return err
			}
			if err := s.c.post(ctx, "/"+esc(name)+"/_close?wait_for_active_shards=0", nil, nil); err != nil {
				return err
			}
			closing = true
		}
	}
	if closing { // their shards start anew, and only then say what they hold
		if err := s.awaitPrimaries(ctx, b, d.restore()); err != nil {
			return err
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

// deletable takes from an index those blocks that refuse its deletion: each in a request of its own, because
// the server lets nothing else through.
func (c *claim) deletable(ctx context.Context, x *index) error {
	if x == nil {
		return nil
	}
	for _, k := range []string{"index.blocks.read_only", "index.blocks.read_only_allow_delete", "index.blocks.metadata"} {
		if !strings.Contains(string(x.Definition), `"`+k+`":"true"`) {
			continue
		}
		if err := c.check(ctx); err != nil {
			return err
		}
		err := c.s.c.put(ctx, "/"+esc(x.Name)+"/_settings?expand_wildcards=all", map[string]any{k: nil})
		if err != nil && !isFault(err, http.StatusNotFound, "") {
			return err
		}
	}
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
		for _, x := range live.Indices {
			if x.Stream != u {
				continue
			}
			if err := c.deletable(ctx, x); err != nil {
				return err
			}
		}
		if err := c.s.c.remove(ctx, "/_data_stream/"+esc(u)); err != nil {
			return err
		}
	}
	for _, n := range names {
		if err := c.deletable(ctx, live.Indices[n]); err != nil {
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
		if isFault(err, http.StatusNotFound, "repository_missing_exception") {
			return errors.Join(c.fenced(), err)
		}
		if isFault(err, http.StatusNotFound, "") {
			return errors.Join(c.check(ctx), err)
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
		if err := plugins.Sleep(ctx, 50*time.Millisecond); err != nil {
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
		if err := plugins.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
