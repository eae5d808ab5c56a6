package cassandra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

func newMemory() *plugintest.Memory { return plugintest.NewMemory() }

// nodetool runs the server's program on the first node.
func (r *rig) nodetool(args ...string) string { return r.nodetoolOn(0, args...) }

func (r *rig) nodetoolOn(n int, args ...string) string {
	r.t.Helper()
	o := r.on.Members[n].Options
	_, port, _ := strings.Cut(o["jmx"], ":")
	out, err := exec.Command(o["nodetool"], append([]string{"-p", port}, args...)...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("nodetool %q: %v: %s", args, err, out)
	}
	return string(out)
}

// TestMemberDown: one node of three is dead. A backup goes on while every range has a live copy, a restore
// waits; hints for the dead node do not bring back what the restore has removed.
func TestMemberDown(t *testing.T) {
	b := on(t, threeNodes)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 51)
	want := r.print()
	m := r.backup()
	if h := r.health(); h.Grade != plugins.Green || h.Members != 3 || h.Estimate == 0 {
		t.Fatalf("health of a sound ring: %+v", h)
	}

	dead := r.on.Members[2].Name
	must(t, b.lab.Kill(context.Background(), dead))
	r.awaitDead(0, 1)
	if h := r.health(); h.Grade != plugins.Amber || !strings.Contains(fmt.Sprint(h.Reasons), "is unreachable") {
		t.Errorf("health with %s dead: %+v", dead, h)
	}
	lone := r.on
	lone.Member = dead
	s, err := New().Open(t.Context(), lone)
	must(t, err)
	h, err := s.Health(t.Context())
	if err != nil || h.Grade != plugins.Amber || !strings.Contains(fmt.Sprint(h.Reasons), dead+" is down; the others hold all data") {
		t.Errorf("health of %s: %+v, %v", dead, h, err)
	}
	must(t, s.Close())
	half, rep, err := r.tryBackup()
	if err != nil || !strings.Contains(fmt.Sprint(rep.Warnings), dead+" is down") {
		t.Fatalf("backup without %s: %v, %+v", dead, err, rep)
	}
	if _, err := r.tryRestore(m); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("restore without %s: %v, want ErrUnavailable", dead, err)
	}
	r.define(`CREATE KEYSPACE lone WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`, `CREATE TABLE lone.t (id int PRIMARY KEY)`)
	if _, _, err := r.tryBackup(); !errors.Is(err, plugins.ErrUnavailable) || !strings.Contains(err.Error(), "8 of 24 ranges of keyspace lone") {
		t.Errorf("backup without the only copy: %v, want it named", err)
	}
	r.define(`DROP KEYSPACE lone`)

	for n := range 2 {
		r.nodetoolOn(n, "pausehandoff")
	}
	for i := range 20 {
		r.do(fmt.Sprintf(`INSERT INTO zoo.base (id, cat) VALUES (%d, 'hinted')`, 6000+i))
	}
	r.nodetool("flush", "system") // hints are written to their files on a timer; this one gives it time
	must(t, b.lab.StartMember(context.Background(), dead))
	r.whole()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		h := r.health()
		if h.Grade == plugins.Amber && strings.Contains(fmt.Sprint(h.Reasons), "of hints wait") {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("health with hints that wait: %+v", h)
			break
		}
	}
	r.restore(m)
	r.same(want)
	for n := range 2 {
		r.nodetoolOn(n, "resumehandoff")
	}
	r.awaitHints()
	r.same(want)

	// The backup that has no files of one node fills it from the others'.
	b.wreck(t, r.on, 5)
	r.restore(half)
	r.same(want)
}

// awaitDead waits until the nodes know that another is dead.
func (r *rig) awaitDead(nodes ...int) {
	r.t.Helper()
	for _, n := range nodes {
		for deadline := time.Now().Add(time.Minute); !strings.Contains(r.nodetoolOn(n, "status"), "\nDN"); {
			if time.Now().After(deadline) {
				r.t.Fatal("nobody noticed that a node is dead")
			}
		}
	}
}

// awaitHints waits until the hints are delivered.
func (r *rig) awaitHints() {
	r.t.Helper()
	for _, m := range r.on.Members {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(300 * time.Millisecond) {
			left, err := filepath.Glob(filepath.Join(filepath.Dir(m.Options["data_dir"]), "hints", "*.hints"))
			if err == nil && len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				r.t.Fatalf("hints of %s are not delivered: %q", m.Name, left)
			}
		}
	}
}

// shown is a fingerprint without the nodes that saw it.
func shown(print string) string {
	var out []string
	for l := range strings.Lines(print) {
		f := strings.SplitN(strings.TrimSpace(l), " ", 3)
		if f[0] == "row" || f[0] == "time" {
			f = []string{f[0], f[2]}
		}
		if f[0] == "role" || f[0] == "permissions" { // each cluster of the lab has made its own passwords
			continue
		}
		out = append(out, strings.Join(f, " "))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "\n")
}

