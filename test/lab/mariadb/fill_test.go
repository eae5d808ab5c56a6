package mariadb

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/google/go-cmp/cmp"
)

// lab is the one server all tests of this package use, filled anew where a
// test needs known content.
var (
	lab     []engine.Member
	current *exec.Cmd
)

func TestMain(m *testing.M) {
	os.Exit(runWithServer(m))
}

func runWithServer(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp(roomyMemory(), "lab-mariadb-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// A long directory proves that the socket finds a shorter place.
	deep := filepath.Join(dir, strings.Repeat("long-directory-name/", 5), "mariadb-1")
	lab = []engine.Member{{Component: "mariadb", Instance: "central", Name: "mariadb-1", Dir: deep, Ports: map[string]int{"client": freePort()}}}
	e := New()
	if err := e.Install(ctx, os.Stderr); err != nil {
		panic(err)
	}
	if err := e.Prepare(ctx, lab); err != nil {
		panic(err)
	}
	defer os.RemoveAll(filepath.Dir(socketPath(lab[0])))
	defer end(syscall.SIGTERM)
	if err := start(ctx); err != nil {
		panic(err)
	}
	if err := e.Secure(ctx, lab); err != nil {
		panic(err)
	}
	return m.Run()
}

// roomyMemory is a directory in memory, if there is one with 2 GB free: these
// tests change definitions all the time, and each change waits for the disk.
func roomyMemory() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < 2<<30 {
		return ""
	}
	return "/dev/shm"
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs the server in the background until end.
func start(ctx context.Context) error {
	argv, env, err := New().Command(lab[0], lab)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(lab[0].Dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	current = cmd
	return New().Ready(ctx, lab[0])
}

func end(how syscall.Signal) {
	if current != nil {
		current.Process.Signal(how)
		current.Wait()
		current = nil
	}
}

func fill(t *testing.T, seed int64) {
	t.Helper()
	if err := New().Fill(t.Context(), lab, seed, "small"); err != nil {
		t.Fatal(err)
	}
}

func fingerprint(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := New().Fingerprint(t.Context(), lab, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFillIsDeterministic(t *testing.T) {
	begin := time.Now()
	fill(t, 1)
	filled := time.Since(begin)
	begin = time.Now()
	one := fingerprint(t)
	t.Logf("fill %v, fingerprint %v, %d lines", filled, time.Since(begin), strings.Count(one, "\n"))
	if filled > 20*time.Second {
		t.Errorf("a small fill took %v, want less than 10 s on an idle machine", filled)
	}
	if again := fingerprint(t); again != one {
		t.Errorf("second fingerprint of the same content differs:\n%s", cmp.Diff(one, again))
	}
	fill(t, 2)
	if two := fingerprint(t); two == one {
		t.Error("seeds 1 and 2 gave the same content")
	}
	fill(t, 1)
	if again := fingerprint(t); again != one {
		t.Errorf("seed 1 gave other content the second time:\n%s", cmp.Diff(one, again))
	}
}

// TestRestart: what an orderly restart and a kill change is known, so that a
// test that kills the server knows what to expect: the rows of MEMORY tables.
func TestRestart(t *testing.T) {
	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		fill(t, 1)
		before := fingerprint(t)
		end(how)
		if err := New().Ready(shortly(t), lab[0]); err == nil {
			t.Error("a stopped server is ready")
		}
		if err := New().Prepare(t.Context(), lab); err != nil {
			t.Fatalf("preparing a prepared member: %v", err)
		}
		if err := start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, line := range differing(before, fingerprint(t)) {
			if !strings.Contains(line, "`torture`.`e_memory`") {
				t.Errorf("restart after %v changed: %s", how, line)
			}
		}
	}
}

func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestTarget(t *testing.T) {
	addr, opts := New().Target(lab[0])
	if addr == "" || opts["user"] != "root" {
		t.Errorf("Target gave %q, %v", addr, opts)
	}
	info, err := os.Stat(opts["password_file"])
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("password file has mode %v", info.Mode())
	}
	if n := len(opts["socket"]); n > 107 {
		t.Errorf("socket path has %d bytes, a unix socket takes 107", n)
	}
	env := New().Env(lab[0], 2)
	if len(env) != 4 || !strings.HasPrefix(env[3], "LAB_MARIADB_2_PASSWORD=") || strings.HasSuffix(env[3], "=") {
		t.Errorf("Env gave %d lines, the last not a password of member 2", len(env))
	}
	password, err := readPassword(lab[0])
	if err != nil {
		t.Fatal(err)
	}
	argv, procEnv, err := New().Command(lab[0], lab)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(argv, procEnv...) {
		if strings.Contains(a, password) {
			t.Error("the password stands in the server's arguments or environment")
		}
	}
}
