package files

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// claim says which attempt may write: the one whose name is the last in the
// unit's directory below the product's state directory. Names begin with the
// epoch and a number that counts the attempts of one epoch. There is no lock that an attempt
// could take along when its process is stopped.
//
// An attempt that was thought dead and wakes up between its last look at the claim and the
// system call behind it still changes nothing: what it publishes it renames from a
// temporary name, and what it removes it renames into one; it made that name
// before it looked, and its successor removes all such names after it claimed.
type claim struct{ dir, mine string }

func takeClaim(state, unit string, run plugins.Run) (*claim, error) {
	c := &claim{dir: filepath.Join(state, "claims", url.PathEscape(unit))}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("claim of %s: %w: the state directory must be writable", unit, err)
	}
	for {
		names, err := c.names()
		if err != nil {
			return nil, err
		}
		n := 0
		if len(names) > 0 {
			var epoch uint64
			if _, err := fmt.Sscanf(names[len(names)-1], "%d-%d", &epoch, &n); err != nil {
				return nil, fmt.Errorf("claim %s of %s is damaged: remove it: %w", names[len(names)-1], unit, err)
			}
			if epoch > run.Epoch {
				return nil, fmt.Errorf("claim of %s: operation %d is newer than this one, %d: %w", unit, epoch, run.Epoch, plugins.ErrFenced)
			}
			if epoch < run.Epoch {
				n = 0
			}
		}
		c.mine = fmt.Sprintf("%020d-%09d", run.Epoch, n+1)
		f, err := os.OpenFile(filepath.Join(c.dir, c.mine), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue // another attempt was faster; this one is later
		}
		if err != nil {
			return nil, fmt.Errorf("claim of %s: %w", unit, err)
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("claim of %s: %w", unit, err)
		}
		for _, old := range names { // they are overtaken with or without their names
			if err := os.Remove(filepath.Join(c.dir, old)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("claim of %s: %w", unit, err)
			}
		}
		return c, c.check()
	}
}

func (c *claim) names() ([]string, error) {
	f, err := os.Open(c.dir)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// check answers ErrFenced once another attempt has taken over.
func (c *claim) check() error {
	names, err := c.names()
	if err != nil {
		return err
	}
	if len(names) == 0 || names[len(names)-1] != c.mine {
		return fmt.Errorf("another attempt has taken over: %w", plugins.ErrFenced)
	}
	return nil
}
