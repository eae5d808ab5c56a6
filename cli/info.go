package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

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
	State      string             `json:"state"`
	Why        string             `json:"why,omitempty"`
	Seal       string             `json:"seal"` // ok, broken, or why it was not checked
	Path       string             `json:"path"`
	Verified   *time.Time         `json:"verified,omitempty"` // last full read
	Recipients string             `json:"recipients,omitempty"`
	Manifest   *manifest.Manifest `json:"manifest,omitempty"`
}

func (a *app) info(_ context.Context, option, sel string) (*outcome, error) {
	s, err := a.find(option, sel)
	if err != nil {
		return nil, err
	}
	v := infoView{State: s.State, Why: s.Why, Manifest: s.Manifest, Path: a.paths.Root + "/" + s.Ref.String()}
	if !s.Verified.IsZero() {
		v.Verified = &s.Verified
	}
	o := &outcome{Result: &v}
	if s.Manifest == nil {
		return o, problem.New(problem.Integrity, "restore from another backup or copy; see cso_backupnrestore listbackups", "%s: its manifest cannot be read: %s", s.Ref, s.Why)
	}
	v.Recipients = s.Manifest.Fingerprint
	v.Seal = a.seal(s)
	o.Text = func() { a.showInfo(s, v) }
	o.Next = []string{"cso_backupnrestore restore " + s.Ref.String() + " --plan", "cso_backupnrestore verify " + s.Ref.String()}
	switch {
	case v.Seal == sealBroken:
		o.Next = nil
		return o, problem.New(problem.Integrity, "do not restore it; restore from another backup or copy", "%s: its manifest was changed after the backup was made", s.Ref)
	case s.State == stateDamaged:
		o.Code, o.Message = problem.Warnings, s.Ref.String()+" is damaged: "+s.Why
	}
	return o, nil
}

const sealBroken = "broken"

// seal checks the manifest's MAC with this host's manifest key, if it has one.
func (a *app) seal(s stored) string {
	r, err := keys.LoadReader(a.paths.Keys())
	if err != nil || r.ManifestKey == nil {
		return "not checked: this host has no keys"
	}
	b, err := a.manifestBytes(s.Ref)
	if err != nil {
		return "not checked: " + err.Error()
	}
	if err := manifest.CheckMAC(b, *r.ManifestKey); err != nil {
		return sealBroken
	}
	return "ok"
}

func (a *app) showInfo(s stored, v infoView) {
	m := s.Manifest
	row := func(label, format string, args ...any) {
		a.out.Paragraph(ui.Pad(label, 14, false), fmt.Sprintf(format, args...))
	}
	row("backup", "%s (%s)", m.Backup, m.Operation)
	row("directory", "%s", v.Path)
	row("taken", "%s (%s ago), %s", m.Started.Local().Format("2006-01-02 15:04:05 MST"), ui.Age(a.now().Sub(m.Started)), ui.Took(m.Ended.Sub(m.Started)))
	row("started by", "%s, epoch %d, version %s", m.Trigger, m.Epoch, m.Tool)
	row("maintenance", "%s", map[string]string{"yes": "held until all data was pinned", "no": "not asked for", "BROKEN": "asked for, and NOT held without a gap"}[maintenanceWord(m.Maintenance)])
	row("consistency", "%s", m.Consistency)
	row("pins", "within %s", ui.Took(time.Duration(m.PinSkewMS)*time.Millisecond))
	row("size", "%s, %s stored, of which %s new", ui.Bytes(m.Totals.Bytes), ui.Bytes(m.Totals.Stored), ui.Bytes(m.Totals.StoredNew))
	row("last full read", "%s", verifiedText(a.now(), s.Verified))
	row("seal", "%s", v.Seal)
	row("recipients", "%d, fingerprint %s", len(m.Recipients), shortDigest(m.Fingerprint))
	a.out.Line("")
	t := ui.Table{Columns: []ui.Column{
		{Head: "UNIT", Min: 12}, {Head: "VM", Min: 6, Drop: 4}, {Head: "VERSION", Min: 8, Drop: 3}, {Head: "ARTIFACTS", Right: true, Drop: 2},
		{Head: "RECORDS", Right: true, Drop: 5}, {Head: "SIZE", Right: true}, {Head: "STORED", Right: true}, {Head: "DIGEST", Drop: 1},
	}}
	for _, u := range m.Units {
		t.Add(unitName(u.UnitID), u.VM, orDash(u.ServerVersion), count(u.Artifacts), ui.Count(u.Records), ui.Bytes(u.Bytes), ui.Bytes(u.Stored), shortDigest(u.Digest.String()))
	}
	a.out.Print(t)
	a.out.Line("")
	for _, u := range m.Units {
		how := "pinned " + u.PinnedAt.Local().Format("15:04:05.000")
		if u.CopiedInMaintenance {
			how = "copied in maintenance mode"
		}
		if u.Position != "" {
			how += ", position " + u.Position
		}
		a.out.Paragraph(unitName(u.UnitID)+": ", how+"; "+u.Consistency)
		for _, w := range u.Warnings {
			a.out.Paragraph("  warning: ", w)
		}
		for _, x := range u.Inexact {
			a.out.Paragraph("  not exact: ", x.What+": "+x.Why)
		}
	}
	a.marked("warning", "", m.Warnings)
	for _, x := range m.Inexact {
		a.out.Paragraph("not exact: ", x.What+": "+x.Why)
	}
}

func verifiedText(now, at time.Time) string {
	if at.IsZero() {
		return "never; do it with cso_backupnrestore verify"
	}
	return at.Local().Format("2006-01-02 15:04") + " (" + ui.Age(now.Sub(at)) + " ago)"
}
