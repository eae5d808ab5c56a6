package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// other is a second Temporal with its own ports and certificates.
type other struct {
	state, address, profile string
}

// service starts one of the programs and returns when it is READY.
func (b *bench) service(name string, env []string, args ...string) {
	t := b.t
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Env = append(append(os.Environ(), b.env...), env...)
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	b.check(err)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	b.check(err)
	b.check(cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer stop.Stop()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, tail(log.Name(), 25))
		}
		log.Close()
	})
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		ready <- s.Scan() && strings.HasPrefix(s.Text(), "READY")
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("%s did not get ready:\n%s", name, tail(log.Name(), 25))
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("%s did not get ready:\n%s", name, tail(log.Name(), 25))
	}
}

// freePorts finds the first of n consecutive free ports.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first := l.Addr().(*net.TCPAddr).Port
		held := []net.Listener{l}
		for p := first + 1; p < first+n; p++ {
			x, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				break
			}
			held = append(held, x)
		}
		for _, h := range held {
			h.Close()
		}
		if len(held) == n {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

// another starts a second cso-temporald and writes the standard profile file that names it.
func (b *bench) another() other {
	b.t.Helper()
	o := other{state: b.t.TempDir()}
	port := freePorts(b.t, 5)
	o.address = fmt.Sprintf("127.0.0.1:%d", port)
	b.service("cso-temporald", nil, "--state", o.state, "--port", fmt.Sprint(port), "--ui-port", "0")
	certs := filepath.Join(o.state, "pki")
	b.check(ensureWorker(certs))
	var text strings.Builder
	for _, role := range []string{"operator", "control", "worker-installer-vm"} {
		fmt.Fprintf(&text, "[profile.cso-%s]\naddress = %q\nnamespace = \"cso\"\n[profile.cso-%[1]s.tls]\nserver_name = \"cso-temporald\"\n"+
			"server_ca_cert_path = %[3]q\nclient_cert_path = %[4]q\nclient_key_path = %[5]q\n",
			role, o.address, filepath.Join(certs, "ca.crt"), filepath.Join(certs, role+".crt"), filepath.Join(certs, role+".key"))
	}
	o.profile = filepath.Join(o.state, "temporal.toml")
	b.check(os.WriteFile(o.profile, []byte(text.String()), 0o600))
	return o
}

// TestAnotherTemporal: the same backups on a second Temporal, which is named by
// the standard profile only; the journal of the first is respected.
func TestAnotherTemporal(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	before := b.fillLarge(6)
	b.backup("DEATHS", "-m", "yes")
	b.check(b.Wreck(ctx, 6))
	b.terminated(b.fingerprint(), before) // on the first Temporal: the estate is held
	epoch := b.journal().Claim

	b.check(b.Stop(ctx, "worker"))
	defer func() { b.check(b.StartMember(context.WithoutCancel(ctx), "worker")) }()
	t.Run("second", func(t *testing.T) {
		b := b.of(t)
		o := b.another()
		b.env = append(b.env[:len(b.env):len(b.env)], "TEMPORAL_CONFIG_FILE="+o.profile)
		b.client = b.dial(filepath.Join(o.state, "pki"), o.address)
		b.service("cso-backup-worker", nil)

		d := b.ask([]int{problem.Held.Exit()}, nil, "-b", "backup", "-s", "SECOND")
		if d.Error == nil || d.Error.Code != problem.Held {
			t.Errorf("the second Temporal does not respect the first one's journal: %+v", d.Error)
		}
		same(t, "maintenance of a held estate", "true", b.maintenance())
		b.want(fine, "resolve", "retry", "--confirm", "DEATHS")
		b.settled()
		b.equal(before)
		now := b.journal().Claim
		if now.Epoch <= epoch.Epoch || now.Cluster == epoch.Cluster {
			t.Errorf("claim %+v after %+v", now, epoch)
		}

		b.backup("SECOND", "-m", "yes")
		b.check(b.Wreck(ctx, 7))
		if wrecked := b.fingerprint(); maps.Equal(wrecked.sums, before.sums) {
			t.Fatal("nothing was wrecked")
		}
		b.restored("-s", "SECOND")
		b.equal(before)
	})
}

// ensureWorker makes the certificate of the VM's worker, as `setup` does on the host of that Temporal.
func ensureWorker(certs string) error { return pki.Ensure(certs, "installer-vm") }
