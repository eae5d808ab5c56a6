// Package cassandra is the lab's engine for Apache Cassandra 4.0 to 5.0, one
// node or a ring of three, with authentication and authorization on and the
// optional features that need a switch. It judges with plain CQL and shares no
// code with the product.
package cassandra

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

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/maven"
)

// The accounts of every lab. The server's own superuser "cassandra" is dropped,
// as the documentation advises.
const (
	Admin  = "lab_admin"  // superuser, for the lab itself
	Backup = "cso_backup" // ordinary role for the product
)

// Engine starts and judges Cassandra servers.
type Engine struct {
	version  string
	variants []string
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine for a version with variants behind plus signs: "" is
// 5.0.9; "4.1.10+bench+jolokia" is another one with the default collector and
// compiler and 1 GB of heap, and with the Jolokia agent (JMX over HTTP).
func New(version string) *Engine {
	v, rest, _ := strings.Cut(version, "+")
	if v == "" {
		v = defaultVersion
	}
	e := &Engine{version: v}
	if rest != "" {
		e.variants = strings.Split(rest, "+")
	}
	return e
}

// Component is "cassandra".
func (e *Engine) Component() string { return "cassandra" }

// Ports are the clients', the nodes', JMX's and Jolokia's. All nodes of a ring
// have the same ports for clients and nodes, on addresses of their own.
func (e *Engine) Ports() []string { return []string{"cql", "storage", "jmx", "jolokia"} }

func (e *Engine) has(variant string) bool { return slices.Contains(e.variants, variant) }

// Install downloads the server.
func (e *Engine) Install(ctx context.Context, w io.Writer) error {
	for _, v := range e.variants {
		if !slices.Contains([]string{"bench", "jolokia"}, v) {
			return fmt.Errorf("no variant %q of Cassandra here: the lab has bench and jolokia", v)
		}
	}
	s, err := set(e.version)
	if err != nil {
		return err
	}
	if err := maven.Fetch(ctx, w, s); err != nil {
		return err
	}
	if !e.has("jolokia") {
		return nil
	}
	return maven.Fetch(ctx, w, jolokia)
}

// Prepare makes the passwords, each node's configuration and its nodetool.
func (e *Engine) Prepare(_ context.Context, members []engine.Member) error {
	for _, m := range members {
		for _, d := range []string{"conf", "tmp"} {
			if err := os.MkdirAll(filepath.Join(m.Dir, d), 0o700); err != nil {
				return fmt.Errorf("make the member's directory: %w", err)
			}
		}
	}
	shared := members[0].Dir
	files := map[string]string{Admin: filepath.Join(shared, "admin.password"), Backup: filepath.Join(shared, "backup.password")}
	for _, f := range files {
		if err := engine.WriteOnce(f, []byte(rand.Text())); err != nil {
			return err
		}
	}
	for i, m := range members {
		m.Ports["cql"], m.Ports["storage"] = members[0].Ports["cql"], members[0].Ports["storage"]
		m.Options["host"] = fmt.Sprintf("127.0.0.%d", i+1)
		m.Options["admin_password_file"] = files[Admin]
		m.Options["backup_password_file"] = files[Backup]
		m.Options["data_dir"] = filepath.Join(m.Dir, "data")
		m.Options["nodetool"] = filepath.Join(m.Dir, "nodetool")
		m.Options["version"] = e.version
		if e.has("jolokia") {
			m.Options["jolokia"] = fmt.Sprintf("http://127.0.0.1:%d/jolokia/", m.Ports["jolokia"])
		}
	}
	for i, m := range members {
		if err := e.configure(m, i, members); err != nil {
			return fmt.Errorf("configure %s: %w", m.Name, err)
		}
	}
	return nil
}

// Command is the server's.
func (e *Engine) Command(m engine.Member, _ []engine.Member) (argv, env []string, err error) {
	argv, err = e.serverCommand(m)
	return argv, nil, err
}

// Ready logs in and asks the node whether it has joined the ring.
func (e *Engine) Ready(ctx context.Context, m engine.Member) error {
	c, err := dialAny(ctx, m)
	if err != nil {
		return err
	}
	defer c.Close()
	var state string
	if err := c.Query("SELECT bootstrapped FROM system.local").WithContext(ctx).Scan(&state); err != nil {
		return fmt.Errorf("ask %s: %w", m.Name, err)
	}
	if state != "COMPLETED" {
		return fmt.Errorf("%s has not joined its ring: %s", m.Name, state)
	}
	return nil
}

// Secure spreads the accounts over the ring, makes the lab's superuser and the
// product's role, and drops the well-known superuser.
func (e *Engine) Secure(ctx context.Context, members []engine.Member) error {
	first := members[0]
	if c, err := dial(ctx, first, Admin, first.Options["admin_password_file"]); err == nil {
		c.Close() // done before: the last step of all needs the superuser made here
		return AwaitRing(ctx, members)
	}
	c, err := connect(ctx, first, dialAny)
	if err != nil {
		return err
	}
	defer c.Close()
	steps := []string{fmt.Sprintf("ALTER KEYSPACE system_auth WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': %d}", len(members))}
	for role, file := range map[string]string{Admin: first.Options["admin_password_file"], Backup: first.Options["backup_password_file"]} {
		password, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a password: %w", err)
		}
		steps = append(steps, fmt.Sprintf("CREATE ROLE IF NOT EXISTS %s WITH PASSWORD = '%s' AND LOGIN = true AND SUPERUSER = %t", role, password, role == Admin))
	}
	for _, right := range e.Rights() {
		steps = append(steps, fmt.Sprintf("GRANT %s TO %s", right, Backup))
	}
	if err := awaitPeers(ctx, members); err != nil {
		return err
	}
	for i, s := range steps {
		if err := persist(ctx, c, s); err != nil {
			return fmt.Errorf("set up accounts on %s, step %d: %w", first.Name, i+1, err) // the statement may hold a password
		}
		if i == 0 {
			if err := spread(ctx, c); err != nil {
				return err
			}
		}
	}
	admin, err := connect(ctx, first, Client)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.Query("DROP ROLE IF EXISTS cassandra").WithContext(ctx).Exec(); err != nil {
		return fmt.Errorf("drop the well-known superuser: %w", err)
	}
	return AwaitRing(ctx, members)
}

