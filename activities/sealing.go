package activities

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/internal/buildinfo"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/maintenance"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/schedule"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// keepSafety is how many safety backups stay.
const keepSafety = 3

// VerifyStored reads a backup again: everything, or what this run stored itself.
func (c *Control) VerifyStored(ctx context.Context, in workflows.VerifyStoredInput) (workflows.VerifyResult, error) {
	ref, err := manifest.ParseRef(in.Backup)
	if err != nil {
		return workflows.VerifyResult{}, told(ctx, err)
	}
	o := store.VerifyOptions{Full: !in.NewOnly, NewOnly: in.NewOnly, Unsealed: in.NewOnly, Quarantine: !in.NewOnly}
	if len(in.Units) > 0 {
		// By instance: on a cluster of another shape the units are not those of the backup.
		o.Of = func(id manifest.UnitID) bool {
			return slices.ContainsFunc(in.Units, func(u workflows.Unit) bool { return u.Component == id.Component && u.Instance == id.Instance })
		}
	}
	if !in.Quick {
		r, err := keys.LoadReader(c.Paths.Keys())
		if err != nil {
			return workflows.VerifyResult{}, told(ctx, err)
		}
		o.Reader = &r
	}
	var done, total atomic.Int64
	var rep store.VerifyReport
	err = beat.Run(ctx, c.Client, beat.For(in.Heartbeat), func() any {
		return workflows.Beat{Phase: "verify", Bytes: done.Load(), Total: total.Load(), At: time.Now().UTC().Truncate(time.Second)}
	}, func(ctx context.Context) (err error) {
		rep, err = c.Store.Verify(ctx, ref, o, func(d, t int64) { done.Store(d); total.Store(t) })
		return err
	})
	if err == nil {
		err = rep.Err()
	}
	out := workflows.VerifyResult{Backup: in.Backup, Pieces: int64(rep.Pieces), Bytes: rep.Read}
	for _, d := range rep.Damage {
		out.Damaged = append(out.Damaged, d.Unit.String()+": "+d.Reason)
	}
	out.Damaged = bounded(out.Damaged)
	return out, told(ctx, err)
}

// Seal writes the manifest, the last act of a backup.
func (c *Control) Seal(ctx context.Context, in workflows.SealInput) (workflows.SealResult, error) {
	if err := own(ctx, in.Claim); err != nil {
		return workflows.SealResult{}, told(ctx, err)
	}
	if err := c.Journal.Check(in.Claim); err != nil {
		return workflows.SealResult{}, told(ctx, err)
	}
	m, err := c.seal(ctx, in)
	if err != nil {
		return workflows.SealResult{}, told(ctx, err)
	}
	return workflows.SealResult{Bytes: m.Totals.Bytes, Stored: m.Totals.Stored, New: m.Totals.StoredNew}, nil
}

func (c *Control) seal(ctx context.Context, in workflows.SealInput) (manifest.Manifest, error) {
	ref, err := manifest.ParseRef(in.Backup)
	if err != nil {
		return manifest.Manifest{}, err
	}
	w, err := keys.LoadWriter(c.Paths.Keys())
	if err != nil {
		return manifest.Manifest{}, err
	}
	r, err := keys.LoadReader(c.Paths.Keys())
	if err != nil {
		return manifest.Manifest{}, err
	}
	if r.ManifestKey == nil {
		return manifest.Manifest{}, fmt.Errorf("the manifest key is missing: %w", keys.ErrKeys)
	}
	stored, err := c.Store.Summaries(ref)
	if err != nil {
		return manifest.Manifest{}, err
	}
	m := manifest.Manifest{
		ID: in.Claim.Run + "/" + in.Claim.Nonce + "/" + in.Operation, Tool: buildinfo.Version(), Operation: plugins.Operation(in.Operation),
		Trigger: in.Trigger, Epoch: in.Claim.Epoch, Started: in.Started.UTC(), Pinned: in.Pinned.UTC(), Ended: time.Now().UTC(),
		Maintenance: manifest.Maintenance{Asked: in.Asked, Held: in.Asked && in.Consistent},
		Consistent:  in.Consistent, Consistency: in.Consistency, PinSkewMS: in.Skew.Milliseconds(), Warnings: in.Warnings,
	}
	for _, u := range in.Units {
		i := slices.IndexFunc(stored, func(s manifest.Unit) bool { return s.UnitID == unitID(u.Unit).Normal() })
		if i < 0 {
			return m, fmt.Errorf("unit %s was not stored", u.Unit)
		}
		if s := stored[i]; s.Pin != u.Pinned.ID {
			return m, fmt.Errorf("unit %s was stored from pin %q, not from %q: %w", u.Unit, s.Pin, u.Pinned.ID, plugins.ErrPinLost)
		}
		m.Units = append(m.Units, stored[i])
	}
	files, err := c.sideFiles()
	if err != nil {
		return m, err
	}
	return c.Store.Seal(ctx, ref, m, store.SealOptions{Writer: w, ManifestKey: *r.ManifestKey, Files: files})
}

