package elasticsearch

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// early stores large segments while the server still writes others. A file is whole when it ends in the checksum of all
// before it; one that turns out not to be is left for later.
type early struct {
	r    *repository
	run  plugins.Run
	pin  string
	w    plugins.ArtifactWriter
	done atomic.Int64 // bytes

	mu    sync.Mutex
	seen  map[string]int64 // path → size at which it was looked at last
	saved map[[sha256.Size]byte]bool
}

func newEarly(r *repository, run plugins.Run, pin string, w plugins.ArtifactWriter) *early {
	return &early{r: r, run: run, pin: pin, w: w, seen: map[string]int64{}, saved: map[[sha256.Size]byte]bool{}}
}

// work goes on until over is closed, and ends what it has begun.
func (e *early) work(ctx context.Context, over <-chan struct{}) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, e.run.Parallel))
	for {
		fresh, err := e.fresh()
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		for _, b := range fresh {
			g.Go(func() error { return e.save(gctx, b) })
		}
		select {
		case <-over:
			return g.Wait()
		case <-gctx.Done():
			return g.Wait()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fresh lists large segments that have not grown since the last look and were not tried at that size.
func (e *early) fresh() ([]blob, error) {
	var out []blob
	err := fs.WalkDir(e.r.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		b := blob{path: p}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server removes temporary files
		}
		if err != nil || d.IsDir() || !b.segment() {
			return err
		}
		fi, err := d.Info()
		if err != nil || fi.Size() <= smallSegment {
			return nil
		}
		b.size = fi.Size()
		const tried = 1 << 62
		switch e.seen[p] {
		case b.size:
			e.seen[p] = b.size | tried
			out = append(out, b)
		case b.size | tried:
		default:
			e.seen[p] = b.size
		}
		return nil
	})
	return out, err
}

func (e *early) save(ctx context.Context, b blob) error {
	if err := b.identify(ctx, e.r.root); err != nil || !b.cheap {
		return ctx.Err()
	}
	e.mu.Lock()
	first := !e.saved[b.sum]
	e.saved[b.sum] = true
	e.mu.Unlock()
	if !first {
		return nil
	}
	err := e.r.saveLarge(ctx, e.pin, b, e.w, func(n int64) { e.done.Add(n) })
	if err != nil {
		e.mu.Lock()
		delete(e.saved, b.sum)
		e.mu.Unlock()
	}
	if errors.Is(err, plugins.ErrCorrupt) {
		return nil
	}
	return err
}
