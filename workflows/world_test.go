package workflows

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// world is an estate as the activities see it: what is on, written, sealed,
// held. Steps fail when a test says so.
type world struct {
	mu          sync.Mutex
	units       []Unit
	maintenance bool
	entered     bool              // maintenance was entered at least once
	content     map[string]string // unit -> backup it equals
	sealed      []string
	discarded   string
	outcome     string
	held        string
	claims      uint64
	adopt       FenceResult
	begun       []string
	unreadable  string   // what a copy could not take
	lateSick    int      // how many health checks after the accounts were switched find a unit RED; -1: all
	built       []string // unit and member, in the order of their writes
	calls       []string
	failing     map[string]int // step -> how many more times it fails; -1: always
	code        problem.Code
	foreign     int // how many comparisons see somebody else's writes
	unpinnable  string
	gap         bool
	noSwitch    bool
	stall       string // step that lasts until it is cancelled
	rebuildable string // component whose derived data can be rebuilt
	rebuilt     []UnitInput
	written     []UnitInput
	compared    []UnitInput
	meet        *sync.WaitGroup // members that do not write before all of them are there
}

func newWorld() *world {
	w := &world{content: map[string]string{}, failing: map[string]int{}, code: problem.Failed}
	for _, c := range []string{"zookeeper", "etcd", "mariadb"} {
		w.units = append(w.units, Unit{Component: c, Instance: "central", Member: ClusterMember, VM: "vm1"})
	}
	w.units = append(w.units, Unit{Component: "secrets", Instance: "central", Member: "vm2", VM: "vm2"})
	for _, u := range w.units {
		w.content[u.String()] = "live"
	}
	return w
}

// step records a call and fails it when told so, for good.
func (w *world) step(name string) error {
	w.calls = append(w.calls, name)
	if n := w.failing[name]; n != 0 {
		w.failing[name] = n - 1
		return temporal.NewApplicationErrorWithOptions(name+" broke", string(w.code), temporal.ApplicationErrorOptions{
			NonRetryable: true, Details: []any{problem.Problem{Code: w.code, Message: name + " broke"}}})
	}
	return nil
}