// sideFiles are stored in clear with every backup: the estate file, the
// schedules, the recipients. None of them holds a secret.
func (c *Control) sideFiles() (map[string][]byte, error) {
	out := map[string][]byte{}
	paths := map[string]string{"estate.yaml": c.Paths.Estate, "recipients": filepath.Join(c.Paths.Keys(), "recipients")}
	list, err := filepath.Glob(filepath.Join(c.Paths.Schedules(), "*.json"))
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		paths["schedule-"+filepath.Base(p)] = p
	}
	for name, p := range paths {
		b, err := os.ReadFile(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("side file: %w", err)
		}
		out[name] = b
	}
	return out, nil
}

// OpenBackup opens the part of a backup that a restore is about, and proves
// with the identity that it can be read.
func (c *Control) OpenBackup(ctx context.Context, in workflows.OpenInput) (workflows.OpenResult, error) {
	out, err := c.openBackup(in)
	return out, told(ctx, err)
}

// spread says where a unit of the backup is restored. A database with a unit on each node is restored on the
// nodes that the estate has now, whatever nodes the backup knows: their plugins share out the data.
func spread(out *workflows.OpenResult, r *plugins.Registry, unit workflows.Unit, t plugins.Target) {
	add := func(list *[]workflows.Unit, member, vm string) {
		u := workflows.Unit{Component: unit.Component, Instance: unit.Instance, Member: member, VM: vm}
		if !slices.Contains(*list, u) {
			*list = append(*list, u)
		}
	}
	known, _ := plugins.Lookup(unit.Component)
	p, err := r.Get(unit.Component)
	if err == nil && known.Database && p.Info().Scope == plugins.ScopeNode {
		for _, m := range t.Members {
			add(&out.Units, m.Name, m.VM)
		}
		return
	}
	vm := t.Members[0].VM
	for _, m := range t.Members {
		if m.Name == unit.Member {
			vm = m.VM
		}
	}
	add(&out.Units, unit.Member, vm)
	if unit.Member == workflows.ClusterMember {
		for _, m := range t.Members {
			add(&out.Members, m.Name, m.VM)
		}
	}
}

func (c *Control) openBackup(in workflows.OpenInput) (workflows.OpenResult, error) {
	var out workflows.OpenResult
	ref, err := manifest.ParseRef(in.Backup)
	if err != nil {
		return out, problem.New(problem.NoBackup, "see `cso_backupnrestore list`", "%w", err)
	}
	r, err := keys.LoadReader(c.Paths.Keys())
	if err != nil {
		return out, err
	}
	m, err := c.Store.LoadManifest(ref, &r)
	if err != nil {
		return out, err
	}
	if _, err := keys.Unwrap(r, m.Keys); err != nil {
		return out, err
	}
	e, err := c.Estate()
	if err != nil {
		return out, fmt.Errorf("%w: %w", plugins.ErrConfig, err)
	}
	out.Backup, out.Taken = ref.String(), m.Pinned
	if out.Taken.IsZero() {
		out.Taken = m.Started
	}
	matched := map[string]bool{}
	for _, u := range m.Units {
		unit := workflows.Unit{Component: u.Component, Instance: u.Instance, Member: u.Member}
		chosen := len(in.Components) == 0
		for _, n := range in.Components {
			if workflows.Selects(n, unit) {
				chosen, matched[n] = true, true
			}
		}
		if !chosen {
			out.Partial = true
			continue
		}
		t, err := e.Target(u.Component, u.Instance, "")
		if err != nil {
			return out, fmt.Errorf("the backup holds %s: %w", unit, err)
		}
		spread(&out, c.Registry, unit, t)
		for _, w := range u.Inexact {
			out.Inexact = append(out.Inexact, unit.String()+": "+w.What) // why: the manifest says, `info` shows it
		}
	}
	for _, n := range in.Components {
		if !matched[n] {
			return out, problem.New(problem.Usage, "see `cso_backupnrestore info "+ref.String()+"`", "the backup %s holds no %s", ref, n)
		}
	}
	if !m.Consistent {
		out.Warnings = append(out.Warnings, "this backup has "+manifest.NoConsistencyPoint+": its components may differ from each other in time")
	}
	if out.Partial {
		age := in.Now.Sub(out.Taken).Round(time.Second)
		if age >= time.Hour {
			age = age.Round(time.Minute)
		}
		out.Drift = fmt.Sprintf("drift: only a part of the estate goes back by %s; what the other components have recorded since may refer to things that will be gone, or miss things that will be back", age)
		out.Warnings = append(out.Warnings, out.Drift)
	}
	return out, nil
}

