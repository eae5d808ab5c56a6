package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/coredump"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// Process is what a command gets from its surroundings.
type Process struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// errInterrupted is why a context ended after Ctrl-C.
var errInterrupted = errors.New("interrupted")

const (
	letGo = 10 * time.Second       // an interrupted command has this long for ending by itself
	echo  = 500 * time.Millisecond // a signal that follows so soon is the same one
)

// Main runs the command of this process and returns its exit status. The
// first Ctrl-C lets go of a running operation, the second ends the process at once.
func Main() int {
	if err := coredump.Forbid(); err != nil {
		fmt.Fprintln(os.Stderr, "cso_backupnrestore:", err)
		return problem.Failed.Exit()
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sig := make(chan os.Signal, 2)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(sig)
	go func() {
		select {
		case <-sig:
			cancel(errInterrupted)
			impatient(sig)
		case <-ctx.Done():
		}
	}()
	return Run(ctx, Process{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv})
}

// impatient ends the process of an interrupted command that does not end by
// itself: a call into a dead file system knows no context. Some senders give
// each signal twice, to the process and to its group.
func impatient(again <-chan os.Signal) {
	first, late := time.Now(), time.After(letGo)
	for waiting := true; waiting; {
		select {
		case <-again:
			waiting = time.Since(first) < echo
		case <-late:
			waiting = false
		}
	}
	fmt.Fprintln(os.Stderr, "interrupted")
	os.Exit(problem.Detached.Exit())
}

// Run runs one command and returns its exit status.
func Run(ctx context.Context, p Process) int {
	a := newApp(p)
	out, err := a.dispatch(ctx, p.Args)
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) && problem.As(err).Code != problem.Detached {
		err = problem.New(problem.Detached, "", "interrupted")
	}
	code := a.finish(out, err)
	if a.stdout.err != nil && code == 0 {
		a.out.Error("the answer could not be written: %v", a.stdout.err)
		return problem.Failed.Exit()
	}
	return code
}
