package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

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
	if err := c.cloned(ctx, name, fresh); err != nil {
		return err
	}
	if _, err := s.one(ctx, name); err != nil { // waits until it serves
		return err
	}
	if err := c.moveAliases(ctx, fresh, name); err != nil {
		return err
	}
	if err := c.unmark(ctx, name, fresh); err != nil {
		return err
	}
	delete(c.note.Jobs, name)
	return c.remember(ctx)
}

// cloneMark is an alias that a clone has from its first moment until the index it was made of is deleted. The setting
// index.resize.source.uuid tells a clone too, but 8.x removes it as soon as the clone's shards have started.
const cloneMark = own + "-clone"

// unmark takes the mark from the clone and deletes the index it was made of, in one step.
func (c *claim) unmark(ctx context.Context, name, fresh string) error {
	guard := map[string]any{"add": map[string]any{"index": c.name, "alias": own + "-guard", "is_hidden": true}}
	drop := map[string]any{"remove_index": map[string]any{"index": fresh}}
	mark := map[string]any{"remove": map[string]any{"index": name, "alias": cloneMark}}
	err := c.s.c.post(ctx, "/_aliases", map[string]any{"actions": []any{guard, mark, drop}}, nil)
	if !isFault(err, http.StatusNotFound, "") {
		return err
	}
	// One of them is done already.
	for _, a := range []any{drop, mark} {
		if err := c.check(ctx); err != nil {
			return err
		}
		err := c.s.c.post(ctx, "/_aliases", map[string]any{"actions": []any{guard, a}}, nil)
		if err != nil && !isFault(err, http.StatusNotFound, "") {
			return err
		}
	}
	return nil
}

// cloned proves that what stands under the name is the clone, and not an index that somebody made in
// the moment in which there was none. An empty one of that kind makes way.
func (c *claim) cloned(ctx context.Context, name, fresh string) error {
	there, want, err := c.s.c.exists(ctx, "/"+fresh)
	if err != nil || !there {
		return err // gone only after the clone was proved
	}
	for try := 1; ; try++ {
		all := map[string]struct {
			Aliases  map[string]any `json:"aliases"`
			Settings map[string]any `json:"settings"`
		}{}
		if err := c.s.c.get(ctx, "/"+esc(name)+"?flat_settings=true", &all); err != nil {
			return err
		}
		if _, marked := all[name].Aliases[cloneMark]; marked || all[name].Settings["index.resize.source.uuid"] == want {
			return nil
		}
		var n struct {
			Count int64 `json:"count"`
		}
		if err := c.s.c.post(ctx, "/"+esc(name)+"/_refresh", nil, nil); err != nil {
			return err
		}
		if err := c.s.c.get(ctx, "/"+esc(name)+"/_count", &n); err != nil {
			return err
		}
		if n.Count > 0 || try == conflicts {
			return fmt.Errorf("somebody made an index %s and wrote %d documents while the rebuilt one, %s, took its place: %w: copy them elsewhere, delete %s, and reindex again", name, n.Count, fresh, plugins.ErrData, name)
		}
		if err := c.replace(ctx, name, true, c.note.Jobs[name]); err != nil {
			return err
		}
	}
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
	clone := request{http.MethodPost, "/" + fresh + "/_clone/" + esc(name) + "?wait_for_active_shards=1", map[string]any{"settings": set,
		"aliases": map[string]any{cloneMark: map[string]any{"is_hidden": true}}}}
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