// discard removes an incomplete backup of this run; a complete one stays.
func (c *Control) discard(ctx context.Context, backup string) error {
	ref, err := manifest.ParseRef(backup)
	if err != nil {
		return nil // it was never begun
	}
	if _, err := c.Store.LoadManifest(ref, nil); !errors.Is(err, store.ErrIncomplete) {
		return nil // sealed, or not there
	}
	return c.Store.Remove(ctx, ref)
}

// trimSafety keeps the last safety backups and the one the journal needs.
func (c *Control) trimSafety(ctx context.Context) error {
	refs, err := c.Store.Refs()
	if err != nil {
		return err
	}
	s, err := c.Journal.Read()
	if err != nil {
		return err
	}
	refs = slices.DeleteFunc(refs, func(r manifest.Ref) bool { return !r.Safety() || (s.Open() && r.String() == s.Safety) })
	slices.SortFunc(refs, func(a, b manifest.Ref) int { return strings.Compare(b.Timestamp, a.Timestamp) })
	var errs []error
	for _, r := range refs[min(len(refs), keepSafety):] {
		errs = append(errs, c.Store.Remove(ctx, r))
	}
	return errors.Join(errs...)
}

// Notes are findings about the product itself.
func (c *Control) Notes(ctx context.Context) ([]workflows.VMNote, error) {
	var out []workflows.VMNote
	note := func(g plugins.Grade, format string, args ...any) {
		out = append(out, workflows.VMNote{Grade: string(g), Reason: short(fmt.Sprintf(format, args...))})
	}
	if !keys.Confirmed(c.Paths.Keys()) {
		note(plugins.Amber, "nobody has confirmed a copy of the identity: without one a lost installer-vm loses every backup; type `cso_backupnrestore setup --confirm-key FILE`")
	}
	if _, err := keys.LoadReader(c.Paths.Keys()); err != nil {
		note(plugins.Red, "keys: %v", err)
	}
	s, err := c.Journal.Read()
	switch {
	case err != nil:
		note(plugins.Red, "journal: %v", err)
	case s.Hold != nil:
		note(plugins.Red, "%s of %s is held in maintenance: %s", s.Operation, s.Backup, s.Hold.Reason)
	case s.Open() && s.Lease != nil && s.Lease.Entered:
		if _, err := c.RunClosed(ctx, s.Workflow, s.Claim); errors.Is(err, maintenance.ErrElsewhere) {
			note(plugins.Red, "maintenance is on, entered by a %s of %s that ran on another Temporal: the next operation leaves it, or `resolve accept`", s.Operation, s.Backup)
		}
	}
	c.scheduleNotes(ctx, note)
	free, err := c.Store.Free()
	if err != nil {
		note(plugins.Red, "store: %v", err)
	} else if free < lowSpace {
		note(plugins.Amber, "only %d MiB are free in %s", free>>20, c.Paths.Root)
	}
	return out, nil
}

// scheduleNotes tells of runs that a schedule missed or skipped.
func (c *Control) scheduleNotes(ctx context.Context, note func(plugins.Grade, string, ...any)) {
	entries, err := schedule.List(c.Paths.Schedules())
	if err != nil {
		note(plugins.Amber, "schedules: %v", err)
	}
	for _, e := range entries {
		s, err := schedule.Inspect(ctx, c.Client, e.Name)
		switch {
		case err != nil:
			note(plugins.Amber, "schedule %s is not known to Temporal: restart the worker on the installer-vm to reconcile it", e.Name)
		case s.Missed > 0:
			note(plugins.Amber, "schedule %s: %d runs were missed while Temporal was away", e.Name, s.Missed)
		case s.Skipped() > 0:
			note(plugins.Amber, "schedule %s: %d runs were skipped because something else ran", e.Name, s.Skipped())
		}
	}
}

// lowSpace is where a store's free space becomes a finding, in bytes.
const lowSpace = 1 << 30
