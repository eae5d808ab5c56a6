package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// copyDocuments fills the new index by the server's own _reindex, or by scroll and bulk where there is none.
func (s *session) copyDocuments(ctx context.Context, run plugins.Run, c *claim, x *index, fresh string, docs int64, progress func(float64)) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	if docs == 0 {
		return nil
	}
	body := map[string]any{"source": map[string]any{"index": x.Name, "size": pageSize(docs, x.Bytes)}, "dest": map[string]any{"index": fresh, "version_type": "external"}}
	var a struct {
		Task string `json:"task"`
	}
	err := s.c.post(ctx, "/_reindex?wait_for_completion=false&slices=auto&refresh=false&requests_per_second=-1", body, &a)
	if unknownCall(err) {
		return s.copyByHand(ctx, run, c, x, fresh, docs, progress)
	}
	if err != nil {
		return err
	}
	if err := s.follow(ctx, a.Task, docs, progress); err != nil {
		bctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), promptly)
		defer cancel()
		return errors.Join(err, s.c.post(bctx, "/_tasks/"+a.Task+"/_cancel", nil, nil))
	}
	return nil
}

// taskStatus is what _reindex says of itself.
type taskStatus struct {
	Total     int64 `json:"total"`
	Created   int64 `json:"created"`
	Updated   int64 `json:"updated"`
	Conflicts int64 `json:"version_conflicts"`
}

