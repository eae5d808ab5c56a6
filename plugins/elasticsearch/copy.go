package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
	size := maxPage
	for k := range x.Shards {
		n, err := s.pageSize(ctx, x, k)
		if err != nil {
			return err
		}
		size = min(size, n)
	}
	body := map[string]any{"source": map[string]any{"index": x.Name, "size": size}, "dest": map[string]any{"index": fresh, "version_type": "external"}}
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
	var most int64 // a slice that has ended is not listed any more
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
			most = max(most, done)
			progress(min(1, float64(most)/float64(docs)))
		}
		if err := plugins.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// copyByHand reads by scroll and writes in bulk, several parts at once.
func (s *session) copyByHand(ctx context.Context, run plugins.Run, c *claim, x *index, fresh string, docs int64, progress func(float64)) error {
	var mu sync.Mutex
	var n int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for _, part := range x.stretches(run.Parallel) {
		g.Go(func() error {
			l := newLoader(gctx, s, fresh, 1, func() error { return c.check(gctx) })
			sc, err := s.scrollShard(gctx, x, part, func(h *hit) error {
				mu.Lock()
				n++
				progress(float64(n) / float64(docs))
				mu.Unlock()
				return l.add(h)
			})
			if err == nil {
				err = sc.rest(gctx)
			}
			sc.end(gctx)
			return errors.Join(err, l.end())
		})
	}
	return g.Wait()
}
