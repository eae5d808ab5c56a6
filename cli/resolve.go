package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

func (a *app) resolveCommand(wire wireFunc) *cobra.Command {
	var confirm string
	cmd := wire(&cobra.Command{
		Use: "resolve retry|rollback|accept", Short: "end a hold after a restore that failed twice", Args: exactly(1, "retry|rollback|accept"),
		Long: `When a restore failed and putting back the safety backup failed too, the estate
stays in maintenance mode until somebody decides:
  retry     do the restore again
  rollback  put back the safety backup again
  accept    leave the data as it is now, and end maintenance mode
NAME is the backup of the failed restore; see cso_backupnrestore status.`,
		Example: "  cso_backupnrestore resolve retry --confirm MAR09",
	}, func(ctx context.Context, args []string) (*outcome, error) {
		return a.resolveHold(ctx, args[0], confirm)
	})
	cmd.ValidArgs = []string{workflows.ResolveRetry, workflows.ResolveRollback, workflows.ResolveAccept}
	cmd.Flags().StringVar(&confirm, "confirm", "", "NAME of the backup of the failed restore")
	return cmd
}

func (a *app) resolveHold(ctx context.Context, action, confirm string) (*outcome, error) {
	actions := []string{workflows.ResolveRetry, workflows.ResolveRollback, workflows.ResolveAccept}
	if !slices.Contains(actions, action) {
		return nil, usage("type: cso_backupnrestore resolve retry --confirm NAME", "%q is not one of retry, rollback, accept", action)
	}
	if confirm == "" {
		return nil, problem.New(problem.Confirm, "add --confirm NAME, the backup of the failed restore; cso_backupnrestore status names it", "resolve %s decides about the data and needs a confirmation", action)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := a.start(ctx, c, startOptions{
		id: workflows.ExclusiveID, kind: workflows.ResolveType, summary: "resolve " + action + " " + confirm, operation: "resolve", backup: confirm, maintenance: true,
	}, workflows.ResolveInput{Action: action, Confirm: confirm})
	if err != nil {
		return nil, err
	}
	var res workflows.Result
	if err := a.watch(ctx, c, r, &res); err != nil {
		return &outcome{Result: r}, err
	}
	o := a.restoreDone(res)
	o.Message = "resolved by " + action + ": " + o.Message
	return o, nil
}
