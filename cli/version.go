package cli

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/buildinfo"
)

func (a *app) versionCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{Use: "version", Short: "which version this is", Args: exactly(0, "")},
		func(context.Context, []string) (*outcome, error) {
			v := map[string]string{"version": buildinfo.Version(), "go": runtime.Version()}
			return &outcome{Result: v, Text: func() { a.out.Line("cso_backupnrestore %s, %s", v["version"], v["go"]) }}, nil
		})
}
