package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/schedule"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
)

type scheduleOptions struct {
	name, cron, option string
	maintenance        bool
}

func (a *app) scheduleCommand(wire wireFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "list, add, pause, resume, delete, run scheduled backups",
		Example: `  cso_backupnrestore schedule list
  cso_backupnrestore schedule add DAILY '30 2 * * *' --maintenance
  cso_backupnrestore schedule pause DAILY --reason 'upgrade until Friday'`,
		Args: exactly(0, ""),
	}
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		return usage("type: cso_backupnrestore schedule list", "schedule needs one of: list add pause resume delete run")
	}
	cmd.AddCommand(wire(&cobra.Command{Use: "list", Short: "list the schedules", Args: exactly(0, "")},
		func(ctx context.Context, _ []string) (*outcome, error) { return a.scheduleList(ctx) }))
	add := scheduleOptions{option: "NAME"}
	addCmd := wire(&cobra.Command{
		Use: "add NAME TIME", Short: "add a schedule, or change it", Args: exactly(2, "NAME TIME"),
		Long: `Add a schedule, or change the one of that name. TIME is
minute-hour-day-month-weekday (numbers, *, */n, comma lists; Sunday is 0), or
the same five fields with blanks, in quotes, where ranges are possible too.
A day of the month and a weekday together mean either, as in cron.`,
		Example: `  cso_backupnrestore schedule add WEEKLY '0-13-*-*-0'
  cso_backupnrestore schedule add DAILY '30 2 * * 1-5' --maintenance`,
	}, func(ctx context.Context, args []string) (*outcome, error) {
		add.name, add.cron = args[0], args[1]
		return a.scheduleAdd(ctx, add)
	})
	addCmd.Flags().BoolVar(&add.maintenance, "maintenance", false, "hold the product in maintenance mode until all data is pinned")
	var reason string
	pause := wire(&cobra.Command{Use: "pause NAME", Short: "let a schedule rest", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeSchedule},
		func(ctx context.Context, args []string) (*outcome, error) {
			return a.schedulePause(ctx, args[0], true, reason)
		})
	pause.Flags().StringVar(&reason, "reason", "", "why, for whoever looks at it later")
	resume := wire(&cobra.Command{Use: "resume NAME", Short: "let it run again", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeSchedule},
		func(ctx context.Context, args []string) (*outcome, error) {
			return a.schedulePause(ctx, args[0], false, "")
		})
	del := wire(&cobra.Command{Use: "delete NAME", Short: "delete a schedule; its backups stay", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeSchedule},
		func(ctx context.Context, args []string) (*outcome, error) { return a.scheduleDelete(ctx, args[0]) })
	now := wire(&cobra.Command{Use: "run NAME", Short: "run it now, beside its times", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeSchedule},
		func(ctx context.Context, args []string) (*outcome, error) { return a.scheduleRun(ctx, args[0]) })
	cmd.AddCommand(addCmd, pause, resume, del, now)
	return cmd
}

// scheduleView is a schedule as listed.
type scheduleView struct {
	schedule.Entry
	Zone  string          `json:"zone"`
	Next  []time.Time     `json:"next,omitempty"` // empty while paused
	State *schedule.State `json:"state,omitempty"`
}

func (a *app) zone() (*time.Location, error) {
	z, err := schedule.Zone(a.p.Getenv)
	if err != nil {
		return nil, problem.New(problem.Failed, "set it: timedatectl set-timezone Area/City, or TZ=Area/City", "%w", err)
	}
	return z, nil
}

