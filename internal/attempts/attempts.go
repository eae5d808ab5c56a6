// Package attempts lets at most one attempt per unit run on a VM. A newer
// attempt cancels the older one and waits for its return before it starts;
// a lock file keeps out a second process.
package attempts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
)

// ErrReplaced cancels an attempt when a newer one of its unit has started.
var ErrReplaced = errors.New("a newer attempt of this unit has started")

// Registry knows the running attempts of this process.
type Registry struct {
	dir  string
	mu   sync.Mutex
	runs map[string]*run
}

type run struct {
	epoch  uint64
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// New keeps its lock files in dir.
func New(dir string) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("attempts: %w", err)
	}
	return &Registry{dir: dir, runs: map[string]*run{}}, nil
}

// Enter starts an attempt on a unit. The returned context is cancelled when a
// newer attempt arrives; leave must be called when the attempt has returned.
func (r *Registry) Enter(ctx context.Context, unit string, c epoch.Claim) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	me := &run{epoch: c.Epoch, cancel: cancel, done: make(chan struct{})}
	for {
		r.mu.Lock()
		older := r.runs[unit]
		if older == nil {
			r.runs[unit] = me
			r.mu.Unlock()
			break
		}
		r.mu.Unlock()
		older.cancel(ErrReplaced)
		select {
		case <-older.done:
		case <-ctx.Done():
			cancel(nil)
			return nil, nil, fmt.Errorf("waiting for an older attempt on %s: %w", unit, context.Cause(ctx))
		}
	}
	unlock, err := r.flock(ctx, unit)
	leave := func() {
		if unlock != nil {
			unlock()
		}
		r.mu.Lock()
		if r.runs[unit] == me {
			delete(r.runs, unit)
		}
		r.mu.Unlock()
		close(me.done)
		cancel(nil)
	}
	if err != nil {
		leave()
		return nil, nil, err
	}
	return ctx, leave, nil
}

// flock keeps out another process, which the kernel lets go of when it dies.
func (r *Registry) flock(ctx context.Context, unit string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(r.dir, url.PathEscape(unit)+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("attempts: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock of %s: %w", unit, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("another worker process works on %s: stop it, or wait: %w", unit, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Quiet cancels every attempt of a lower epoch and waits until none runs.
func (r *Registry) Quiet(ctx context.Context, c epoch.Claim) error {
	r.mu.Lock()
	var old []*run
	for _, x := range r.runs {
		if x.epoch < c.Epoch {
			x.cancel(ErrReplaced)
			old = append(old, x)
		}
	}
	r.mu.Unlock()
	for _, x := range old {
		select {
		case <-x.done:
		case <-ctx.Done():
			return fmt.Errorf("an attempt of epoch %d still runs: %w", x.epoch, context.Cause(ctx))
		}
	}
	return nil
}
