package schedule

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/client"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// State is what Temporal says of one schedule.
type State struct {
	Next    []time.Time `json:"next,omitempty"`
	Ran     int         `json:"ran"`     // runs started, skipped ones included
	Missed  int         `json:"missed"`  // due while Temporal was away, and too late to catch up
	Overlap int         `json:"overlap"` // due while the run before still ran
	Recent  []Past      `json:"recent,omitempty"`
}

// Past is one of the last runs.
type Past struct {
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome"`           // running, completed, skipped, failed, …
	Skipped string    `json:"skipped,omitempty"` // why it did not start
}

// Inspect reads the state of a schedule and the outcome of its last runs.
func Inspect(ctx context.Context, c client.Client, name string) (State, error) {
	d, err := c.ScheduleClient().GetHandle(ctx, ID(name)).Describe(ctx)
	if err != nil {
		return State{}, fmt.Errorf("schedule %s: %w", name, err)
	}
	s := State{
		Next: d.Info.NextActionTimes, Ran: d.Info.NumActions,
		Missed: d.Info.NumActionsMissedCatchupWindow, Overlap: d.Info.NumActionsSkippedOverlap,
	}
	for _, a := range d.Info.RecentActions {
		if a.StartWorkflowResult == nil {
			continue
		}
		s.Recent = append(s.Recent, past(ctx, c, a))
	}
	return s, nil
}

func past(ctx context.Context, c client.Client, a client.ScheduleActionResult) Past {
	p := Past{At: a.ScheduleTime, Outcome: "unknown"}
	id, run := a.StartWorkflowResult.WorkflowID, a.StartWorkflowResult.FirstExecutionRunID
	d, err := c.DescribeWorkflowExecution(ctx, id, run)
	if err != nil {
		return p // past the retention, or a Temporal that was replaced
	}
	switch st := d.GetWorkflowExecutionInfo().GetStatus(); st {
	case enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		p.Outcome = "running"
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		p.Outcome = "completed"
		var r workflows.Result
		if err := c.GetWorkflow(ctx, id, run).Get(ctx, &r); err == nil && r.Skipped != "" {
			p.Outcome, p.Skipped = "skipped", r.Skipped
		}
	case enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		p.Outcome = "cancelled"
	case enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		p.Outcome = "terminated"
	default:
		p.Outcome = "failed"
	}
	return p
}

// Skipped counts the runs that did not start because something else ran: those
// that Temporal itself left out, and those among the recent ones that found another operation.
func (s State) Skipped() int {
	n := s.Overlap
	for _, p := range s.Recent {
		if p.Outcome == "skipped" {
			n++
		}
	}
	return n
}