func (a *app) scheduleAdd(ctx context.Context, o scheduleOptions) (*outcome, error) {
	if err := checkNewName(o.option, o.name); err != nil {
		return nil, err
	}
	cron, err := schedule.Parse(o.cron)
	if err != nil {
		return nil, usage("-c '30-2-*-*-*' is every day at 02:30, -c '0-13-*-*-0' every Sunday at 13:00", "%w", err)
	}
	z, err := a.zone()
	if err != nil {
		return nil, err
	}
	e := schedule.Entry{Name: o.name, Cron: o.cron, Maintenance: o.maintenance, Changed: a.now().UTC().Truncate(time.Second)}
	did := "added"
	switch old, err := schedule.Load(a.paths.Schedules(), o.name); {
	case err == nil:
		did = "changed"
		e.Paused, e.Note = old.Paused, old.Note
	case !errors.Is(err, schedule.ErrNone):
		a.note("%v: it is replaced", err)
	}
	if err := schedule.Save(a.paths.Schedules(), e); err != nil {
		return nil, err
	}
	v := scheduleView{Entry: e, Zone: z.String(), Next: cron.NextN(a.now().In(z), 5)}
	if err := a.apply(ctx, z, "saved"); err != nil {
		return &outcome{Result: v}, err
	}
	out := &outcome{Result: v, Message: "schedule " + o.name + " " + did + ": " + cron.String() + ", " + z.String() + mode(e), Text: func() {
		a.out.Line("next runs in %s:", z)
		for _, t := range v.Next {
			a.out.Line("  %s", t.Format("Mon 2006-01-02 15:04 MST"))
		}
	}, Next: []string{"cso_backupnrestore schedule list"}}
	if e.Paused {
		out.Message += "; it is still paused"
		out.Next = []string{"cso_backupnrestore schedule resume " + o.name}
	}
	return out, nil
}

func mode(e schedule.Entry) string {
	if e.Maintenance {
		return ", in maintenance mode"
	}
	return ""
}

// apply brings the schedule files to Temporal. The files are the truth: when
// Temporal is away, the change counts as soon as it is back.
func (a *app) apply(ctx context.Context, z *time.Location, did string) error {
	c, err := a.connect(ctx)
	if err != nil {
		p := problem.As(err)
		return problem.New(p.Code, p.Hint, "the schedule is %s and takes effect when Temporal and the worker run again: %w", did, err)
	}
	defer c.Close()
	call, cancel := context.WithTimeout(ctx, 6*callTime)
	defer cancel()
	if _, err := schedule.Reconcile(call, c, a.paths.Schedules(), z); err != nil {
		return a.temporalError(err, "the schedule is "+did+", but bringing it to Temporal failed")
	}
	return nil
}

func (a *app) loadSchedule(name string) (schedule.Entry, error) {
	e, err := schedule.Load(a.paths.Schedules(), name)
	if errors.Is(err, schedule.ErrNone) {
		return e, problem.New(problem.NoBackup, "see cso_backupnrestore schedule list", "there is no schedule %q", name)
	}
	return e, err
}

func (a *app) schedulePause(ctx context.Context, name string, paused bool, reason string) (*outcome, error) {
	e, err := a.loadSchedule(name)
	if err != nil {
		return nil, err
	}
	z, err := a.zone()
	if err != nil {
		return nil, err
	}
	did := "resumed"
	if e.Paused, e.Note = paused, ""; paused {
		did = "paused"
		e.Note = strings.TrimSpace("paused by " + who() + " " + reason)
	}
	e.Changed = a.now().UTC().Truncate(time.Second)
	if err := schedule.Save(a.paths.Schedules(), e); err != nil {
		return nil, err
	}
	if err := a.apply(ctx, z, did); err != nil {
		return &outcome{Result: e}, err
	}
	return &outcome{Result: e, Message: "schedule " + name + " " + did}, nil
}

func (a *app) scheduleDelete(ctx context.Context, name string) (*outcome, error) {
	z, err := a.zone()
	if err != nil {
		return nil, err
	}
	err = schedule.Remove(a.paths.Schedules(), name)
	if errors.Is(err, schedule.ErrNone) {
		return nil, problem.New(problem.NoBackup, "see cso_backupnrestore schedule list", "there is no schedule %q", name)
	}
	if err != nil {
		return nil, err
	}
	if err := a.apply(ctx, z, "deleted"); err != nil {
		return nil, err
	}
	return &outcome{Result: map[string]string{"name": name}, Message: "schedule " + name + " deleted; its backups stay"}, nil
}

