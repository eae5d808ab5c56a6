// Package fences keeps, on each VM, the list of databases that were told to
// refuse foreign writes, so that writes are let in again whatever dies: the
// worker, the run, or the engine.
package fences

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// Entry is one fenced unit.
type Entry struct {
	Claim epoch.Claim     `json:"claim"` // of the run that fenced it
	Unit  manifest.UnitID `json:"unit"`
}

// Table is the list, one file a unit. It is safe for concurrent use.
type Table struct {
	mu    sync.Mutex
	dir   *os.Root
	alive map[epoch.Claim]time.Time // when the run last did something on this VM
	start time.Time
}

const (
	suffix  = ".json"
	maxFile = 64 << 10 // bytes; a real one has a few hundred
)

// Open reads the list in dir, which is made when it is absent.
func Open(dir string) (*Table, error) {
	root, err := fsutil.MakeRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("list of fences: %w", err)
	}
	return &Table{dir: root, alive: map[epoch.Claim]time.Time{}, start: time.Now()}, nil
}

// Close releases the directory.
func (t *Table) Close() error { return t.dir.Close() }

func file(u manifest.UnitID) string { return strings.Join(u.Normal().Path(), "~") + suffix }

// Add puts a unit on the list. It is there, on disk, before Add returns.
func (t *Table) Add(e Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := fsutil.Replace(t.dir, ".", file(e.Unit), b); err != nil {
		return fmt.Errorf("list of fences: %w", err)
	}
	return nil
}

// Remove takes a unit off the list, if it is there.
func (t *Table) Remove(u manifest.UnitID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.dir.Remove(file(u)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list of fences: %w", err)
	}
	return nil
}

// List is every unit on the list. What cannot be read is in the error, beside the others.
func (t *Table) List() ([]Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d, err := t.dir.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list of fences: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	errs := []error{err}
	var out []Entry
	for _, n := range names {
		if !strings.HasSuffix(n, suffix) {
			continue
		}
		var e Entry
		b, err := fsutil.ReadBounded(t.dir, n, maxFile)
		if err == nil {
			err = json.Unmarshal(b, &e)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("list of fences: %s: %w: remove it once the database takes writes", filepath.Join(t.dir.Name(), n), err))
			continue
		}
		out = append(out, e)
	}
	return out, errors.Join(errs...)
}

// Touch notes that a run does something on this VM.
func (t *Table) Touch(c epoch.Claim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alive[c] = time.Now()
}

// Idle is how long a run has done nothing on this VM, as far as this process knows.
func (t *Table) Idle(c epoch.Claim) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ok := t.alive[c]
	if !ok {
		last = t.start
	}
	return time.Since(last)
}
