package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/catalog"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
)

type listOptions struct {
	filter string // name, beginning of NAME/TIMESTAMP, or path
	option string
	safety bool
}

func (a *app) listCommand(wire wireFunc) *cobra.Command {
	o := listOptions{option: "NAME"}
	cmd := wire(&cobra.Command{
		Use: "list [NAME]", Aliases: []string{opList}, Short: "list the backups, newest first", Args: atMost(1, "[NAME]"), ValidArgsFunction: a.completeBackup,
		Example: "  cso_backupnrestore list\n  cso_backupnrestore list DAILY\n  cso_backupnrestore list --safety -o json",
	}, func(ctx context.Context, args []string) (*outcome, error) {
		if len(args) == 1 {
			if err := checkSelector(o.option, args[0]); err != nil {
				return nil, err
			}
			o.filter = args[0]
		}
		return a.list(ctx, o)
	})
	cmd.Flags().BoolVar(&o.safety, "safety", false, "list the safety backups, which restores take, too")
	return cmd
}

func (a *app) list(_ context.Context, o listOptions) (*outcome, error) {
	if o.filter != "" {
		if err := checkSelector(o.option, o.filter); err != nil {
			return nil, err
		}
	}
	all, err := a.entries(catalog.Filter{Safety: true, Reader: a.reader()})
	if err != nil {
		return nil, storeError(err)
	}
	f := strings.TrimRight(strings.TrimPrefix(o.filter, strings.TrimRight(a.paths.Root, "/")+"/"), "/")
	shown := []catalog.Entry{}
	for _, e := range all {
		switch ref := e.Ref.String(); {
		case f != "" && e.Ref.Name != f && !(strings.Contains(f, "/") && strings.HasPrefix(ref, f)):
			continue
		case e.Safety && !o.safety && !strings.HasPrefix(f, manifest.SafetyName):
			continue
		}
		shown = append(shown, e)
	}
	out := &outcome{Result: shown, Text: func() { a.showList(shown, o) }}
	if len(shown) == 0 && o.filter == "" {
		out.Next = []string{"cso_backupnrestore -b backup -s NAME", "cso_backupnrestore -b scheduledbackup -s DAILY -c '30-2-*-*-*'"}
	} else if len(shown) == 0 {
		out.Next = []string{"cso_backupnrestore listbackups"}
	}
	return out, nil
}

func maintenanceWord(m manifest.Maintenance) string {
	switch {
	case m.Asked && m.Held:
		return "yes"
	case m.Asked:
		return "BROKEN"
	}
	return "no"
}

func (a *app) showList(es []catalog.Entry, o listOptions) {
	if len(es) == 0 {
		if o.filter != "" {
			a.out.Line("There is no backup %q in %s.", ui.Clean(o.filter), a.paths.Root)
			return
		}
		a.out.Line("There are no backups in %s yet.", a.paths.Root)
		return
	}
	t := ui.Table{Columns: []ui.Column{
		{Head: "NAME/TIMESTAMP", Min: 48}, {Head: "AGE", Right: true}, {Head: "STATUS", Tone: statusTone}, {Head: "UNITS", Right: true, Drop: 3},
		{Head: "SIZE", Right: true}, {Head: "STORED", Right: true, Drop: 1}, {Head: "NEW", Right: true, Drop: 6}, {Head: "MAINT", Drop: 5, Tone: brokenTone},
		{Head: "CONSISTENT", Drop: 2}, {Head: "VERIFIED", Drop: 4},
	}}
	for _, e := range es {
		at, err := e.Ref.Time()
		if err != nil {
			at = e.Time
		}
		age := ui.Age(a.now().Sub(at))
		if e.Totals.Units == 0 {
			t.Add(e.Ref.String(), age, statusWord(e), "-", "-", "-", "-", "-", "-", "-")
			continue
		}
		verified := "never"
		if !e.LastFull.IsZero() {
			verified = ui.Ago(a.now().Sub(e.LastFull))
		}
		t.Add(e.Ref.String(), age, statusWord(e), count(e.Totals.Units), ui.Bytes(e.Totals.Bytes), ui.Bytes(e.Totals.Stored), ui.Bytes(e.Totals.StoredNew),
			maintenanceWord(e.Maintenance), yesText(e.Consistent), verified)
	}
	a.out.Print(t)
	for _, e := range es {
		a.marked(string(e.Status), e.Ref.String(), last(e.Problems, 3))
	}
}

// statusWord is short: ok is what most are.
func statusWord(e catalog.Entry) string {
	switch {
	case e.Status == catalog.Complete && (e.Warnings > 0 || !e.Consistent):
		return "warnings"
	case e.Status == catalog.Complete:
		return "ok"
	}
	return string(e.Status)
}

func statusTone(s string) ui.Tone {
	switch s {
	case "ok":
		return ui.Good
	case string(catalog.Damaged), string(catalog.Unreadable):
		return ui.Bad
	}
	return ui.Warn
}

func brokenTone(s string) ui.Tone {
	if s == "BROKEN" {
		return ui.Bad
	}
	return ui.Plain
}
