package arangodb

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// sizedCollections bounds how many collections are asked for their size.
const sizedCollections = 200

// grader collects reasons and the worst grade.
type grader struct{ h *plugins.Health }

func (g grader) amber(format string, args ...any) {
	if g.h.Grade == plugins.Green {
		g.h.Grade = plugins.Amber
	}
	g.h.Reasons = append(g.h.Reasons, fmt.Sprintf(format, args...))
}

func (g grader) red(format string, args ...any) {
	g.h.Grade = plugins.Red
	g.h.Reasons = append(g.h.Reasons, fmt.Sprintf(format, args...))
}

// Health looks at servers, shards and modes.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	h := plugins.Health{Grade: plugins.Green, Version: s.version.text, Members: 1}
	g := grader{&h}
	if err := s.modes(ctx, g); err != nil {
		return h, ended(ctx, err)
	}
	failed := map[string]bool{}
	if s.cluster {
		h.Members = 0
		all, err := s.servers(ctx)
		if err != nil {
			return h, ended(ctx, err)
		}
		for _, x := range all {
			h.Members++
			if x.Status == "GOOD" {
				continue
			}
			g.amber("%s %s (%s) is %s", x.Role, x.Name, x.ID, x.Status)
			if x.Role == "DBServer" {
				failed[x.ID] = true
			}
		}
	}
	err := s.content(ctx, g, failed)
	return h, ended(ctx, err)
}

// modes looks for servers that are read-only, and whose doing it is.
func (s *session) modes(ctx context.Context, g grader) error {
	ro, _, err := s.isReadOnly(ctx)
	if err != nil || len(ro) == 0 {
		return err
	}
	l, err := s.readLease(ctx)
	if err != nil {
		return err
	}
	switch {
	case l == nil:
		g.amber("%s read-only: a restore cannot write", strings.Join(ro, ", "))
	case time.Now().After(l.Until):
		g.amber("%s read-only since a backup or restore died: the next one, or its clean-up, ends it", strings.Join(ro, ", "))
	default:
		g.amber("%s read-only for operation %d until %s", strings.Join(ro, ", "), l.Epoch, l.Until.Format(time.TimeOnly))
	}
	return nil
}

// content looks at databases, their shards and sizes.
func (s *session) content(ctx context.Context, g grader, failed map[string]bool) error {
	var names struct{ Result []string }
	if err := s.c.get(ctx, systemDB, "/_api/database", nil, &names); err != nil {
		return s.hint(err)
	}
	g.h.Empty = len(names.Result) == 1
	left := sizedCollections
	for _, db := range names.Result {
		var list struct {
			Result []struct {
				Name     string
				IsSystem bool
			}
		}
		if err := s.c.get(ctx, db, "/_api/collection", nil, &list); err != nil {
			return err
		}
		e, ectx := errgroup.WithContext(ctx)
		e.SetLimit(8)
		sizes := make([]int64, len(list.Result))
		for i, c := range list.Result {
			if hidden(db, c.Name) {
				continue
			}
			if !serverOwned(c.Name) {
				g.h.Empty = false
			}
			if left--; left < 0 {
				break
			}
			e.Go(func() (err error) {
				sizes[i], err = s.size(ectx, db, c.Name)
				return err
			})
		}
		if err := e.Wait(); err != nil {
			return err
		}
		for i, n := range sizes {
			g.h.Estimate += n
			if n > 0 && serverOwned(list.Result[i].Name) {
				g.h.Empty = false
			}
		}
		if s.cluster {
			if err := s.shardHealth(ctx, g, db, failed); err != nil {
				return err
			}
		}
	}
	return nil
}

// size is what the documents of a collection take, roughly.
func (s *session) size(ctx context.Context, db, coll string) (int64, error) {
	var f struct {
		Count   int64
		Figures struct{ DocumentsSize int64 }
	}
	if err := s.c.get(ctx, db, "/_api/collection/"+esc(coll)+"/figures", nil, &f); err != nil && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	// A collection that has gone meanwhile, or a server without this figure: the estimate is only a little off.
	return max(f.Figures.DocumentsSize, f.Count*64), nil
}

func (s *session) shardHealth(ctx context.Context, g grader, db string, failed map[string]bool) error {
	var inv struct {
		Collections []struct {
			Parameters json.RawMessage `json:"parameters"`
			AllInSync  *bool           `json:"allInSync"`
			IsReady    *bool           `json:"isReady"`
		} `json:"collections"`
	}
	if err := s.c.get(ctx, db, "/_api/replication/clusterInventory", map[string]string{"includeSystem": "true"}, &inv); err != nil {
		return err
	}
	d := &database{name: db, collections: map[string]*collection{}}
	late, dead := &names{}, &names{}
	for _, c := range inv.Collections {
		o, err := parseObject(c.Parameters)
		if err != nil {
			return err
		}
		if c.AllInSync != nil && !*c.AllInSync || c.IsReady != nil && !*c.IsReady {
			late.add(o.str("name"))
		}
		if err := d.addCollection(c.Parameters, nil); err != nil {
			return err
		}
	}
	for _, n := range sortedKeys(d.collections) {
		for _, servers := range d.collections[n].shards {
			if len(servers) > 0 && failed[servers[0]] {
				dead.add(n)
				break
			}
		}
	}
	if late.n > 0 {
		g.amber("database %s: followers are not in sync: %s", db, late)
	}
	if dead.n > 0 {
		g.red("database %s: shards without a living leader: %s", db, dead)
	}
	return nil
}
