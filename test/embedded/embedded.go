// Package embedded starts a real cso-temporald for a test, on free ports and
// in a directory of its own, and stops it when the test ends.
package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ports     = 5 // consecutive ones that cso-temporald listens on
	startTime = 2 * time.Minute
)

// Server is a running cso-temporald.
type Server struct {
	Address string // of the frontend
	State   string // state directory, with the certificates in State/pki
	cmd     *exec.Cmd
	exited  chan struct{}
}

// Start builds cso-temporald, if it is not up to date, and starts it on a
// state directory, which may be one of an earlier server.
func Start(t testing.TB, state string) *Server {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	port, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), State: state, exited: make(chan struct{})}
	log, err := os.Create(filepath.Join(t.TempDir(), "cso-temporald.log"))
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(bin, "--state", state, "--port", strconv.Itoa(port), "--ui-port", "0")
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n') // the end of the process is an answer too
		ready <- strings.HasPrefix(line, "READY ")
		_, _ = io.Copy(io.Discard, out)
		_ = s.cmd.Wait() // how it ended is of no interest here: Stop kills it
		log.Close()
		close(s.exited)
	}()
	t.Cleanup(s.Stop)
	select {
	case ok := <-ready:
		if !ok {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("cso-temporald did not become ready:\n%s", text)
		}
	case <-time.After(startTime):
		t.Fatalf("cso-temporald is not ready after %s; its log: %s", startTime, log.Name())
	}
	return s
}

// Stop ends the server and waits for its end; safe to call twice.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// build makes bin/cso-temporald; go build does nothing when it is current.
func build() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("the source tree is not known")
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", fmt.Errorf("make bin: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(bin, ".build.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("lock the build: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock the build: %w", err)
	}
	path := filepath.Join(bin, "cso-temporald")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = filepath.Join(root, "temporald")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cso-temporald: %w\n%s", err, out)
	}
	return path, nil
}

// freePorts finds consecutive free ports below the range from which the
// kernel takes those of outgoing connections.
func freePorts() (int, error) {
	for try := range 200 {
		first := 20000 + (os.Getpid()*7+try*53)%10000
		if allFree(first) {
			return first, nil
		}
	}
	return 0, errors.New("no five consecutive free ports found")
}

func allFree(first int) bool {
	for p := first; p < first+ports; p++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
