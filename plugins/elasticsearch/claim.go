package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// claimPrefix begins the names of claims: hidden indices, one for each attempt, whose names sort as the
// attempts follow each other. The last one may write. Its successor deletes it.
//
// An attempt that was thought dead and wakes up can neither delete an index nor
// restore one: indices are deleted in one atomic request that also sets an alias on the
// claim, and fails as a whole when the claim is gone; a restore names the
// attempt's own repository, which the successor unregisters. Before
// everything else (templates, settings) the claim is looked up.
const claimPrefix = own + "-claim-"

type claim struct {
	s    *session
	name string
	note note
	held []string // objects to be removed once the data streams that use them are gone
}

// note is what a claim remembers, in the mapping of its index.
type note struct {
	Epoch    uint64                     `json:"epoch"`
	Finished bool                       `json:"finished,omitempty"`
	Prior    map[string]json.RawMessage `json:"prior,omitempty"`    // settings before they were lifted; null: not set
	Restored map[string]origin          `json:"restored,omitempty"` // by uuid of the live index
	Seen     map[string]seen            `json:"seen,omitempty"`     // the backup's indices as they must be found after the restore
	Jobs     map[string]*job            `json:"jobs,omitempty"`     // indices being rebuilt, by name
	Tasks    bool                       `json:"tasks,omitempty"`    // index .tasks was made by this run or those it follows
	Wrong    []string                   `json:"wrong,omitempty"`    // cluster objects that were not as in the backup at the end
}

// origin is what an index was restored from: an index that was backed up, identified as the attributes of its documents do.
type origin struct {
	Life     string `json:"life"`
	Position string `json:"position"`
	Pin      string `json:"pin"`
	At       string `json:"at"` // its position right after the restore
}

// seen is an index after a restore.
type seen struct {
	Life     string `json:"life"`
	Position string `json:"position"`
	Right    bool   `json:"right"` // its definition was as in the backup
}

func claimName(epoch uint64, rank, n int) string {
	return fmt.Sprintf("%s%020d-%d-%06d", claimPrefix, epoch, rank, n)
}

// rank: the rollback of a run comes after its restore.
func rank(op plugins.Operation) int {
	if op == plugins.OpRollback {
		return 1
	}
	return 0
}

