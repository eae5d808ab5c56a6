package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// How long a server may take until it answers, and to end in good order. Far
// above what is seen (seconds), because test machines are loaded.
const (
	readyLimit = 4 * time.Minute
	stopGrace  = 20 * time.Second
	// A cluster's members that end together wait for each other; in Down this is cut short:
	// what a server has acknowledged is on the disk.
	downGrace = 3 * time.Second
)

// startInstance prepares, starts, awaits and secures one instance.
func (l *Lab) startInstance(ctx context.Context, st *state, e engine.Engine, in instance) error {
	members := st.members(in.component, in.name)
	if err := e.Prepare(ctx, members); err != nil {
		return fmt.Errorf("prepare %s: %w", in, err)
	}
	begin, started := time.Now(), 0
	for _, s := range st.all(in.component) {
		if s.Instance != in.name {
			continue
		}
		ok, err := l.run(st, e, s)
		if err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
		if ok {
			started++
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range st.all(in.component) {
		if s.Instance == in.name {
			g.Go(func() error { return l.await(gctx, e, s) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := e.Secure(ctx, members); err != nil {
		return fmt.Errorf("secure %s: %w", in, err)
	}
	if started > 0 {
		l.say("%-14s %d server(s) ready after %.1fs", in, started, time.Since(begin).Seconds())
	}
	return nil
}

// run starts a member's process unless it runs or has none; it says whether it did.
func (l *Lab) run(st *state, e engine.Engine, s *server) (bool, error) {
	if s.Process.alive() {
		return false, nil
	}
	argv, env := s.Argv, s.Env
	if e != nil {
		var err error
		if argv, env, err = e.Command(s.Member, st.members(s.Component, s.Instance)); err != nil {
			return false, err
		}
	}
	if len(argv) == 0 {
		return false, nil
	}
	p, err := start(argv, env, l.logOf(s.Name))
	s.Process = p
	return err == nil, err
}

func (l *Lab) logOf(name string) string { return l.path("log", name+".log") }

// Logs are the ends of the logs of all members: what a test that failed shows, for its lab is removed.
func (l *Lab) Logs() string {
	files, _ := filepath.Glob(l.path("log", "*.log"))
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "end of %s:\n%s\n", filepath.Base(f), tail(f))
	}
	return b.String()
}

// await polls a member until it answers a real query.
func (l *Lab) await(ctx context.Context, e engine.Engine, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		err := e.Ready(ctx, s.Member)
		if err == nil {
			return nil
		}
		if s.Process.Pid != 0 && s.Process.gone() {
			return fmt.Errorf("%s ended at once; its log %s says:\n%s", s.Name, l.logOf(s.Name), tail(l.logOf(s.Name)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w; its log %s says:\n%s", s.Name, err, l.logOf(s.Name), tail(l.logOf(s.Name)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail gives the last lines of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b[max(0, len(b)-16<<10):]), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Reinstall destroys every server of the named components (all by default) and
// puts empty ones in their place, as a disaster does whose victims are
// installed afresh: same addresses, same log-in of the administrator, no data.
func (l *Lab) Reinstall(ctx context.Context, components ...string) error {
	st, unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	ins, err := st.selected(components)
	if err != nil {
		return err
	}
	table := engines(st.Versions)
	var g errgroup.Group
	for _, in := range ins {
		g.Go(func() error {
			for _, s := range st.all(in.component) {
				if s.Instance != in.name {
					continue
				}
				if err := s.Process.kill(ctx); err != nil {
					return fmt.Errorf("%s: %w", s.Name, err)
				}
				if err := erase(s); err != nil {
					return fmt.Errorf("erase %s: %w", s.Name, err)
				}
			}
			return l.startInstance(ctx, st, table[in.component].engine, in)
		})
	}
	err = g.Wait()
	return errors.Join(err, l.save(st))
}

// erase empties a member's directory, but for the files that its options name
// as *_file: those are credentials, which an installation is given, not data.
func erase(s *server) error {
	kept := map[string]bool{}
	for key, value := range s.Options {
		if strings.HasSuffix(key, "_file") {
			kept[value] = true
		}
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if p := filepath.Join(s.Dir, e.Name()); !kept[p] {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return nil
}
