package activities

import (
	"context"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// lookEvery is how often the watch asks who polls; a long poll lasts up to a
// minute, so LostAfter must be well above that.
const lookEvery = 5 * time.Second

// endEvery is how often it looks whether the run is over.
const endEvery = 200 * time.Millisecond

// WatchVMs returns only when a VM's worker has not polled its control queue
// for LostAfter. One activity for the whole time keeps the history small,
// which a ping every 30 s would not.
func (c *Control) WatchVMs(ctx context.Context, in workflows.WatchInput) error {
	seen := map[string]time.Time{}
	start := time.Now()
	for _, vm := range in.VMs {
		seen[vm] = start
	}
	err := beat.Run(ctx, c.Client, beat.For(in.Heartbeat), func() any { return workflows.Beat{Phase: "watching", At: time.Now().UTC()} }, func(ctx context.Context) error {
		tick := time.NewTicker(endEvery)
		defer tick.Stop()
		for looked := start; ; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-tick.C:
			}
			if s, err := c.Journal.Read(); err == nil && (s.Claim != in.Claim || s.Closed || s.Hold != nil) {
				return nil
			}
			if time.Since(looked) < lookEvery {
				continue
			}
			looked = time.Now()
			for _, vm := range in.VMs {
				if last, ok := c.lastPoll(ctx, vm); ok && last.After(seen[vm]) {
					seen[vm] = last
				} else if !ok {
					seen[vm] = time.Now() // the server did not answer: that says nothing about the VM
				}
				if silent := time.Since(seen[vm]); silent > in.LostAfter {
					return problem.New(problem.Unreachable, "start it: systemctl start cso-backup-worker",
						"the worker on %s has not been heard of for %s", vm, silent.Round(time.Second))
				}
			}
		}
	})
	return told(ctx, err)
}

// lastPoll is when the VM's worker last asked for work; false when the server does not say.
func (c *Control) lastPoll(ctx context.Context, vm string) (time.Time, bool) {
	ctx, done := context.WithTimeout(ctx, lookEvery)
	defer done()
	d, err := c.Client.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: c.Namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: workflows.CtlQueue(vm)}, TaskQueueType: enumspb.TASK_QUEUE_TYPE_ACTIVITY,
	})
	if err != nil {
		return time.Time{}, false
	}
	var last time.Time
	for _, p := range d.Pollers {
		if t := p.LastAccessTime.AsTime(); t.After(last) {
			last = t
		}
	}
	return last, true
}
