package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// How long a server may take until it answers, and to end in good order. Far
// above what is seen (seconds), because test machines are loaded.
const (
	readyLimit = 90 * time.Second
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

// Kill ends a member at once, as `kill -9` does.
func (l *Lab) Kill(ctx context.Context, member string) error {
	return l.each(member, func(s *server) error { return s.Process.kill(ctx) })
}

// Stop ends a member in good order.
func (l *Lab) Stop(ctx context.Context, member string) error {
	return l.each(member, func(s *server) error { return s.Process.stop(ctx, stopGrace) })
}

// Freeze stops a member's process as SIGSTOP does, and returns once it stands.
func (l *Lab) Freeze(ctx context.Context, member string) error {
	return l.each(member, func(s *server) error {
		if err := s.Process.signal(unix.SIGSTOP); err != nil {
			return err
		}
		if !s.Process.wait(ctx, 10*time.Second, s.Process.frozen) {
			return fmt.Errorf("process %d does not stop: look at /proc/%d/status", s.Process.Pid, s.Process.Pid)
		}
		return nil
	})
}

// Thaw lets a frozen member go on.
func (l *Lab) Thaw(_ context.Context, member string) error {
	return l.each(member, func(s *server) error { return s.Process.signal(unix.SIGCONT) })
}

// Running says whether a member's process exists, and whether it is frozen.
func (l *Lab) Running(member string) (running, frozen bool, err error) {
	err = l.each(member, func(s *server) error {
		running = s.Process.alive()
		frozen = running && s.Process.frozen()
		return nil
	})
	return running, frozen, err
}

// Status writes one line for each member: name, state, pid.
func (l *Lab) Status(w io.Writer) error {
	st, err := l.read()
	if err != nil {
		return err
	}
	for _, s := range append(st.Members[:len(st.Members):len(st.Members)], st.Services...) {
		word := "stopped"
		switch {
		case s.Process.Pid == 0:
			word = "no process"
		case s.Process.alive() && s.Process.frozen():
			word = "frozen"
		case s.Process.alive():
			word = "running"
		}
		if _, err := fmt.Fprintf(w, "%-20s %-10s %d\n", s.Name, word, s.Process.Pid); err != nil {
			return err
		}
	}
	return nil
}

// each finds one member and does something to it.
func (l *Lab) each(member string, do func(*server) error) error {
	st, err := l.read()
	if err != nil {
		return err
	}
	s, err := st.server(member)
	if err != nil {
		return err
	}
	if err := do(s); err != nil {
		return fmt.Errorf("%s: %w", member, err)
	}
	return nil
}

// StartMember starts a member that does not run. It waits for a real answer
// where one can come: for a cluster, while most of its members run.
func (l *Lab) StartMember(ctx context.Context, member string) error {
	return l.startMember(ctx, member, true)
}

// Launch starts a member's process without waiting for an answer: the way a
// control program does, whose caller starts a cluster's members one by one.
func (l *Lab) Launch(ctx context.Context, member string) error {
	return l.startMember(ctx, member, false)
}

func (l *Lab) startMember(ctx context.Context, member string, wait bool) error {
	st, unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer func() { unlock() }()
	s, err := st.server(member)
	if err != nil {
		return err
	}
	e, isMember := engines(st.Versions)[s.Component]
	since := logSize(l.logOf(s.Name))
	if isMember {
		_, err = l.run(st, e.engine, s)
	} else {
		_, err = l.run(st, nil, s)
	}
	if err := errors.Join(err, l.save(st)); err != nil {
		return fmt.Errorf("start %s: %w", member, err)
	}
	running, total := 0, 0
	for _, o := range st.all(s.Component) {
		if o.Instance == s.Instance {
			total++
			if o.Process.alive() && !o.Process.frozen() {
				running++
			}
		}
	}
	// The lock is not held while waiting: another member may have to be started meanwhile.
	unlock()
	unlock = func() {}
	switch {
	case !wait:
		return nil
	case !isMember:
		return l.awaitLine(ctx, s, "READY", since)
	case 2*running <= total:
		l.say("%s started; %d of %d members run, so it cannot answer yet", member, running, total)
		return nil
	}
	return l.await(ctx, e.engine, s)
}

// Down stops everything the lab started, by pid; the directory stays, unless
// Start made it as a temporary one.
func (l *Lab) Down(ctx context.Context) error {
	st, unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// Services first: a worker must not see its servers vanish. The guard last: it is the safety net.
	var errs []error
	for i := len(st.Services) - 1; i >= 0; i-- {
		if s := st.Services[i]; s.Name != guardName {
			errs = append(errs, s.Process.stop(ctx, stopGrace))
		}
	}
	var g errgroup.Group
	for _, s := range st.Members {
		g.Go(func() error { return s.Process.stop(ctx, downGrace) })
	}
	errs = append(errs, g.Wait())
	for _, s := range st.Services {
		if s.Name == guardName {
			errs = append(errs, s.Process.kill(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the lab: %w", err)
	}
	if l.temporary {
		if err := os.RemoveAll(l.dir); err != nil {
			return fmt.Errorf("remove the lab: %w", err)
		}
	}
	return nil
}
