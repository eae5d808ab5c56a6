package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

type restoreOptions struct {
	backup     string
	option     string
	components []string
	confirm    string
	disaster   bool
	plan       bool
	inPlace    bool
	detach     bool
}

func (a *app) restoreCommand(wire wireFunc) *cobra.Command {
	o := restoreOptions{option: "NAME"}
	var list string
	cmd := wire(&cobra.Command{
		Use: "restore NAME[/TIMESTAMP]", Short: "put a backup back", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeBackup,
		Long: `Put the estate back into the state of a backup: what changed since is undone,
what appeared since is removed. It shows its plan first and asks once.`,
		Example: `  cso_backupnrestore restore MAR09 --plan
  cso_backupnrestore restore MAR09
  cso_backupnrestore restore DAILY/2019-03-16T04 --databases ` + exampleList() + `
  cso_backupnrestore restore MAR09 --disaster-recovery --confirm MAR09`,
	}, func(ctx context.Context, args []string) (*outcome, error) {
		o.backup = args[0]
		chosen, told, err := databases("--databases", list)
		if err != nil {
			return nil, err
		}
		for _, t := range told {
			a.note("%s", t)
		}
		o.components = chosen
		return a.restore(ctx, o)
	})
	f := cmd.Flags()
	f.BoolVar(&o.plan, "plan", false, "show what it would do, and stop")
	f.StringVar(&list, "databases", "*", "'*' or a comma list; "+exampleInstance()+" for one instance")
	f.BoolVar(&o.disaster, "disaster-recovery", false, "onto freshly installed or destroyed servers")
	f.BoolVar(&o.inPlace, "in-place", false, "needs less space: replaces data without a shadow copy beside it")
	f.StringVar(&o.confirm, "confirm", "", "the backup's NAME: go on without asking, also where something is lost for good")
	f.BoolVar(&o.detach, "detach", false, "start it and return at once")
	return cmd
}

func (a *app) restore(ctx context.Context, o restoreOptions) (*outcome, error) {
	ref, err := a.resolve(ctx, o.option, o.backup)
	if err != nil {
		return nil, err
	}
	if err := checkConfirm(o.confirm, ref); err != nil {
		return nil, err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	in := workflows.RestoreInput{Backup: ref, Components: o.components, Disaster: o.disaster, InPlace: o.inPlace}
	if o.confirm != "" {
		in.Confirm = nameOf(ref)
	}
	plan, err := a.planned(ctx, c, in)
	if err != nil {
		return nil, err
	}
	if o.plan {
		return a.planOnly(plan), nil
	}
	a.showPlan(plan, false)
	if in.Confirm, err = a.agree(plan, in); err != nil {
		return &outcome{Result: plan}, err
	}
	return a.startAndWatch(ctx, c, o.detach, a.restoreDone, startOptions{
		id: workflows.ExclusiveID, kind: workflows.RestoreType, summary: restoreSummary(in), operation: opRestore, backup: ref,
		components: o.components, maintenance: true,
	}, in)
}

func restoreSummary(in workflows.RestoreInput) string {
	s := "restore " + in.Backup
	if in.Disaster {
		s = "disaster recovery from " + in.Backup
	}
	if len(in.Components) > 0 {
		s += ", only " + strings.Join(in.Components, ", ")
	}
	return s
}

func nameOf(ref string) string {
	n, _, _ := strings.Cut(ref, "/")
	return n
}

// checkConfirm refuses a confirmation of something else.
func checkConfirm(confirm, ref string) error {
	if confirm == "" || confirm == nameOf(ref) || confirm == ref {
		return nil
	}
	return problem.New(problem.Confirm, "type --confirm "+nameOf(ref), "--confirm %s does not name the backup %s", confirm, ref)
}

// planned runs the plan workflow, which changes nothing.
func (a *app) planned(ctx context.Context, c client.Client, in workflows.RestoreInput) (workflows.RestorePlan, error) {
	var plan workflows.RestorePlan
	r, err := a.start(ctx, c, startOptions{
		id: workflows.PlanPrefix + strings.ToLower(rand.Text()), kind: workflows.PlanType, summary: "plan: " + restoreSummary(in),
		operation: "plan", backup: in.Backup, components: in.Components,
	}, in)
	if err != nil {
		return plan, err
	}
	err = a.watch(ctx, c, r, &plan)
	if err != nil && problem.As(err).Code == problem.Detached { // nobody waits for this plan any more
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTime)
		defer cancel()
		err = problem.New(problem.Detached, "", "interrupted while planning: nothing was changed")
		if cerr := c.CancelWorkflow(call, r.ID, r.RunID); cerr != nil {
			a.note("the plan goes on by itself, it changes nothing: %v", cause(cerr))
		}
	}
	return plan, err
}