// TestOtherRing: three nodes to one, one to three, and one to one with other tokens.
func TestOtherRing(t *testing.T) {
	three, one, east := newRig(t, on(t, threeNodes), "central"), newRig(t, on(t, oneNode), "central"), newRig(t, on(t, oneNode), "east")
	for _, c := range []struct {
		name     string
		from, to *rig
	}{{"three to one", three, one}, {"one to three", one, three}, {"other tokens", one, east}} {
		t.Run(c.name, func(t *testing.T) {
			from, to := newRig(t, c.from.bench, c.from.on.Instance), newRig(t, c.to.bench, c.to.on.Instance)
			from.fill(t, from.on, 61)
			want := shown(from.print())
			m := from.backup()
			to.on = to.withSuperuser() // each lab has made its own superuser
			to.fill(t, to.on, 62)
			to.wreck(t, to.on, 63)
			run := newRun(t, plugins.OpRestore)
			restore := func() (rep plugins.Report) {
				must(t, to.with(func(s plugins.Session) (err error) {
					if pl, err := s.(plugins.Planner).Plan(t.Context(), run, m); err != nil || len(pl.Refusals) > 0 {
						t.Errorf("plan: %+v, %v", pl, err)
					}
					if rep, err = s.Restore(t.Context(), run, m); err != nil {
						return err
					}
					diff, err := s.Compare(t.Context(), run, m)
					for _, d := range diff {
						if !s.(plugins.AccountSwitcher).AccountArtifact(d.Artifact) {
							t.Errorf("after the restore: %+v", d)
						}
					}
					return err
				}))
				return rep
			}
			restore()
			sameLines(t, want, shown(to.print()))
			if rep := restore(); rep.Artifacts != 0 {
				t.Errorf("a second restore imported again: %+v", rep)
			}
			// Each node holds what is its own, and no more.
			for n := range to.on.Members {
				if got := to.count(n, `SELECT count(*) FROM zoo.base`); got != from.count(0, `SELECT count(*) FROM zoo.base`) {
					t.Errorf("%d rows through %s", got, to.on.Members[n].Name)
				}
			}
		})
	}
}

// TestStraggler: the worker of one node dies in the middle; the others wait for its next attempt, and all end well.
func TestStraggler(t *testing.T) {
	b := on(t, threeNodes)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 71)
	want := r.print()
	m := r.backup()
	b.wreck(t, r.on, 72)
	run := newRun(t, plugins.OpRestore)
	must(t, r.with(func(s plugins.Session) error {
		c := s.(*cluster)
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i, u := range c.units {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if i == 1 {
					_, err := u.Restore(t.Context(), c.own(run, i), unitReader{m.Clone().KillAtRecord(40), c.names[i]})
					if !errors.Is(err, plugintest.ErrKilled) {
						t.Errorf("the straggler's first attempt: %v", err)
					}
					time.Sleep(time.Second)
				}
				_, errs[i] = u.Restore(t.Context(), c.own(run, i), unitReader{m, c.names[i]})
			}()
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		_, err := s.(plugins.AccountSwitcher).RestoreAccounts(t.Context(), run, m)
		return err
	}))
	r.same(want)
}

// TestAllKnow: somebody writes after a restore to a row that one node holds; the units of all nodes learn of it, because
// the repair needs them all.
func TestAllKnow(t *testing.T) {
	b := on(t, threeNodes)
	r := newRig(t, b, "central")
	r.do(`CREATE KEYSPACE sole WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`, `CREATE TABLE sole.t (id int PRIMARY KEY, v text)`,
		`INSERT INTO sole.t (id, v) VALUES (1, 'one')`)
	defer r.do(`DROP KEYSPACE sole`)
	want := r.print()
	m := r.backup()
	r.do(`INSERT INTO sole.t (id, v) VALUES (1, 'other')`)
	run := newRun(t, plugins.OpRestore)
	must(t, r.with(func(s plugins.Session) error {
		_, err := s.Restore(t.Context(), run, m)
		return err
	}))
	r.do(`INSERT INTO sole.t (id, v) VALUES (2, 'somebody else')`)
	must(t, r.with(func(s plugins.Session) error {
		diff, err := s.Compare(t.Context(), run, m)
		units := map[string]bool{}
		for _, d := range diff {
			if !d.Foreign || !strings.HasSuffix(d.Artifact, contentArtifact(tableName{"sole", "t"})) {
				t.Errorf("after somebody's write: %+v", d)
			}
			units[d.Artifact] = true
		}
		if err != nil || len(units) != 3 {
			return fmt.Errorf("%d units know of it, want 3: %+v, %w", len(units), diff, err)
		}
		if _, err = s.Restore(t.Context(), run, m); err != nil {
			return err
		}
		if diff, err = s.Compare(t.Context(), run, m); len(diff) > 0 {
			t.Errorf("after the repair: %+v", diff)
		}
		return err
	}))
	r.same(want)
}

