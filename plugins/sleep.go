package plugins

import (
	"context"
	"time"
)

// Sleep waits for d, or until ctx ends, whose error it then returns: the pause of every loop that asks a server again.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