func (a *app) planOnly(p workflows.RestorePlan) *outcome {
	o := &outcome{Result: p, Text: func() { a.showPlan(p, true) }, Message: "planned only: nothing was changed"}
	switch {
	case len(p.Refusals) > 0:
		o.Code, o.Message = refusal(p).Code, "this restore would be refused, nothing was changed: "+strings.Join(p.Refusals, "; ")
	case p.Forever:
		o.Next = []string{"cso_backupnrestore restore " + p.Backup + " --confirm " + nameOf(p.Backup)}
	default:
		o.Next = []string{"cso_backupnrestore restore " + p.Backup}
	}
	return o
}

// agree gets the permission to go on: asked for on a terminal, implied
// without one as long as nothing is lost for good, or given by --confirm.
func (a *app) agree(p workflows.RestorePlan, in workflows.RestoreInput) (confirm string, err error) {
	switch {
	case len(p.Refusals) > 0:
		return "", refusal(p)
	case in.Confirm != "":
		return in.Confirm, nil
	case a.interactive():
		ok, err := a.confirmed(question(p))
		if err != nil {
			return "", err
		}
		if !ok {
			return "", problem.New(problem.Confirm, "type the word yes, or add --confirm "+nameOf(p.Backup), "not confirmed: nothing was changed")
		}
		if p.Forever || sick(p) {
			return nameOf(p.Backup), nil
		}
		return "", nil
	case p.Forever:
		return "", problem.New(problem.Confirm, "add --confirm "+nameOf(p.Backup), "something would be lost for good, which no safety backup holds; nothing was changed")
	}
	return "", nil
}

// refusal is why a plan cannot be carried out: the estate's state, or stored
// data that turned out damaged when the plan read it.
func refusal(p workflows.RestorePlan) *problem.Problem {
	code, hint := problem.Unhealthy, "remove the cause, then plan again: cso_backupnrestore restore "+p.Backup+" --plan"
	if slices.ContainsFunc(p.Refusals, func(r string) bool { return strings.Contains(r, plugins.ErrCorrupt.Error()) }) {
		code, hint = problem.Integrity, "restore from another backup or copy; what else is in this one can be chosen with -t"
	}
	return problem.New(code, hint, "the restore is refused, nothing was changed: %s", strings.Join(p.Refusals, "; "))
}

// sick says whether a unit to be restored is RED: then the safety backup may
// not be able to read everything.
func sick(p workflows.RestorePlan) bool {
	return slices.ContainsFunc(p.Units, func(u workflows.UnitPlan) bool { return u.Grade == string(plugins.Red) })
}

func question(p workflows.RestorePlan) string {
	switch {
	case p.Forever:
		return "What is marked above will be LOST FOR GOOD."
	case sick(p):
		return "What is RED above may not be readable any more: the safety backup will hold what can be read."
	}
	return "A safety backup of what is overwritten is taken first."
}

// briefly is how many changes of a unit are named where a restore goes on by itself.
const briefly = 3

