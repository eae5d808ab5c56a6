// Package mariadb starts real MariaDB servers for the lab, fills them with
// every object kind and awkward value the server can hold, wrecks them, and
// fingerprints them. It judges the product's MariaDB plugin and therefore
// shares no code with it.
//
// The torture schema stands in sql/ (schemas, values, tables, programs,
// accounts, the product's own data), the damage in wreck/objects.sql, each as
// plain SQL to be read; Go adds what is random or large.
package mariadb

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

const (
	component  = "mariadb"
	clientPort = "client"
	adminUser  = "root"

	optUser     = "user"
	optPassword = "password_file"
	optSocket   = "socket"
	optClient   = "client_config"
)

// server is stateless: all it knows of a member stands in the member.
type server struct{}

// New gives the engine of MariaDB as Debian packages it (10.11 on bookworm).
func New() engine.Engine { return server{} }

func (server) Component() string { return component }

func (server) Ports() []string { return []string{clientPort} }

// programs are what a member needs; the first four come with mariadb-server.
var programs = []string{"mariadbd", "mariadb", "mariadb-install-db", "mariadb-dump"}

// Install adds Debian's mariadb-server when one of its programs is missing.
// The package's own service is kept from starting: the lab starts its own.
func (server) Install(ctx context.Context, w io.Writer) error {
	missing := missingPrograms()
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("mariadb: %s not found and no apt-get here: install mariadb-server 10.11 by hand", strings.Join(missing, ", "))
	}
	fmt.Fprintf(w, "mariadb: %s not found, installing mariadb-server with apt-get (about a minute)\n", strings.Join(missing, ", "))
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "mariadb-server"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		// RUNLEVEL=1 makes invoke-rc.d leave the packaged service stopped.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("mariadb: apt-get %s: %w; run it by hand as root to see why", strings.Join(args, " "), err)
		}
	}
	if missing = missingPrograms(); len(missing) > 0 {
		return fmt.Errorf("mariadb: still no %s after installing mariadb-server: check PATH (mariadbd is in /usr/sbin)", strings.Join(missing, ", "))
	}
	return nil
}

func missingPrograms() []string {
	var missing []string
	for _, p := range programs {
		if _, err := program(p); err != nil {
			missing = append(missing, p)
		}
	}
	return missing
}

// program finds a server program also where an ordinary user's PATH has no sbin.
func program(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	p, err := exec.LookPath(filepath.Join("/usr/sbin", name))
	if err != nil {
		return "", fmt.Errorf("mariadb: program %s not found: run the lab's install step: %w", name, err)
	}
	return p, nil
}

func (server) Env(m engine.Member, n int) []string {
	prefix := fmt.Sprintf("LAB_MARIADB_%d_", n)
	addr, opts := server{}.Target(m)
	password, err := readPassword(m)
	if err != nil {
		password = ""
	}
	return []string{
		prefix + "ADDR=" + addr,
		prefix + "SOCKET=" + opts[optSocket],
		prefix + "USER=" + opts[optUser],
		prefix + "PASSWORD=" + password,
	}
}

func (server) Target(m engine.Member) (string, map[string]string) {
	return address(m), map[string]string{
		optUser:     adminUser,
		optPassword: passwordFile(m),
		optSocket:   socketPath(m),
		"data_dir":  dataDir(m),
	}
}

func address(m engine.Member) string {
	return "127.0.0.1:" + strconv.Itoa(m.Ports[clientPort])
}

func readPassword(m engine.Member) (string, error) {
	b, err := os.ReadFile(passwordFile(m))
	if err != nil {
		return "", fmt.Errorf("mariadb %s: read the lab's password (run prepare first): %w", m.Name, err)
	}
	return strings.TrimRight(string(b), "\n"), nil
}
