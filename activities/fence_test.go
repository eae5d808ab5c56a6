package activities

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"go.temporal.io/sdk/testsuite"

	"github.com/csobackup/cso_backupnrestore/internal/attempts"
	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/fences"
	"github.com/csobackup/cso_backupnrestore/internal/guard"
	"github.com/csobackup/cso_backupnrestore/internal/pins"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// fenced is a plugin whose database notes what it was told.
type fenced struct {
	component string
	cannot    error // of Fence
	said      []string
}

func (f *fenced) Info() plugins.Info { return plugins.Info{Component: f.component} }
func (f *fenced) Open(_ context.Context, t plugins.Target) (plugins.Session, error) {
	return &fencedSession{plugin: f}, nil
}

// fencedSession is only asked what this test is about.
type fencedSession struct {
	plugins.Session
	plugin *fenced
}

func (s *fencedSession) say(what string) error {
	s.plugin.said = append(s.plugin.said, what)
	return nil
}

func (s *fencedSession) PreHook(context.Context, plugins.Run) error  { return s.say("pre") }
func (s *fencedSession) PostHook(context.Context, plugins.Run) error { return s.say("post") }
func (s *fencedSession) Unfence(context.Context, plugins.Run) error  { return s.say("unfence") }
func (s *fencedSession) Close() error                                { return nil }
func (s *fencedSession) Fence(context.Context, plugins.Run) error {
	if s.plugin.cannot != nil {
		return s.plugin.cannot
	}
	return s.say("fence")
}

// vm is a worker's state in a directory: a second one on the same directory is the worker started anew.
func vm(t *testing.T, dir string, p *fenced) *VM {
	t.Helper()
	v := &VM{Name: "vm-1", Pins: pins.New(0), Scratch: filepath.Join(dir, "scratch"), Log: slog.New(slog.DiscardHandler)}
	var errs [4]error
	v.Registry, errs[0] = plugins.NewRegistry(p)
	v.Guard, errs[1] = guard.Open(filepath.Join(dir, "guard"))
	v.Attempts, errs[2] = attempts.New(filepath.Join(dir, "units"))
	v.Fences, errs[3] = fences.Open(filepath.Join(dir, "fences"))
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	target := plugins.Target{Component: p.component, Instance: "central", Members: []plugins.Member{{Name: "one", VM: "vm-1", Address: "127.0.0.1:1"}}}
	v.Estate = func() (*config.Estate, error) { return config.Discovered("vm-1", []plugins.Target{target}), nil }
	return v
}

// do runs one activity as part of the run that every test environment has.
func do(t *testing.T, activity any, in any) error {
	t.Helper()
	var s testsuite.WorkflowTestSuite
	e := s.NewTestActivityEnvironment()
	e.RegisterActivity(activity)
	_, err := e.ExecuteActivity(activity, in)
	return err
}

var component = plugins.Components[0].Name

func claimed(n uint64) epoch.Claim {
	return epoch.Claim{Epoch: n, Run: "default-test-run-id", Nonce: "n"}
}

func hook(c epoch.Claim, op plugins.Operation, post bool) workflows.UnitInput {
	return workflows.UnitInput{Claim: c, Unit: workflows.Unit{Component: component, Instance: "central", Member: "one", VM: "vm-1"}, Operation: op, Post: post}
}

// TestFence: from the safety backup on a restore has the database refuse foreign writes, and the run's last act
// on the VM lets them in again. A backup fences nothing.
func TestFence(t *testing.T) {
	p := &fenced{component: component}
	v := vm(t, t.TempDir(), p)
	c := claimed(7)
	for _, err := range []error{
		do(t, v.Quiet, c),
		do(t, v.Hook, hook(c, plugins.OpBackup, false)), do(t, v.Hook, hook(c, plugins.OpBackup, true)),
		do(t, v.Hook, hook(c, plugins.OpSafety, false)), do(t, v.Hook, hook(c, plugins.OpSafety, true)),
		do(t, v.Hook, hook(c, plugins.OpRestore, false)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := v.SweepFences(t.Context()); err != nil { // the run is alive
		t.Fatal(err)
	}
	if err := do(t, v.End, c); err != nil {
		t.Fatal(err)
	}
	want := []string{"pre", "post", "pre", "fence", "post", "pre", "fence", "unfence"}
	if !slices.Equal(p.said, want) {
		t.Errorf("the database was told %q, want %q", p.said, want)
	}
	if left, err := v.Fences.List(); err != nil || len(left) > 0 {
		t.Errorf("left on the list: %+v, %v", left, err)
	}
}

// TestFenceOfADeadRun: whoever comes next lets writes in: the next run, or the worker that is started anew after the
// run has ended elsewhere. While the run may be alive, a worker that is started anew leaves its fence alone.
func TestFenceOfADeadRun(t *testing.T) {
	for _, c := range []struct {
		name string
		next func(t *testing.T, v *VM) error
		want bool // writes are let in
	}{
		{"another run", func(t *testing.T, v *VM) error { return do(t, v.Quiet, claimed(8)) }, true},
		{"started anew, the run goes on", func(t *testing.T, v *VM) error { return v.SweepFences(t.Context()) }, false},
		{"started anew, the run has ended", func(t *testing.T, v *VM) error {
			return errors.Join(v.Guard.End(claimed(7)), v.SweepFences(t.Context()))
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, p := t.TempDir(), &fenced{component: component}
			dead := vm(t, dir, p)
			if err := errors.Join(do(t, dead.Quiet, claimed(7)), do(t, dead.Hook, hook(claimed(7), plugins.OpRestore, false))); err != nil {
				t.Fatal(err)
			}
			if err := c.next(t, vm(t, dir, p)); err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(p.said, "unfence"); got != c.want {
				t.Errorf("the database was told %q", p.said)
			}
		})
	}
}

// TestFenceThatFails: a database that has no such switch is not on the list; one that may have heard of it stays there, and
// the restore goes on.
func TestFenceThatFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		left int
	}{{plugins.ErrUnsupported, 0}, {errors.New("no answer"), 1}} {
		p := &fenced{component: component, cannot: c.err}
		v := vm(t, t.TempDir(), p)
		if err := errors.Join(do(t, v.Quiet, claimed(7)), do(t, v.Hook, hook(claimed(7), plugins.OpSafety, false))); err != nil {
			t.Errorf("%v: %v", c.err, err)
		}
		if left, err := v.Fences.List(); err != nil || len(left) != c.left {
			t.Errorf("%v: on the list: %+v, %v", c.err, left, err)
		}
	}
}