// follow waits for the task. Its own numbers stay at nought while it runs in slices: those of its children count.
func (s *session) follow(ctx context.Context, task string, docs int64, progress func(float64)) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		var t struct {
			Completed bool `json:"completed"`
			Error     struct{ Type, Reason string }
			Response  struct {
				taskStatus
				Failures []struct {
					Cause struct{ Type, Reason string } `json:"cause"`
				} `json:"failures"`
				Canceled string `json:"canceled"`
			} `json:"response"`
		}
		if err := s.c.get(ctx, "/_tasks/"+task, &t); err != nil {
			if errors.Is(err, plugins.ErrNotFound) {
				return fmt.Errorf("the server lost its task, as when a node restarts: %w: try again", plugins.ErrUnavailable)
			}
			return err
		}
		r := t.Response
		switch {
		case !t.Completed:
		case t.Error.Type != "":
			return fmt.Errorf("reindex: %s: %s: %w", t.Error.Type, limit(t.Error.Reason, 300), plugins.ErrData)
		case len(r.Failures) > 0:
			return fmt.Errorf("reindex: %s: %s: %w", r.Failures[0].Cause.Type, limit(r.Failures[0].Cause.Reason, 300), plugins.ErrData)
		case r.Canceled != "" || r.Conflicts > 0 || r.Created != docs:
			return fmt.Errorf("reindex: %d of %d documents made, %d conflicts, cancelled %q: %w: try again", r.Created, docs, r.Conflicts, r.Canceled, plugins.ErrUnavailable)
		default:
			return nil
		}
		var kids struct {
			Nodes map[string]struct {
				Tasks map[string]struct {
					Status taskStatus `json:"status"`
				} `json:"tasks"`
			} `json:"nodes"`
		}
		if err := s.c.get(ctx, "/_tasks?detailed=true&actions=*reindex&filter_path=nodes.*.tasks.*.status", &kids); err == nil {
			var done int64
			for _, n := range kids.Nodes {
				for _, k := range n.Tasks {
					done += k.Status.Created + k.Status.Updated
				}
			}
			progress(min(1, float64(done)/float64(docs)))
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (s *session) copyByHand(ctx context.Context, run plugins.Run, c *claim, x *index, fresh string, docs int64, progress func(float64)) error {
	l := newLoader(ctx, s, fresh, run.Parallel, func() error { return c.check(ctx) })
	var n int64
	var err error
	for k, sh := range x.Shards {
		var sc *scroll
		sc, err = s.scrollShard(ctx, x.Name, k, pageSize(sh.Docs, sh.Bytes), func(h *hit) error {
			n++
			progress(float64(n) / float64(docs))
			return l.add(h)
		})
		if err == nil {
			err = sc.rest(ctx)
		}
		sc.end(ctx)
		if err != nil {
			break
		}
	}
	return errors.Join(err, l.end())
}

// swap puts the verified new index in the old one's place. Aliases go to the new one first, atomically,
// so that whoever uses them notices nothing. The old index is deleted and the new
// one cloned (hard links, no copy) under its name by two requests sent in one
// stretch: when this program dies, both have reached the server, or neither. Can be run again from any point.
func (c *claim) swap(ctx context.Context, name string) error {
	s, fresh, j := c.s, newIndex(name), c.note.Jobs[name]
	there, uuid, err := s.c.exists(ctx, "/"+esc(name))
	if err != nil {
		return err
	}
	if there && uuid == j.Old {
		if err := c.moveAliases(ctx, name, fresh); err != nil {
			return err
		}
	}
	if !there || uuid == j.Old {
		if err := c.replace(ctx, name, there, j); err != nil {
			return err
		}
	}
	if _, err := s.one(ctx, name); err != nil { // waits until it serves
		return err
	}
	if err := c.moveAliases(ctx, fresh, name); err != nil {
		return err
	}
	if err := c.deleteIndices(ctx, []string{fresh}); err != nil {
		return err
	}
	delete(c.note.Jobs, name)
	return c.remember(ctx)
}

// moveAliases gives all aliases of one index to another in one step.
func (c *claim) moveAliases(ctx context.Context, from, to string) error {
	x, err := c.s.one(ctx, from)
	if err != nil {
		if errors.Is(err, plugins.ErrNotFound) {
			return nil
		}
		return err
	}
	var def definition
	if err := def.read(x.Definition); err != nil {
		return err
	}
	if len(def.Aliases) == 0 {
		return nil
	}
	actions := []any{map[string]any{"add": map[string]any{"index": c.name, "alias": own + "-guard", "is_hidden": true}}}
	for alias, props := range def.Aliases {
		add := map[string]any{"index": to, "alias": alias}
		for k, v := range props {
			add[k] = v
		}
		actions = append(actions, map[string]any{"remove": map[string]any{"index": from, "alias": alias}}, map[string]any{"add": add})
	}
	err = c.s.c.post(ctx, "/_aliases", map[string]any{"actions": actions}, nil)
	if isFault(err, http.StatusNotFound, "") {
		return errors.Join(c.check(ctx), err)
	}
	return err
}

// replace deletes the old index, if it is still there, and clones the new one under its name.
func (c *claim) replace(ctx context.Context, name string, there bool, j *job) error {
	s, fresh := c.s, newIndex(name)
	set := map[string]any{"index.blocks.write": nil, "index.hidden": nil, "index.refresh_interval": nil, "index.auto_expand_replicas": nil}
	for k, v := range j.Settings {
		set[k] = v
	}
	clone := request{http.MethodPost, "/" + fresh + "/_clone/" + esc(name) + "?wait_for_active_shards=1", map[string]any{"settings": set}}
	if there {
		drop := request{http.MethodPost, "/_aliases", map[string]any{"actions": []any{
			map[string]any{"add": map[string]any{"index": c.name, "alias": own + "-guard", "is_hidden": true}},
			map[string]any{"remove_index": map[string]any{"index": name}},
		}}}
		first, second := s.c.pair(ctx, drop, clone)
		if first != nil {
			return errors.Join(first, second)
		}
		if second == nil {
			return nil
		}
		if !strings.Contains(second.Error(), "already_exists") && !errors.Is(second, plugins.ErrUnavailable) {
			return second
		}
	}
	// The server looked at the second request before it had carried out the first: once more, at once.
	err := s.c.post(ctx, clone.path, clone.body, nil)
	if isFault(err, http.StatusBadRequest, "resource_already_exists_exception") {
		return nil
	}
	return err
}

// recover finishes or undoes what an attempt that died has left.
func (c *claim) recover(ctx context.Context) error {
	for name, j := range c.note.Jobs {
		fresh := newIndex(name)
		whole, _, err := c.s.c.exists(ctx, "/"+fresh)
		if err != nil {
			return err
		}
		if j.Verified && whole {
			if err := c.swap(ctx, name); err != nil {
				return err
			}
			continue
		}
		there, uuid, err := c.s.c.exists(ctx, "/"+esc(name))
		if err != nil {
			return err
		}
		if !j.Verified {
			if err := c.deleteIndices(ctx, []string{fresh}); err != nil {
				return err
			}
			if there && uuid == j.Old {
				v := j.Block
				if v == nil {
					v = []byte("null")
				}
				if err := c.s.block(ctx, name, v); err != nil {
					return err
				}
			}
		}
		delete(c.note.Jobs, name)
		if err := c.remember(ctx); err != nil {
			return err
		}
	}
	return nil
}
