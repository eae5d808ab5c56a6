package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// vote is what one unit finds on its node: the tables that do not hold what the backup holds.
type vote struct {
	Differ []string `json:"differ,omitempty"`
	writes map[tableName]int64
}

// order is what the leader decides: the tables to empty and import, and whether definitions change.
type order struct {
	Replace []string `json:"replace,omitempty"`
	Define  bool     `json:"define,omitempty"`
	Removed int      `json:"removed,omitempty"`
}

// Restore makes the node's tables equal to the artifacts, together with the units of the other nodes.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep, err := s.restore(ctx, run, r)
	if err != nil {
		return rep, fmt.Errorf("restore: %w", err)
	}
	return rep, nil
}

func (s *session) restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: s.version, Consistency: "each node's own files; tables that differed were emptied on all nodes and imported"}
	c, err := s.claim(ctx, run)
	if err != nil {
		return rep, err
	}
	src, err := s.sources(ctx, r)
	if err != nil {
		return rep, err
	}
	if err := s.complete(ctx); err != nil {
		return rep, err
	}
	p, done, err := c.enter(ctx)
	if err != nil || done {
		return rep, err
	}
	defer p.leave()
	started := time.Now()
	o, mine, err := s.decide(ctx, run, p, src)
	var a alone
	if errors.As(err, &a) && len(mine.Differ) == 0 { // this unit was finished before, and nobody else comes
		rep.Unchanged = len(src.schema.tables())
		return rep, p.withdraw(ctx)
	}
	if err != nil {
		return rep, err
	}
	replace := make([]tableName, 0, len(o.Replace))
	for _, n := range o.Replace {
		t, err := parseTable(n)
		if err != nil {
			return rep, err
		}
		replace = append(replace, t)
	}
	if len(replace) > 0 || o.Define {
		if err := s.replace(ctx, run, p, src, replace, mine.writes); err != nil {
			return rep, err
		}
		if err := s.dropLinks(ctx, replace, src.schema, started); err != nil {
			run.Log.Warn("snapshots that the server made by itself are still there", "err", err)
		}
	} else if err := s.remember(ctx, run, src.schema.tables(), mine.writes); err != nil {
		return rep, err
	}
	for _, t := range src.schema.tables() {
		if slices.Contains(replace, t) {
			rep.Artifacts++
			rep.Bytes += src.size(t)
		} else {
			rep.Unchanged++
		}
	}
	if o.Define && len(replace) == 0 && o.Removed == 0 {
		rep.Artifacts++
	}
	if p.leads() {
		rep.Removed = o.Removed
	}
	return rep, p.put(ctx, "done", struct{}{})
}

// complete refuses when a node is down: TRUNCATE needs them all, and so does every unit's import.
func (s *session) complete(ctx context.Context) error {
	r, err := s.readRing(ctx)
	if err != nil {
		return err
	}
	dead, err := s.dead(ctx, len(r.Nodes))
	if err != nil {
		return err
	}
	if len(dead) > 0 {
		return fmt.Errorf("%s: %s: %w: a restore needs all nodes; start it, or remove it from the ring", s.cfg.target, strings.Join(dead, ", "), plugins.ErrUnavailable)
	}
	return nil
}

