// Package runcmd runs external programs: by argument vector, never through a
// shell, with a bounded tail of their error output in the error.
package runcmd

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const tailSize = 2 << 10

// Run runs a program and waits for it. When ctx ends it is killed.
func Run(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = 2 * time.Second
	var t tail
	cmd.Stderr, cmd.Stdout = &t, &t
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(t.b)))
	}
	return nil
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - tailSize; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}
