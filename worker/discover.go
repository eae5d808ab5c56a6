package worker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	lookEvery  = 30 * time.Second // what was found is good for so long
	lookWithin = 10 * time.Second // for all plugins together
)

// discovery remembers what the plugins found on this host, in a file of the
// state directory. A server that was found once stays until that file or an
// estate file says otherwise: one that does not answer at the moment must fail
// a backup, not silently be missing from it, and a restarted worker must know which
// switch it has to put back. The zero value is ready.
type discovery struct {
	mu      sync.Mutex
	journal *journal.Journal
	read    bool      // the file was
	looked  time.Time // with the outcome err
	err     error
	found   []found
}

// found is one instance; Holds is nil until it could be opened once.
type found struct {
	Target plugins.Target `json:"target"`
	Holds  *bool          `json:"holdsSwitch,omitempty"` // the product's maintenance switch
}

// estate is the estate of this one machine. An error is also config.ErrNoFile.
func (d *discovery) estate(ctx context.Context, w *Worker) (*config.Estate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.refresh(ctx, w)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%w at %s, and %w", config.ErrNoFile, w.Paths.Estate, err)
	case len(d.found) == 0:
		return nil, fmt.Errorf("%w at %s, and no server answers at a standard place of this host: start the servers, or write one with `cso_backupnrestore setup`", config.ErrNoFile, w.Paths.Estate)
	}
	var targets []plugins.Target
	var holder *config.Holder
	for _, f := range d.found {
		targets = append(targets, f.Target)
		if holder == nil && f.Holds != nil && *f.Holds {
			holder = &config.Holder{Component: f.Target.Component, Instance: f.Target.Instance}
		}
	}
	e := config.Discovered(w.Paths.VM, targets)
	e.Switch = holder
	return e, nil
}

func (d *discovery) refresh(ctx context.Context, w *Worker) error {
	path := filepath.Join(w.Paths.Worker(), "discovered.json")
	if !d.read {
		if err := d.load(path); err != nil {
			return err
		}
		d.read = true
	}
	if !d.looked.IsZero() && time.Since(d.looked) < lookEvery {
		return d.err
	}
	if len(d.found) > 0 {
		// In maintenance the switch must stay the one that was turned on.
		switch in, err := d.inMaintenance(w.Paths.Root); {
		case err != nil:
			return err
		case in:
			return nil
		}
	}
	before, err := json.MarshalIndent(d.found, "", "  ")
	if err != nil {
		return fmt.Errorf("servers found: %w", err)
	}
	d.err = d.look(ctx, w.Registry)
	d.looked = time.Now()
	after, err := json.MarshalIndent(d.found, "", "  ")
	if err != nil {
		return fmt.Errorf("servers found: %w", err)
	}
	if !bytes.Equal(before, after) {
		w.Log.Info("no estate file: servers found on this host", "found", d.String())
		if err := save(path, after); err != nil {
			d.looked = time.Time{}
			return err
		}
	}
	return d.err
}

// look asks every plugin that can, in the order of the component table. It
// is an error when nobody is known to hold the switch and somebody could not be asked.
func (d *discovery) look(ctx context.Context, r *plugins.Registry) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	var errs, unasked []error
	for _, c := range plugins.Components {
		p, err := r.Get(c.Name)
		if err != nil {
			continue // this program has no plugin for it
		}
		if x, ok := p.(plugins.Discoverer); ok {
			targets, err := x.Discover(ctx)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			}
			for _, t := range targets {
				d.remember(t)
			}
		}
	}
	known := false
	for i := range d.found {
		f := &d.found[i]
		if f.Holds == nil {
			holds, err := holdsSwitch(ctx, r, f.Target)
			if err != nil {
				unasked = append(unasked, fmt.Errorf("%s was found on this host and does not open: %w", f.Target, err))
				continue
			}
			f.Holds = &holds
		}
		known = known || *f.Holds
	}
	if !known {
		errs = append(errs, unasked...)
	}
	return errors.Join(errs...)
}

func (d *discovery) remember(t plugins.Target) {
	t.Instance = cmp.Or(t.Instance, plugins.DefaultInstance)
	i := slices.IndexFunc(d.found, func(o found) bool { return o.Target.Component == t.Component && o.Target.Instance == t.Instance })
	if i < 0 {
		d.found = append(d.found, found{Target: t})
		return
	}
	d.found[i].Target = t
}

func holdsSwitch(ctx context.Context, r *plugins.Registry, t plugins.Target) (bool, error) {
	p, err := r.Get(t.Component)
	if err != nil {
		return false, err
	}
	s, err := p.Open(ctx, t)
	if err != nil {
		return false, err
	}
	_, ok := s.(plugins.Switch)
	return ok, s.Close()
}

func (d *discovery) inMaintenance(root string) (bool, error) {
	if d.journal == nil {
		j, err := journal.At(root)
		if err != nil {
			return false, err
		}
		d.journal = j
	}
	s, err := d.journal.Read()
	return err == nil && s.Lease != nil && s.Lease.Entered, err
}

func (d *discovery) load(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &d.found)
	}
	if err != nil {
		return fmt.Errorf("servers found earlier: %s: %w: write an estate file, or delete this one while all servers run", path, err)
	}
	return nil
}

func save(path string, text []byte) error {
	dir, name := filepath.Split(path)
	root, err := fsutil.MakeRoot(dir)
	if err != nil {
		return fmt.Errorf("servers found: %w", err)
	}
	defer root.Close()
	if err := fsutil.Replace(root, ".", name, text); err != nil {
		return fmt.Errorf("servers found: %w", err)
	}
	return nil
}

// String lists instances, addresses and who holds the switch; no secret.
func (d *discovery) String() string {
	var out []string
	for _, f := range d.found {
		for _, m := range f.Target.Members {
			line := f.Target.String() + " " + cmp.Or(m.Address, m.Options["socket"])
			if f.Holds != nil && *f.Holds {
				line += " (maintenance switch)"
			}
			out = append(out, line)
		}
	}
	return strings.Join(out, ", ")
}
