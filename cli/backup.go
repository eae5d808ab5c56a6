package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

type backupOptions struct {
	name           string
	option         string // how the name was given, for error texts
	maintenance    bool
	maxMaintenance time.Duration
	detach         bool
}

func (a *app) backupCommand(wire wireFunc) *cobra.Command {
	o := backupOptions{option: "NAME"}
	var longest string
	cmd := wire(&cobra.Command{
		Use: "backup NAME", Short: "back up everything", Args: exactly(1, "NAME"),
		Long: "Back up all databases, passwords and certificates as NAME/TIMESTAMP.",
		Example: `  cso_backupnrestore backup MAR09
  cso_backupnrestore backup MAR09 --maintenance
  cso_backupnrestore backup NIGHTLY --detach -o json`,
	}, func(ctx context.Context, args []string) (*outcome, error) {
		o.name = args[0]
		var err error
		if o.maxMaintenance, err = duration(longest); err != nil {
			return nil, err
		}
		return a.backup(ctx, o)
	})
	f := cmd.Flags()
	f.BoolVar(&o.maintenance, "maintenance", false, "hold the product in maintenance mode until all data is pinned")
	f.StringVar(&longest, "max-maintenance", "", "longest time in maintenance, like 10m (default: the estate's setting)")
	f.BoolVar(&o.detach, "detach", false, "start it and return at once")
	return cmd
}

func (a *app) backup(ctx context.Context, o backupOptions) (*outcome, error) {
	if err := checkNewName(o.option, o.name); err != nil {
		return nil, err
	}
	if o.maxMaintenance > 0 && !o.maintenance {
		return nil, usage("add maintenance, or leave out --max-maintenance", "--max-maintenance needs maintenance mode")
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	summary := "backup " + o.name
	if o.maintenance {
		summary += ", in maintenance mode"
	}
	return a.startAndWatch(ctx, c, o.detach, a.backupDone, startOptions{
		id: workflows.ExclusiveID, kind: workflows.BackupType, summary: summary, operation: opBackup, backup: o.name, maintenance: o.maintenance,
	}, workflows.BackupInput{Name: o.name, Maintenance: o.maintenance, MaxMaintenance: o.maxMaintenance, Trigger: "cli"})
}

// started is the outcome of --detach.
func started(r run) *outcome {
	return &outcome{Result: r, Message: "started, run " + r.RunID, Next: []string{"cso_backupnrestore attach", "cso_backupnrestore status"}}
}

func (a *app) backupDone(r workflows.Result) *outcome {
	o := &outcome{Result: r, Text: func() { a.closing(r) }}
	msg := fmt.Sprintf("%s saved: %s, %s (%s stored, %s new), %s", r.Backup, ui.Plural(len(r.Units), "unit"),
		ui.Bytes(r.Bytes), ui.Bytes(r.Stored), ui.Bytes(r.New), ui.Took(r.Took))
	if r.Maintenance > 0 {
		msg += ", maintenance " + ui.Took(r.Maintenance)
	}
	o.Code, o.Message = warned(r), msg
	if !r.Consistent && r.Maintenance > 0 {
		o.Code, o.Message = problem.Warnings, msg+". NO CONSISTENCY POINT: maintenance did not last until all data was pinned"
	}
	o.Next = []string{"cso_backupnrestore verify " + r.Backup, "cso_backupnrestore info " + r.Backup}
	return o
}

func warned(r workflows.Result) problem.Code {
	if len(r.Warnings) > 0 {
		return problem.Warnings
	}
	for _, u := range r.Units {
		if len(u.Warnings) > 0 {
			return problem.Warnings
		}
	}
	return ""
}

// closing prints the table of a finished backup or restore, and what is to be known beside it.
func (a *app) closing(r workflows.Result) {
	t := ui.Table{Columns: []ui.Column{
		{Head: "UNIT", Min: 25}, {Head: "ARTIFACTS", Right: true, Drop: 2}, {Head: "RECORDS", Right: true, Drop: 4},
		{Head: "SIZE", Right: true}, {Head: "STORED", Right: true, Drop: 3}, {Head: "TIME", Right: true}, {Head: "DIGEST", Min: 5, Drop: 1},
	}}
	restore := r.Operation != opBackup
	switch {
	case r.Operation == opReindex:
		t.Columns[1].Head, t.Columns[2].Head, t.Columns[4].Head = "REBUILT", "DOCUMENTS", "KEPT"
	case restore:
		t.Columns[1].Head, t.Columns[4].Head = "CHANGED", "KEPT"
	}
	for _, u := range r.Units {
		stored := ui.Bytes(u.Stored)
		if restore {
			stored = ui.Count(int64(u.Unchanged))
		}
		t.Add(u.Unit, ui.Count(int64(u.Artifacts)), ui.Count(u.Records), ui.Bytes(u.Bytes), stored, ui.Took(u.Took), shortDigest(u.Digest))
	}
	if len(t.Rows) > 0 {
		a.out.Print(t)
	}
	var g grouped
	for _, u := range r.Units {
		a.marked("warning", u.Unit, u.Warnings)
		for _, x := range u.Inexact {
			g.add(u.Unit, x)
		}
	}
	a.showGroups("not exact", g)
	a.marked("warning", "", r.Warnings)
	if r.Drift != "" && !slices.Contains(r.Warnings, r.Drift) {
		a.out.Paragraph("drift: ", r.Drift)
	}
	if r.Consistency != "" {
		a.out.Paragraph("consistency: ", r.Consistency)
	}
	if r.Safety != "" {
		a.out.Paragraph("safety backup: ", r.Safety)
	}
}

func (a *app) marked(label, unit string, texts []string) {
	for _, t := range texts {
		if unit != "" {
			t = unit + ": " + t
		}
		a.out.Paragraph(label+": ", t)
	}
}

// shortDigest keeps what tells digests apart at a glance.
func shortDigest(d string) string {
	if len(d) > 12 {
		return d[:12]
	}
	return d
}