// persist runs a statement, which must be one that may run twice, as the superuser. A node that asked for its rights while
// the accounts were moving to more nodes takes it for nobody until its cache of them ends, after two seconds; one that has
// just started beside many others answers late or not at all.
func persist(ctx context.Context, c *gocql.Session, statement string) error {
	return retry(ctx, func() error {
		err := c.Query(statement).WithContext(ctx).Exec()
		var refused gocql.RequestError
		if errors.As(err, &refused) && refused.Code() == gocql.ErrCodeSyntax {
			return final{err}
		}
		return err
	})
}

// connect opens a session, more than once when it has to: the machine may be busy with other servers that start.
func connect(ctx context.Context, m engine.Member, dial func(context.Context, engine.Member) (*gocql.Session, error)) (*gocql.Session, error) {
	var c *gocql.Session
	err := retry(ctx, func() (err error) {
		c, err = dial(ctx, m)
		return err
	})
	return c, err
}

// final is an error that comes again however often one tries.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// retry does something until it succeeds, for half a minute.
func retry(ctx context.Context, do func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := do()
		var last final
		if err == nil || errors.As(err, &last) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// spread gives the accounts to the nodes that have just become replicas of them: reading from all replicas does.
func spread(ctx context.Context, c *gocql.Session) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := c.Query("SELECT * FROM system_auth.roles").Consistency(gocql.All).WithContext(ctx).Exec()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("spread the accounts over the ring: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitPeers waits until every node has met all the others.
func awaitPeers(ctx context.Context, members []engine.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, m := range members {
		c, err := connect(ctx, m, dialAny)
		if err != nil {
			return err
		}
		defer c.Close()
		for {
			var met int
			err := c.Query("SELECT count(*) FROM system.peers_v2").WithContext(ctx).Scan(&met)
			if err == nil && met >= len(members)-1 {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s has met %d of %d nodes: %w; look at its log", m.Name, met, len(members)-1, errors.Join(err, ctx.Err()))
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// Rights are what the product's role is granted.
func (e *Engine) Rights() []string {
	var rights []string
	add := func(on string, permissions ...string) {
		for _, p := range permissions {
			rights = append(rights, p+" ON "+on)
		}
	}
	add("ALL KEYSPACES", "CREATE", "ALTER", "DROP", "SELECT", "MODIFY", "AUTHORIZE")
	add("KEYSPACE system_auth", "SELECT") // "all keyspaces" does not mean the server's own
	add("KEYSPACE system_views", "SELECT")
	add("TABLE system.\"IndexInfo\"", "SELECT")
	add("ALL FUNCTIONS", "CREATE", "ALTER", "DROP", "AUTHORIZE", "EXECUTE")
	add("ALL ROLES", "CREATE", "ALTER", "DROP", "AUTHORIZE", "DESCRIBE")
	if !strings.HasPrefix(e.version, "4.") {
		add("ALL KEYSPACES", "UNMASK", "SELECT_MASKED")
	}
	return rights
}

// AwaitRing waits until every node sees all the others alive: until then a
// TRUNCATE or a read from all replicas through it fails.
func AwaitRing(ctx context.Context, members []engine.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, m := range members {
		for {
			err := seesAll(ctx, m)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not see its whole ring: %w; look at its log", m.Name, err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// Env names the member for a shell.
func (e *Engine) Env(m engine.Member, n int) []string {
	password, err := os.ReadFile(m.Options["admin_password_file"])
	if err != nil {
		password = nil // a lab whose files are gone has no password to name
	}
	p := fmt.Sprintf("LAB_CASSANDRA_%d_", n)
	return []string{p + "ADDR=" + address(m), p + "JMX=" + jmx(m), p + "ADMIN_USER=" + Admin, p + "ADMIN_PASSWORD=" + string(password), p + "NODETOOL=" + m.Options["nodetool"]}
}

func address(m engine.Member) string { return fmt.Sprintf("%s:%d", m.Options["host"], m.Ports["cql"]) }

// jmx listens on 127.0.0.1 only, whatever the node's address is.
func jmx(m engine.Member) string { return fmt.Sprintf("127.0.0.1:%d", m.Ports["jmx"]) }

// Target is the member in the estate file.
func (e *Engine) Target(m engine.Member) (string, map[string]string) {
	options := map[string]string{
		"user":          Backup,
		"password_file": m.Options["backup_password_file"],
		"jmx":           jmx(m),
		"nodetool":      m.Options["nodetool"],
		"data_dir":      m.Options["data_dir"],
	}
	if j := m.Options["jolokia"]; j != "" {
		options["jolokia"] = j
	}
	return address(m), options
}
