// Package elasticsearch is the lab's engine for Elasticsearch 7.10 to 8.19 and
// OpenSearch 2.19, one node or a cluster of three; one release of OpenSearch
// runs with its real security plugin. It judges with plain HTTP and shares no
// code with the product.
package elasticsearch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/maven"
	"github.com/csobackup/cso_backupnrestore/test/lab/pki"
)

// Engine starts and judges Elasticsearch and OpenSearch servers.
type Engine struct {
	version  string
	variants []string
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine for a version with variants behind plus signs: "" is
// 7.10.2. "+bench" runs with the default collector and compiler and 1 GB of
// heap; "+localrepo" gives every node a folder of its own for snapshots
// instead of one that all of them share.
func New(version string) *Engine {
	v, rest, _ := strings.Cut(version, "+")
	v = strings.TrimPrefix(v, "opensearch-")
	if v == "" {
		v = Versions()[0]
	}
	e := &Engine{version: v}
	if rest != "" {
		e.variants = strings.Split(rest, "+")
	}
	return e
}

// Component is "elasticsearch".
func (e *Engine) Component() string { return "elasticsearch" }

// Ports are the clients' and the nodes'. All nodes of a cluster have the same
// ports, on addresses of their own.
func (e *Engine) Ports() []string { return []string{"http", "transport"} }

func (e *Engine) has(variant string) bool { return slices.Contains(e.variants, variant) }

// Install downloads the server and compiles what starts it.
func (e *Engine) Install(ctx context.Context, w io.Writer) error {
	for _, v := range e.variants {
		if !slices.Contains([]string{"bench", "localrepo"}, v) {
			return fmt.Errorf("no variant %q of Elasticsearch here: the lab has bench and localrepo", v)
		}
	}
	r, err := find(e.version)
	if err != nil {
		return err
	}
	if err := maven.Fetch(ctx, w, r.set); err != nil {
		return err
	}
	dir, classPath, err := r.launcher()
	if err != nil {
		return err
	}
	return maven.Compile(ctx, dir, classPath, map[string]string{r.main + ".java": launchers[r.main]})
}

// Prepare makes folders, passwords, certificates and each node's configuration.
func (e *Engine) Prepare(_ context.Context, members []engine.Member) error {
	r, err := find(e.version)
	if err != nil {
		return err
	}
	shared := members[0].Dir
	for i, m := range members {
		repo := filepath.Join(shared, "repo")
		if e.has("localrepo") {
			repo = filepath.Join(m.Dir, "repo")
		}
		for _, d := range []string{"config", "data", "logs", "tmp"} {
			if err := os.MkdirAll(filepath.Join(m.Dir, d), 0o700); err != nil {
				return fmt.Errorf("make the member's directory: %w", err)
			}
		}
		if err := os.MkdirAll(repo, 0o700); err != nil {
			return fmt.Errorf("make the directory for snapshots: %w", err)
		}
		m.Ports["http"], m.Ports["transport"] = members[0].Ports["http"], members[0].Ports["transport"]
		m.Options["host"] = fmt.Sprintf("127.0.0.%d", i+1)
		m.Options["data_dir"] = filepath.Join(m.Dir, "data")
		m.Options["repo_dir"] = repo
		m.Options["version"] = e.version
	}
	if r.secure {
		if err := secrets(members); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := e.configure(r, m, members); err != nil {
			return fmt.Errorf("configure %s: %w", m.Name, err)
		}
	}
	return nil
}

// secrets makes the administrator's password and the certificates of all nodes and of the administrator.
func secrets(members []engine.Member) error {
	shared := members[0].Dir
	password := filepath.Join(shared, "admin.password")
	if err := engine.WriteOnce(password, []byte(rand.Text())); err != nil {
		return err
	}
	ca, err := pki.Open(filepath.Join(shared, "pki_file"))
	if err != nil {
		return err
	}
	pair := func(name, dir string) (string, string, error) {
		cert, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		return cert, key, ca.Issue(name, cert, key)
	}
	adminCert, adminKey, err := pair("admin", filepath.Join(shared, "pki_file"))
	if err != nil {
		return err
	}
	for _, m := range members {
		if _, _, err := pair("node", filepath.Join(m.Dir, "config")); err != nil {
			return err
		}
		b, err := os.ReadFile(ca.CertFile)
		if err != nil {
			return fmt.Errorf("read the CA's certificate: %w", err)
		}
		// The server reads certificates below its own configuration only.
		if err := os.WriteFile(filepath.Join(m.Dir, "config", "ca.pem"), b, 0o600); err != nil {
			return fmt.Errorf("write the CA's certificate: %w", err)
		}
		m.Options["user"] = "admin"
		m.Options["password_file"] = password
		m.Options["ca_file"] = ca.CertFile
		m.Options["client_cert_file"], m.Options["client_key_file"] = adminCert, adminKey
		m.Options["pki_file"] = filepath.Join(shared, "pki_file") // the folder: kept when the servers are installed afresh
	}
	return nil
}

// Command is the server's.
func (e *Engine) Command(m engine.Member, _ []engine.Member) (argv, env []string, err error) {
	r, err := find(e.version)
	if err != nil {
		return nil, nil, err
	}
	argv, err = e.serverCommand(r, m)
	return argv, nil, err
}

// Ready asks for the cluster's health, which only a node answers that has joined a cluster with a master.
func (e *Engine) Ready(ctx context.Context, m engine.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := dialUser(m) // the security plugin is ready later than the node
	if err != nil {
		return err
	}
	defer c.close()
	var health struct {
		TimedOut bool `json:"timed_out"`
	}
	return c.get(ctx, "/_cluster/health?timeout=5s", &health)
}

// Secure waits until all nodes have joined and every shard is at its place.
// Passwords and certificates stand in the configuration.
func (e *Engine) Secure(ctx context.Context, members []engine.Member) error {
	return AwaitCluster(ctx, members)
}

// AwaitCluster waits until every node is in the cluster and the health is green or yellow.
func AwaitCluster(ctx context.Context, members []engine.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, m := range members {
		c, err := dial(m)
		if err != nil {
			return err
		}
		for {
			var health struct {
				TimedOut bool   `json:"timed_out"`
				Status   string `json:"status"`
				Nodes    int    `json:"number_of_nodes"`
			}
			err = c.get(ctx, fmt.Sprintf("/_cluster/health?wait_for_nodes=%d&wait_for_status=yellow&timeout=5s", len(members)), &health)
			if err == nil && !health.TimedOut {
				break
			}
			if ctx.Err() != nil {
				c.close()
				return errors.Join(fmt.Errorf("%s sees %d of %d nodes, health %s; look at its log", m.Name, health.Nodes, len(members), health.Status), err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		c.close()
	}
	return nil
}

// Env names the member for a shell.
func (e *Engine) Env(m engine.Member, n int) []string {
	var password []byte
	if f := m.Options["password_file"]; f != "" {
		password, _ = os.ReadFile(f) // a lab whose files are gone has no password to name
	}
	p := fmt.Sprintf("LAB_ELASTICSEARCH_%d_", n)
	lines := []string{p + "URL=" + address(m), p + "USER=" + m.Options["user"], p + "PASSWORD=" + string(password)}
	if ca := m.Options["ca_file"]; ca != "" {
		lines = append(lines, p+"CACERT="+ca, p+"CERT="+m.Options["client_cert_file"], p+"KEY="+m.Options["client_key_file"])
	}
	return lines
}

func address(m engine.Member) string {
	scheme := "http"
	if m.Options["ca_file"] != "" {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s:%d", scheme, m.Options["host"], m.Ports["http"])
}

// Target is the member in the estate file.
func (e *Engine) Target(m engine.Member) (string, map[string]string) {
	options := map[string]string{}
	for _, key := range []string{"user", "password_file", "ca_file", "client_cert_file", "client_key_file", "repo_dir", "data_dir"} {
		if v := m.Options[key]; v != "" {
			options[key] = v
		}
	}
	return address(m), options
}
