package elasticsearch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// job is an index that is being rebuilt, as the claim remembers it.
type job struct {
	Old      string          `json:"old"`             // uuid of the index that is replaced
	Verified bool            `json:"verified"`        // the new index holds the same documents: from here on it goes forward only
	Block    json.RawMessage `json:"block,omitempty"` // index.blocks.write as it stood; absent: not set
	Settings map[string]any  `json:"settings"`        // what the new index gets when it takes the old one's place
}

// newIndex is where an index is rebuilt. It begins like all of this product's, so that no backup holds it.
func newIndex(name string) string {
	return fmt.Sprintf("%s-new-%x", own, sha256.Sum256([]byte(name)))[:len(own)+5+24]
}

// patterns reads Options["index"]: index names or patterns with '*', comma separated; empty: all.
func patterns(run plugins.Run) []string {
	var out []string
	for p := range strings.SplitSeq(run.Options["index"], ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// Reindex rebuilds every index, or those that Options["index"] names, into a new one, proves that it holds
// the same documents, and puts it in the old one's place. Until then the old index can be read,
// but not written. What could not be rebuilt without loss is left alone and named in the warnings.
func (s *session) Reindex(ctx context.Context, run plugins.Run) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: s.product.String(), Consistency: "each index by itself"}
	for _, p := range patterns(run) {
		if _, err := path.Match(p, ""); err != nil {
			return rep, fmt.Errorf("%s: index pattern %q: %w: use names, with * for any characters", s.target, p, plugins.ErrConfig)
		}
	}
	c, err := s.claim(ctx, run)
	if err != nil {
		return rep, err
	}
	err = c.reindex(ctx, run, &rep)
	if err == nil {
		if err = c.putBack(ctx); err == nil {
			c.note.Finished = true
			err = c.remember(ctx)
		}
		return rep, err
	}
	if !errors.Is(err, plugins.ErrFenced) {
		bctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), promptly)
		defer cancel()
		err = errors.Join(err, c.recover(bctx), c.putBack(bctx))
	}
	return rep, err
}

func (c *claim) reindex(ctx context.Context, run plugins.Run, rep *plugins.Report) error {
	s := c.s
	if err := s.refresh(ctx); err != nil {
		return err
	}
	live, err := s.state(ctx)
	if err != nil {
		return err
	}
	want := patterns(run)
	used := map[string]bool{}
	var work []*index
	var total int64
	for _, name := range live.names() {
		if len(want) > 0 && !slices.ContainsFunc(want, func(p string) bool {
			ok, _ := path.Match(p, name)
			used[p] = used[p] || ok
			return ok
		}) {
			continue
		}
		x := live.Indices[name]
		why := x.lossy()
		switch {
		case x.Stream != "":
			why = "it belongs to data stream " + x.Stream
		case why == "" && !x.complete():
			why = "not all of its shards have a live copy"
		case why == "" && strings.Contains(string(x.Definition), `"index.blocks.read_only`):
			why = "it is read-only"
		}
		if why != "" {
			rep.Warnings = append(rep.Warnings, fmt.Sprintf("index %s is not rebuilt: %s", name, why))
			continue
		}
		work = append(work, x)
		total += x.Bytes
	}
	for _, p := range want {
		if !used[p] {
			return fmt.Errorf("%s: no index matches %q: %w", s.target, p, plugins.ErrNotFound)
		}
	}
	if len(work) == 0 {
		if len(rep.Warnings) > 0 {
			return fmt.Errorf("%s: nothing can be rebuilt: %s: %w", s.target, strings.Join(rep.Warnings, "; "), plugins.ErrData)
		}
		return nil
	}
	tasks, _, err := s.c.exists(ctx, "/.tasks")
	if err != nil {
		return err
	}
	c.note.Tasks = c.note.Tasks || !tasks
	if err := c.lift(ctx, live.Objects); err != nil {
		return err
	}
	for _, x := range work {
		before := rep.Bytes
		docs, err := c.rebuild(ctx, run, x, func(phase string, share float64) {
			run.Report(plugins.Status{Phase: phase, Item: x.Name, Bytes: before + int64(share*float64(x.Bytes)), Total: total})
		})
		if err != nil {
			return fmt.Errorf("index %s: %w", x.Name, err)
		}
		rep.Artifacts++
		rep.Records += docs
		rep.Bytes += x.Bytes
	}
	return c.clearTasks(ctx)
}

