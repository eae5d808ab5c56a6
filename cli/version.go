package cli

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionView is the result of version.
type versionView struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
}

func (a *app) versionCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{Use: "version", Short: "which version this is", Args: cobra.NoArgs},
		func(context.Context, []string) (*outcome, error) {
			v := buildVersion()
			return &outcome{Result: v, Text: func() {
				line := "cso_backupnrestore " + v.Version
				if v.Revision != "" {
					line += " (" + v.Revision[:min(12, len(v.Revision))] + ")"
				}
				a.out.Line("%s %s", line, v.Go)
			}}, nil
		})
}

func buildVersion() versionView {
	v := versionView{Version: "(devel)", Go: runtime.Version()}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if b.Main.Version != "" {
		v.Version = b.Main.Version
	}
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
