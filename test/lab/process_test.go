package lab

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper starts a process that does nothing, and ends it with the test.
func sleeper(t *testing.T, argv ...string) process {
	t.Helper()
	if len(argv) == 0 {
		argv = []string{"sleep", "60"}
	}
	p, err := start(argv, nil, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.kill(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestProcessIsKnownByItsStartTime(t *testing.T) {
	p := sleeper(t)
	for name, other := range map[string]process{
		"another start time": {Pid: p.Pid, Start: p.Start + 1, Boot: p.Boot},
		"another boot":       {Pid: p.Pid, Start: p.Start, Boot: "before"},
		"no pid":             {Boot: p.Boot},
	} {
		if other.alive() {
			t.Errorf("%s: taken for the same process", name)
		}
		if err := other.signal(unix.SIGKILL); err == nil {
			t.Errorf("%s: signalled", name)
		}
		if err := other.stop(context.Background(), time.Second); err != nil {
			t.Errorf("%s: stopping what does not run: %v", name, err)
		}
	}
	if !p.alive() {
		t.Fatal("the process was ended through a stranger's record")
	}
}

func TestProcessFreezesThawsAndEnds(t *testing.T) {
	ctx := context.Background()
	p := sleeper(t)
	if err := p.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !p.wait(ctx, 5*time.Second, p.frozen) || !p.alive() {
		t.Fatal("a stopped process must be alive and frozen")
	}
	if err := p.signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !p.wait(ctx, 5*time.Second, func() bool { return !p.frozen() }) {
		t.Fatal("still frozen after SIGCONT")
	}
	if err := p.stop(ctx, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if p.alive() {
		t.Fatal("alive after stop")
	}
}

func TestProcessThatIgnoresTheTermIsKilled(t *testing.T) {
	p := sleeper(t, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
	time.Sleep(100 * time.Millisecond) // until the trap is set: were it not, the test would only prove less
	begin := time.Now()
	if err := p.stop(context.Background(), 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if p.alive() {
		t.Fatal("alive after stop")
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Fatalf("killed after %s, before its grace was over", took)
	}
}

func TestFrozenProcessIsStoppedAtOnce(t *testing.T) {
	p := sleeper(t)
	if err := p.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.wait(context.Background(), 5*time.Second, p.frozen)
	begin := time.Now()
	if err := p.stop(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if time.Since(begin) > 20*time.Second {
		t.Fatal("waited for a frozen process to end by itself")
	}
}
