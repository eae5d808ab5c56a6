package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// run is the state every operation shares: where it stands, and its claim.
type run struct {
	survey   Survey
	claim    epoch.Claim
	progress Progress
	warnings []string
	began    []string // units a restore has begun to write
	adopted  []string // units half written by a held run that this one took over
	serial   int      // makes activity IDs unique
	lease    lease
	watcher  workflow.Future
	unwatch  workflow.CancelFunc
	group    workflow.CancelFunc // of the transfers that run now
	lost     error               // a VM fell silent
}

// begin answers queries from the first moment on.
func begin(ctx workflow.Context, operation, backup string) (*run, error) {
	now := workflow.Now(ctx)
	r := &run{progress: Progress{Operation: operation, Backup: backup, Phase: "validate", Since: now, Started: now}}
	err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (Progress, error) { return r.progress, nil })
	return r, err
}

// phase moves on: for the query, the Web UI and the journal of the workflow's log.
func (r *run) phase(ctx workflow.Context, name string) {
	r.progress.Phase, r.progress.Since = name, workflow.Now(ctx)
	r.progress.Phases = append(r.progress.Phases, PhaseMark{Name: name, At: r.progress.Since})
	r.show(ctx)
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("**%s** `%s`: %s", r.progress.Operation, r.progress.Backup, name))
	workflow.GetLogger(ctx).Info("phase", "operation", r.progress.Operation, "backup", r.progress.Backup, "phase", name)
}

// show writes the search attributes of the Web UI's list, where they exist.
func (r *run) show(ctx workflow.Context) {
	if !r.survey.Attributes {
		return
	}
	err := workflow.UpsertTypedSearchAttributes(ctx,
		temporal.NewSearchAttributeKeyKeyword(AttrPhase).ValueSet(r.progress.Phase),
		temporal.NewSearchAttributeKeyKeyword(AttrBackup).ValueSet(r.progress.Backup),
		temporal.NewSearchAttributeKeyBool(AttrMaintenance).ValueSet(r.progress.Maintenance == "on"))
	if err != nil {
		workflow.GetLogger(ctx).Warn("search attributes", "err", err)
	}
}

// showOutcome writes what the list of the Web UI says of a run that is done.
func (r *run) showOutcome(ctx workflow.Context, units []UnitResult) {
	if !r.survey.Attributes {
		return
	}
	outcome, bytes := "ok", int64(0)
	if len(r.warnings) > 0 {
		outcome = "warnings"
	}
	for _, u := range units {
		bytes += u.Bytes
	}
	err := workflow.UpsertTypedSearchAttributes(ctx,
		temporal.NewSearchAttributeKeyKeyword(AttrOutcome).ValueSet(outcome), temporal.NewSearchAttributeKeyInt64(AttrBytes).ValueSet(bytes))
	if err != nil {
		workflow.GetLogger(ctx).Warn("search attributes", "err", err)
	}
}

func (r *run) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
	r.progress.Warnings = r.warnings
}

// id makes an activity ID that an operator can read and that is used once.
func (r *run) id(step string, u Unit) string {
	r.serial++
	return step + ":" + u.String() + "#" + strconv.Itoa(r.serial)
}

// look surveys the estate.
func (r *run) look(ctx workflow.Context, name string) error {
	in := SurveyInput{Operation: r.progress.Operation, Name: name, Started: workflow.GetInfo(ctx).WorkflowStartTime}
	if err := workflow.ExecuteActivity(r.onControl(ctx, "what is there"), "Survey", in).Get(ctx, &r.survey); err != nil {
		return err
	}
	if name != "" {
		r.progress.Backup = r.survey.Backup
	}
	for _, w := range r.survey.Warnings {
		r.warn("%s", w)
	}
	return nil
}

// maxSkew is how far a VM's clock may be off.
const maxSkew = 5 * time.Second

// ping asks every VM the run will use; one that is silent or whose clock is off stops the run.
func (r *run) ping(ctx workflow.Context, vms []string) ([]PingResult, error) {
	futures := make([]workflow.Future, len(vms))
	for i, vm := range vms {
		futures[i] = workflow.ExecuteActivity(onPing(ctx, vm), "Ping")
	}
	asked := workflow.Now(ctx)
	came := arrivals(ctx, futures)
	out := make([]PingResult, len(vms))
	for i, f := range futures {
		sent := workflow.Now(ctx)
		if err := f.Get(ctx, &out[i]); err != nil {
			return nil, fail(problem.Unreachable, "start it: systemctl start cso-backup-worker", "the worker on %s does not answer", vms[i])
		}
		at := workflow.Now(ctx)
		if came != nil { // each answer has its own time: it may have waited here for another VM's
			sent, at = asked, came[i]
		}
		if skew := out[i].Now.Sub(sent).Abs(); skew > maxSkew+at.Sub(sent) {
			return nil, fail(problem.Unhealthy, "set the clock of the VM (chrony or ntp)", "the clock of %s is off by %s", vms[i], skew.Round(time.Second))
		}
	}
	return out, nil
}

