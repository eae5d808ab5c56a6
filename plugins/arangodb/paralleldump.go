package arangodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Version 3.12 has an interface for parallel dumps (arangod/RestHandler/RestDumpHandler.cpp; undocumented, used by
// its arangodump). A context of it has a snapshot of its own, threads that read ahead, and
// numbered batches that may be fetched again. Here it is used for large collections only, and only when the snapshots
// are known to be of one moment: the write counter of the server stood still while they were taken, or the cluster was
// read-only.
const (
	parallelFrom   = 32 << 20 // bytes from which on a collection is read this way
	parallelMost   = 16       // contexts at once: each has threads in the server
	parallelBatch  = 4 << 20
	parallelTTL    = 600 // seconds; fetching prolongs it
	parallelRounds = 5   // how often the snapshots are taken anew while somebody writes
)

// parallelDump is one context: a collection, or the shards of it that one DB server leads.
type parallelDump struct {
	db, server, id string
	next           atomic.Uint64
}

func (p *parallelDump) query(more map[string]string) map[string]string {
	if p.server != "" {
		more["dbserver"] = p.server
	}
	return more
}

// openDump makes a context; nil when the server has no such interface.
func (v *view) openDump(ctx context.Context, db, server string, shards []string, parallel int) (*parallelDump, error) {
	p := &parallelDump{db: db, server: server}
	a, err := v.c.do(ctx, call{method: "POST", db: db, path: "/_api/dump/start", query: p.query(map[string]string{}), body: map[string]any{
		"shards": shards, "batchSize": parallelBatch, "prefetchCount": 2, "parallelism": max(1, min(parallel, len(shards))), "ttl": parallelTTL}})
	if statused(err, 404, 405, 501) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("begin a parallel dump: %w", err)
	}
	p.id = a.header.Get("x-arango-dump-id")
	return p, nil
}

func (p *parallelDump) end(ctx context.Context, c *client) {
	// A context that cannot be deleted ends by itself.
	_, _ = c.do(ctx, call{method: "DELETE", db: p.db, path: "/_api/dump/" + esc(p.id), query: p.query(map[string]string{}), once: true})
}

// prepareDumps takes contexts for the large collections, of the moment of the view's batches. Where that cannot
// be had, the view is read by its batches alone.
func (v *view) prepareDumps(ctx context.Context, run plugins.Run) error {
	if !v.s.version.atLeast(3, 12) {
		return nil
	}
	l, err := v.readLayout(ctx, run.Parallel)
	if err != nil {
		return err
	}
	dumps := map[string][]*parallelDump{}
	v.dumps = dumps
	for _, db := range sortedKeys(l.databases) {
		for _, n := range sortedKeys(l.databases[db].collections) {
			if hidden(db, n) || serverOwned(n) || len(dumps) >= parallelMost {
				continue
			}
			size, err := v.s.size(ctx, db, n)
			if err != nil {
				return err
			}
			if size < parallelFrom {
				continue
			}
			byServer := map[string][]string{}
			for shard, servers := range l.databases[db].collections[n].shards {
				if len(servers) > 0 {
					byServer[servers[0]] = append(byServer[servers[0]], shard)
				}
			}
			if !v.s.cluster {
				byServer[""] = []string{n}
			}
			for server, shards := range byServer {
				p, err := v.openDump(ctx, db, server, shards, run.Parallel)
				if err != nil {
					return err
				}
				if p == nil { // no such interface: nothing was taken yet
					return nil
				}
				dumps[documentsName(db, n)] = append(dumps[documentsName(db, n)], p)
			}
		}
	}
	return nil
}

// takeDumps hands out the contexts of a collection, once: a context cannot be read from its beginning again.
func (v *view) takeDumps(name string) []*parallelDump {
	v.mu.Lock()
	defer v.mu.Unlock()
	ps := v.dumps[name]
	delete(v.dumps, name)
	return ps
}

// dropDumps gives the contexts back.
func (v *view) dropDumps(ctx context.Context) {
	v.mu.Lock()
	all := v.dumps
	v.dumps = nil
	v.mu.Unlock()
	for _, ps := range all {
		for _, p := range ps {
			p.end(ctx, v.c)
		}
	}
}

// parallelView is a view of a single server with contexts for its large collections, if the server stood still for a moment.
func (s *session) parallelView(ctx context.Context, run plugins.Run) (*view, error) {
	for range parallelRounds {
		v, err := s.plainView(ctx, run)
		if err != nil {
			return nil, err
		}
		if err := v.prepareDumps(ctx, run); err != nil {
			return nil, errors.Join(err, v.release(ctx))
		}
		if len(v.dumps) == 0 {
			return v, nil
		}
		after, err := s.openView(ctx, run, []string{""})
		if err == nil {
			err = after.release(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, v.release(ctx))
		}
		if after.batches[""].tick == v.batches[""].tick {
			return v, nil
		}
		if err := v.release(ctx); err != nil {
			return nil, err
		}
	}
	v, err := s.plainView(ctx, run)
	if err == nil {
		v.warn = append(v.warn, "somebody wrote without pause: the parallel interface could not be used, as its snapshots would not have been of one moment")
	}
	return v, err
}

// fetch reads the contexts of one collection, several batches at once.
func (v *view) fetch(ctx context.Context, ps []*parallelDump, run plugins.Run, value func(document) ([]byte, error)) (*sorter, error) {
	defer func() {
		for _, p := range ps {
			p.end(context.WithoutCancel(ctx), v.c)
		}
	}()
	s := newSorter(run.Scratch)
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range ps {
		for range max(1, run.Parallel/len(ps)) {
			g.Go(func() error { return v.fetchBatches(gctx, p, s, value) })
		}
	}
	if err := g.Wait(); err != nil {
		s.close()
		return nil, ended(ctx, err)
	}
	return s, nil
}

func (v *view) fetchBatches(ctx context.Context, p *parallelDump, s *sorter, value func(document) ([]byte, error)) error {
	var r lineReader
	q := p.query(map[string]string{})
	for {
		n := strconv.FormatUint(p.next.Add(1)-1, 10)
		q["batchId"] = n
		// A batch is kept until the next is asked for: what breaks off is fetched whole again.
		a, err := v.c.do(ctx, call{method: http.MethodPost, db: p.db, path: "/_api/dump/next/" + esc(p.id), query: q})
		if err != nil {
			if statused(err, 404) {
				err = fmt.Errorf("%w: %w", plugins.ErrPinLost, err)
			}
			return fmt.Errorf("parallel dump: %w", err)
		}
		if a.status == http.StatusNoContent {
			return nil
		}
		err = r.documents(bytes.NewReader(a.body), func(d document) error {
			val, err := value(d)
			if err != nil {
				return err
			}
			return s.add(d.key, val)
		})
		if err != nil {
			return fmt.Errorf("parallel dump: %w", err)
		}
		q["lastBatch"] = n
	}
}
