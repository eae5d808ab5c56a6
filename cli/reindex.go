package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

type reindexOptions struct {
	components  []string
	index       string
	maintenance bool
	detach      bool
}

func (a *app) reindexCommand(wire wireFunc) *cobra.Command {
	var o reindexOptions
	var list string
	cmd := wire(&cobra.Command{
		Use: "reindex", Short: "rebuild search indices", Args: exactly(0, ""),
		Long: "Rebuild every index into a new one, prove that it holds the same documents, and put it in the place of the old one. " +
			"While an index is rebuilt it can be read and not written. Interrupted at any moment, either the old or the new index serves under its name; reindex again cleans up and finishes.",
		Example: "  cso_backupnrestore reindex\n  cso_backupnrestore reindex --index 'alarms-*,audit' --maintenance",
	}, func(ctx context.Context, _ []string) (*outcome, error) {
		chosen, told, err := databases("--databases", list)
		if err != nil {
			return nil, err
		}
		for _, t := range told {
			a.note("%s", t)
		}
		o.components = chosen
		return a.reindex(ctx, o)
	})
	f := cmd.Flags()
	f.StringVar(&list, "databases", "*", "'*' or a comma list; "+exampleInstance()+" for one instance")
	f.StringVar(&o.index, "index", "", "names or patterns of indices, comma separated (default: every index)")
	f.BoolVar(&o.maintenance, "maintenance", false, "hold the product in maintenance mode meanwhile")
	f.BoolVar(&o.detach, "detach", false, "start it and return at once")
	return cmd
}

func (a *app) reindex(ctx context.Context, o reindexOptions) (*outcome, error) {
	patterns, err := indexPatterns(o.index)
	if err != nil {
		return nil, err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return a.startAndWatch(ctx, c, o.detach, a.reindexDone, startOptions{
		id: workflows.ExclusiveID, kind: workflows.ReindexType, summary: "reindex", operation: opReindex, maintenance: o.maintenance,
	}, workflows.ReindexInput{Components: o.components, Index: patterns, Maintenance: o.maintenance})
}

// indexPatterns reads --index; what no index name may hold is refused here, before anything starts.
func indexPatterns(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	var out []string
	for _, p := range strings.Split(list, ",") {
		p = strings.TrimSpace(p)
		if p == "" || strings.HasPrefix(p, "-") || strings.ContainsAny(p, " \t\"\\/<>|#?") {
			return nil, usage("type --index 'alarms-*,audit'", "%q is not the name or pattern of an index", p)
		}
		out = append(out, p)
	}
	return out, nil
}

func (a *app) reindexDone(r workflows.Result) *outcome {
	o := &outcome{Result: r, Code: warned(r), Text: func() { a.closing(r) }}
	rebuilt, documents := 0, int64(0)
	for _, u := range r.Units {
		rebuilt += u.Artifacts
		documents += u.Records
	}
	o.Message = fmt.Sprintf("reindexed: %s rebuilt, %s documents counted and compared, %s", ui.Count(int64(rebuilt)), ui.Count(documents), ui.Took(r.Took))
	o.Next = []string{"cso_backupnrestore healthcheck"}
	return o
}
