package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// laterCommands are words that belong to the command line and have no function yet: a clear refusal is better than "unknown".
func (a *app) laterCommands(wire wireFunc) []*cobra.Command {
	var out []*cobra.Command
	for _, w := range []struct{ name, instead string }{
		{"drill", "prove a backup with: cso_backupnrestore verify NAME, and see what a restore would do with: cso_backupnrestore restore NAME --plan"},
		{"diff", "see what a restore would change with: cso_backupnrestore restore NAME --plan"},
		{"prune", "remove a backup's directory by hand, others do not need it: rm -r ROOT/NAME/TIMESTAMP"},
		{"config", "the estate file is checked by: cso_backupnrestore doctor"},
	} {
		cmd := wire(&cobra.Command{Use: w.name, Hidden: true, Short: "comes in a later version"},
			func(context.Context, []string) (*outcome, error) {
				return nil, problem.New(problem.Usage, w.instead, "%s comes in a later version", w.name)
			})
		cmd.DisableFlagParsing = true
		out = append(out, cmd)
	}
	return out
}
