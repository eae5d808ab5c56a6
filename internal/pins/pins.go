// Package pins keeps the views that plugins hold between the moment they are
// taken and the copy. A pin lives in this process and dies with it; what
// nobody fetches is let go of.
package pins

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Held is a pin with the session it belongs to.
type Held struct {
	Pin     plugins.Pin
	Session plugins.Session
	claim   epoch.Claim
	idle    *time.Timer
}

// Table holds the pins of one worker by id.
type Table struct {
	mu   sync.Mutex
	held map[string]*Held
	keep time.Duration
}

// New makes a table that lets go of a pin which nobody has fetched for keep.
func New(keep time.Duration) *Table { return &Table{held: map[string]*Held{}, keep: keep} }

// Put takes over a pin and its session.
func (t *Table) Put(c epoch.Claim, p plugins.Pin, s plugins.Session) {
	h := &Held{Pin: p, Session: s, claim: c}
	id := p.Info().ID
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[id] = h
	h.idle = time.AfterFunc(t.keep, func() { _ = t.drop(context.Background(), id) })
}

// Get finds a pin; plugins.ErrPinLost when it is not here (any more).
func (t *Table) Get(c epoch.Claim, id string) (*Held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[id]
	if h == nil || h.claim != c {
		return nil, fmt.Errorf("pin %s is not held by this worker: %w", id, plugins.ErrPinLost)
	}
	h.idle.Reset(t.keep)
	return h, nil
}

// Release lets go of every pin of epochs up to the claim's.
func (t *Table) Release(ctx context.Context, c epoch.Claim) error {
	t.mu.Lock()
	var ids []string
	for id, h := range t.held {
		if h.claim.Epoch <= c.Epoch {
			ids = append(ids, id)
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, t.drop(ctx, id))
	}
	return errors.Join(errs...)
}

// Touch keeps a pin for another while; a copy calls it as it goes.
func (t *Table) Touch(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.held[id]; h != nil {
		h.idle.Reset(t.keep)
	}
}

func (t *Table) drop(ctx context.Context, id string) error {
	t.mu.Lock()
	h := t.held[id]
	delete(t.held, id)
	t.mu.Unlock()
	if h == nil {
		return nil
	}
	h.idle.Stop()
	return errors.Join(h.Pin.Release(ctx), h.Session.Close())
}
