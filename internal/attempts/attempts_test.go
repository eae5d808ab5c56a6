package attempts_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/attempts"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
)

const childDir = "ATTEMPTS_CHILD_DIR"

// TestMain: as a child this program holds a unit until it is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	r, err := attempts.New(dir)
	if err == nil {
		_, _, err = r.Enter(context.Background(), "unit", epoch.Claim{Epoch: 1})
	}
	if err != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("holding\n")
	time.Sleep(time.Minute)
}

func registry(t *testing.T, dir string) *attempts.Registry {
	t.Helper()
	r, err := attempts.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNewerReplacesOlder: of many attempts at most one runs, and the newest wins.
func TestNewerReplacesOlder(t *testing.T) {
	r := registry(t, t.TempDir())
	var running, most atomic.Int32
	done := make(chan error, 20)
	for range 20 {
		go func() {
			ctx, leave, err := r.Enter(context.Background(), "unit", epoch.Claim{Epoch: 1})
			if err != nil {
				done <- err
				return
			}
			most.Store(max(most.Load(), running.Add(1)))
			select {
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(300 * time.Millisecond):
			}
			running.Add(-1)
			leave()
			done <- err
		}()
	}
	finished := 0
	for range 20 {
		switch err := <-done; {
		case err == nil:
			finished++
		case !errors.Is(err, attempts.ErrReplaced):
			t.Errorf("ended with %v", err)
		}
	}
	if most.Load() != 1 || finished == 0 {
		t.Errorf("%d ran at once, %d came to their end", most.Load(), finished)
	}
}

func TestOtherUnitsAreFree(t *testing.T) {
	r := registry(t, t.TempDir())
	_, leaveA, err := r.Enter(t.Context(), "a", epoch.Claim{Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer leaveA()
	ctx, leaveB, err := r.Enter(t.Context(), "b/c d", epoch.Claim{Epoch: 1})
	if err != nil || ctx.Err() != nil {
		t.Fatalf("%v, %v", err, ctx.Err())
	}
	leaveB()
}

// TestAnotherProcess: a frozen or forgotten process keeps the unit until it dies.
func TestAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Wait() }()
	defer func() { _ = child.Process.Kill() }()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r := registry(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := r.Enter(ctx, "unit", epoch.Claim{Epoch: 2}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("entered beside another process: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, leave, err := r.Enter(t.Context(), "unit", epoch.Claim{Epoch: 2})
	if err != nil {
		t.Fatalf("after its death: %v", err)
	}
	leave()
}

func TestQuiet(t *testing.T) {
	r := registry(t, t.TempDir())
	ctx, leave, err := r.Enter(t.Context(), "unit", epoch.Claim{Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.Quiet(short, epoch.Claim{Epoch: 2}); err == nil {
		t.Error("quiet while an attempt of a lower epoch has not returned")
	}
	if !errors.Is(context.Cause(ctx), attempts.ErrReplaced) {
		t.Errorf("the attempt was cancelled with %v", context.Cause(ctx))
	}
	go func() { time.Sleep(50 * time.Millisecond); leave() }()
	if err := r.Quiet(t.Context(), epoch.Claim{Epoch: 2}); err != nil {
		t.Error(err)
	}
	ctx, leave, err = r.Enter(t.Context(), "unit", epoch.Claim{Epoch: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if err := r.Quiet(t.Context(), epoch.Claim{Epoch: 2}); err != nil || ctx.Err() != nil {
		t.Errorf("quiet disturbed an attempt of its own epoch: %v, %v", err, ctx.Err())
	}
}
