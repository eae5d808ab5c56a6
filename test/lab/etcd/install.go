package etcd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/packages"
)

// release is the etcd that version "3.7" means; the nested module etcd37 pins it.
const release = "3.7.3"

func installPackages(ctx context.Context, w io.Writer) error {
	return packages.Ensure(ctx, w, []string{"etcd", "etcdctl"}, "etcd-server", "etcd-client")
}

// programs are the paths of the server and of etcdctl.
func (e *Engine) programs() (server, ctl string, err error) {
	if e.version == "3.7" {
		dir, err := buildDir()
		return filepath.Join(dir, "server"), filepath.Join(dir, "etcdctl"), err
	}
	if server, err = exec.LookPath("etcd"); err != nil {
		return "", "", fmt.Errorf("find the server: %w; install etcd-server", err)
	}
	if ctl, err = exec.LookPath("etcdctl"); err != nil {
		return "", "", fmt.Errorf("find the client: %w; install etcd-client", err)
	}
	return server, ctl, nil
}

// buildDir is where the built programs are kept between labs.
func buildDir() (string, error) {
	cache, err := packages.CacheDir()
	return filepath.Join(cache, "etcd-"+release), err
}

// build compiles etcd from its Go modules unless that was done before.
func build(ctx context.Context, w io.Writer) error {
	dir, err := buildDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the build's lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the build: %w", err)
	}
	done := filepath.Join(dir, "built") // written last: a build that was cut short is done again
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	fmt.Fprintf(w, "building etcd %s from its Go modules into %s; the first time takes minutes\n", release, dir)
	_, here, _, _ := runtime.Caller(0)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+"/",
		"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3")
	cmd.Dir = filepath.Join(filepath.Dir(filepath.Dir(here)), "etcd37")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build etcd %s in %s: %w\n%s", release, cmd.Dir, err, out)
	}
	if err := os.WriteFile(done, []byte(release+"\n"), 0o600); err != nil {
		return fmt.Errorf("mark the build as done: %w", err)
	}
	return nil
}