// arrivals waits for all answers and notes when each came; nil in a run that began before this was done.
func arrivals(ctx workflow.Context, futures []workflow.Future) []time.Time {
	if workflow.GetVersion(ctx, "time-of-each-answer", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil
	}
	came, wg := make([]time.Time, len(futures)), workflow.NewWaitGroup(ctx)
	for i, f := range futures {
		wg.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wg.Done()
			_ = f.Get(ctx, nil) // its failure is the asker's affair
			came[i] = workflow.Now(ctx)
		})
	}
	wg.Wait(ctx)
	return came
}

// fence claims the journal and waits until no VM runs an attempt of a lower epoch.
func (r *run) fence(ctx workflow.Context, repairs bool) (FenceResult, error) {
	r.phase(ctx, "fence")
	var f FenceResult
	in := FenceInput{Operation: r.progress.Operation, Backup: r.progress.Backup, Repairs: repairs}
	if err := workflow.ExecuteActivity(r.onControl(ctx, "claim the next epoch"), "Fence", in).Get(ctx, &f); err != nil {
		return f, err
	}
	r.claim, r.progress.Epoch, r.adopted = f.Claim, f.Claim.Epoch, f.Written
	r.lease.on = f.Entered // what a dead run left on is left by this one
	r.watch(ctx)
	futures := make([]workflow.Future, len(r.survey.VMs))
	for i, vm := range r.survey.VMs {
		futures[i] = workflow.ExecuteActivity(r.onCtl(ctx, vm, "end attempts of older epochs"), "Quiet", f.Claim)
	}
	for i, q := range futures {
		if err := q.Get(ctx, nil); err != nil {
			return f, fail(problem.Busy, "wait, or restart the worker there", "%s cannot confirm that no older attempt runs: %s", r.survey.VMs[i], cause(err))
		}
	}
	return f, nil
}

// input is the part of a unit's input that is the same everywhere.
func (r *run) input(u Unit, op plugins.Operation, backup string, options map[string]string) UnitInput {
	return UnitInput{Claim: r.claim, Unit: u, Operation: op, Backup: backup, Options: options, Parallel: r.survey.Parallel, Heartbeat: r.survey.Heartbeat}
}

// stability demands that no unit is RED, unless they may be sick (they are to
// be restored, and that was confirmed). AMBER is a warning, before a restore
// of the very units only a line in the log.
func (r *run) stability(ctx workflow.Context, units []Unit, mayBeSick, toBeRestored bool) error {
	r.phase(ctx, "stability check")
	futures := make([]workflow.Future, len(units))
	for i, u := range units {
		futures[i] = workflow.ExecuteActivity(r.onCtl(ctx, u.VM, "health of "+u.String()), "Health", u)
	}
	var sick []string
	var estimate int64
	for i, f := range futures {
		var h UnitHealth
		err := f.Get(ctx, &h)
		r.line(units[i]).Estimate = h.Bytes
		estimate += h.Bytes
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			sick = append(sick, joined(units[i].String(), cause(err)))
		case h.Grade == string(plugins.Red):
			for _, why := range h.Reasons {
				sick = append(sick, joined(units[i].String(), why))
			}
		case h.Grade == string(plugins.Amber) && toBeRestored:
			workflow.GetLogger(ctx).Info("before the restore", "unit", units[i].String(), "reasons", h.Reasons)
		case h.Grade == string(plugins.Amber):
			for _, why := range h.Reasons {
				r.warn("%s", joined(units[i].String(), why))
			}
		}
	}
	if len(sick) == 0 {
		if estimate > r.survey.Free && !toBeRestored {
			r.warn("about %d MiB are to be read and %d MiB are free in the store", estimate>>20, r.survey.Free>>20)
		}
		return nil
	}
	if mayBeSick {
		for _, s := range sick {
			r.warn("%s", s)
		}
		return nil
	}
	return fail(problem.Unhealthy, "look at `cso_backupnrestore -b healthcheck`, mend it, and start again", "not stable: %s", sentence(sick))
}

// secondLook is the change by which the last stability check of a restore is repeated.
const secondLook = "second-look"

// settle is the last stability check of a restore. What was written is proven
// by then, and a rollback would undo it: a server that has just died is given
// as long to come back as a lost VM is.
func (r *run) settle(ctx workflow.Context, units []Unit) error {
	err := r.stability(ctx, units, false, false)
	if err == nil || workflow.GetVersion(ctx, secondLook, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return err
	}
	begun, had := workflow.Now(ctx), len(r.warnings)
	for pause := time.Second; err != nil && workflow.Now(ctx).Sub(begun) < r.survey.VMLostAfter; pause = min(2*pause, time.Minute) {
		r.progress.Warnings = append(slices.Clone(r.warnings[:had]), "all is restored and proven; before maintenance is left: "+cause(err))
		if workflow.Sleep(ctx, pause) != nil {
			break
		}
		r.warnings = r.warnings[:had] // what the look before said is said again if it still holds
		err = r.stability(ctx, units, false, false)
	}
	r.progress.Warnings = r.warnings
	return err
}

