package activities

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/activity"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// own refuses a claim that another run has made. A run that was reset from
// outside goes on from the middle of its history, with the claim of the run it
// was made from: journal and VMs know that claim, but it is not its own.
func own(ctx context.Context, c epoch.Claim) error {
	if run := activity.GetInfo(ctx).WorkflowExecution.RunID; run != c.Run {
		return fmt.Errorf("run %s works with the claim of run %s; a run that was reset must not go on: %w", run, c.Run, plugins.ErrFenced)
	}
	return nil
}

// check is own, and the claim is still the one in force on this VM.
func (v *VM) check(ctx context.Context, c epoch.Claim) error {
	if err := own(ctx, c); err != nil {
		return err
	}
	return v.Guard.Check(c)
}
