package cassandra

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// epochs of the tests beside the conformance suite are above the suite's.
var epochs atomic.Uint64

func newRun(t testing.TB, op plugins.Operation) plugins.Run {
	t.Helper()
	epochs.CompareAndSwap(0, uint64(time.Now().Unix())+1_000_000)
	e := epochs.Add(1)
	return plugins.Run{Epoch: e, Operation: op, Backup: "TEST/2026-01-02T03-04-05Z", Attempt: fmt.Sprint(e), Parallel: 4, Scratch: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// rig is what the tests beside the suite work with.
type rig struct {
	*bench
	t  testing.TB
	on plugins.Target
}

func newRig(t testing.TB, b *bench, instance string) *rig {
	return &rig{b, t, b.target(t, instance)}
}

// with opens the units of the target as one session.
func (r *rig) with(do func(s plugins.Session) error) error {
	r.t.Helper()
	s, err := clustered{New()}.Open(r.t.Context(), r.on)
	if err != nil {
		return err
	}
	err = do(s)
	must(r.t, s.Close())
	return err
}

func (r *rig) tryBackup() (*plugintest.Memory, plugins.Report, error) {
	r.t.Helper()
	m := plugintest.NewMemory()
	var rep plugins.Report
	err := r.with(func(s plugins.Session) (err error) {
		rep, err = s.Backup(r.t.Context(), newRun(r.t, plugins.OpBackup), m)
		return err
	})
	return m, rep, err
}

func (r *rig) backup() *plugintest.Memory {
	r.t.Helper()
	m, _, err := r.tryBackup()
	must(r.t, err)
	return m
}

// tryRestore restores data and accounts, and compares.
func (r *rig) tryRestore(m plugins.ArtifactReader) (rep plugins.Report, err error) {
	r.t.Helper()
	run := newRun(r.t, plugins.OpRestore)
	err = r.with(func(s plugins.Session) (err error) {
		if rep, err = s.Restore(r.t.Context(), run, m); err != nil {
			return err
		}
		if _, err = s.(plugins.AccountSwitcher).RestoreAccounts(r.t.Context(), run, m); err != nil {
			return err
		}
		diff, err := s.Compare(r.t.Context(), run, m)
		if err == nil && len(diff) > 0 {
			err = fmt.Errorf("differs after the restore: %+v", diff)
		}
		return err
	})
	return rep, err
}

func (r *rig) restore(m plugins.ArtifactReader) plugins.Report {
	r.t.Helper()
	rep, err := r.tryRestore(m)
	must(r.t, err)
	return rep
}

func (r *rig) print() string {
	r.t.Helper()
	return r.fingerprint(r.t, r.on)
}

func (r *rig) same(want string) {
	r.t.Helper()
	sameLines(r.t, want, r.print())
}

func sameLines(t testing.TB, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	count := map[string]int{}
	for l := range strings.Lines(want) {
		count[l]++
	}
	for l := range strings.Lines(got) {
		count[l]--
	}
	var lines []string
	for _, l := range slices.Sorted(maps.Keys(count)) {
		if n := count[l]; n != 0 && len(lines) < 12 {
			lines = append(lines, fmt.Sprintf("%s %.200q", map[bool]string{true: "missing", false: "extra  "}[n > 0], l))
		}
	}
	t.Fatalf("fingerprint differs:\n%s", strings.Join(lines, "\n"))
}

func (r *rig) health() plugins.Health {
	r.t.Helper()
	var h plugins.Health
	must(r.t, r.with(func(s plugins.Session) (err error) {
		h, err = s.Health(r.t.Context())
		return err
	}))
	return h
}

// do runs statements as the lab's superuser through the first node.
func (r *rig) do(statements ...string) {
	r.t.Helper()
	r.cql(r.t, r.on, statements...)
}

// dial logs in to the first node, and does not wait for dead nodes to learn of a change of the schema.
func (r *rig) dial(user, password string) (*gocql.Session, error) {
	m := r.members(r.t, r.on.Instance)[0]
	c := gocql.NewCluster(m.Options["host"])
	c.Port, c.ProtoVersion, c.DisableInitialHostLookup = m.Ports["cql"], 4, true
	c.Timeout, c.ConnectTimeout, c.NumConns, c.MaxWaitSchemaAgreement = 20*time.Second, 10*time.Second, 1, 100*time.Millisecond
	c.Logger = log.New(io.Discard, "", 0)
	c.Authenticator = gocql.PasswordAuthenticator{Username: user, Password: password}
	return c.CreateSession()
}

// define changes the schema while a node is dead.
func (r *rig) define(statements ...string) {
	r.t.Helper()
	password, err := os.ReadFile(r.members(r.t, r.on.Instance)[0].Options["admin_password_file"])
	must(r.t, err)
	c, err := r.dial("lab_admin", string(password))
	must(r.t, err)
	defer c.Close()
	for _, q := range statements {
		if err := c.Query(q).Exec(); err != nil && !strings.Contains(err.Error(), "schema versions") {
			r.t.Fatalf("%s: %v", q, err)
		}
	}
}

// count asks one number, of the n-th node.
func (r *rig) count(n int, q string) int {
	r.t.Helper()
	c := r.client(r.t, r.on, n)
	defer c.Close()
	var out int
	if err := c.Query(q).Consistency(gocql.One).Scan(&out); err != nil {
		r.t.Fatalf("%s: %v", q, err)
	}
	return out
}

// crash ends nodes as a power cut does, and starts them again.
func (r *rig) crash(nodes ...int) {
	r.t.Helper()
	for _, n := range nodes {
		must(r.t, r.lab.Kill(context.Background(), r.on.Members[n].Name))
	}
	for _, n := range nodes[:len(nodes)-1] {
		must(r.t, r.lab.Launch(context.Background(), r.on.Members[n].Name))
	}
	for _, n := range nodes {
		must(r.t, r.lab.StartMember(context.Background(), r.on.Members[n].Name))
	}
	r.whole()
}

// whole waits until every node sees all the others.
func (r *rig) whole() {
	r.t.Helper()
	for n := range r.on.Members {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
			one := r.on
			one.Member = r.on.Members[n].Name
			s, err := New().Open(r.t.Context(), one)
			if err == nil {
				dead, serr := s.(*session).admin.status(r.t.Context())
				own := s.(*session).down == nil
				must(r.t, s.Close())
				if serr == nil && own && len(dead) == 0 {
					break
				}
			}
			if time.Now().After(deadline) {
				r.t.Fatalf("%s does not see all nodes: %v", one.Member, err)
			}
		}
	}
}

// withSuperuser names the lab's superuser to the product.
func (r *rig) withSuperuser() plugins.Target {
	return option(option(r.on, "superuser", "lab_admin"), "superuser_password_file", r.members(r.t, r.on.Instance)[0].Options["admin_password_file"])
}

// without is the target without an option, for all members.
func without(on plugins.Target, options ...string) plugins.Target {
	on.Members = slices.Clone(on.Members)
	for i := range on.Members {
		o := maps.Clone(on.Members[i].Options)
		for _, n := range options {
			delete(o, n)
		}
		on.Members[i].Options = o
	}
	return on
}

// with an option for all members.
func option(on plugins.Target, name, value string) plugins.Target {
	on = without(on)
	for i := range on.Members {
		on.Members[i].Options[name] = value
	}
	return on
}
