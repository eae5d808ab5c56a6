package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/packages"
)

const (
	guardName  = "guard"
	programEnv = "CSO_LAB_BIN" // where cso-temporald and cso-backup-worker are
)

// repository is the root of the source tree this program was built from.
func repository() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	if ok && exists(filepath.Join(root, "go.mod")) {
		return root, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if exists(filepath.Join(dir, "test", "lab", "cmd", "lab")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the source tree is not found: run this inside the repository")
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// installSelf puts the lab's command at D/bin/lab, where the control program
// and the guard find it. The build is kept in the cache: go build does nothing when it is current.
func (l *Lab) installSelf(ctx context.Context) error {
	root, err := repository()
	if err != nil {
		return err
	}
	cache, err := packages.CacheDir()
	if err != nil {
		return err
	}
	key := fnv.New64a()
	_, _ = io.WriteString(key, root)
	cached := filepath.Join(cache, fmt.Sprintf("lab-%x", key.Sum64()))
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	lock, err := os.OpenFile(cached+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the build's lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the build: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", cached, "./test/lab/cmd/lab")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the lab's command: %w\n%s", err, out)
	}
	// A copy, not a link: a later build must not change a running lab's command.
	b, err := os.ReadFile(cached)
	if err != nil {
		return fmt.Errorf("copy the lab's command: %w", err)
	}
	tmp := l.path("bin", "lab.new")
	if err := os.WriteFile(tmp, b, 0o700); err != nil {
		return fmt.Errorf("copy the lab's command: %w", err)
	}
	if err := os.Rename(tmp, l.path("bin", "lab")); err != nil {
		return fmt.Errorf("copy the lab's command: %w", err)
	}
	return nil
}

// startGuard starts the process that takes the lab down once the caller has
// ended, however it ended: a test that is killed leaves no server behind.
func (l *Lab) startGuard(st *state) error {
	argv := []string{l.path("bin", "lab"), "guard", "--dir", l.dir, "--pid", strconv.Itoa(os.Getpid())}
	if l.temporary {
		argv = append(argv, "--remove")
	}
	_, err := l.startService(st, guardName, argv, nil, nil)
	return err
}

// Guard waits until the process pid has ended and takes the lab down then.
func Guard(ctx context.Context, dir string, pid int, remove bool) error {
	l, err := Open(dir)
	if err != nil {
		return err
	}
	_, ticks, err := stat(pid)
	if err == nil {
		watched := process{Pid: pid, Start: ticks, Boot: bootID()}
		for watched.alive() && ctx.Err() == nil {
			time.Sleep(500 * time.Millisecond)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.temporary = remove
	return l.Down(ctx)
}
