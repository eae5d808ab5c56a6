// Package etcd is the lab's engine for etcd: Debian's 3.4 or a 3.7 built from
// its Go modules, with TLS for clients and authentication on. It judges with
// etcd's own Go client and shares no code with the product.
package etcd

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/pki"
)

// Engine starts and judges etcd servers.
type Engine struct{ version string }

var _ engine.Engine = (*Engine)(nil)

// New makes an engine: version "" or "3.4" is Debian's package, "3.7" the newest, built from source.
func New(version string) *Engine { return &Engine{version: version} }

// Component is "etcd".
func (e *Engine) Component() string { return "etcd" }

// Ports are the client's and the peers'.
func (e *Engine) Ports() []string { return []string{"client", "peer"} }

// Prepare makes the root password and certificates of the instance, once.
func (e *Engine) Prepare(_ context.Context, members []engine.Member) error {
	shared := members[0].Dir
	if err := os.MkdirAll(shared, 0o700); err != nil {
		return fmt.Errorf("make the member's directory: %w", err)
	}
	password := filepath.Join(shared, "root.password")
	if err := engine.WriteOnce(password, []byte(rand.Text())); err != nil {
		return err
	}
	ca, err := pki.Open(filepath.Join(shared, "pki"))
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := os.MkdirAll(m.Dir, 0o700); err != nil {
			return fmt.Errorf("make the member's directory: %w", err)
		}
		cert, key := filepath.Join(m.Dir, "server.crt"), filepath.Join(m.Dir, "server.key")
		if err := ca.Issue(m.Name, cert, key); err != nil {
			return err
		}
		m.Options["password_file"] = password
		m.Options["ca_file"] = ca.CertFile
		m.Options["data_dir"] = filepath.Join(m.Dir, "data")
		m.Options["version"] = e.version
	}
	return nil
}

// Command is the server's. The cost of password hashes is the lowest allowed:
// at the default every log-in costs a tenth of a second of the lab's two cores.
func (e *Engine) Command(m engine.Member, members []engine.Member) (argv, env []string, err error) {
	server, _, err := e.programs()
	if err != nil {
		return nil, nil, err
	}
	var cluster []string
	for _, o := range members {
		cluster = append(cluster, o.Name+"="+peerURL(o))
	}
	return []string{server,
		"--name", m.Name,
		"--data-dir", m.Options["data_dir"],
		"--listen-client-urls", endpoint(m),
		"--advertise-client-urls", endpoint(m),
		"--listen-peer-urls", peerURL(m),
		"--initial-advertise-peer-urls", peerURL(m),
		"--initial-cluster", strings.Join(cluster, ","),
		"--initial-cluster-token", "lab-" + m.Instance,
		"--initial-cluster-state", "new",
		"--cert-file", filepath.Join(m.Dir, "server.crt"),
		"--key-file", filepath.Join(m.Dir, "server.key"),
		"--bcrypt-cost", "4",
		"--logger", "zap",
	}, nil, nil
}

func endpoint(m engine.Member) string { return fmt.Sprintf("https://127.0.0.1:%d", m.Ports["client"]) }
func peerURL(m engine.Member) string  { return fmt.Sprintf("http://127.0.0.1:%d", m.Ports["peer"]) }

// Ready asks for a key, which needs a quorum, a leader and, once Secure has run, the password.
func (e *Engine) Ready(ctx context.Context, m engine.Member) error {
	c, err := dial(m)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := c.Get(ctx, maintenanceKey); err != nil {
		return fmt.Errorf("ask %s: %w", m.Name, err)
	}
	return nil
}

// Secure makes root and turns authentication on.
func (e *Engine) Secure(ctx context.Context, members []engine.Member) error {
	c, err := dial(members[0])
	if err != nil {
		return err
	}
	defer c.Close()
	password, err := os.ReadFile(members[0].Options["password_file"])
	if err != nil {
		return fmt.Errorf("read root's password: %w", err)
	}
	steps := []func() error{
		func() error { _, err := c.RoleAdd(ctx, "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "root", string(password)); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	}
	status, err := c.AuthStatus(ctx)
	if err == nil && status.Enabled {
		return nil
	}
	if err != nil && !unimplemented(err) { // 3.4 has no AuthStatus
		return fmt.Errorf("ask whether authentication is on: %w", err)
	}
	for _, step := range steps {
		if err := step(); err != nil && !doneBefore(err) {
			return fmt.Errorf("turn authentication on: %w", err)
		}
	}
	return nil
}

// Env names the member for a shell.
func (e *Engine) Env(m engine.Member, n int) []string {
	_, ctl, err := e.programs()
	if err != nil {
		ctl = "etcdctl"
	}
	password, err := os.ReadFile(m.Options["password_file"])
	if err != nil {
		password = nil // a lab whose files are gone has no password to name
	}
	p := fmt.Sprintf("LAB_ETCD_%d_", n)
	return []string{
		p + "ENDPOINT=" + endpoint(m),
		p + "USER=root",
		p + "PASSWORD=" + string(password),
		p + "CACERT=" + m.Options["ca_file"],
		"LAB_ETCDCTL=" + ctl,
	}
}

// Target is the member in the estate file.
func (e *Engine) Target(m engine.Member) (string, map[string]string) {
	return endpoint(m), map[string]string{
		"user":          "root",
		"password_file": m.Options["password_file"],
		"ca_file":       m.Options["ca_file"],
		"data_dir":      m.Options["data_dir"],
		"peer_url":      peerURL(m),
	}
}

// Client connects to the given members as root; the caller closes it.
func Client(members ...engine.Member) (*clientv3.Client, error) { return dial(members...) }

// Install makes the server and etcdctl available.
func (e *Engine) Install(ctx context.Context, w io.Writer) error {
	switch e.version {
	case "", "3.4":
		return installPackages(ctx, w)
	case "3.7":
		return build(ctx, w)
	}
	return fmt.Errorf("no etcd %q here: the lab has 3.4 (Debian's) and 3.7", e.version)
}
