package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// claim says which attempt may write. It stands in the product's state
// directory, one file for each unit, and every write to the trees happens under its
// lock after reading it: an attempt that was thought dead and wakes up finds
// a newer one there and writes nothing.
type claim struct {
	f    *os.File
	mine string
}

func takeClaim(ctx context.Context, state, unit string, run plugins.Run) (*claim, error) {
	dir := filepath.Join(state, "claims")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("claim of %s: %w: the state directory must be writable", unit, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, url.PathEscape(unit)), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claim of %s: %w", unit, err)
	}
	c := &claim{f: f, mine: fmt.Sprintf("%d %q\n", run.Epoch, run.Attempt)}
	if err := c.locked(ctx, func() error { return c.write(run.Epoch) }); err != nil {
		f.Close()
		return nil, fmt.Errorf("claim of %s: %w", unit, err)
	}
	return c, nil
}

func (c *claim) write(epoch uint64) error {
	now, err := c.read()
	if err != nil {
		return err
	}
	var held uint64
	if _, err := fmt.Sscanf(now, "%d", &held); err != nil && now != "" {
		return fmt.Errorf("%s is damaged: remove it: %w", c.f.Name(), err)
	}
	if held > epoch {
		return fmt.Errorf("operation %d is newer than this one, %d: %w", held, epoch, plugins.ErrFenced)
	}
	if now == c.mine {
		return nil
	}
	if _, err := c.f.WriteAt([]byte(c.mine), 0); err != nil {
		return err
	}
	if err := c.f.Truncate(int64(len(c.mine))); err != nil {
		return err
	}
	return c.f.Sync()
}

func (c *claim) read() (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(c.f, 0, 4096))
	return string(b), err
}

// guard runs a write while the claim is surely ours; ErrFenced when it is not.
func (c *claim) guard(ctx context.Context, write func() error) error {
	return c.locked(ctx, func() error {
		now, err := c.read()
		if err != nil {
			return err
		}
		if now != c.mine {
			return fmt.Errorf("another attempt has taken over: %w", plugins.ErrFenced)
		}
		return write()
	})
}

func (c *claim) locked(ctx context.Context, f func() error) error {
	fd := int(c.f.Fd())
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", c.f.Name(), err)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("another attempt is in the middle of a write: %w", err)
		}
	}
	defer unix.Flock(fd, unix.LOCK_UN) //nolint:errcheck // closing the file unlocks too
	return f()
}

func (c *claim) close() error { return c.f.Close() }
