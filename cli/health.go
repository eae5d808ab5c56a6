package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

func (a *app) healthCommand(wire wireFunc) *cobra.Command {
	var list string
	cmd := wire(&cobra.Command{
		Use: "healthcheck", Short: "the health of all databases, VMs and of this product", Args: exactly(0, ""),
		Long:    "Check the health. The exit status is 0 for GREEN, 3 for AMBER, 5 for RED.",
		Example: "  cso_backupnrestore healthcheck\n  cso_backupnrestore healthcheck --databases " + exampleList(),
	}, func(ctx context.Context, _ []string) (*outcome, error) {
		chosen, told, err := databases("--databases", list)
		if err != nil {
			return nil, err
		}
		for _, t := range told {
			a.note("%s", t)
		}
		return a.healthcheck(ctx, chosen)
	})
	cmd.Flags().StringVar(&list, "databases", "*", "'*' or a comma list; "+exampleInstance()+" for one instance")
	return cmd
}

func (a *app) healthcheck(ctx context.Context, components []string) (*outcome, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := a.ready(ctx, c); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	// Two health checks at once would ask the same questions: join the running one.
	w, err := c.ExecuteWorkflow(call, client.StartWorkflowOptions{
		ID: workflows.HealthID, TaskQueue: workflows.ControlQueue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary: "health check", Memo: map[string]any{"operation": opHealth, "startedBy": who(), "trigger": "cli"},
	}, workflows.HealthType, workflows.HealthInput{Components: components})
	if err != nil {
		return nil, a.temporalError(err, "start the health check")
	}
	r := run{ID: w.GetID(), RunID: w.GetRunID()}
	a.heading("HEALTH CHECK FOR INFRASTRUCTURE COMPONENTS STARTED")
	var h workflows.HealthResult
	if err := a.watchQuietly(ctx, c, r, &h); err != nil {
		return &outcome{Result: r}, err
	}
	o := &outcome{Result: h, Text: func() { a.showHealth(h) }}
	switch plugins.Grade(h.Grade) {
	case plugins.Green:
	case plugins.Amber:
		o.Code = problem.Warnings
	default:
		o.Code = problem.Unhealthy
	}
	return o, nil
}

const starLine = "************************************************************************"

// heading is in the style of the product's own health check.
func (a *app) heading(s string) {
	for _, l := range []string{starLine, s, starLine} {
		a.out.Line("INFO %s", a.out.Cut(l, a.out.Width-5))
	}
}

// showHealth prints the lines that operators of the product know.
func (a *app) showHealth(h workflows.HealthResult) {
	for _, v := range h.VMs {
		about := ""
		if v.Free > 0 {
			about = fmt.Sprintf(" (%s free, clock %s off)", ui.Bytes(v.Free), ui.Took(v.Skew.Abs()))
		}
		a.graded("The Backup Worker on "+v.VM, v.Grade, v.Reasons, about)
	}
	for _, u := range h.Units {
		about := ""
		if u.Members > 0 {
			about = " (" + strings.TrimLeft(u.Version+", "+ui.Plural(u.Members, "member"), ", ") + ")"
		}
		a.out.Line("INFO Health Check for Infrastructure Component %s Started", ui.Clean(title(u.Unit)))
		a.graded("The Infrastructure Component "+title(u.Unit), u.Grade, u.Reasons, about)
	}
	for _, n := range h.Notes {
		a.out.Paragraph(level(n.Grade), n.Reason)
	}
	a.out.Line("INFO Overall cluster status : %s", a.out.Tone(gradeTone(h.Grade), ui.Clean(h.Grade)))
}

func level(grade string) string {
	switch plugins.Grade(grade) {
	case plugins.Green:
		return "INFO "
	case plugins.Amber:
		return "WARNING "
	}
	return "ERROR "
}

func (a *app) graded(who, grade string, reasons []string, about string) {
	if plugins.Grade(grade) == plugins.Green {
		a.out.Paragraph(level(grade), who+" is Healthy"+about)
		return
	}
	word := "is Unhealthy"
	if plugins.Grade(grade) == plugins.Amber {
		word = "Needs Attention"
	}
	a.out.Paragraph(level(grade), who+" "+word+about)
	for _, r := range reasons {
		a.out.Paragraph(level(grade)+"  - ", r)
	}
}

// title writes a unit as the product does, with a capital.
func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
