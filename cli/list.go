package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
)

type listOptions struct {
	filter string // name, or prefix of NAME/TIMESTAMP
	safety bool
}

func (a *app) listCommand(wire wireFunc) *cobra.Command {
	var o listOptions
	cmd := wire(&cobra.Command{
		Use: "list [NAME]", Aliases: []string{opList}, Short: "list the backups, newest first", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeBackup,
		Example: "  cso_backupnrestore list\n  cso_backupnrestore list DAILY\n  cso_backupnrestore list --safety -o json",
	}, func(ctx context.Context, args []string) (*outcome, error) {
		if len(args) == 1 {
			o.filter = args[0]
		}
		return a.list(ctx, o)
	})
	cmd.Flags().BoolVar(&o.safety, "safety", false, "list the safety backups, which restores take, too")
	return cmd
}

// listView is one backup in the result of list.
type listView struct {
	Backup      string     `json:"backup"`
	Started     time.Time  `json:"started"`
	AgeSeconds  int64      `json:"ageSeconds"`
	State       string     `json:"state"` // ok, incomplete or damaged
	Why         string     `json:"why,omitempty"`
	Units       int        `json:"units"`
	Bytes       int64      `json:"bytes"`
	Stored      int64      `json:"stored"`
	New         int64      `json:"new"` // stored bytes not shared with an earlier backup
	Maintenance string     `json:"maintenance"`
	Consistent  bool       `json:"consistent"`
	Warnings    int        `json:"warnings"`
	Verified    *time.Time `json:"verified,omitempty"` // last full read
	Trigger     string     `json:"trigger,omitempty"`
}

func (a *app) list(_ context.Context, o listOptions) (*outcome, error) {
	all, err := a.catalog()
	if err != nil {
		return nil, err
	}
	if o.filter != "" {
		if err := checkSelector("-s", o.filter); err != nil {
			return nil, err
		}
		if strings.HasPrefix(o.filter, "/") {
			if o.filter, err = a.below(o.filter); err != nil {
				return nil, err
			}
		}
		o.filter = strings.TrimRight(o.filter, "/")
	}
	views := []listView{}
	for _, s := range all {
		switch {
		case o.filter != "" && s.Ref.Name != o.filter && !strings.HasPrefix(s.Ref.String(), o.filter):
			continue
		case s.Ref.Safety() && !o.safety && !strings.HasPrefix(o.filter, manifest.SafetyName):
			continue
		}
		views = append(views, a.view(s))
	}
	out := &outcome{Result: views, Text: func() { a.showList(views, o) }}
	if len(views) == 0 && o.filter == "" {
		out.Next = []string{"cso_backupnrestore -b backup -s NAME", "cso_backupnrestore -b scheduledbackup -s DAILY -c '30-2-*-*-*'"}
	}
	return out, nil
}

func (a *app) view(s stored) listView {
	at, err := s.Ref.Time()
	if err != nil {
		at = time.Time{}
	}
	v := listView{Backup: s.Ref.String(), Started: at, AgeSeconds: int64(a.now().Sub(at).Seconds()), State: s.State, Why: s.Why, Maintenance: "-"}
	if !s.Verified.IsZero() {
		v.Verified = &s.Verified
	}
	m := s.Manifest
	if m == nil {
		return v
	}
	v.Units, v.Bytes, v.Stored, v.New = m.Totals.Units, m.Totals.Bytes, m.Totals.Stored, m.Totals.StoredNew
	v.Maintenance, v.Consistent, v.Trigger, v.Warnings = maintenanceWord(m.Maintenance), m.Consistent, m.Trigger, warnings(m)
	return v
}

func warnings(m *manifest.Manifest) int {
	n := len(m.Warnings)
	for _, u := range m.Units {
		n += len(u.Warnings)
	}
	return n
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

func (a *app) showList(views []listView, o listOptions) {
	if len(views) == 0 {
		if o.filter != "" {
			a.out.Line("There is no backup %q in %s.", ui.Clean(o.filter), a.paths.Root)
			return
		}
		a.out.Line("There are no backups in %s yet.", a.paths.Root)
		return
	}
	t := ui.Table{Columns: []ui.Column{
		{Head: "NAME/TIMESTAMP", Min: 25}, {Head: "AGE", Right: true}, {Head: "STATUS", Tone: stateTone}, {Head: "UNITS", Right: true, Drop: 3},
		{Head: "SIZE", Right: true}, {Head: "STORED", Right: true, Drop: 1}, {Head: "MAINT", Drop: 5, Tone: brokenTone},
		{Head: "CONSISTENT", Drop: 2}, {Head: "VERIFIED", Drop: 4},
	}}
	for _, v := range views {
		if v.State == stateIncomplete || v.Units == 0 {
			t.Add(v.Backup, ui.Age(time.Duration(v.AgeSeconds)*time.Second), v.State, "-", "-", "-", "-", "-", "-")
			continue
		}
		verified := "never"
		if v.Verified != nil {
			verified = ui.Age(a.now().Sub(*v.Verified)) + " ago"
		}
		state := v.State
		if v.Warnings > 0 && state == stateOK {
			state = "warnings"
		}
		t.Add(v.Backup, ui.Age(time.Duration(v.AgeSeconds)*time.Second), state, count(v.Units), ui.Bytes(v.Bytes), ui.Bytes(v.New), v.Maintenance, yesText(v.Consistent), verified)
	}
	a.out.Print(t)
}

func stateTone(s string) ui.Tone {
	switch s {
	case stateOK:
		return ui.Good
	case stateDamaged:
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
