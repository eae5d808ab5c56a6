package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) importCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "import DIR", Short: "adopt a backup directory that was copied here", Args: exactly(1, "DIR"),
		Long: `Adopt the directory of one backup (NAME/TIMESTAMP) that was copied from
elsewhere, after checking every piece. The directory itself stays as it is.`,
		Example: "  cso_backupnrestore import /media/usb/MAR09/2019-03-09T04-00-07Z",
	}, func(ctx context.Context, args []string) (*outcome, error) { return a.adopt(ctx, args[0]) })
}

func (a *app) adopt(context.Context, string) (*outcome, error) { return nil, nil }