func (a *app) scheduleRun(ctx context.Context, name string) (*outcome, error) {
	if _, err := a.loadSchedule(name); err != nil {
		return nil, err
	}
	z, err := a.zone()
	if err != nil {
		return nil, err
	}
	if err := a.apply(ctx, z, "known"); err != nil {
		return nil, err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := c.ScheduleClient().GetHandle(call, schedule.ID(name)).Trigger(call, client.ScheduleTriggerOptions{}); err != nil {
		return nil, a.temporalError(err, "run schedule "+name)
	}
	return &outcome{Result: map[string]string{"name": name}, Message: "schedule " + name + " starts its backup now",
		Next: []string{"cso_backupnrestore attach", "cso_backupnrestore schedule list"}}, nil
}

func (a *app) scheduleList(ctx context.Context) (*outcome, error) {
	z, err := a.zone()
	if err != nil {
		return nil, err
	}
	entries, broken := schedule.List(a.paths.Schedules())
	if broken != nil {
		a.note("%s", oneLine(broken.Error()))
	}
	c, err := a.connect(ctx)
	if err != nil {
		a.note("what Temporal knows of them is left out: %v", err)
	} else {
		defer c.Close()
	}
	views := []scheduleView{}
	for _, e := range entries {
		v := scheduleView{Entry: e, Zone: z.String()}
		if cron, err := schedule.Parse(e.Cron); err == nil && !e.Paused {
			v.Next = cron.NextN(a.now().In(z), 5)
		}
		if c != nil {
			call, cancel := context.WithTimeout(ctx, callTime)
			if s, err := schedule.Inspect(call, c, e.Name); err == nil {
				v.State = &s
			}
			cancel()
		}
		views = append(views, v)
	}
	o := &outcome{Result: views, Text: func() { a.showSchedules(views, z) }}
	if broken != nil {
		if len(views) == 0 {
			o.Text = nil
		}
		o.Code, o.Message = problem.Warnings, "some schedule files cannot be read"
	}
	if len(views) == 0 && broken == nil {
		o.Next = []string{"cso_backupnrestore -b scheduledbackup -s DAILY -c '30-2-*-*-*'"}
	}
	return o, nil
}

func (a *app) showSchedules(views []scheduleView, z *time.Location) {
	if len(views) == 0 {
		a.out.Line("There is no scheduled backup.")
		return
	}
	t := ui.Table{Columns: []ui.Column{
		{Head: "NAME", Min: 8}, {Head: "TIME"}, {Head: "MAINT", Drop: 3}, {Head: "NEXT RUN"}, {Head: "LAST", Drop: 1, Tone: outcomeTone},
		{Head: "RAN", Right: true, Drop: 4}, {Head: "SKIPPED", Right: true, Drop: 2}, {Head: "MISSED", Right: true, Drop: 2},
	}}
	for _, v := range views {
		next, last, ran, skipped, missed := "paused", "-", "-", "-", "-"
		if len(v.Next) > 0 {
			next = v.Next[0].Format("Mon 01-02 15:04 MST")
		}
		if s := v.State; s != nil {
			ran, missed, skipped = count(s.Ran), count(s.Missed), count(s.Skipped())
			if n := len(s.Recent); n > 0 {
				last = s.Recent[n-1].Outcome
			}
		}
		t.Add(v.Name, v.Cron, yesText(v.Maintenance), next, last, ran, skipped, missed)
	}
	a.out.Print(t)
	a.out.Line("%s", a.out.Tone(ui.Dim, "times in "+z.String()))
	for _, v := range views {
		if v.Paused && v.Note != "" {
			a.out.Paragraph(v.Name+": ", v.Note)
		}
		if s := v.State; s != nil && len(s.Recent) > 0 && s.Recent[len(s.Recent)-1].Skipped != "" {
			a.out.Paragraph(v.Name+": ", "skipped: "+s.Recent[len(s.Recent)-1].Skipped)
		}
	}
}

func outcomeTone(s string) ui.Tone {
	switch s {
	case "completed":
		return ui.Good
	case "failed", "terminated":
		return ui.Bad
	case "skipped", "cancelled":
		return ui.Warn
	}
	return ui.Plain
}

func yesText(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) completeSchedule(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entries, err := schedule.List(a.paths.Schedules())
	if err != nil && len(entries) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
