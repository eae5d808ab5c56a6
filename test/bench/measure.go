package main

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

// figure is what one command cost.
type figure struct {
	wall  time.Duration
	cpu   time.Duration // of the command, its children and the watched processes
	extra string        // what else is to be told of this run
}

// better says whether f is to be kept rather than old.
func (f figure) better(old figure) bool { return old.wall == 0 || f.wall < old.wall }

// measure runs do and adds up the CPU time that this process's children and
// the watched processes spent meanwhile.
func measure(watched []int, do func() (string, error)) (figure, error) {
	own, err := childrenCPU()
	if err != nil {
		return figure{}, err
	}
	before, err := processesCPU(watched)
	if err != nil {
		return figure{}, err
	}
	start := time.Now()
	extra, err := do()
	wall := time.Since(start)
	if err != nil {
		return figure{}, err
	}
	after, err := processesCPU(watched)
	if err != nil {
		return figure{}, err
	}
	ended, err := childrenCPU()
	return figure{wall: wall, cpu: after - before + ended - own, extra: extra}, err
}

// ticks per second of /proc/PID/stat on Linux (USER_HZ, proc(5)).
const ticks = 100

// statCPU adds up fields of /proc/PID/stat: 14 and 15 are the process's own user and system time, 16 and 17 those of its waited-for children.
func statCPU(pid string, fields ...int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return 0, fmt.Errorf("/proc/%s/stat is not understood", pid)
	}
	total := 0
	for _, n := range fields {
		v, err := strconv.Atoi(f[n-3])
		if err != nil {
			return 0, err
		}
		total += v
	}
	return time.Duration(total) * time.Second / ticks, nil
}

func childrenCPU() (time.Duration, error) { return statCPU("self", 16, 17) }

func processesCPU(pids []int) (time.Duration, error) {
	var total time.Duration
	for _, p := range pids {
		d, err := statCPU(strconv.Itoa(p), 14, 15)
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

// forgetPeak makes the kernel count a process's peak memory anew (proc(5), clear_refs).
func forgetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o600)
}

// peak is a process's peak resident memory in MiB since forgetPeak.
func peak(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			return kb >> 10, err
		}
	}
	return 0, errors.New("the kernel tells no peak memory")
}

// sh runs a pipeline of a peer, as its users type it; variables come by environment.
func (b *bench) sh(ctx context.Context, env []string, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-ec", script)
	cmd.Env = append(append(os.Environ(), env...), "OUT="+b.dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", script, err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// warm touches free memory once and gives it back. A hypervisor that takes back what its guest does not use lets the
// first touch of each page cost ten microseconds: writing 1 GiB into the page cache then takes 2.7 s of kernel time
// instead of 0.3, and whoever comes first pays for all.
func (b *bench) warm() error {
	if b.small {
		return nil
	}
	m, err := unix.Mmap(-1, 0, warmth, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("warm the memory: %w", err)
	}
	return unix.Munmap(m)
}

// warmth is how much memory a run may take anew.
const warmth = 4 << 30

// contender is one way to do the job: the product's or a peer's.
type contender struct {
	name    string
	prepare func() error // not measured; may be nil
	run     func() (string, error)
}

// race runs all contenders in turn, as often as the bench has rounds, and keeps the best figure of each.
func (b *bench) race(ctx context.Context, watched []int, all ...contender) (map[string]figure, error) {
	best := map[string]figure{}
	for round := range b.rounds {
		for _, c := range all {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if c.prepare != nil {
				if err := c.prepare(); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
			}
			if err := b.warm(); err != nil {
				return nil, err
			}
			f, err := measure(watched, c.run)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d  %-50s %8.2f s wall  %8.2f s cpu  %s\n", round+1, c.name, f.wall.Seconds(), f.cpu.Seconds(), f.extra)
			if f.better(best[c.name]) {
				best[c.name] = f
			}
		}
	}
	return best, nil
}