// hooks runs the life-cycle hooks of all units in parallel.
func (r *run) hooks(ctx workflow.Context, units []Unit, op plugins.Operation, backup string, post bool) error {
	name := "pre-hooks"
	if post {
		name = "post-hooks"
	}
	r.phase(ctx, name)
	futures := make([]workflow.Future, len(units))
	for i, u := range units {
		in := r.input(u, op, backup, nil)
		in.Post = post
		futures[i] = workflow.ExecuteActivity(r.onCtl(ctx, u.VM, name+" of "+u.String()), "Hook", in)
	}
	var first error
	for i, f := range futures {
		if err := f.Get(ctx, nil); err != nil && first == nil {
			first = wrap(err, "%s of %s", name, units[i])
		}
	}
	return first
}

// each runs one activity per unit, at most Parallel instances at once on a
// VM, and waits for all of them; the first error wins. Units of one instance
// on the same VM share a slot: they may have to wait for each other.
func (r *run) each(ctx workflow.Context, units []Unit, phase string, do func(workflow.Context, Unit, *UnitProgress) error) error {
	slots := map[string]workflow.Semaphore{}
	for _, u := range units {
		if slots[u.VM] == nil {
			slots[u.VM] = workflow.NewSemaphore(ctx, int64(r.survey.Parallel))
		}
	}
	for _, u := range units {
		p := r.line(u)
		p.State, p.Phase = "waiting", phase
	}
	ctx, stop := workflow.WithCancel(ctx)
	defer stop()
	r.group = stop
	if r.lost != nil {
		return r.lost
	}
	wg := workflow.NewWaitGroup(ctx)
	var first error
	one := func(ctx workflow.Context, u Unit) {
		p := r.line(u)
		start := workflow.Now(ctx)
		p.State = "running"
		err := do(ctx, u, p)
		p.Took, p.State, p.ActivityID = workflow.Now(ctx).Sub(start), "done", ""
		if err != nil {
			p.State = "failed"
			first = firstOf(first, wrap(err, "%s of %s", phase, u))
		}
	}
	for _, g := range together(units) {
		wg.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wg.Done()
			if err := slots[g[0].VM].Acquire(ctx, 1); err != nil {
				first = firstOf(first, err)
				return
			}
			defer slots[g[0].VM].Release(1)
			others := workflow.NewWaitGroup(ctx)
			for _, u := range g[1:] {
				others.Add(1)
				workflow.Go(ctx, func(ctx workflow.Context) {
					defer others.Done()
					one(ctx, u)
				})
			}
			one(ctx, g[0])
			others.Wait(ctx)
		})
	}
	wg.Wait(ctx)
	if r.lost != nil {
		return r.lost
	}
	return first
}

// together groups the units of one instance on one VM, in the order of their first.
func together(units []Unit) [][]Unit {
	var out [][]Unit
	at := map[Unit]int{}
	for _, u := range units {
		key := Unit{Component: u.Component, Instance: u.Instance, VM: u.VM}
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], u)
	}
	return out
}

// watch cancels the transfers of this run when the worker of a VM has been
// silent for too long. It ends when the journal of the run is closed.
func (r *run) watch(ctx workflow.Context) {
	ctx, r.unwatch = workflow.NewDisconnectedContext(ctx)
	in := WatchInput{Claim: r.claim, VMs: r.survey.VMs, LostAfter: r.survey.VMLostAfter, Heartbeat: r.survey.Heartbeat}
	r.watcher = workflow.ExecuteActivity(r.onControlLong(ctx, "watch-vms"), "WatchVMs", in)
	workflow.Go(ctx, func(ctx workflow.Context) {
		if err := r.watcher.Get(ctx, nil); err != nil && !cancelled(err) {
			r.lost = err
			if r.group != nil {
				r.group()
			}
		}
	})
}

func firstOf(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

// line is the unit's line on the live screen.
func (r *run) line(u Unit) *UnitProgress {
	for i := range r.progress.Units {
		if r.progress.Units[i].Unit == u.String() && r.progress.Units[i].VM == u.VM {
			return &r.progress.Units[i]
		}
	}
	r.progress.Units = append(r.progress.Units, UnitProgress{Unit: u.String(), VM: u.VM})
	return &r.progress.Units[len(r.progress.Units)-1]
}

// declare makes the lines of all units, so that pointers to them stay good.
func (r *run) declare(units []Unit) {
	for _, u := range units {
		p := r.line(u)
		p.State = "waiting"
	}
}

// cancelled says whether the run was asked to stop.
func cancelled(err error) bool {
	var c *temporal.CanceledError
	return errors.As(err, &c)
}