// decide compares the node with the backup, and agrees with the others on what to do.
func (s *session) decide(ctx context.Context, run plugins.Run, p *pass, src *sources) (o order, mine vote, err error) {
	var before *stored
	if run.Live != nil && !src.foreign {
		if before, err = load(ctx, run.Live); err != nil {
			return o, mine, fmt.Errorf("safety backup: %w", err)
		}
	}
	live, err := s.lookBack(ctx, run, before)
	if err == nil && live == nil {
		live, err = s.look(ctx, run, tagLook)
	}
	if err != nil {
		return o, mine, err
	}
	mine.writes = live.writes
	mine.Differ, err = s.differing(ctx, run, live, src, before)
	if err = errors.Join(err, live.Release(context.WithoutCancel(ctx))); err != nil {
		return o, mine, err
	}
	if err := p.put(ctx, "vote", mine); err != nil {
		return o, mine, err
	}
	patience := lostAfter
	if len(mine.Differ) == 0 && p.number > 1 {
		patience = aloneAfter
	}
	if p.leads() {
		said, err := p.get(ctx, "order")
		if err != nil {
			return o, mine, err
		}
		if len(said) == 0 {
			votes, err := p.await(ctx, "vote", p.members, patience)
			if err != nil {
				return o, mine, err
			}
			var differ []string
			for m, b := range votes {
				var v vote
				if err := json.Unmarshal(b, &v); err != nil {
					return o, mine, fmt.Errorf("%s: vote of %s: %w", s.cfg.target, m, err)
				}
				differ = append(differ, v.Differ...)
			}
			if err := p.put(ctx, "order", s.orderFor(src.schema, live.schema, differ)); err != nil {
				return o, mine, err
			}
		}
	}
	leader := p.members[0]
	said, err := p.await(ctx, "order", []string{leader}, patience)
	if err != nil {
		return o, mine, err
	}
	return o, mine, json.Unmarshal(said[leader], &o)
}

// differing lists the tables of this node that do not hold what they should.
func (s *session) differing(ctx context.Context, run plugins.Run, live *view, src *sources, before *stored) ([]string, error) {
	var out []string
	var seen int64
	if !src.foreign {
		own := src.units[0]
		own.learn(own)
		defer func() { own.known = nil }()
		if before != nil {
			own.learn(before)
		}
	}
	for _, t := range src.schema.tables() {
		is, must := live.schema.table(t), src.schema.table(t)
		if is == nil || is.Statement != must.Statement {
			out = append(out, t.String())
			continue
		}
		h, err := src.compare(ctx, run, live, t, func(n int) {
			seen += int64(n)
			run.Report(plugins.Status{Phase: "compare", Item: t.String(), Bytes: seen})
		})
		if err != nil {
			return nil, err
		}
		if h != byFiles && h != byRows {
			out = append(out, t.String())
		}
	}
	return out, nil
}

// orderFor is what has to be done so that live becomes want.
func (s *session) orderFor(want, live schema, differ []string) order {
	ch := want.changes(live)
	o := order{Define: ch.any(), Removed: ch.removed()}
	add := func(t tableName) {
		for _, g := range want.group(t) {
			if n := g.String(); !slices.Contains(o.Replace, n) && want.table(g) != nil {
				o.Replace = append(o.Replace, n)
			}
		}
	}
	for _, n := range differ {
		if t, err := parseTable(n); err == nil {
			add(t)
		}
	}
	for _, t := range ch.rebuilt {
		add(t)
	}
	slices.Sort(o.Replace)
	return o
}

// replace has the files ready, lets the leader clear the way, and imports.
func (s *session) replace(ctx context.Context, run plugins.Run, p *pass, src *sources, tables []tableName, writes map[tableName]int64) error {
	st, err := s.stage(ctx, run, p, src, tables)
	if err != nil {
		return err
	}
	if p.leads() {
		if _, err := p.await(ctx, "staged", p.members, lostAfter); err != nil {
			return err
		}
		cleared, err := p.get(ctx, "cleared")
		if err != nil {
			return err
		}
		if len(cleared) == 0 {
			if err := s.define(ctx, run, p.c, src.schema, tables); err != nil {
				return err
			}
			if err := p.put(ctx, "cleared", struct{}{}); err != nil {
				return err
			}
		}
	}
	if _, err := p.await(ctx, "cleared", p.members[:1], lostAfter); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	kept := maps.Clone(writes)
	maps.DeleteFunc(kept, func(t tableName, _ int64) bool { return slices.Contains(tables, t) })
	if err := s.remember(ctx, run, src.schema.tables(), kept); err != nil {
		return err
	}
	return st.importAll(ctx, run, p)
}
