package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// lease is the workflow's end of the maintenance lease.
type lease struct {
	holder workflow.Future
	cancel workflow.CancelFunc
	on     bool
	held   time.Duration // over all periods
	gap    bool
}

// enter turns maintenance on, with a holder that outlives this workflow's
// terminated or lost run by the rule of the journal.
func (r *run) enter(ctx workflow.Context, max time.Duration, tolerant bool) error {
	r.phase(ctx, "enter maintenance")
	if r.lease.holder == nil {
		hctx, _ := workflow.NewDisconnectedContext(ctx)
		hctx, r.lease.cancel = workflow.WithCancel(hctx)
		r.lease.holder = workflow.ExecuteActivity(r.onLease(hctx), "HoldMaintenance", HoldInput{Claim: r.claim, Heartbeat: r.survey.Heartbeat})
	}
	r.lease.on = true // from here on it may be on, whatever the answer
	var out EnterResult
	in := EnterInput{Claim: r.claim, Max: max, Tolerant: tolerant}
	if err := workflow.ExecuteActivity(r.onSwitch(ctx), "EnterMaintenance", in).Get(ctx, &out); err != nil {
		return wrap(err, "enter maintenance")
	}
	if out.Warning != "" {
		r.warn("%s", out.Warning)
	}
	r.progress.Maintenance = "on"
	return nil
}

// leave puts maintenance back as it was; it is called on a disconnected context.
func (r *run) leave(ctx workflow.Context) error {
	if !r.lease.on {
		return nil
	}
	r.phase(ctx, "leave maintenance")
	var out LeaveResult
	if err := workflow.ExecuteActivity(r.onControl(ctx, "put maintenance back as it was"), "ExitMaintenance", r.claim).Get(ctx, &out); err != nil {
		return wrap(err, "leave maintenance")
	}
	r.lease.on, r.progress.Maintenance = false, "left"
	r.lease.held += out.Held
	r.lease.gap = r.lease.gap || out.Gap
	return nil
}

// drop ends the holder; maintenance has been left, or stays on purpose.
func (r *run) drop(ctx workflow.Context) {
	if r.watcher != nil {
		r.unwatch()
		_ = r.watcher.Get(ctx, nil)
		r.watcher = nil
	}
	if r.lease.holder == nil {
		return
	}
	r.lease.cancel()
	_ = r.lease.holder.Get(ctx, nil) // its end is a cancellation by design
	r.lease.holder = nil
}

// close ends the run on a disconnected context: maintenance left, holder
// dropped, leftovers removed, journal closed. discard is an incomplete
// backup to remove. What cannot be left is held, and said loudly.
func (r *run) close(ctx workflow.Context, discard, outcome string) error {
	if r.claim.Epoch == 0 {
		return nil
	}
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if workflow.GetVersion(ctx, endedOnVMs, workflow.DefaultVersion, 1) == 1 {
		r.everywhere(ctx, "End", "let go of pins, refuse this epoch from now on")
	} else {
		r.release(ctx)
	}
	if err := r.leave(ctx); err != nil {
		return r.hold(ctx, "maintenance could not be left: "+cause(err))
	}
	r.phase(ctx, "cleanup")
	in := CleanupInput{Claim: r.claim, Backup: discard, Outcome: outcome}
	err := workflow.ExecuteActivity(r.onControl(ctx, "remove leftovers, close the journal"), "Cleanup", in).Get(ctx, nil)
	r.drop(ctx) // the holder sees the closed journal and ends by itself
	return err
}

// hold leaves the estate in maintenance on purpose, for an operator to resolve.
func (r *run) hold(ctx workflow.Context, reason string) error {
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	r.phase(ctx, "held")
	err := workflow.ExecuteActivity(r.onControl(ctx, "hold the estate in maintenance"), "Cleanup", CleanupInput{Claim: r.claim, Hold: reason}).Get(ctx, nil)
	r.drop(ctx)
	if err != nil {
		reason += "; and the journal could not record it: " + cause(err)
	}
	return fail(problem.Held, "mend the cause, then `cso_backupnrestore resolve retry`, `resolve rollback` or `resolve accept --confirm NAME`",
		"the estate stays in maintenance: %s", reason)
}

// endedOnVMs is the change by which a run's last act on each VM ends its claim there.
const endedOnVMs = "claim-ends-on-every-vm"

// release lets go of all pins, on every VM; a VM that does not answer loses them by itself.
func (r *run) release(ctx workflow.Context) { r.everywhere(ctx, "Release", "let go of pins") }

// everywhere does something on all VMs; one that does not answer is a warning.
func (r *run) everywhere(ctx workflow.Context, activity, summary string) {
	futures := make([]workflow.Future, len(r.survey.VMs))
	for i, vm := range r.survey.VMs {
		futures[i] = workflow.ExecuteActivity(r.onCtl(ctx, vm, summary), activity, r.claim)
	}
	for i, f := range futures {
		if err := f.Get(ctx, nil); err != nil {
			r.warn("pins on %s: %s", r.survey.VMs[i], cause(err))
		}
	}
}
