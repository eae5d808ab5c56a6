package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Backup takes one backup of everything in the estate.
func Backup(ctx workflow.Context, in BackupInput) (Result, error) {
	r, err := begin(ctx, "backup", in.Name)
	if err != nil {
		return Result{}, err
	}
	if err := r.look(ctx, in.Name); err != nil {
		return Result{}, err
	}
	r.phase(ctx, "preflight")
	if _, err := r.ping(ctx, r.survey.VMs); err != nil {
		return Result{}, err
	}
	if _, err := r.fence(ctx, false); err != nil {
		return Result{}, r.abandon(ctx, err)
	}
	p := protection{
		ref: r.survey.Backup, op: plugins.OpBackup, units: r.survey.Units, trigger: in.Trigger, started: r.progress.Started,
		maintenance: in.Maintenance, asked: in.Maintenance, max: r.survey.MaxMaintenance,
	}
	if in.MaxMaintenance > 0 {
		p.max = in.MaxMaintenance
	}
	if in.Maintenance && !r.survey.HasSwitch {
		r.warn("the estate file names neither a maintenance switch nor a hook: maintenance stops no writer, so this backup has no consistency point")
	}
	sealed, units, err := r.protect(ctx, p)
	if err != nil {
		return Result{}, r.abandon(ctx, err)
	}
	if err := r.close(ctx, "", "sealed"); err != nil {
		return Result{}, err
	}
	res := r.result(ctx, units)
	res.Bytes, res.Stored, res.New = sealed.Bytes, sealed.Stored, sealed.New
	res.Consistent = r.consistent(p)
	return res, nil
}

// abandon ends a run that has written nothing into the estate: maintenance is
// left, the incomplete backup removed, the journal closed.
func (r *run) abandon(ctx workflow.Context, why error) error {
	return r.failed(ctx, r.survey.Backup, why)
}

// giveUp ends a run that made no backup and left nothing half done.
func (r *run) giveUp(ctx workflow.Context, why error) error { return r.failed(ctx, "", why) }

func (r *run) failed(ctx workflow.Context, discard string, why error) error {
	outcome := "failed"
	if cancelled(why) {
		outcome = "cancelled"
	}
	if err := r.close(ctx, discard, outcome); err != nil {
		p := Problem(err)
		p.Message = cause(why) + "; then: " + p.Message
		return ended(p)
	}
	return why
}

// result is what the operator is told in the end.
func (r *run) result(ctx workflow.Context, units []UnitResult) Result {
	r.phase(ctx, "done")
	r.showOutcome(ctx, units)
	return Result{
		Operation: r.progress.Operation, Backup: r.progress.Backup, Epoch: r.claim.Epoch, Units: units,
		Started: r.progress.Started, Took: workflow.Now(ctx).Sub(r.progress.Started),
		Maintenance: r.lease.held, Warnings: r.warnings,
	}
}

// ScheduledBackup is what a schedule starts: it runs Backup as a child under
// the one exclusive ID, so that a busy estate skips the run and says so.
func ScheduledBackup(ctx workflow.Context, in BackupInput) (Result, error) {
	in.Trigger = "schedule"
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: ExclusiveID, TaskQueue: ControlQueue, WaitForCancellation: true,
		ParentClosePolicy: parentCloseCancel, WorkflowIDReusePolicy: reuseDuplicate,
	})
	var out Result
	err := workflow.ExecuteChildWorkflow(child, Backup, in).Get(ctx, &out)
	var busy *temporal.ChildWorkflowExecutionAlreadyStartedError
	if !errors.As(err, &busy) {
		return out, err
	}
	var holder Progress
	out = Result{Operation: "backup", Backup: in.Name, Skipped: "busy"}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: ControlQueue, StartToCloseTimeout: 10 * time.Second, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 2},
		Summary: "who holds the estate",
	})
	if err := workflow.ExecuteActivity(ctx, "Holder").Get(ctx, &holder); err == nil {
		out.Skipped = fmt.Sprintf("busy {%s, %s, %s}", holder.Operation, holder.Phase, workflow.Now(ctx).Sub(holder.Started).Round(time.Second))
	}
	workflow.SetCurrentDetails(ctx, "skipped: "+out.Skipped)
	return out, nil
}
