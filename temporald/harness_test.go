package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

// asProgram makes the test binary behave as cso-temporald: linking the server once is enough.
const asProgram = "CSO_TEMPORALD_TEST_AS_PROGRAM"

// shared is the server that all tests use which neither stop it nor damage its files.
var shared *program

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(func() int {
		state, err := os.MkdirTemp("", "cso-temporald-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(state)
		if err := pki.Ensure(filepath.Join(state, "pki"), "vm-a", "vm-b"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		began := time.Now()
		if shared, err = launch(state); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Printf("shared server ready after %v\n", time.Since(began).Round(time.Millisecond))
		code := m.Run()
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the shared server's log:\n%s\n", shared.log)
		}
		if exit := shared.end(syscall.SIGTERM); exit != exitOK {
			fmt.Fprintf(os.Stderr, "the shared server ended with %d:\n%s\n", exit, shared.log)
			return 1
		}
		return code
	}())
}

// program is a running cso-temporald.
type program struct {
	state, address, ui, cluster string
	port                        int
	cmd                         *exec.Cmd
	log                         *lockedBuffer // standard error
	stdout                      chan string   // lines; closed at the end
	exit                        chan int      // buffered
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freePorts returns the first of n consecutive free ports.
func freePorts(n int) (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		first := l.Addr().(*net.TCPAddr).Port
		held := []net.Listener{l}
		for i := 1; i < n && err == nil; i++ {
			if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first+i))); err == nil {
				held = append(held, l)
			}
		}
		for _, l := range held {
			l.Close()
		}
		if err == nil {
			return first, nil
		}
	}
	return 0, errors.New("no free ports in a row")
}

// begin starts the program without waiting for READY.
func begin(state string, args ...string) (*program, error) {
	port, err := freePorts(services + 1)
	if err != nil {
		return nil, err
	}
	p := &program{state: state, port: port, log: &lockedBuffer{}, stdout: make(chan string, 16), exit: make(chan int, 1)}
	p.cmd = exec.Command(os.Args[0], append([]string{"--state", state, "--port", strconv.Itoa(port), "--ui-port", strconv.Itoa(port + services)}, args...)...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.stdout <- lines.Text()
		}
		close(p.stdout)
		_ = p.cmd.Wait()
		p.exit <- p.cmd.ProcessState.ExitCode()
	}()
	return p, nil
}

// launch starts the program and waits for its READY line.
func launch(state string, args ...string) (*program, error) {
	p, err := begin(state, args...)
	if err != nil {
		return nil, err
	}
	select {
	case line, ok := <-p.stdout:
		if !ok {
			return nil, fmt.Errorf("ended with %d before READY:\n%s", <-p.exit, p.log)
		}
		var version string
		if _, err := fmt.Sscanf(line, "READY frontend=%s ui=%s cluster=%s version=%s", &p.address, &p.ui, &p.cluster, &version); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		return p, nil
	case <-time.After(60 * time.Second):
		p.end(syscall.SIGKILL)
		return nil, fmt.Errorf("not READY within a minute:\n%s", p.log)
	}
}

// end sends sig and returns the exit code.
func (p *program) end(sig syscall.Signal) int {
	_ = p.cmd.Process.Signal(sig)
	return p.wait(30 * time.Second)
}

// wait returns the exit code, -2 if the program is still there after limit.
func (p *program) wait(limit time.Duration) int {
	select {
	case code := <-p.exit:
		p.exit <- code
		return code
	case <-time.After(limit):
		return -2
	}
}

// own starts a server for this test alone.
func own(t *testing.T, state string, args ...string) *program {
	t.Helper()
	p, err := launch(state, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	return p
}

func (p *program) tls(t *testing.T, name string) *tls.Config {
	t.Helper()
	c, err := pki.ClientTLS(filepath.Join(p.state, "pki"), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// conn connects as the holder of the certificate called name.
func (p *program) conn(t *testing.T, name string) *grpc.ClientConn {
	t.Helper()
	c, err := dial(p.address, p.tls(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// sdk returns an SDK client of the holder of the certificate called name.
func (p *program) sdk(t *testing.T, name string) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: p.address, Namespace: namespace, Logger: sdklog.NewStructuredLogger(quiet),
		ConnectionOptions: client.ConnectionOptions{TLS: p.tls(t, name)}})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(c.Close)
	return c
}

// admin returns a connection to the inner frontend with the server's own certificate: nobody else has it.
func (p *program) admin(t *testing.T) *grpc.ClientConn {
	t.Helper()
	config, err := pki.InternodeTLS(filepath.Join(p.state, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(net.JoinHostPort(loopback, strconv.Itoa(p.port+1)), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// refusal returns the authorizer's reason, "" if err is not a refusal. It accepts SDK and gRPC errors.
func refusal(err error) string {
	var denied *serviceerror.PermissionDenied
	if errors.As(err, &denied) || errors.As(serviceerror.FromStatus(status.Convert(err)), &denied) {
		return denied.Reason
	}
	return ""
}

func wantRefusal(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if got := refusal(err); got == "" || !strings.Contains(got, reason) {
		t.Errorf("%s: want a refusal with %q, got reason %q, error %v", what, reason, got, err)
	}
}

func wantAllowed(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v (%s)", what, err, refusal(err))
	}
}

// eventually repeats check for up to twenty seconds.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if check() {
			return
		}
	}
	t.Errorf("not within twenty seconds: %s", what)
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// logQuiet waits until the limit on logged refusals has forgotten the test before.
func logQuiet() { time.Sleep(1100 * time.Millisecond) }
