package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// The only activity options of the product. No ScheduleToStart on transfers:
// it was measured to fail healthy units that wait for a slot.

// leaveWithin is how long leaving maintenance and rolling back may be tried before the estate is held.
const leaveWithin = 10 * time.Minute

var retry = &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, MaximumAttempts: 10}

// brief is for looking without the lock: who asks what a restore would do wants to hear at once that a server is away.
var brief = &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 2}

// prompt is for steps before anything was changed: an operator who waits for minutes learns nothing more.
var prompt = &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumAttempts: 4}

// onControl: short steps of the control worker. Once the estate's times are
// known they beat, so that a step whose worker died is repeated soon.
func (r *run) onControl(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: ControlQueue, StartToCloseTimeout: 3 * time.Minute, ScheduleToCloseTimeout: leaveWithin, HeartbeatTimeout: r.survey.Heartbeat,
		RetryPolicy: retry, WaitForCancellation: true, Summary: summary,
	})
}

// onSwitch: maintenance is turned on, or the run ends before anything was changed.
func (r *run) onSwitch(ctx workflow.Context) workflow.Context {
	o := workflow.GetActivityOptions(r.onControl(ctx, "turn maintenance on"))
	o.RetryPolicy = prompt
	return workflow.WithActivityOptions(ctx, o)
}

// onControlLong: steps of the control worker that read whole backups.
func (r *run) onControlLong(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: id, TaskQueue: ControlQueue, StartToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: r.survey.Heartbeat,
		RetryPolicy: retry, WaitForCancellation: true, Summary: id,
	})
}

// onCtl: short steps on a VM. A VM that does not answer in time is a failure of its own.
func (r *run) onCtl(ctx workflow.Context, vm, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: CtlQueue(vm), StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: 2 * time.Minute, HeartbeatTimeout: r.survey.Heartbeat,
		RetryPolicy: retry, WaitForCancellation: true, Summary: summary,
	})
}

// onPing: is somebody there?
func onPing(ctx workflow.Context, vm string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: CtlQueue(vm), StartToCloseTimeout: 5 * time.Second, ScheduleToCloseTimeout: 15 * time.Second,
		RetryPolicy: retry, Summary: "is the worker on " + vm + " there?",
	})
}

// onVM: transfers of one unit.
func (r *run) onVM(ctx workflow.Context, vm, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: id, TaskQueue: VMQueue(vm), StartToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: r.survey.Heartbeat,
		RetryPolicy: retry, WaitForCancellation: true, Summary: id,
	})
}

// onCtlLong: steps on a VM's control slots that may take minutes, pins above all.
func (r *run) onCtlLong(ctx workflow.Context, vm, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: id, TaskQueue: CtlQueue(vm), StartToCloseTimeout: time.Hour, HeartbeatTimeout: r.survey.Heartbeat,
		RetryPolicy: retry, WaitForCancellation: true, Summary: id,
	})
}

// onLease: the holder of maintenance.
func (r *run) onLease(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: "hold-maintenance", TaskQueue: LeaseQueue, StartToCloseTimeout: 48 * time.Hour, HeartbeatTimeout: r.survey.Heartbeat,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 1.5, MaximumInterval: 10 * time.Second},
		WaitForCancellation: true, Summary: "holds maintenance mode",
	})
}
