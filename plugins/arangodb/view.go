package arangodb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// batchTTL is how long the server keeps a batch that is not extended; it is extended four times as often.
const batchTTL = 2 * time.Minute

// batch is a replication batch: a snapshot that one server holds.
type batch struct {
	server string // DB server; empty on a single server
	id     string
	tick   string      // the server's write counter
	taken  bool        // its snapshot is known to be taken
	gone   atomic.Bool // the server did not answer for a while: shards are read from others
}

// view is a held state of all documents: a batch on the single server, or on each DB server.
type view struct {
	s       *session
	c       *client           // the session's when the view was taken
	batches map[string]*batch // by server
	at      time.Time
	words   string // what consistency it has
	warn    []string

	dumps map[string][]*parallelDump // by artifact, where large collections are read that way
	slots chan struct{}              // bounds how many dumps run at once

	stop  context.CancelFunc
	done  chan struct{}
	mu    sync.Mutex
	death error // why the view is lost
	freed bool
}

func (s *session) openBatch(ctx context.Context, server string) (*batch, error) {
	q := map[string]string{}
	if server != "" {
		q["DBserver"] = server
	}
	a, err := s.c.do(ctx, call{method: "POST", db: systemDB, path: "/_api/replication/batch", query: q, body: map[string]any{"ttl": int(batchTTL.Seconds())}})
	if err != nil {
		return nil, fmt.Errorf("open a replication batch: %w", s.hint(err))
	}
	var b struct{ ID, LastTick string }
	if err := a.decode(&b); err != nil {
		return nil, err
	}
	return &batch{server: server, id: b.ID, tick: b.LastTick}, nil
}

func (b *batch) query(more map[string]string) map[string]string {
	if b.server != "" {
		more["DBserver"] = b.server
	}
	return more
}

// openView takes batches on the servers and keeps them alive until release.
func (s *session) openView(ctx context.Context, run plugins.Run, servers []string) (*view, error) {
	v := &view{s: s, c: s.c, batches: map[string]*batch{}, at: time.Now(), done: make(chan struct{}), slots: make(chan struct{}, max(1, run.Parallel))}
	for _, n := range servers {
		b, err := s.openBatch(ctx, n)
		if err != nil {
			v.drop(context.WithoutCancel(ctx))
			return nil, ended(ctx, err)
		}
		v.batches[n] = b
	}
	var life context.Context
	life, v.stop = context.WithCancel(context.WithoutCancel(ctx))
	go v.keep(life)
	return v, nil
}

// keep extends the batches until the view is released.
func (v *view) keep(ctx context.Context) {
	defer close(v.done)
	t := time.NewTicker(batchTTL / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, b := range v.batches {
			_, err := v.c.do(ctx, call{method: "PUT", db: systemDB, path: "/_api/replication/batch/" + esc(b.id), query: b.query(map[string]string{}),
				body: map[string]any{"ttl": int(batchTTL.Seconds())}, timeout: batchTTL / 2})
			if err != nil && ctx.Err() == nil && !errors.Is(err, plugins.ErrUnavailable) {
				v.die(err)
			}
		}
	}
}

func (v *view) die(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.death == nil {
		v.death = err
	}
}

// lost turns the server's word that it does not know the batch into ErrPinLost.
func (v *view) lost(err error) error {
	v.mu.Lock()
	death := v.death
	v.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case death != nil:
		return fmt.Errorf("%w: %w: the batch was given up by the server", plugins.ErrPinLost, death)
	case statused(err, 404) && !numbered(err, errNoCollection, errNoDatabase) || numbered(err, errCursorNotFound):
		return fmt.Errorf("%w: %w: the batch has expired or the server was restarted", plugins.ErrPinLost, err)
	}
	return err
}

// release lets go of the batches; safe to call twice.
func (v *view) release(ctx context.Context) error {
	v.mu.Lock()
	freed := v.freed
	v.freed = true
	v.mu.Unlock()
	if freed {
		return nil
	}
	v.stop()
	<-v.done
	v.drop(ctx)
	return nil
}

func (v *view) drop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	v.dropDumps(ctx)
	for _, b := range v.batches {
		// A batch that cannot be deleted ends by itself: nobody extends it any more.
		_, _ = v.c.do(ctx, call{method: "DELETE", db: systemDB, path: "/_api/replication/batch/" + esc(b.id), query: b.query(map[string]string{}), once: true})
	}
}
