// Package guard keeps, on each VM, the highest claim seen: work of a lower
// epoch, or of one that has ended, is refused, whatever the engine thinks.
// Without it an activity of a terminated run was measured to write on for 50 s
// beside its successor, and an engine whose database was put back to an earlier
// hour went on with a restore that had long since ended.
package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const file = "claim.json"

// Guard is the highest claim a VM has seen, kept on disk so that it
// survives the worker.
type Guard struct {
	mu   sync.Mutex
	dir  *os.Root
	seen record
}

// record is the content of the guard's file.
type record struct {
	epoch.Claim
	Ended bool `json:"ended,omitempty"` // its run has done all its work on VMs
}

// Open reads the guard's file in dir, or starts at zero.
func Open(dir string) (*Guard, error) {
	root, err := fsutil.MakeRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("epoch guard: %w", err)
	}
	g := &Guard{dir: root}
	if err := g.load(dir); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return g, nil
}

const maxFile = 1 << 20 // bytes; a real one has a few hundred

func (g *Guard) load(dir string) error {
	b, err := fsutil.ReadBounded(g.dir, file, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("epoch guard: %w", err)
	}
	if err := json.Unmarshal(b, &g.seen); err != nil {
		return fmt.Errorf("epoch guard %s is damaged: %w: remove it while no operation runs", filepath.Join(dir, file), err)
	}
	return nil
}

// Raise accepts a claim of a higher epoch, or the same claim again until it
// has ended, and stores it before it returns. A lower one, or another claim of
// the same epoch, is plugins.ErrFenced.
func (g *Guard) Raise(c epoch.Claim) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c == g.seen.Claim {
		return g.check(c)
	}
	if c.Epoch <= g.seen.Epoch {
		return fmt.Errorf("epoch %d was claimed, this VM is at %d: %w", c.Epoch, g.seen.Epoch, plugins.ErrFenced)
	}
	return g.store(record{Claim: c})
}

// End refuses the claim in force from now on: its run works on no VM any more.
// It may be repeated.
func (g *Guard) End(c epoch.Claim) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c == g.seen.Claim && g.seen.Ended {
		return nil
	}
	if err := g.check(c); err != nil {
		return err
	}
	return g.store(record{Claim: c, Ended: true})
}

// Check is nil while c is the claim last raised, and has not ended.
func (g *Guard) Check(c epoch.Claim) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.check(c)
}

func (g *Guard) check(c epoch.Claim) error {
	if c != g.seen.Claim {
		return fmt.Errorf("epoch %d is not the one in force here (%d): %w", c.Epoch, g.seen.Epoch, plugins.ErrFenced)
	}
	if g.seen.Ended {
		return fmt.Errorf("epoch %d has ended on this VM: %w", c.Epoch, plugins.ErrFenced)
	}
	return nil
}

func (g *Guard) store(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := fsutil.Replace(g.dir, ".", file, b); err != nil {
		return fmt.Errorf("epoch guard: %w", err)
	}
	g.seen = r
	return nil
}

// Current is the claim last raised; zero when there was none.
func (g *Guard) Current() epoch.Claim {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen.Claim
}
