// Package arangodb is the lab's engine for ArangoDB. No ArangoDB server can be
// had from a package registry, so that the servers are SIMULATED: it starts the
// project's own simulator, test/arangosim. It judges with the vendor's Go driver
// and shares no code with the product.
package arangodb

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Engine starts and judges simulated ArangoDB servers.
type Engine struct{ version string }

var _ engine.Engine = (*Engine)(nil)

// New makes an engine: version "", "3.8", "3.11" or "3.12", with "-cluster"
// behind it one coordinator with three DB servers in one process. Three members are three coordinators: the first one's
// process holds the DB servers too.
func New(version string) *Engine { return &Engine{version: version} }

// Component is "arangodb".
func (e *Engine) Component() string { return "arangodb" }

// Ports are the client's.
func (e *Engine) Ports() []string { return []string{"client"} }

// Prepare makes root's password, once.
func (e *Engine) Prepare(_ context.Context, members []engine.Member) error {
	for _, m := range members {
		if err := os.MkdirAll(m.Dir, 0o700); err != nil {
			return fmt.Errorf("make the member's directory: %w", err)
		}
		password := filepath.Join(members[0].Dir, "root.password")
		if err := engine.WriteOnce(password, []byte(rand.Text())); err != nil {
			return err
		}
		m.Options["password_file"] = password
		m.Options["data_dir"] = filepath.Join(m.Dir, "data")
		m.Options["version"] = e.version
	}
	return nil
}

// Command is the simulator's.
func (e *Engine) Command(m engine.Member, members []engine.Member) (argv, env []string, err error) {
	program, err := program()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(m.Options["data_dir"], 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the data directory: %w", err)
	}
	version, cluster := strings.CutSuffix(e.version, "-cluster")
	if version == "" || version == "cluster" {
		cluster = cluster || version == "cluster"
		version = "3.12"
	}
	listen := fmt.Sprintf("127.0.0.1:%d", m.Ports["client"])
	for i, o := range members {
		if i > 0 && o.Name == m.Name {
			return []string{program, "--coordinator-of", endpoint(members[0]), "--name", fmt.Sprintf("Coordinator%04d", i+1), "--listen", listen}, nil, nil
		}
	}
	mode := "single"
	if cluster || len(members) > 1 {
		mode = "cluster"
	}
	return []string{program, "--dir", m.Options["data_dir"], "--mode", mode, "--coordinators", strconv.Itoa(len(members)), "--apart", "--version", version,
		"--listen", listen, "--password-file", m.Options["password_file"]}, nil, nil
}

func endpoint(m engine.Member) string { return fmt.Sprintf("http://127.0.0.1:%d", m.Ports["client"]) }

// Ready asks for the version, with root's password.
func (e *Engine) Ready(ctx context.Context, m engine.Member) error {
	c, err := dial(m)
	if err != nil {
		return err
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return c.call(ctx, "GET", "/_api/version", nil, nil)
}

// Secure has nothing to do: the server was made with a password.
func (e *Engine) Secure(context.Context, []engine.Member) error { return nil }

// Env names the member for a shell.
func (e *Engine) Env(m engine.Member, n int) []string {
	password, err := os.ReadFile(m.Options["password_file"])
	if err != nil {
		password = nil // a lab whose files are gone has no password to name
	}
	p := fmt.Sprintf("LAB_ARANGODB_%d_", n)
	return []string{p + "URL=" + endpoint(m), p + "USER=root", p + "PASSWORD=" + string(password), p + "SIMULATED=yes"}
}

// Target is the member in the estate file.
func (e *Engine) Target(m engine.Member) (string, map[string]string) {
	return endpoint(m), map[string]string{"user": "root", "password_file": m.Options["password_file"]}
}
