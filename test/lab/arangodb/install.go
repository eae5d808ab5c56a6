package arangodb

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/packages"
)

// root is that of the source tree this program was built from.
func root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(here))))
}

// program is the path of the built simulator, one for each source tree.
func program() (string, error) {
	cache, err := packages.CacheDir()
	if err != nil {
		return "", err
	}
	key := fnv.New64a()
	_, _ = io.WriteString(key, root())
	return filepath.Join(cache, fmt.Sprintf("arangosim-%x", key.Sum64())), nil
}

// Install builds the simulator; go build does nothing when it is current.
func (e *Engine) Install(ctx context.Context, w io.Writer) error {
	switch v := strings.TrimSuffix(e.version, "-cluster"); v {
	case "", "cluster", "3.8", "3.11", "3.12":
	default:
		return fmt.Errorf("no ArangoDB %q here: the lab simulates 3.8, 3.11 and 3.12, with -cluster behind it a cluster", e.version)
	}
	out, err := program()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	lock, err := os.OpenFile(out+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the build's lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the build: %w", err)
	}
	fmt.Fprintln(w, "ArangoDB is SIMULATED: no server can be had from a package registry, the project's own simulator is started")
	build := exec.CommandContext(ctx, "go", "build", "-o", out, "./test/arangosim/cmd/arangosim")
	build.Dir = root()
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the simulator: %w\n%s", err, text)
	}
	return nil
}