// claims lists all, the newest last.
func (s *session) claims(ctx context.Context) ([]claim, error) {
	all := map[string]struct {
		Mappings struct {
			Meta struct {
				Note string `json:"note"`
			} `json:"_meta"`
		} `json:"mappings"`
	}{}
	if err := s.c.get(ctx, "/"+claimPrefix+"*/_mapping?expand_wildcards=all&ignore_unavailable=true&allow_no_indices=true", &all); err != nil {
		return nil, err
	}
	var out []claim
	for name, d := range all {
		c := claim{s: s, name: name}
		if d.Mappings.Meta.Note != "" {
			if err := json.Unmarshal([]byte(d.Mappings.Meta.Note), &c.note); err != nil {
				return nil, fmt.Errorf("%s: claim %s: %w: delete that index", s.target, name, err)
			}
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b claim) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// claim takes the right to write, ErrFenced when a newer attempt has it.
func (s *session) claim(ctx context.Context, run plugins.Run) (*claim, error) {
	limit := claimName(run.Epoch, rank(run.Operation)+1, 0)
	var blocks map[string]json.RawMessage
	for n := 1; ; {
		all, err := s.claims(ctx)
		if err != nil {
			return nil, err
		}
		c := &claim{s: s, note: note{Epoch: run.Epoch}}
		if len(all) > 0 {
			last := all[len(all)-1]
			if last.name >= limit {
				return nil, fmt.Errorf("%s: claim %s: %w", s.target, last.name, plugins.ErrFenced)
			}
			c.note.Restored, c.note.Jobs = last.note.Restored, last.note.Jobs
			if !last.note.Finished {
				c.note.Prior, c.note.Tasks = last.note.Prior, last.note.Tasks
			}
			for claimName(run.Epoch, rank(run.Operation), n) <= last.name {
				n++
			}
		}
		for k, v := range blocks {
			if c.note.Prior == nil {
				c.note.Prior = map[string]json.RawMessage{}
			}
			c.note.Prior[k] = v
		}
		c.name = claimName(run.Epoch, rank(run.Operation), n)
		body := map[string]any{
			"settings": map[string]any{"index.hidden": true, "index.number_of_shards": 1, "index.auto_expand_replicas": "0-1"},
			"mappings": c.mapping(),
		}
		err = s.c.put(ctx, "/"+c.name+"?wait_for_active_shards=0", body)
		switch {
		case isFault(err, http.StatusBadRequest, "resource_already_exists_exception"):
			n++
			continue
		case isFault(err, http.StatusForbidden, "cluster_block_exception"):
			if blocks, err = s.unblock(ctx); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		}
		return c, c.overtake(ctx)
	}
}

// overtake deletes the claims before this one and ends what they left running in the server.
func (c *claim) overtake(ctx context.Context) error {
	all, err := c.s.claims(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.name > c.name {
			return errors.Join(c.fenced(), c.s.c.remove(context.WithoutCancel(ctx), "/"+c.name))
		}
		if o.name < c.name {
			if err := c.s.c.remove(ctx, "/"+o.name); err != nil {
				return err
			}
		}
	}
	if err := c.s.leftovers(ctx, c.note.Epoch); err != nil {
		return err
	}
	return c.recover(ctx)
}

// unblock removes blocks on the whole cluster, which would refuse every step, and says what they were.
func (s *session) unblock(ctx context.Context) (map[string]json.RawMessage, error) {
	live, err := s.objects(ctx, nil)
	if err != nil {
		return nil, err
	}
	set, prior := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for k, v := range live {
		if strings.Contains(k, "/cluster.blocks.") {
			set[k], prior[k] = nil, v
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%s: the cluster refuses writes: %w: look at its blocks", s.target, plugins.ErrUnavailable)
	}
	return prior, s.setSettings(ctx, set)
}

func (c *claim) mapping() map[string]any {
	b, err := json.Marshal(c.note)
	if err != nil {
		b = nil // a note holds texts only
	}
	return map[string]any{"_meta": map[string]any{"note": string(b)}}
}

// remember writes the note.
func (c *claim) remember(ctx context.Context) error {
	err := c.s.c.put(ctx, "/"+c.name+"/_mapping", c.mapping())
	if isFault(err, http.StatusNotFound, "") {
		return c.fenced()
	}
	return err
}

// check answers ErrFenced once another attempt has taken over.
func (c *claim) check(ctx context.Context) error {
	err := c.s.c.get(ctx, "/"+c.name+"/_mapping", nil)
	if isFault(err, http.StatusNotFound, "") {
		return c.fenced()
	}
	return err
}

func (c *claim) fenced() error {
	return fmt.Errorf("%s: another attempt has taken over: %w", c.s.target, plugins.ErrFenced)
}

// deleteIndices deletes by name, all or nothing, and nothing at all once another attempt has taken over.
func (c *claim) deleteIndices(ctx context.Context, names []string) error {
	for len(names) > 0 {
		part := names[:min(500, len(names))]
		names = names[len(part):]
		actions := []any{map[string]any{"add": map[string]any{"index": c.name, "alias": own + "-guard", "is_hidden": true}}}
		for _, n := range part {
			actions = append(actions, map[string]any{"remove_index": map[string]any{"index": n}})
		}
		err := c.s.c.post(ctx, "/_aliases", map[string]any{"actions": actions}, nil)
		if !isFault(err, http.StatusNotFound, "") {
			if err != nil {
				return err
			}
			continue
		}
		if err := c.check(ctx); err != nil {
			return err
		}
		// The claim stands: an index went away by itself. One by one, then.
		for _, n := range part {
			one := []any{actions[0], map[string]any{"remove_index": map[string]any{"index": n}}}
			if err := c.s.c.post(ctx, "/_aliases", map[string]any{"actions": one}, nil); err != nil && !isFault(err, http.StatusNotFound, "") {
				return err
			}
		}
	}
	return nil
}

// lifted are the settings a restore needs, and what for: recovery is held at 40 MB/s by default; an index that
// a writer makes between deletion and restore would stand in the way; a cluster that was
// told not to allocate shards would never finish.
var lifted = map[string]json.RawMessage{
	kindTransient + "/indices.recovery.max_bytes_per_sec": json.RawMessage(`"-1"`),
	kindTransient + "/action.auto_create_index":           json.RawMessage(`"false"`),
	kindTransient + "/cluster.routing.allocation.enable":  json.RawMessage(`"all"`),
}

// lift sets them, after the claim remembers how they stood. Blocks on the whole cluster go as well.
func (c *claim) lift(ctx context.Context, live map[string][]byte) error {
	if c.note.Prior == nil {
		c.note.Prior = map[string]json.RawMessage{}
	}
	set := maps.Clone(lifted)
	for k := range live {
		if strings.Contains(k, "/cluster.blocks.") {
			set[k] = nil
		}
	}
	for k := range set {
		if _, ok := c.note.Prior[k]; ok {
			continue // an attempt before this one found it so
		}
		c.note.Prior[k] = json.RawMessage("null")
		if v, ok := live[k]; ok {
			c.note.Prior[k] = v
		}
	}
	if err := c.remember(ctx); err != nil {
		return err
	}
	return c.s.setSettings(ctx, set)
}

// prior is live as it stood before lift.
func (n note) prior(live map[string][]byte) map[string][]byte {
	out := maps.Clone(live)
	for k, v := range n.Prior {
		if string(v) == "null" {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// putBack undoes lift.
func (c *claim) putBack(ctx context.Context) error {
	if len(c.note.Prior) == 0 || c.note.Finished {
		return nil
	}
	if err := c.s.setSettings(ctx, c.note.Prior); err != nil {
		return err
	}
	c.note.Prior = nil
	return c.remember(ctx)
}

// unliftDead puts back what an attempt of this epoch or an older one lifted and did not put back.
func (s *session) unliftDead(ctx context.Context, run plugins.Run) error {
	all, err := s.claims(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	c := all[len(all)-1]
	if c.note.Epoch > run.Epoch {
		return nil
	}
	return c.putBack(ctx)
}

// awaitRestores waits until the server restores nothing from a repository any more.
func (s *session) awaitRestores(ctx context.Context, repo string) error {
	for {
		running, err := s.restores(ctx, repo)
		if err != nil || !running {
			return err
		}
		if err := plugins.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *session) restores(ctx context.Context, repo string) (bool, error) {
	var st struct {
		Restore struct {
			Snapshots []struct {
				Repository string `json:"repository"`
				State      string `json:"state"`
			} `json:"snapshots"`
		} `json:"restore"`
	}
	if err := s.c.get(ctx, "/_cluster/state?filter_path=restore.snapshots.repository,restore.snapshots.state", &st); err != nil {
		return false, err
	}
	for _, r := range st.Restore.Snapshots {
		if r.Repository == repo && r.State != "SUCCESS" && r.State != "FAILURE" {
			return true, nil
		}
	}
	return false, nil
}

// Quiet ends what an earlier attempt left running inside the server: its snapshots are aborted, its restores awaited.
func (s *session) Quiet(ctx context.Context, run plugins.Run) error {
	if run.Epoch == 0 {
		return nil
	}
	return s.leftovers(ctx, run.Epoch-1)
}
