package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

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

// Pid is the process of a member, 0 when it does not run.
func (l *Lab) Pid(member string) (pid int, err error) {
	err = l.each(member, func(s *server) error {
		if s.Process.alive() {
			pid = s.Process.Pid
		}
		return nil
	})
	return pid, err
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
