package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ensured(t *testing.T, vms ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := Ensure(dir, vms...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// contents maps each file of dir to its content.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m[e.Name()] = string(data)
	}
	return m
}

func cert(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	c, err := loadCert(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEnsureMakesEverythingOnceAndPrivate(t *testing.T) {
	dir := ensured(t, "vm-a")
	before := contents(t, dir)
	for _, name := range []string{"ca", "internode-ca", "server", "internode", "control", "operator", "ui", "worker-vm-a"} {
		if before[name+".crt"] == "" || before[name+".key"] == "" {
			t.Errorf("%s: certificate or key is missing", name)
		}
	}
	if n := len(before["token.key"]); n != TokenKeySize {
		t.Errorf("token.key has %d bytes", n)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is readable by others: %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Ensure(dir, "vm-a"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("a second Ensure changed files:\n%s", diff)
	}
	if err := Ensure(dir, "vm-b"); err != nil {
		t.Fatal(err)
	}
	after := contents(t, dir)
	if after["worker-vm-b.crt"] == "" || after["worker-vm-a.crt"] != before["worker-vm-a.crt"] {
		t.Error("a further VM must get a certificate and change no other")
	}
}

func TestRoles(t *testing.T) {
	dir := ensured(t, "vm-a")
	for name, want := range map[string][]string{
		"server": nil, "internode": nil, "control": {"control"}, "operator": {"operator"}, "ui": {"ui"}, "worker-vm-a": {"worker:vm-a"},
	} {
		c := cert(t, dir, name)
		if diff := cmp.Diff(want, c.Subject.OrganizationalUnit); diff != "" {
			t.Errorf("%s: role:\n%s", name, diff)
		}
		if left := time.Until(c.NotAfter); left < 4*365*24*time.Hour || c.NotBefore.After(time.Now().Add(-time.Hour)) {
			t.Errorf("%s: valid from %v to %v", name, c.NotBefore, c.NotAfter)
		}
		if c.IsCA {
			t.Errorf("%s can sign certificates", name)
		}
	}
	if diff := cmp.Diff([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, cert(t, dir, "server").ExtKeyUsage); diff != "" {
		t.Errorf("the server's certificate must not be good for a client:\n%s", diff)
	}
}

func TestVMNames(t *testing.T) {
	for _, good := range []string{"a", "0", "vm-1", "ctl", "ctl-a", strings.Repeat("a", 63)} {
		if err := CheckVM(good); err != nil {
			t.Error(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "pki")
	for _, bad := range []string{"", "A", "-a", "a_b", "a/b", "a.b", "vm-ctl", "../ca", "a\n", strings.Repeat("a", 64)} {
		if err := Ensure(dir, bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a refused name left files behind")
	}
}

func TestConcurrentStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := Ensure(dir, "vm-a"); err != nil {
				t.Error(err)
				return
			}
			// What one start made, every other must already be able to use.
			if _, err := ClientTLS(dir, Worker("vm-a")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ca := cert(t, dir, CA)
	for _, name := range []string{Server, Control, Operator, UI, "worker-vm-a"} {
		if err := verify(cert(t, dir, name), ca, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// handshake connects client to server over TLS and returns both sides' verdicts.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		done <- tls.Server(c, server).Handshake()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	clientErr = tls.Client(c, client).Handshake()
	return <-done, clientErr
}

func TestHandshakes(t *testing.T) {
	dir, other := ensured(t, "vm-a"), ensured(t, "vm-a")
	must := func(c *tls.Config, err error) *tls.Config {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c.NextProtos = []string{"h2"}
		return c
	}
	front := must(ServerTLS(dir, Server, CA))
	inner := must(ServerTLS(dir, Internode, InternodeCA))
	old := must(ClientTLS(dir, Operator))
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	anonymous := must(ClientTLS(dir, Operator))
	anonymous.Certificates = nil
	asClient := must(ClientTLS(dir, Server)) // the server's own certificate, used by somebody to log in
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		ok             bool
	}{
		{"operator", front, must(ClientTLS(dir, Operator)), true},
		{"worker", front, must(ClientTLS(dir, Worker("vm-a"))), true},
		{"server to itself", inner, must(InternodeTLS(dir)), true},
		{"no certificate", front, anonymous, false},
		{"TLS 1.2", front, old, false},
		{"server certificate as client", front, asClient, false},
		{"another installation", front, must(ClientTLS(other, Operator)), false},
		{"operator on the inner port", inner, must(ClientTLS(dir, Operator)), false},
		{"inner certificate on the frontend", front, must(InternodeTLS(dir)), false},
	} {
		serverErr, clientErr := handshake(t, c.server, c.client)
		if ok := serverErr == nil && clientErr == nil; ok != c.ok {
			t.Errorf("%s: server says %v, client says %v", c.name, serverErr, clientErr)
		}
	}
}

func TestRevokeAndReplace(t *testing.T) {
	dir := ensured(t, "vm-a", "vm-b")
	list := NewRevocations(dir) // asked before, between and after, as a running server does
	contains := func(c *x509.Certificate) bool {
		t.Helper()
		gone, err := list.Contains(c.SerialNumber)
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	a, b := cert(t, dir, "worker-vm-a"), cert(t, dir, "worker-vm-b")
	if contains(a) {
		t.Fatal("revoked from the start")
	}
	for range 2 { // the second call changes nothing
		if err := Revoke(dir, "worker-vm-a"); err != nil {
			t.Fatal(err)
		}
	}
	if !contains(a) || contains(b) {
		t.Error("exactly worker-vm-a must be revoked")
	}
	if err := Revoke(dir, "worker-vm-b"); err != nil {
		t.Fatal(err)
	}
	if !contains(a) || !contains(b) {
		t.Error("the second revocation must add to the first")
	}
	if lines := strings.Count(contents(t, dir)["revoked"], "\n"); lines != 2 {
		t.Errorf("revoked has %d lines:\n%s", lines, contents(t, dir)["revoked"])
	}
	key := contents(t, dir)["worker-vm-a.key"]
	if err := Ensure(dir, "vm-a"); err != nil {
		t.Fatal(err)
	}
	if fresh := cert(t, dir, "worker-vm-a"); contains(fresh) || contents(t, dir)["worker-vm-a.key"] == key {
		t.Error("a revoked certificate must be replaced, with a new key")
	}
	if err := Revoke(dir, "worker-unknown"); err == nil {
		t.Error("revoking what does not exist must fail")
	}
	if err := os.WriteFile(filepath.Join(dir, "revoked"), []byte("not a number\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := list.Contains(b.SerialNumber); err == nil {
		t.Error("an unreadable list must be an error, or everybody revoked is back")
	}
}

func TestRenewal(t *testing.T) {
	dir := ensured(t)
	ca, err := loadPair(dir, CA)
	if err != nil {
		t.Fatal(err)
	}
	operator, control := cert(t, dir, Operator), cert(t, dir, Control)
	key := contents(t, dir)["operator.key"]
	want := leaves(nil)[3]
	if want.name != Operator {
		t.Fatalf("leaves changed order: %s", want.name)
	}
	later := operator.NotAfter.Add(-renewBefore).Add(time.Hour)
	if err := ensureLeaf(dir, want, ca, NewRevocations(dir), later.Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if cert(t, dir, Operator).SerialNumber.Cmp(operator.SerialNumber) != 0 {
		t.Error("renewed too early")
	}
	if err := ensureLeaf(dir, want, ca, NewRevocations(dir), later); err != nil {
		t.Fatal(err)
	}
	fresh := cert(t, dir, Operator)
	if !fresh.NotAfter.After(operator.NotAfter) || contents(t, dir)["operator.key"] != key {
		t.Errorf("renewal must extend the life (%v) and keep the key", fresh.NotAfter)
	}
	if fresh.NotAfter.After(ca.cert.NotAfter) {
		t.Error("a certificate outlives its authority")
	}
	if cert(t, dir, Control).SerialNumber.Cmp(control.SerialNumber) != 0 {
		t.Error("another certificate changed")
	}
	// In the authority's last months a renewal cannot gain anything and must not be repeated at every start.
	if err := ensureLeaf(dir, want, ca, NewRevocations(dir), ca.cert.NotAfter.Add(-renewBefore/2)); err != nil {
		t.Fatal(err)
	}
	last := cert(t, dir, Operator).SerialNumber
	if err := ensureLeaf(dir, want, ca, NewRevocations(dir), ca.cert.NotAfter.Add(-renewBefore/2)); err != nil {
		t.Fatal(err)
	}
	if cert(t, dir, Operator).SerialNumber.Cmp(last) != 0 {
		t.Error("renewed again for nothing")
	}
}

func TestCrashLeftovers(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"authority key without certificate": func(dir string) error { return os.Remove(certFile(dir, CA)) },
		"leaf key of a new pair, old certificate": func(dir string) error {
			_, err := newKey(dir, Operator)
			return err
		},
		"leaf key lost":   func(dir string) error { return os.Remove(keyFile(dir, UI)) },
		"token key lost":  func(dir string) error { return os.Remove(filepath.Join(dir, tokenKeyFile)) },
		"half a new file": func(dir string) error { return os.WriteFile(certFile(dir, UI)+".new", []byte("half"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := ensured(t)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			if err := Ensure(dir); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{Control, Operator, UI} {
				if _, err := ClientTLS(dir, name); err != nil {
					t.Error(err)
				}
				if err := verify(cert(t, dir, name), cert(t, dir, CA), time.Now()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := TokenKey(dir); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("damaged authority is not replaced in silence", func(t *testing.T) {
		dir := ensured(t)
		if err := os.WriteFile(certFile(dir, CA), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Ensure(dir); err == nil || !strings.Contains(err.Error(), "restore both its files") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("short token key", func(t *testing.T) {
		dir := ensured(t)
		if err := os.WriteFile(filepath.Join(dir, tokenKeyFile), []byte("short"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Ensure(dir); err == nil {
			t.Error("a short key was accepted")
		}
	})
}

// A VM gets its certificate by copy; nothing may be made there, least of all an authority of its own.
func TestMemberDirectory(t *testing.T) {
	home := ensured(t, "vm-a")
	dir := filepath.Join(t.TempDir(), "pki")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "worker-vm-a.crt", "worker-vm-a.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(contents(t, home)[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, dir)
	if err := Ensure(dir, "vm-a"); err != nil {
		t.Fatal(err)
	}
	after := contents(t, dir)
	delete(after, lockFile)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("files were made on a member:\n%s", diff)
	}
	if _, err := ClientTLS(dir, Worker("vm-a")); err != nil {
		t.Error(err)
	}
	if err := Ensure(dir, "vm-b"); err == nil || !strings.Contains(err.Error(), "installer-vm") {
		t.Errorf("a missing certificate must say where to get it, got %v", err)
	}
	foreign := ensured(t)
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte(contents(t, foreign)["ca.crt"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Ensure(dir, "vm-a"); err == nil {
		t.Error("a certificate of another installation was accepted")
	}
}
