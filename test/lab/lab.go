// Package lab starts real servers of every kind on one machine, on loopback
// and free ports, fills them with data, wrecks them and fingerprints them. It
// is the test bench and the judge of the product: it imports nothing of the
// product, and talks to servers only through their own client libraries.
//
// A lab is one directory: data, logs, passwords, and lab.json, which names
// every process started. A process is known by pid and start time, so that a
// pid given to somebody else is never signalled.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Options say what Start brings up.
type Options struct {
	Dir         string            // where everything lives; made if missing; empty: a temporary directory that Down removes
	Components  []string          // "etcd", "etcd@east", …; empty: those the lab already has, or DefaultComponents
	Members     int               // 1 or 3 servers for each instance whose kind forms clusters; 0 means 1
	ServersOnly bool              // no cso-temporald and no worker
	Remote      []string          // components that live on a second VM, with a worker of its own (member worker-2)
	Versions    map[string]string // by component, for example etcd: "3.7"; missing means Debian's package
	Out         io.Writer         // progress, one line each; nil: discarded
	Detach      bool              // servers outlive the calling process; otherwise a guard stops them when it ends
}

// Lab is a handle on a lab's directory. Several processes may hold one on the
// same lab; every method reads the truth from lab.json under its lock.
type Lab struct {
	dir       string
	temporary bool
	saying    sync.Mutex // instances start at the same time
	out       io.Writer
}

// Start brings the lab to the wanted state: what is missing is made, what does
// not run is started and awaited by a real query. It is idempotent.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	l := &Lab{dir: o.Dir, out: o.Out}
	if l.out == nil {
		l.out = io.Discard
	}
	if o.Members == 0 {
		o.Members = 1
	}
	if o.Members != 1 && o.Members != 3 {
		return nil, fmt.Errorf("%d members asked for: give 1 or 3", o.Members)
	}
	if l.dir == "" {
		// A short path: a Unix socket's name may have 107 bytes.
		if l.dir, err = os.MkdirTemp("", "cso-lab-"); err != nil {
			return nil, fmt.Errorf("make the lab's directory: %w", err)
		}
		l.temporary = true
	}
	if l.dir, err = filepath.Abs(l.dir); err != nil {
		return nil, fmt.Errorf("resolve the lab's directory: %w", err)
	}
	for _, d := range []string{l.dir, l.path("log"), l.path("bin"), l.path("backups"), l.path("state")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the lab's directory: %w", err)
		}
	}
	defer func() {
		if err != nil && !o.Detach {
			err = errors.Join(err, l.Down(context.WithoutCancel(ctx)))
		}
	}()
	if err := l.bringUp(ctx, o); err != nil {
		return nil, err
	}
	return l, nil
}

// Open gives a handle on a lab that was started before.
func Open(dir string) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the lab's directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s holds no lab: start one with `lab up --dir %s`", dir, dir)
		}
		return nil, fmt.Errorf("open the lab: %w", err)
	}
	return &Lab{dir: dir, out: io.Discard}, nil
}

// Dir is the lab's directory, absolute.
func (l *Lab) Dir() string { return l.dir }

func (l *Lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func (l *Lab) say(format string, args ...any) {
	l.saying.Lock()
	defer l.saying.Unlock()
	fmt.Fprintf(l.out, format+"\n", args...)
}

// bringUp does the work of Start under the lab's lock.
func (l *Lab) bringUp(ctx context.Context, o Options) error {
	var product *programs
	if !o.ServersOnly {
		var err error
		if product, err = findPrograms(); err != nil {
			return err // before anything is started
		}
	}
	st, unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := st.want(o, l.dir); err != nil {
		return err
	}
	table := engines(st.Versions)
	if err := l.install(ctx, st, table); err != nil {
		return err
	}
	if err := l.save(st); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.installSelf(gctx) })
	for _, in := range st.instances() {
		g.Go(func() error { return l.startInstance(gctx, st, table[in.component].engine, in) })
	}
	err = g.Wait()
	// Saved even after a failure: what was started must be known to Down.
	if err := errors.Join(err, l.save(st)); err != nil {
		return err
	}
	if err := l.writeEstate(st, table); err != nil {
		return err
	}
	if !o.Detach {
		if err := errors.Join(l.startGuard(st), l.save(st)); err != nil {
			return err
		}
	}
	if product == nil {
		return nil
	}
	return errors.Join(l.startProduct(ctx, st, product), l.save(st))
}

// install makes the programs of every wanted component available, once each.
func (l *Lab) install(ctx context.Context, st *state, table map[string]entry) error {
	var done []string
	for _, s := range st.Members {
		if slices.Contains(done, s.Component) {
			continue
		}
		done = append(done, s.Component)
		e, ok := table[s.Component]
		if !ok {
			return fmt.Errorf("unknown component %q: the lab knows %s", s.Component, strings.Join(DefaultComponents(), ", "))
		}
		if err := e.engine.Install(ctx, l.out); err != nil {
			return fmt.Errorf("install what %s needs: %w", s.Component, err)
		}
	}
	return nil
}

// Members returns the members of one instance in order. An empty instance
// means central; an unknown one has no members.
func (l *Lab) Members(component, instance string) ([]engine.Member, error) {
	st, err := l.read()
	if err != nil {
		return nil, err
	}
	if instance == "" {
		instance = central
	}
	return st.members(component, instance), nil
}

// Engine returns the engine of a component, nil for an unknown one.
func (l *Lab) Engine(component string) (engine.Engine, error) {
	st, err := l.read()
	if err != nil {
		return nil, err
	}
	e, ok := engines(st.Versions)[component]
	if !ok {
		return nil, fmt.Errorf("unknown component %q: the lab knows %s", component, strings.Join(DefaultComponents(), ", "))
	}
	return e.engine, nil
}

// Target returns a member's address and options as the estate file names them.
func (l *Lab) Target(member string) (address string, options map[string]string, err error) {
	st, err := l.read()
	if err != nil {
		return "", nil, err
	}
	s, err := st.server(member)
	if err != nil {
		return "", nil, err
	}
	e, ok := engines(st.Versions)[s.Component]
	if !ok {
		return "", nil, fmt.Errorf("%s is not a database: it has no target", member)
	}
	address, options = l.target(e, s)
	return address, options, nil
}
