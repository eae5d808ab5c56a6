// Package packages installs what a lab needs from the distribution's packages,
// and knows where programs that the lab builds itself are kept.
package packages

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile keeps two labs that start at the same time from both running apt-get.
const lockFile = "/tmp/cso-lab-apt.lock"

// Ensure installs the named Debian packages when one of the needed files or
// programs (a path, or a name looked up in PATH) is missing. It needs root for
// that. The packages' own services are kept from starting.
func Ensure(ctx context.Context, w io.Writer, needed []string, names ...string) error {
	if len(missing(needed)) == 0 {
		return nil
	}
	lock, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the installer's lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the installer: %w", err)
	}
	lack := missing(needed)
	if len(lack) == 0 {
		return nil // another lab installed them meanwhile
	}
	fmt.Fprintf(w, "installing %s (missing: %s); this takes up to a minute\n", strings.Join(names, " "), strings.Join(lack, " "))
	for _, argv := range [][]string{
		{"apt-get", "update", "-q"},
		append([]string{"apt-get", "install", "-y", "-q", "--no-install-recommends"}, names...),
	} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		// RUNLEVEL=1: invoke-rc.d starts nothing then, with or without a policy-rc.d.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	if lack := missing(needed); len(lack) > 0 {
		return fmt.Errorf("%s still missing after installing %s: install them by hand", strings.Join(lack, " "), strings.Join(names, " "))
	}
	return nil
}

func missing(needed []string) []string {
	var lack []string
	for _, n := range needed {
		if _, err := exec.LookPath(n); err != nil {
			if _, err := os.Stat(n); err != nil || !strings.HasPrefix(n, "/") {
				lack = append(lack, n)
			}
		}
	}
	return lack
}

// CacheDir is where the lab keeps what takes long to build: $CSO_LAB_CACHE, or
// cso-lab in the user's cache directory. It may not exist yet.
func CacheDir() (string, error) {
	if d := os.Getenv("CSO_LAB_CACHE"); d != "" {
		return d, nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w; set CSO_LAB_CACHE", err)
	}
	return filepath.Join(d, "cso-lab"), nil
}