// clearTasks removes what the server keeps of the outcome of our tasks, and the index for it unless it was there before.
func (c *claim) clearTasks(ctx context.Context) error {
	there, _, err := c.s.c.exists(ctx, "/.tasks")
	if err != nil || !there {
		return err
	}
	if err := c.s.c.post(ctx, "/.tasks/_refresh", nil, nil); err != nil {
		return err
	}
	var a struct {
		Hits struct {
			Hits []struct {
				ID     string `json:"_id"`
				Source struct {
					Task struct {
						Description string `json:"description"`
					} `json:"task"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := c.s.c.get(ctx, "/.tasks/_search?size=10000&_source=task.description", &a); err != nil {
		return err
	}
	others := 0
	for _, h := range a.Hits.Hits {
		if !strings.Contains(h.Source.Task.Description, own+"-new-") {
			others++
			continue
		}
		if err := c.s.c.remove(ctx, "/.tasks/_doc/"+esc(h.ID)); err != nil {
			return err
		}
	}
	if c.note.Tasks && others == 0 {
		return c.s.c.remove(ctx, "/.tasks")
	}
	return nil
}

// exists says whether an index is there, and its uuid.
func (c *client) exists(ctx context.Context, p string) (bool, string, error) {
	all := map[string]struct {
		Settings map[string]any `json:"settings"`
	}{}
	err := c.get(ctx, p+"/_settings?flat_settings=true", &all)
	if isFault(err, http.StatusNotFound, "") {
		return false, "", nil
	}
	for _, d := range all {
		uuid, _ := d.Settings["index.uuid"].(string)
		return true, uuid, err
	}
	return false, "", err
}

// rebuild makes one index anew. It says how many documents it holds.
func (c *claim) rebuild(ctx context.Context, run plugins.Run, x *index, progress func(string, float64)) (int64, error) {
	s := c.s
	if err := s.room(ctx, x); err != nil {
		return 0, err
	}
	if c.note.Jobs == nil {
		c.note.Jobs = map[string]*job{}
	}
	j := &job{Old: x.UUID}
	var def definition
	if err := def.read(x.Definition); err != nil {
		return 0, err
	}
	if b, ok := def.Settings["index.blocks.write"]; ok {
		j.Block, _ = json.Marshal(b)
	}
	j.Settings = map[string]any{}
	for k, v := range def.Settings {
		if unset(k) && k != "index.creation_date" && k != "index.provided_name" {
			j.Settings[k] = v
		}
	}
	if _, ok := j.Settings["index.number_of_replicas"]; !ok {
		j.Settings["index.number_of_replicas"] = x.Replicas
	}
	c.note.Jobs[x.Name] = j
	if err := c.remember(ctx); err != nil {
		return 0, err
	}
	if err := s.stopWrites(ctx, x.Name); err != nil {
		return 0, err
	}
	before, err := s.digestDocuments(ctx, run, x.Name)
	if err != nil {
		return 0, err
	}
	progress("digest", 0)
	fresh := newIndex(x.Name)
	if err := c.deleteIndices(ctx, []string{fresh}); err != nil {
		return 0, err
	}
	if err := c.create(ctx, fresh, def); err != nil {
		return 0, err
	}
	if err := s.copyDocuments(ctx, run, c, x, fresh, before.Records, func(share float64) { progress("reindex", share) }); err != nil {
		return 0, err
	}
	after, err := s.digestDocuments(ctx, run, fresh)
	if err != nil {
		return 0, err
	}
	if before != after {
		return 0, fmt.Errorf("the new index holds %d documents, the old one %d, or others: %w: the old one stays as it was", after.Records, before.Records, plugins.ErrData)
	}
	if err := s.block(ctx, fresh, json.RawMessage("true")); err != nil {
		return 0, err
	}
	if err := s.c.post(ctx, "/"+fresh+"/_flush", nil, nil); err != nil {
		return 0, err
	}
	j.Verified = true
	if err := c.remember(ctx); err != nil {
		return 0, err
	}
	return before.Records, c.swap(ctx, x.Name)
}

// room demands space for one more copy of the primaries; the old copy goes before the replicas of the new one come.
// Nodes of one host may share a disk: it counts once.
func (s *session) room(ctx context.Context, x *index) error {
	var ns struct {
		Nodes map[string]struct {
			Host string `json:"host"`
			FS   struct {
				Data []struct {
					Mount     string `json:"mount"`
					Total     int64  `json:"total_in_bytes"`
					Available int64  `json:"available_in_bytes"`
				} `json:"data"`
			} `json:"fs"`
		} `json:"nodes"`
	}
	if err := s.c.get(ctx, "/_nodes/stats/fs?filter_path=nodes.*.host,nodes.*.fs.data", &ns); err != nil {
		return err
	}
	var free int64
	seen := map[string]bool{}
	for _, n := range ns.Nodes {
		host := n.Host
		if strings.HasPrefix(host, "127.") {
			host = "localhost"
		}
		for _, d := range n.FS.Data {
			if at := fmt.Sprint(host, d.Mount, d.Total); !seen[at] {
				seen[at] = true
				free += d.Available
			}
		}
	}
	if need := x.Bytes + x.Bytes/5; len(seen) > 0 && free < need {
		return fmt.Errorf("%s: rebuilding it needs %d bytes on the nodes and %d are free: %w: make room, or name smaller indices", s.target, need, free, plugins.ErrSpace)
	}
	return nil
}

// stopWrites blocks writes and waits for those under way: setting index.blocks.write alone lets a write that
// was checked a moment before land a moment later, after the index was read.
func (s *session) stopWrites(ctx context.Context, name string) error {
	var a struct {
		Acknowledged bool  `json:"acknowledged"`
		Shards       bool  `json:"shards_acknowledged"`
		Indices      []any `json:"indices"` // empty when the block was there before
	}
	if err := s.c.do(ctx, http.MethodPut, "/"+esc(name)+"/_block/write", nil, &a); err != nil {
		return err
	}
	if !a.Acknowledged || !a.Shards && len(a.Indices) > 0 {
		return fmt.Errorf("%s: not all shards of %s have confirmed the block of writes: %w: try again", s.target, name, plugins.ErrUnavailable)
	}
	return nil
}

// block sets index.blocks.write.
func (s *session) block(ctx context.Context, name string, v json.RawMessage) error {
	return s.c.put(ctx, "/"+esc(name)+"/_settings", map[string]any{"index.blocks.write": v})
}

// digestDocuments is the digest of ids, routing, versions and _source of all documents.
func (s *session) digestDocuments(ctx context.Context, run plugins.Run, name string) (plugins.Digest, error) {
	var d plugins.Digest
	if err := s.c.post(ctx, "/"+esc(name)+"/_refresh", nil, nil); err != nil {
		return d, err
	}
	x, err := s.one(ctx, name)
	if err != nil {
		return d, err
	}
	recs, err := s.digestIndex(ctx, run, x, readPortable, func(int64) {})
	if err != nil {
		return d, err
	}
	return d, d.UnmarshalText(recs["documents"])
}

// one reads the state of one index, this product's own included.
func (s *session) one(ctx context.Context, name string) (*index, error) {
	all := map[string]json.RawMessage{}
	if err := s.c.get(ctx, "/"+esc(name)+"?flat_settings=true", &all); err != nil {
		return nil, err
	}
	raw, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("%s: %s is no index but another name for one: %w", s.target, name, plugins.ErrData)
	}
	x, err := define(name, false, raw)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		x.Shards, x.Bytes = map[int]shard{}, 0
		if err := s.shards(ctx, &state{Indices: map[string]*index{name: x}}); err != nil || x.complete() || time.Now().After(deadline) {
			return x, err
		}
		if err := plugins.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

type definition struct {
	Aliases  map[string]map[string]any `json:"aliases"`
	Mappings map[string]any            `json:"mappings"`
	Settings map[string]any            `json:"settings"`
}

func (d *definition) read(b []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	return dec.Decode(d)
}

// unset are settings that a client cannot set, or that the new index must not have while it is filled.
func unset(key string) bool {
	return late(key) || key == "index.creation_date" || key == "index.provided_name" || key == "index.number_of_replicas" || key == "index.auto_expand_replicas" || key == "index.refresh_interval" || key == "index.hidden"
}

// create makes the new index with the mappings and settings of the old one, and no template's.
func (c *claim) create(ctx context.Context, fresh string, def definition) error {
	set := map[string]any{"index.number_of_replicas": 0, "index.refresh_interval": "-1", "index.hidden": true}
	for k, v := range def.Settings {
		if !unset(k) {
			set[k] = v
		}
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	if err := c.s.c.put(ctx, "/"+fresh, map[string]any{"settings": set, "mappings": def.Mappings}); err != nil {
		return err
	}
	x, err := c.s.one(ctx, fresh)
	if err != nil {
		return err
	}
	var got definition
	if err := got.read(x.Definition); err != nil {
		return err
	}
	want, err := encode(def.Mappings)
	if err != nil {
		return err
	}
	have, err := encode(got.Mappings)
	if err != nil {
		return err
	}
	foreign := string(want) != string(have) || len(got.Aliases) > 0
	for k := range got.Settings {
		_, asked := set[k]
		foreign = foreign || !asked && !late(k) && !unset(k) && !strings.HasPrefix(k, "index.routing.allocation.include._tier")
	}
	if foreign {
		return fmt.Errorf("a template that matches every index gives the new one other mappings, settings or aliases: %w: narrow the template's index_patterns", plugins.ErrData)
	}
	return nil
}
