package mariadb

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	lab "github.com/csobackup/cso_backupnrestore/test/lab/mariadb"
)

// server is the one real server all tests of this package use.
var server []engine.Member

// second is another instance.
var second []engine.Member

func TestMain(m *testing.M) {
	if os.Getenv("CSO_PLUGINTEST_CHILD") != "" {
		plugintest.Main(m, New()) // an attempt that is to be frozen: the servers are its parent's
	}
	os.Exit(withServers(m))
}

func withServers(m *testing.M) int {
	dir, err := os.MkdirTemp(roomy(), "mariadb-plugin-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for i, to := range []*[]engine.Member{&server, &second} {
		members, stop, err := startServer(filepath.Join(dir, fmt.Sprint(i)), []string{"central", "east"}[i])
		if err != nil {
			panic(err)
		}
		defer stop()
		*to = members
	}
	return m.Run()
}

// roomy is memory where the machine has enough of it: these tests sync thousands
// of tables. Otherwise it is the usual place for temporary files.
func roomy() string {
	var st syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs("/dev/shm", &st) == nil && st.Bavail*uint64(st.Bsize) > 4<<30 {
		return "/dev/shm"
	}
	return ""
}

func startServer(dir, instance string) ([]engine.Member, func(), error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	e := lab.New()
	members := []engine.Member{{Component: "mariadb", Instance: instance, Name: "mariadb-1", Dir: dir, Ports: map[string]int{"client": port}}}
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
	if err = e.Ready(ctx, members[0]); err == nil {
		err = e.Secure(ctx, members)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return members, stop, nil
}

func target() plugins.Target { return targetOf(server) }

func targetOf(members []engine.Member) plugins.Target {
	addr, options := lab.New().Target(members[0])
	return plugins.Target{Component: "mariadb", Instance: members[0].Instance, Members: []plugins.Member{{Name: "mariadb-1", VM: "installer-vm", Address: addr, Options: options}}}
}

func open(t *testing.T) *session {
	t.Helper()
	s, err := New().Open(t.Context(), target())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*session)
}

// epoch grows, below those of the conformance suite, which runs last and
// starts with the time.
var epoch = uint64(time.Now().Unix()) - 1e8

// newRun is a run of a new epoch.
func newRun(t *testing.T, op plugins.Operation) plugins.Run {
	epoch++
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = t.Output()
	}
	return plugins.Run{Epoch: epoch, Operation: op, Backup: "TEST/2026-01-02T03-04-05Z", Attempt: fmt.Sprint(epoch), Parallel: 2,
		Scratch: t.TempDir(), Log: slog.New(slog.NewTextHandler(out, nil)), Options: map[string]string{}}
}

func fill(t *testing.T, seed int64) {
	t.Helper()
	if err := lab.New().Fill(t.Context(), server, seed, "small"); err != nil {
		t.Fatal(err)
	}
}

func wreck(t *testing.T, seed int64) {
	t.Helper()
	if err := lab.New().Wreck(t.Context(), server, seed); err != nil {
		t.Fatal(err)
	}
}

func fingerprint(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := lab.New().Fingerprint(t.Context(), server, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sameFingerprint compares line by line, with the differing lines only.
func sameFingerprint(t *testing.T, before, after string) {
	t.Helper()
	if before == after {
		return
	}
	a, b := map[string]bool{}, map[string]bool{}
	for l := range strings.Lines(before) {
		a[l] = true
	}
	for l := range strings.Lines(after) {
		b[l] = true
	}
	for l := range strings.Lines(before) {
		if !b[l] {
			t.Errorf("lost: %s", l)
		}
	}
	for l := range strings.Lines(after) {
		if !a[l] {
			t.Errorf("new:  %s", l)
		}
	}
}

// exec runs statements as the administrator, outside the plugin.
func execSQL(t *testing.T, s *session, stmts ...string) {
	t.Helper()
	c, err := s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, st := range stmts {
		if _, err := c.ExecContext(t.Context(), st); err != nil {
			t.Fatalf("%s: %v", st, err)
		}
	}
}

var discard = slog.New(slog.DiscardHandler)

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
