package activities

import (
	"context"
	"errors"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/gateway"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// origin is where a unit's artifacts are read from: a held pin, or the live session.
type origin struct {
	pin     plugins.PinInfo
	options store.UnitOptions
	run     func(context.Context, plugins.Run, plugins.ArtifactWriter) (plugins.Report, error)
	close   func() error
}

// Close lets go of what was opened for reading; a pin stays held.
func (o *origin) Close() error { return o.close() }

func (v *VM) source(ctx context.Context, in workflows.UnitInput) (*origin, error) {
	if in.Pinned != "" {
		h, err := v.Pins.Get(in.Claim, in.Pinned)
		if err != nil {
			return nil, err
		}
		info := h.Pin.Info()
		return &origin{pin: info, options: store.UnitOptions{Pin: info.ID, Log: v.Log}, run: h.Pin.Backup, close: func() error { return nil }}, nil
	}
	s, err := v.open(ctx, in.Unit)
	if err != nil {
		return nil, err
	}
	return &origin{options: store.UnitOptions{Redo: true, Log: v.Log}, run: s.Backup, close: s.Close}, nil
}

// stored opens what the backup holds of a unit, with the way to the other members of its instance.
func (v *VM) stored(ctx context.Context, in workflows.UnitInput) (*store.InstanceReader, error) {
	ref, err := manifest.ParseRef(in.Backup)
	if err != nil {
		return nil, err
	}
	k, err := v.reader()
	if err != nil {
		return nil, err
	}
	return v.Store.OpenInstance(ctx, ref, unitID(in.Unit), k)
}

// PlanUnit says what a restore would do to a unit, without touching it.
func (v *VM) PlanUnit(ctx context.Context, in workflows.UnitInput) (workflows.UnitPlanResult, error) {
	out := workflows.UnitPlanResult{Plan: workflows.UnitPlan{Unit: in.Unit.String(), VM: v.Name}}
	s, err := v.open(ctx, in.Unit)
	if err != nil {
		return out, told(ctx, err)
	}
	defer func() { _ = s.Close() }()
	h, err := s.Health(ctx)
	if err != nil {
		return out, told(ctx, err)
	}
	out.Plan.Grade, out.Plan.Empty = string(h.Grade), h.Empty
	p, ok := s.(plugins.Planner)
	if !ok {
		return out, nil
	}
	r, err := v.stored(ctx, in)
	if err != nil {
		return out, told(ctx, err)
	}
	defer func() { _ = r.Close() }()
	run, err := v.run(ctx, in, nil)
	if err != nil {
		return out, told(ctx, err)
	}
	plan, err := p.Plan(ctx, run, r)
	if err != nil {
		return out, told(ctx, err)
	}
	u := &out.Plan
	u.Unchanged, u.Change, u.Add, u.Remove = len(plan.Unchanged), len(plan.Change), len(plan.Add), len(plan.Remove)
	u.Write, u.Space, u.Free = plan.Write, plan.Space, plan.Free
	for _, c := range signed(plan)[:min(maxItems, u.Change+u.Add+u.Remove)] {
		u.Changes = append(u.Changes, short(c))
	}
	out.Refusals, out.Warnings, out.Inexact = bounded(plan.Refusals), bounded(plan.Warnings), inexact(plan.Inexact)
	return out, nil
}

func signed(p plugins.Plan) []string {
	var out []string
	for _, l := range []struct {
		sign  string
		names []string
	}{{"- ", p.Remove}, {"~ ", p.Change}, {"+ ", p.Add}} {
		for _, n := range l.names {
			out = append(out, l.sign+n)
		}
	}
	return out
}

func unitID(u workflows.Unit) manifest.UnitID {
	return manifest.UnitID{Component: u.Component, Instance: u.Instance, Member: u.Member}
}

func (v *VM) meta(in workflows.UnitInput, rep plugins.Report, o *origin) store.UnitMeta {
	m := store.UnitMeta{
		VM: v.Name, ServerVersion: rep.ServerVersion, Position: rep.Position, Pin: o.pin.ID, PinnedAt: o.pin.At,
		CopiedInMaintenance: o.pin.ID == "", Consistency: rep.Consistency, Warnings: rep.Warnings, Inexact: rep.Inexact,
	}
	if p, err := v.Registry.Get(in.Unit.Component); err == nil {
		m.Scope = p.Info().Scope
		m.Inexact = append(m.Inexact, p.Info().Inexact...)
	}
	return m
}

// beginUnit begins to store a unit, through the gateway where there is one.
func (v *VM) beginUnit(ctx context.Context, ref manifest.Ref, in workflows.UnitInput, k keys.Writer, o store.UnitOptions) (*store.UnitWriter, func(), error) {
	id := unitID(in.Unit)
	if v.Gateway == nil {
		w, err := v.Store.BeginUnit(ctx, ref, id, k, o)
		if err != nil {
			return nil, nil, err
		}
		return w, w.Abort, nil
	}
	shelf, err := v.Gateway.Begin(ctx, ref, id, gateway.Begin{Claim: in.Claim, Pin: o.Pin, Redo: o.Redo})
	if err != nil {
		return nil, nil, err
	}
	w, err := v.Store.BeginShelf(ctx, shelf, ref, id, k, o)
	if err != nil {
		return nil, nil, err
	}
	return w, func() {
		w.Abort()
		ectx, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		if err := shelf.End(ectx); err != nil {
			v.Log.Info("the store gateway lets go of the unit by itself", "unit", in.Unit.String(), "err", err)
		}
	}, nil
}

// finished finds the summary of a unit that an attempt whose answer was lost has stored.
func (v *VM) finished(ctx context.Context, ref manifest.Ref, id manifest.UnitID, err error) (store.UnitSummary, error) {
	if !errors.Is(err, store.ErrFinished) {
		return store.UnitSummary{}, err
	}
	list := func() (*manifest.UnitFile, manifest.Hash, error) { return v.Store.List(ref, id) }
	if v.Gateway != nil {
		list = func() (*manifest.UnitFile, manifest.Hash, error) { return v.Gateway.List(ctx, ref, id) }
	}
	f, sum, lerr := list()
	if lerr != nil {
		return store.UnitSummary{}, errors.Join(err, lerr)
	}
	return f.Summary(sum), nil
}

func inexact(list []plugins.Inexact) []string {
	out := make([]string, 0, len(list))
	for _, i := range list {
		out = append(out, i.What+": "+i.Why)
	}
	return bounded(out)
}
