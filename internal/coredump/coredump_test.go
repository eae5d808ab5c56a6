package coredump

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const child = "CSO_COREDUMP_CHILD"

func TestMain(m *testing.M) {
	if how := os.Getenv(child); how != "" {
		dump(how)
	}
	os.Exit(m.Run())
}

// dump dies as a crash does, with a canary in memory.
func dump(how string) {
	if how == "forbidden" {
		if err := Forbid(); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
	}
	d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var l unix.Rlimit
	if err == nil {
		err = unix.Getrlimit(unix.RLIMIT_CORE, &l)
	}
	fmt.Println("dumpable", d, "limit", l.Cur, err)
	_ = unix.Kill(os.Getpid(), unix.SIGABRT)
	select {}
}

// die runs a child that crashes in a directory of its own, under a shell that allows core files of any size.
func die(t *testing.T, how string) (string, syscall.WaitStatus, []string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited && exec "$0"`, os.Args[0])
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), child+"="+how, "GOTRACEBACK=crash") // Go then dies of the signal itself
	var out bytes.Buffer
	cmd.Stdout = &out
	_ = cmd.Run() // it dies
	cores, err := filepath.Glob(filepath.Join(dir, "core*"))
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.Sys().(syscall.WaitStatus), cores
}

func TestNoCoreFile(t *testing.T) {
	said, ws, cores := die(t, "forbidden")
	if !ws.Signaled() || ws.CoreDump() || len(cores) > 0 || !strings.Contains(said, "dumpable 0 limit 0 <nil>") {
		t.Errorf("said %q, ended %v, dumped %v, left %v", said, ws.Signal(), ws.CoreDump(), cores)
	}
	// The same crash without it, to know that this host would have dumped.
	said, ws, cores = die(t, "allowed")
	if !ws.Signaled() || !strings.Contains(said, "dumpable 1") {
		t.Fatalf("the comparison did not crash: %q %v", said, ws)
	}
	if !ws.CoreDump() {
		t.Logf("this host's core pattern makes no core file either: only limit and flag are proven here")
	}
	t.Logf("without it: dumped %v, left %v", ws.CoreDump(), cores)
}
