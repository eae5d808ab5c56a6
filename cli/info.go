package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/catalog"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
)

func (a *app) infoCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "info NAME[/TIMESTAMP]", Aliases: []string{opDetails}, Short: "show what is in a backup", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeBackup,
		Example: "  cso_backupnrestore info MAR09\n  cso_backupnrestore info DAILY/2019-03-16T04 -o json",
	}, func(ctx context.Context, args []string) (*outcome, error) { return a.info(ctx, "NAME", args[0]) })
}

// infoView is the result of info.
type infoView struct {
	Path         string             `json:"path"`
	Status       catalog.Status     `json:"status"`
	Problems     []string           `json:"problems,omitempty"`
	Seal         string             `json:"seal"` // ok, broken, or why it was not checked
	LastFullRead *time.Time         `json:"lastFullRead,omitempty"`
	Manifest     *manifest.Manifest `json:"manifest,omitempty"`
}

func (a *app) info(_ context.Context, option, sel string) (*outcome, error) {
	e, err := a.find(option, sel)
	if err != nil {
		return nil, err
	}
	s, err := a.openStore()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	v := &infoView{Path: e.Path, Status: e.Status, Problems: e.Problems, Seal: "ok"}
	if !e.LastFull.IsZero() {
		v.LastFullRead = &e.LastFull
	}
	o := &outcome{Result: v}
	m, err := s.LoadManifest(e.Ref, nil)
	if err != nil {
		v.Seal = "not checked: the manifest cannot be read"
		return o, storeError(err)
	}
	v.Manifest = &m
	r, err := keys.LoadReader(a.paths.Keys())
	if err != nil {
		v.Seal = "not checked: " + err.Error()
	} else if _, err := s.LoadManifest(e.Ref, &r); errors.Is(err, manifest.ErrTampered) {
		v.Seal = "broken"
	} else if errors.Is(err, keys.ErrIdentity) {
		v.Seal = "not checked: this host's identity does not open this backup"
	} else if err != nil {
		v.Seal = "not checked: " + err.Error()
	}
	o.Text = func() { a.showInfo(m, *v) }
	switch {
	case v.Seal == "broken":
		return o, problem.New(problem.Integrity, "do not restore it; restore from another backup or copy", "%s: its manifest was changed after the backup was made", e.Ref)
	case e.Status == catalog.Damaged:
		o.Code, o.Message = problem.Warnings, e.Ref.String()+" is damaged: "+strings.Join(last(e.Problems, 3), "; ")
	}
	o.Next = []string{"cso_backupnrestore restore " + e.Ref.String() + " --plan", "cso_backupnrestore verify " + e.Ref.String()}
	return o, nil
}

func (a *app) showInfo(m manifest.Manifest, v infoView) {
	row := func(label, format string, args ...any) {
		a.out.Paragraph(ui.Pad(label, 16, false), fmt.Sprintf(format, args...))
	}
	row("backup", "%s (%s)", m.Backup, m.Operation)
	row("directory", "%s", v.Path)
	row("status", "%s", v.Status)
	row("taken", "%s (%s), in %s", m.Started.Local().Format("2006-01-02 15:04:05 MST"), ui.Ago(a.now().Sub(m.Started)), ui.Took(m.Ended.Sub(m.Started)))
	row("started by", "%s, epoch %d, version %s", m.Trigger, m.Epoch, m.Tool)
	row("maintenance", "%s", map[string]string{
		"yes": "held until all data was pinned", "no": "not asked for", "BROKEN": "asked for, and NOT held without a gap",
	}[maintenanceWord(m.Maintenance)])
	row("consistency", "%s", m.Consistency)
	row("pins", "within %s", ui.Took(time.Duration(m.PinSkewMS)*time.Millisecond))
	row("size", "%s, stored in %s, of which %s new", ui.Bytes(m.Totals.Bytes), ui.Bytes(m.Totals.Stored), ui.Bytes(m.Totals.StoredNew))
	read := "never; do it with: cso_backupnrestore verify " + m.Backup.String()
	if v.LastFullRead != nil {
		read = v.LastFullRead.Local().Format("2006-01-02 15:04") + " (" + ui.Ago(a.now().Sub(*v.LastFullRead)) + ")"
	}
	row("last full read", "%s", read)
	row("seal", "%s", v.Seal)
	row("recipients", "%d, fingerprint %s", len(m.Recipients), shortDigest(m.Fingerprint))
	a.out.Line("")
	a.unitTable(m.Units)
	a.out.Line("")
	for _, u := range m.Units {
		how := "pinned " + u.PinnedAt.Local().Format("15:04:05.000")
		if u.PinnedAt.IsZero() {
			how = "not pinned"
		}
		if u.CopiedInMaintenance {
			how = "copied in maintenance mode"
		}
		if u.Position != "" {
			how += ", position " + u.Position
		}
		a.out.Paragraph(unitName(u.UnitID)+": ", how+"; "+u.Consistency)
		a.marked("  warning", "", u.Warnings)
	}
	a.marked("warning", "", m.Warnings)
	var g grouped
	for _, u := range m.Units {
		for _, x := range u.Inexact {
			g.add(unitName(u.UnitID), x.What+": "+x.Why)
		}
	}
	for _, x := range m.Inexact {
		g.add("", x.What+": "+x.Why)
	}
	a.showGroups("not exact", g)
}

func (a *app) unitTable(units []manifest.Unit) {
	t := ui.Table{Columns: []ui.Column{
		{Head: "UNIT", Min: 25}, {Head: "VM", Min: 12, Drop: 4}, {Head: "VERSION", Min: 8, Drop: 3}, {Head: "ARTIFACTS", Right: true, Drop: 2},
		{Head: "RECORDS", Right: true, Drop: 5}, {Head: "SIZE", Right: true}, {Head: "STORED", Right: true}, {Head: "DIGEST", Drop: 1},
	}}
	for _, u := range units {
		t.Add(unitName(u.UnitID), u.VM, orDash(u.ServerVersion), count(u.Artifacts), ui.Count(u.Records), ui.Bytes(u.Bytes), ui.Bytes(u.Stored), shortDigest(u.Digest.String()))
	}
	a.out.Print(t)
}
