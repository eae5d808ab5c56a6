package cassandra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
	labcassandra "github.com/csobackup/cso_backupnrestore/test/lab/cassandra"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// The servers are real ones. CSO_CASSANDRA_VERSION names the release: 5.0.9 (default), 4.1.10 or 4.0.19.
var version = func() string {
	if v := os.Getenv("CSO_CASSANDRA_VERSION"); v != "" {
		return v
	}
	return "5.0.9"
}()

// five says whether the servers know what came with 5.0.
func five() bool { return strings.HasPrefix(version, "5.") }

// bench is a lab of Cassandra servers, with authentication, and the product's role an ordinary one.
type bench struct {
	lab    *lab.Lab
	filled map[string]string // instance → definitions that fill made last
}

// Both are started by the first test that needs them, and stopped at the end.
var (
	oneNode    = sync.OnceValues(func() (*bench, error) { return start(1, "cassandra", "cassandra@east") })
	threeNodes = sync.OnceValues(func() (*bench, error) { return start(3, "cassandra") })
	stops      []func(failed bool)
)

func TestMain(m *testing.M) {
	if os.Getenv("CSO_PLUGINTEST_CHILD") != "" { // an attempt that is to be frozen: the servers are its parent's
		plugintest.Main(m, clustered{New()})
	}
	code := m.Run()
	for _, stop := range stops {
		stop(code != 0)
	}
	os.Exit(code)
}

func start(members int, components ...string) (*bench, error) {
	dir, err := os.MkdirTemp("/dev/shm", "cso-cassandra-")
	if err != nil {
		return nil, err
	}
	stops = append(stops, func(bool) { _ = os.RemoveAll(dir) })
	o := lab.Options{Dir: dir, Components: components, Members: members, ServersOnly: true, Versions: map[string]string{"cassandra": version + "+jolokia"}, Out: os.Stderr}
	l, err := lab.Start(context.Background(), o)
	if err != nil {
		return nil, err
	}
	stops = append([]func(bool){func(failed bool) {
		if failed {
			fmt.Fprintln(os.Stderr, l.Logs())
		}
		if err := l.Down(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}}, stops...)
	return &bench{lab: l}, nil
}

// on waits for servers, and frees them from the claim of the test before: each has epochs of its own.
func on(t testing.TB, servers func() (*bench, error)) *bench {
	t.Helper()
	b, err := servers()
	must(t, err)
	for _, instance := range []string{"central", "east"} {
		ms, err := b.lab.Members("cassandra", instance)
		if err != nil || len(ms) == 0 {
			continue
		}
		c, err := labcassandra.Client(context.Background(), ms[0])
		must(t, err)
		var n int
		must(t, c.Query("SELECT count(*) FROM system_schema.tables WHERE keyspace_name = ?", ownKeyspace).Scan(&n))
		if n > 0 {
			must(t, c.Query("TRUNCATE "+ownKeyspace+".claim").Exec())
		}
		c.Close()
	}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) members(t testing.TB, instance string) []engine.Member {
	t.Helper()
	ms, err := b.lab.Members("cassandra", instance)
	if err != nil || len(ms) == 0 {
		t.Fatalf("members of %q: %d, %v", instance, len(ms), err)
	}
	return ms
}

func (b *bench) target(t testing.TB, instance string) plugins.Target {
	t.Helper()
	out := plugins.Target{Component: "cassandra", Instance: instance}
	for _, m := range b.members(t, instance) {
		address, options, err := b.lab.Target(m.Name)
		must(t, err)
		if strings.HasPrefix(version, "4.0") { // it lets nobody else set a password by its hash
			options["superuser"], options["superuser_password_file"] = labcassandra.Admin, m.Options["admin_password_file"]
		}
		out.Members = append(out.Members, plugins.Member{Name: m.Name, VM: "vm-" + m.Name, Address: address, Options: options})
	}
	return out
}

// client is the lab's superuser on one node; it ends with the test.
func (b *bench) client(t testing.TB, on plugins.Target, n int) *gocql.Session {
	t.Helper()
	c, err := labcassandra.Client(context.Background(), b.members(t, on.Instance)[n])
	must(t, err)
	return c
}

// cql runs statements as the lab's superuser.
func (b *bench) cql(t testing.TB, on plugins.Target, statements ...string) {
	t.Helper()
	c := b.client(t, on, 0)
	defer c.Close()
	for _, q := range statements {
		if err := c.Query(q).Exec(); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// clustered runs the units of all nodes of a target as one session, as the
// workflow runs them side by side: artifact names carry the member.
type clustered struct{ *Plugin }

func (c clustered) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	if t.Member != "" {
		return c.Plugin.Open(ctx, t)
	}
	out := &cluster{}
	for _, m := range t.Members {
		one := t
		one.Member = m.Name
		s, err := c.Plugin.Open(ctx, one)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out.names = append(out.names, m.Name)
		out.units = append(out.units, s.(*session))
	}
	return out, nil
}
