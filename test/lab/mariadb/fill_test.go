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
var lab []engine.Member

func TestMain(m *testing.M) {
	os.Exit(runWithServer(m))
}

func runWithServer(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lab-mariadb-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// A long directory proves that the socket finds a shorter place.
	deep := filepath.Join(dir, strings.Repeat("long-directory-name/", 5), "mariadb-1")
	members, stop, err := start(deep)
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(filepath.Dir(socketPath(members[0])))
	defer stop()
	lab = members
	return m.Run()
}

func start(dir string) ([]engine.Member, func(), error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	e := New()
	members := []engine.Member{{Component: e.Component(), Instance: "central", Name: "mariadb-1", Dir: dir, Ports: map[string]int{"client": port}}}
	if err := e.Install(ctx, os.Stderr); err != nil {
		return nil, nil, err
	}
	if err := e.Prepare(ctx, members); err != nil {
		return nil, nil, err
	}
	argv, env, err := e.Command(members[0], members)
	if err != nil {
		return nil, nil, err
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
	}
	err = e.Ready(ctx, members[0])
	if err == nil {
		err = e.Secure(ctx, members)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return members, stop, nil
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