func (w *world) register(env *testsuite.TestWorkflowEnvironment) {
	add := func(name string, f any) { env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name}) }
	lock := func(name string) (func(), error) { w.mu.Lock(); return w.mu.Unlock, w.step(name) }
	add("Survey", func(_ context.Context, in SurveyInput) (Survey, error) {
		unlock, err := lock("Survey")
		defer unlock()
		s := Survey{Units: w.units, VMs: []string{"vm1", "vm2"}, HasSwitch: !w.noSwitch, MaxMaintenance: time.Minute, Parallel: 2, Heartbeat: time.Minute, VMLostAfter: 2 * time.Second, Free: 1 << 40}
		s.Backup = "2026-01-02T03-04-05Z"
		if w.rebuildable != "" {
			s.Reindexable = choose(w.units, []string{w.rebuildable})
		}
		if in.Name != "" {
			s.Backup = in.Name + "/" + s.Backup
		}
		return s, err
	})
	add("Ping", func(context.Context) (PingResult, error) {
		unlock, err := lock("Ping")
		defer unlock()
		return PingResult{Now: time.Now()}, err
	})
	add("Fence", func(context.Context, FenceInput) (FenceResult, error) {
		unlock, err := lock("Fence")
		defer unlock()
		w.claims++
		f := w.adopt
		f.Claim = epoch.Claim{Epoch: w.claims, Run: "run"}
		return f, err
	})
	add("Quiet", func(context.Context, epoch.Claim) error { unlock, err := lock("Quiet"); defer unlock(); return err })
	add("Health", func(_ context.Context, u Unit) (UnitHealth, error) {
		unlock, err := lock("Health")
		defer unlock()
		late := w.lateSick != 0 && slices.Contains(w.calls, "SwitchAccounts")
		if late {
			w.lateSick--
		}
		if err != nil || late {
			return UnitHealth{Unit: u.String(), Grade: "RED", Reasons: []string{"sick"}}, nil
		}
		return UnitHealth{Unit: u.String(), Grade: "GREEN"}, nil
	})
	add("Hook", func(_ context.Context, in UnitInput) error {
		name := "PreHook"
		if in.Post {
			name = "PostHook"
		}
		unlock, err := lock(name)
		defer unlock()
		return err
	})
	add("Pin", func(_ context.Context, in UnitInput) (PinResult, error) {
		unlock, err := lock("Pin")
		defer unlock()
		if in.Unit.Component == w.unpinnable {
			return PinResult{}, err
		}
		return PinResult{ID: "pin-" + in.Unit.String(), At: time.Now()}, err
	})
	add("Copy", func(ctx context.Context, in UnitInput) (UnitResult, error) {
		if w.stall == "Copy" {
			<-ctx.Done()
			return UnitResult{}, temporal.NewCanceledError()
		}
		unlock, err := lock("Copy")
		defer unlock()
		if in.Pinned == "" && !w.maintenance {
			w.gap = true
		}
		res := UnitResult{Unit: in.Unit.String(), Artifacts: 1, Bytes: 100}
		if w.unreadable != "" {
			res.Warnings = []string{w.unreadable}
		}
		return res, err
	})
	add("Release", func(context.Context, epoch.Claim) error { return nil })
	add("End", func(context.Context, epoch.Claim) error { return nil })
	add("HoldMaintenance", func(ctx context.Context, _ HoldInput) error {
		<-ctx.Done()
		return temporal.NewCanceledError()
	})
	add("EnterMaintenance", func(context.Context, EnterInput) (EnterResult, error) {
		unlock, err := lock("EnterMaintenance")
		defer unlock()
		w.maintenance, w.entered = true, true
		return EnterResult{}, err
	})
	add("ExitMaintenance", func(context.Context, epoch.Claim) (LeaveResult, error) {
		unlock, err := lock("ExitMaintenance")
		defer unlock()
		if err == nil {
			w.maintenance = false
		}
		return LeaveResult{Was: true, Held: time.Second}, err
	})
	add("VerifyStored", func(_ context.Context, in VerifyStoredInput) (VerifyResult, error) {
		unlock, err := lock("VerifyStored")
		defer unlock()
		return VerifyResult{Backup: in.Backup}, err
	})
	add("Seal", func(_ context.Context, in SealInput) (SealResult, error) {
		unlock, err := lock("Seal")
		defer unlock()
		if err == nil {
			w.sealed = append(w.sealed, in.Backup)
		}
		return SealResult{Bytes: 400}, err
	})
	add("OpenBackup", func(_ context.Context, in OpenInput) (OpenResult, error) {
		unlock, err := lock("OpenBackup")
		defer unlock()
		out := OpenResult{Backup: in.Backup, Units: choose(w.units, in.Components), Taken: time.Now()}
		for _, u := range out.Units {
			if u.Member == ClusterMember {
				for _, name := range []string{"a", "b"} {
					out.Members = append(out.Members, Unit{Component: u.Component, Instance: u.Instance, Member: name, VM: "vm1"})
				}
			}
		}
		return out, err
	})
	add("PlanUnit", func(_ context.Context, in UnitInput) (UnitPlanResult, error) {
		unlock, err := lock("PlanUnit")
		defer unlock()
		return UnitPlanResult{Plan: UnitPlan{Unit: in.Unit.String(), Grade: "GREEN"}}, err
	})
	add("Mark", func(_ context.Context, in MarkInput) error {
		unlock, err := lock("Mark")
		defer unlock()
		w.begun = append(w.begun, in.Begin...)
		for _, p := range in.Proven {
			w.begun = slices.DeleteFunc(w.begun, func(b string) bool { return b == p })
		}
		return err
	})
	write := func(step string) func(context.Context, UnitInput) (UnitResult, error) {
		return func(_ context.Context, in UnitInput) (UnitResult, error) {
			name := step
			if in.Operation == plugins.OpRollback {
				name = "Rollback"
			}
			if w.meet != nil && in.Unit.Component == "cassandra" {
				w.meet.Done()
				w.meet.Wait()
			}
			unlock, err := lock(name)
			defer unlock()
			if !w.maintenance || !slices.Contains(w.begun, in.Unit.String()) {
				return UnitResult{}, errors.New("written outside of maintenance or without the journal")
			}
			w.written = append(w.written, in)
			w.built = append(w.built, in.Unit.String()+" "+in.Member)
			w.content[in.Unit.String()] = in.Backup
			if err != nil {
				w.content[in.Unit.String()] = "half"
			}
			return UnitResult{Unit: in.Unit.String(), Artifacts: 1}, err
		}
	}
	add("RestoreUnit", write("RestoreUnit"))
	add("Bootstrap", write("Bootstrap"))
	add("SwitchAccounts", func(context.Context, UnitInput) (UnitResult, error) {
		unlock, err := lock("SwitchAccounts")
		defer unlock()
		return UnitResult{}, err
	})
	add("ReindexUnit", func(_ context.Context, in UnitInput) (UnitResult, error) {
		unlock, err := lock("ReindexUnit")
		defer unlock()
		w.rebuilt = append(w.rebuilt, in)
		w.gap = w.gap || !w.maintenance
		return UnitResult{Unit: in.Unit.String(), Artifacts: 2, Records: 100}, err
	})
	add("CompareUnit", func(_ context.Context, in UnitInput) (CompareResult, error) {
		name := "CompareUnit"
		if in.Operation == plugins.OpRollback {
			name = "CompareRollback"
		}
		unlock, err := lock(name)
		defer unlock()
		w.compared = append(w.compared, in)
		if w.foreign > 0 {
			w.foreign--
			return CompareResult{Foreign: true, Differences: []string{"t changed"}}, nil
		}
		if err != nil {
			return CompareResult{Differences: []string{"t changed"}}, nil
		}
		return CompareResult{Equal: w.content[in.Unit.String()] == in.Backup}, nil
	})
	add("Cleanup", func(_ context.Context, in CleanupInput) error {
		unlock, err := lock("Cleanup")
		defer unlock()
		if in.Hold != "" {
			w.held = in.Hold
			return nil
		}
		w.discarded, w.outcome = in.Backup, in.Outcome
		return err
	})
	add("Held", func(context.Context, ResolveInput) (FenceResult, error) { return w.adopt, nil })
	add("WatchVMs", func(ctx context.Context, _ WatchInput) error {
		unlock, err := lock("WatchVMs")
		unlock()
		if err != nil {
			return err
		}
		<-ctx.Done()
		return temporal.NewCanceledError()
	})
	add("Holder", func(context.Context) (Progress, error) { return Progress{Operation: "restore", Phase: "copy"}, nil })
	add("Notes", func(context.Context) ([]VMNote, error) { return nil, nil })
}

// play runs a workflow in the world and gives its result.
func (w *world) play(t *testing.T, workflow any, in any, during ...func(*testsuite.TestWorkflowEnvironment)) (Result, error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(30 * time.Second)
	w.register(env)
	env.RegisterWorkflow(Backup)
	for _, d := range during {
		d(env)
	}
	env.ExecuteWorkflow(workflow, in)
	if !env.IsWorkflowCompleted() {
		t.Fatal("the workflow did not end")
	}
	var out Result
	if err := env.GetWorkflowError(); err != nil {
		return out, err
	}
	return out, env.GetWorkflowResult(&out)
}