// TestWritesRefused: a fence ends with the run that set it, even when that dies, and leaves an operator's
// own setting as it was.
func TestWritesRefused(t *testing.T) {
	b := on(t, threeNodes)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 81)
	try := b.tryWrite(t)
	if !five() {
		err := r.with(func(s plugins.Session) error {
			return s.(plugins.Fencer).Fence(t.Context(), newRun(t, plugins.OpRestore))
		})
		if !errors.Is(err, plugins.ErrUnsupported) {
			t.Errorf("fence before 5.0: %v, want ErrUnsupported", err)
		}
		return
	}
	last := len(r.on.Members) - 1
	must(t, r.with(func(s plugins.Session) error { // an operator's own setting
		return s.(*cluster).each(t.Context(), func(ctx context.Context, _ int, u *session) error { return u.admin.setGuardrail(ctx, "ANY") })
	}))
	dying := newRun(t, plugins.OpRestore)
	must(t, r.with(func(s plugins.Session) error { return s.(plugins.Fencer).Fence(t.Context(), dying) }))
	var req gocql.RequestError
	if err := try(r.on); !errors.As(err, &req) || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("a write through the last node of a fenced ring: %v", err)
	}
	if h := r.health(); h.Grade != plugins.Green {
		t.Errorf("health of a ring that a restore has just fenced: %+v", h)
	}
	must(t, r.with(func(s plugins.Session) error {
		return s.(*cluster).each(t.Context(), func(ctx context.Context, _ int, u *session) error {
			file, err := u.fenceFile(ctx)
			ago := time.Now().Add(-2 * longFence)
			return errors.Join(err, os.Chtimes(file, ago, ago))
		})
	}))
	if h := r.health(); h.Grade != plugins.Amber {
		t.Errorf("health of a ring that was fenced long ago: %+v", h)
	}
	// The run is dead. The next one lets writes in again.
	must(t, r.with(func(s plugins.Session) error { return s.PreHook(t.Context(), newRun(t, plugins.OpBackup)) }))
	must(t, try(r.on))
	if out := r.nodetoolOn(last, "getguardrailsconfig", guardrailName); !strings.Contains(out, "ANY") || strings.Contains(out, "QUORUM") {
		t.Errorf("the operator's own setting became %q", out)
	}
	r.nodetoolOn(last, "setguardrailsconfig", guardrailName, "null")
	must(t, r.with(func(s plugins.Session) error {
		return s.(*cluster).each(t.Context(), func(ctx context.Context, i int, u *session) error {
			have, err := u.disallowed(ctx)
			if want := map[bool]string{true: "", false: "ANY"}[i == last]; err == nil && have != want {
				t.Errorf("the setting of node %d is %q, want %q", i, have, want)
			}
			return errors.Join(err, u.admin.setGuardrail(ctx, ""))
		})
	}))
}

// TestDisaster: all servers of an instance are destroyed and installed anew; one of them has not been started. Each member
// is built from the backup, and the accounts are those of the backup, too. With CSO_CASSANDRA_RING=all that are three.
func TestDisaster(t *testing.T) {
	b, instance := on(t, oneNode), "east"
	if whole() {
		b, instance = on(t, threeNodes), "central"
	}
	r := newRig(t, b, instance)
	b.fill(t, r.on, 101)
	want := r.print()
	m := r.backup()
	component := "cassandra"
	if instance != "central" {
		component += "@" + instance
	}
	must(t, b.lab.Reinstall(context.Background(), component))
	sleeping := r.on.Members[len(r.on.Members)-1].Name
	must(t, b.lab.Kill(context.Background(), sleeping))
	asked := filepath.Join(t.TempDir(), "asked")
	program := filepath.Join(t.TempDir(), "control")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" >> '"+asked+"'\n"), 0o700))
	r.on = option(r.withSuperuser(), "control_program", program)
	run := newRun(t, plugins.OpDisaster)
	done := make(chan error, 1)
	go func() { // what the operator's program does
		for {
			if text, _ := os.ReadFile(asked); strings.Contains(string(text), "start "+sleeping) {
				done <- b.lab.StartMember(context.Background(), sleeping)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	errs := make([]error, len(r.on.Members))
	var wg sync.WaitGroup
	for i, mem := range r.on.Members {
		one := r.on
		one.Member = mem.Name
		own := run
		own.Scratch = t.TempDir()
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, errs[i] = New().Bootstrap(t.Context(), one, own, unitReader{m, mem.Name})
		}()
	}
	wg.Wait()
	must(t, errors.Join(errors.Join(errs...), <-done))
	must(t, r.with(func(s plugins.Session) error {
		if _, err := s.(plugins.AccountSwitcher).RestoreAccounts(t.Context(), run, m); err != nil {
			return err
		}
		diff, err := s.Compare(t.Context(), run, m)
		if len(diff) > 0 {
			t.Errorf("after the recovery: %+v", diff)
		}
		return err
	}))
	r.same(want)
}