// showPlan prints what a restore would do; in full when the plan is all that was asked for.
func (a *app) showPlan(p workflows.RestorePlan, full bool) {
	a.out.Paragraph("plan: ", fmt.Sprintf("restore %s, taken %s (%s)", p.Backup, p.Taken.Local().Format("2006-01-02 15:04 MST"), ui.Ago(p.Age)))
	t := ui.Table{Columns: []ui.Column{
		{Head: "UNIT", Min: 25}, {Head: "SAME", Right: true, Drop: 3}, {Head: "CHANGE", Right: true}, {Head: "ADD", Right: true},
		{Head: "REMOVE", Right: true}, {Head: "WRITE", Right: true, Drop: 1}, {Head: "NEEDS", Right: true, Drop: 2}, {Head: "FREE", Right: true, Drop: 4},
		{Head: "NOW", Tone: gradeTone},
	}, Indent: 2}
	for _, u := range p.Units {
		now := u.Grade
		if u.Empty {
			now += " empty"
		}
		t.Add(u.Unit, count(u.Unchanged), count(u.Change), count(u.Add), count(u.Remove), size(u.Write), size(u.Space), size(u.Free), strings.TrimSpace(now))
	}
	a.out.Print(t)
	for _, u := range p.Units {
		shown := u.Changes
		if !full {
			shown = shown[:min(len(shown), briefly)]
		}
		for _, c := range shown {
			a.out.Line("    %s  %s", a.out.Cut(ui.Clean(u.Unit), 24), ui.Clean(c))
		}
		if more := u.Change + u.Add + u.Remove - len(shown); more > 0 && len(shown) > 0 {
			a.out.Line("    %s  and %s more", a.out.Cut(ui.Clean(u.Unit), 24), ui.Count(int64(more)))
		}
	}
	if lost := removed(p); lost > 0 {
		a.out.Paragraph("lost: ", fmt.Sprintf("%s that appeared after the backup will be removed", ui.Plural(lost, "object")))
	}
	switch n := len(p.Inexact); {
	case full:
		var g grouped
		g.split(planUnits(p), p.Inexact)
		a.showGroups("not exact", g)
	case n > 0:
		a.out.Paragraph("not exact: ", fmt.Sprintf("%s that no restore can bring back; cso_backupnrestore restore %s --plan names them", ui.Plural(n, "thing"), p.Backup))
	}
	a.marked("warning", "", p.Warnings)
	a.marked("refused", "", p.Refusals)
	if p.Drift != "" && !slices.Contains(p.Warnings, p.Drift) {
		a.out.Paragraph("drift: ", p.Drift)
	}
	if p.Forever {
		a.out.Paragraph("LOST FOR GOOD: ", "this overwrites data that no safety backup will hold")
	}
}

func planUnits(p workflows.RestorePlan) []string {
	var out []string
	for _, u := range p.Units {
		out = append(out, u.Unit)
	}
	return out
}

func removed(p workflows.RestorePlan) int {
	n := 0
	for _, u := range p.Units {
		n += u.Remove
	}
	return n
}

func count(n int) string { return ui.Count(int64(n)) }

func size(n int64) string {
	if n == 0 {
		return "-"
	}
	return ui.Bytes(n)
}

func gradeTone(s string) ui.Tone {
	g, _, _ := strings.Cut(s, " ")
	switch g {
	case "GREEN":
		return ui.Good
	case "AMBER":
		return ui.Warn
	case "RED":
		return ui.Bad
	}
	return ui.Plain
}

func (a *app) restoreDone(r workflows.Result) *outcome {
	changed, removed := 0, 0
	for _, u := range r.Units {
		changed += u.Artifacts
		removed += u.Removed
	}
	msg := fmt.Sprintf("%s restored: %s, %s changed, %d removed, %s, %s", r.Backup, ui.Plural(len(r.Units), "unit"),
		ui.Plural(changed, "artifact"), removed, ui.Bytes(r.Bytes), ui.Took(r.Took))
	if !slices.ContainsFunc(r.Units, func(u workflows.UnitResult) bool { return u.Digest != "equal" }) && len(r.Units) > 0 {
		msg += "; digests equal"
	}
	if r.Maintenance > 0 {
		msg += ", maintenance " + ui.Took(r.Maintenance)
	}
	return &outcome{Result: r, Code: warned(r), Message: msg, Text: func() { a.closing(r) }, Next: []string{"cso_backupnrestore healthcheck"}}
}
