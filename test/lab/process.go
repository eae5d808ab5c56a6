package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process identifies a process beyond its pid: pids are recycled, so the start
// time (proc(5), field 22, in clock ticks since boot) and the boot must agree too.
type process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
}

// start runs argv detached from the caller's session, with output appended to
// logFile. The child outlives the caller.
func start(argv, env []string, logFile string) (process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process{}, fmt.Errorf("open the log: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p := process{Pid: cmd.Process.Pid, Boot: bootID()}
	// Read before anything can reap the child: even a zombie still has its start time.
	_, p.Start, err = stat(p.Pid)
	if err := errors.Join(err, cmd.Process.Release()); err != nil {
		return p, fmt.Errorf("identify process %d: %w", p.Pid, err)
	}
	return p, nil
}

// stat reads the state letter and the start time of a pid.
func stat(pid int) (letter byte, startTicks uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command name in parentheses may hold anything, so fields are counted behind its end.
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("unexpected content of /proc/%d/stat", pid)
	}
	startTicks, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], startTicks, err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// alive says whether this very process still runs; a zombie does not.
func (p process) alive() bool {
	if p.Pid <= 0 || p.Boot != bootID() {
		return false
	}
	letter, ticks, err := stat(p.Pid)
	if err != nil || ticks != p.Start {
		return false
	}
	if letter == 'Z' || letter == 'X' {
		// Killed, a process's first thread can be a zombie while others still end: until then its ports are taken.
		if tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.Pid)); err == nil && len(tasks) > 1 {
			return true
		}
		p.reap()
		return false
	}
	return true
}

// frozen says whether the process is stopped by a signal.
func (p process) frozen() bool {
	letter, ticks, err := stat(p.Pid)
	return err == nil && ticks == p.Start && letter == 'T'
}

// reap collects the exit status when the process is our own child; otherwise
// that is its parent's task and the error says so.
func (p process) reap() {
	_, _ = unix.Wait4(p.Pid, nil, unix.WNOHANG, nil)
}

// signal reaches only this very process.
func (p process) signal(sig unix.Signal) error {
	if !p.alive() {
		return fmt.Errorf("process %d does not run", p.Pid)
	}
	if err := unix.Kill(p.Pid, sig); err != nil {
		return fmt.Errorf("signal process %d: %w", p.Pid, err)
	}
	return nil
}

// wait polls until done or the time is over.
func (p process) wait(ctx context.Context, limit time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(limit); ; {
		if done() {
			return true
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p process) gone() bool { return !p.alive() }

// kill ends the process at once and returns when it is gone.
func (p process) kill(ctx context.Context) error {
	if p.gone() {
		return nil
	}
	if err := p.signal(unix.SIGKILL); err != nil && p.alive() {
		return err
	}
	if !p.wait(ctx, 10*time.Second, p.gone) {
		return fmt.Errorf("process %d survives SIGKILL: look at its state in /proc/%d/status", p.Pid, p.Pid)
	}
	return nil
}

// stop ends the process in good order, and by force once grace is over.
func (p process) stop(ctx context.Context, grace time.Duration) error {
	if p.gone() {
		return nil
	}
	if p.frozen() {
		return p.kill(ctx)
	}
	if err := p.signal(unix.SIGTERM); err != nil && p.alive() {
		return err
	}
	if p.wait(ctx, grace, p.gone) {
		return nil
	}
	return p.kill(context.WithoutCancel(ctx))
}
