package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// transfer surrounds work on a unit with all that a long activity owes: the
// claim in force, no other attempt on the unit, a beat with live progress.
func (v *VM) transfer(ctx context.Context, in workflows.UnitInput, step string, work func(context.Context, plugins.Run) error) error {
	if err := v.check(ctx, in.Claim); err != nil {
		return told(ctx, err)
	}
	var live live
	start := time.Now()
	v.Fences.Touch(in.Claim)
	defer v.Fences.Touch(in.Claim)
	err := beat.Run(ctx, v.Client, beat.For(in.Heartbeat), live.beat, func(bctx context.Context) error {
		actx, leave, err := v.Attempts.Enter(bctx, place(in), in.Claim)
		if err != nil {
			return err
		}
		defer leave()
		run, err := v.run(ctx, in, func(s plugins.Status) {
			live.set(s)
			v.Fences.Touch(in.Claim)
			if in.Pinned != "" {
				v.Pins.Touch(in.Pinned)
			}
		})
		if err != nil {
			return err
		}
		if err := v.check(ctx, in.Claim); err != nil { // waiting for an older attempt may have taken long
			return err
		}
		if err = work(actx, run); err != nil && context.Cause(actx) != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(actx))
		}
		return err
	})
	if err != nil {
		v.Log.Warn(step, "unit", in.Unit.String(), "epoch", in.Claim.Epoch, "took", time.Since(start).Round(time.Millisecond), "err", err)
	} else {
		v.Log.Info(step, "unit", in.Unit.String(), "epoch", in.Claim.Epoch, "took", time.Since(start).Round(time.Millisecond))
	}
	return told(ctx, err)
}

// place names what at most one attempt may work on: a unit, or one member of it.
func place(in workflows.UnitInput) string {
	if in.Member == "" || in.Member == in.Unit.Member {
		return in.Unit.String()
	}
	return in.Unit.String() + "/" + in.Member
}

// Pin takes and holds the unit's view; without a Pinner the result has no id.
func (v *VM) Pin(ctx context.Context, in workflows.UnitInput) (workflows.PinResult, error) {
	var out workflows.PinResult
	err := v.transfer(ctx, in, "pin", func(ctx context.Context, run plugins.Run) error {
		s, err := v.open(context.WithoutCancel(ctx), in.Unit) // outlives this activity
		if err != nil {
			return err
		}
		p, ok := s.(plugins.Pinner)
		if !ok {
			return s.Close()
		}
		pin, err := p.Pin(ctx, run)
		if err != nil {
			return errors.Join(err, s.Close())
		}
		v.Pins.Put(in.Claim, pin, s)
		i := pin.Info()
		out = workflows.PinResult{ID: i.ID, At: i.At.UTC(), Position: short(i.Position)}
		return nil
	})
	return out, err
}

// Copy writes the unit's artifacts into the store, from its pin if it has one.
func (v *VM) Copy(ctx context.Context, in workflows.UnitInput) (workflows.UnitResult, error) {
	out := workflows.UnitResult{Unit: in.Unit.String(), VM: v.Name}
	start := time.Now()
	err := v.transfer(ctx, in, "copy", func(ctx context.Context, run plugins.Run) error {
		backup, err := v.source(ctx, in)
		if err != nil {
			return err
		}
		defer func() { _ = backup.Close() }()
		ref, err := manifest.ParseRef(in.Backup)
		if err != nil {
			return err
		}
		k, err := v.writer()
		if err != nil {
			return err
		}
		var rep plugins.Report
		var sum store.UnitSummary
		w, end, err := v.beginUnit(ctx, ref, in, k, backup.options)
		if err == nil {
			defer end()
			if rep, err = backup.run(ctx, run, w); err == nil {
				sum, err = w.Finish(ctx, v.meta(in, rep, backup))
			}
		} else {
			sum, err = v.finished(ctx, ref, unitID(in.Unit), err)
		}
		if err != nil {
			return err
		}
		out.Artifacts, out.Records, out.Bytes, out.Stored, out.New = sum.Artifacts, sum.Records, sum.Bytes, sum.Stored, sum.StoredNew
		out.Digest, out.Warnings, out.Inexact = sum.Digest.String(), bounded(rep.Warnings), inexact(rep.Inexact)
		return nil
	})
	out.Took = time.Since(start)
	return out, err
}

// RestoreUnit makes the live data equal to the backup, accounts apart.
func (v *VM) RestoreUnit(ctx context.Context, in workflows.UnitInput) (workflows.UnitResult, error) {
	return v.change(ctx, in, "restore", func(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
		s, err := v.open(ctx, in.Unit)
		if err != nil {
			return plugins.Report{}, err
		}
		defer func() { _ = s.Close() }()
		if in.Safety != "" && activity.GetInfo(ctx).Attempt == 1 { // a later attempt finds what the first has written
			was := in
			was.Backup = in.Safety
			live, err := v.stored(ctx, was)
			if err != nil {
				return plugins.Report{}, fmt.Errorf("safety backup: %w", err)
			}
			defer func() { _ = live.Close() }()
			run.Live = live
		}
		return s.Restore(ctx, run, r)
	})
}

// Bootstrap builds one member of the unit anew on an empty or destroyed
// server. A plugin that needs no such step is restored like any other, once,
// through the first member.
func (v *VM) Bootstrap(ctx context.Context, in workflows.UnitInput) (workflows.UnitResult, error) {
	p, t, err := v.target(in.Unit)
	if err != nil {
		return workflows.UnitResult{}, told(ctx, err)
	}
	b, ok := p.(plugins.Bootstrapper)
	if !ok {
		if len(t.Members) > 0 && in.Member != t.Members[0].Name && in.Member != in.Unit.Member {
			return workflows.UnitResult{Unit: in.Unit.String(), VM: v.Name}, nil
		}
		return v.RestoreUnit(ctx, in)
	}
	t.Member = in.Member
	return v.change(ctx, in, "bootstrap", func(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
		return b.Bootstrap(ctx, t, run, r)
	})
}

// SwitchAccounts makes the accounts equal to the backup, proves data and
// accounts, and logs in anew with the credentials the estate names now.
func (v *VM) SwitchAccounts(ctx context.Context, in workflows.UnitInput) (workflows.UnitResult, error) {
	return v.change(ctx, in, "accounts", func(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
		s, err := v.open(ctx, in.Unit)
		if err != nil {
			return plugins.Report{}, err
		}
		defer func() { _ = s.Close() }()
		a, ok := s.(plugins.AccountSwitcher)
		if !ok {
			return plugins.Report{}, nil
		}
		rep, err := a.RestoreAccounts(ctx, run, r)
		if err != nil {
			return rep, err
		}
		again, err := v.open(ctx, in.Unit)
		if err != nil {
			return rep, fmt.Errorf("log in with the restored accounts: %w", err)
		}
		return rep, again.Close()
	})
}

func (v *VM) change(ctx context.Context, in workflows.UnitInput, step string, do func(context.Context, plugins.Run, plugins.ArtifactReader) (plugins.Report, error)) (workflows.UnitResult, error) {
	out := workflows.UnitResult{Unit: in.Unit.String(), VM: v.Name}
	start := time.Now()
	err := v.transfer(ctx, in, step, func(ctx context.Context, run plugins.Run) error {
		r, err := v.stored(ctx, in)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		rep, err := do(ctx, run, r)
		out.Artifacts, out.Unchanged, out.Removed, out.Records, out.Bytes = rep.Artifacts, rep.Unchanged, rep.Removed, rep.Records, rep.Bytes
		out.Warnings, out.Inexact = bounded(rep.Warnings), inexact(rep.Inexact)
		return err
	})
	out.Took = time.Since(start)
	return out, err
}

// CompareUnit proves that live data equals the backup, or says where not.
func (v *VM) CompareUnit(ctx context.Context, in workflows.UnitInput) (workflows.CompareResult, error) {
	var out workflows.CompareResult
	err := v.transfer(ctx, in, "compare", func(ctx context.Context, run plugins.Run) error {
		r, err := v.stored(ctx, in)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		s, err := v.open(ctx, in.Unit)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		a, switches := s.(plugins.AccountSwitcher)
		if in.Proven && !switches {
			out.Equal, out.Foreign = true, true
			return nil
		}
		run.AccountsOnly = in.Proven
		diffs, err := s.Compare(ctx, run, r)
		if err != nil {
			return err
		}
		if switches && (in.DataOnly || in.Proven) {
			diffs = slices.DeleteFunc(diffs, func(d plugins.Difference) bool { return a.AccountArtifact(d.Artifact) == in.DataOnly })
		}
		out.Equal, out.Foreign = len(diffs) == 0, true
		for _, d := range diffs {
			out.Foreign = out.Foreign && d.Foreign
			out.Differences = append(out.Differences, d.Artifact+" "+d.Kind+" "+d.Detail)
		}
		out.Differences = bounded(out.Differences)
		return nil
	})
	return out, err
}

// ReindexUnit rebuilds the unit's derived data.
func (v *VM) ReindexUnit(ctx context.Context, in workflows.UnitInput) (workflows.UnitResult, error) {
	out := workflows.UnitResult{Unit: in.Unit.String(), VM: v.Name}
	start := time.Now()
	err := v.transfer(ctx, in, "reindex", func(ctx context.Context, run plugins.Run) error {
		s, err := v.open(ctx, in.Unit)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		x, ok := s.(plugins.Reindexer)
		if !ok {
			return fmt.Errorf("reindex %s: %w by this version of the worker on %s", in.Unit, plugins.ErrUnsupported, v.Name)
		}
		rep, err := x.Reindex(ctx, run)
		out.Artifacts, out.Unchanged, out.Removed, out.Records, out.Bytes = rep.Artifacts, rep.Unchanged, rep.Removed, rep.Records, rep.Bytes
		out.Warnings = bounded(rep.Warnings)
		return err
	})
	out.Took = time.Since(start)
	return out, err
}

// live is the last status of a transfer.
type live struct {
	mu sync.Mutex
	s  plugins.Status
}

func (l *live) set(s plugins.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s = s
}

func (l *live) beat() any {
	l.mu.Lock()
	defer l.mu.Unlock()
	item := l.s.Item
	if len(item) > 64 {
		item = item[:64]
	}
	return workflows.Beat{Phase: l.s.Phase, Item: item, Bytes: l.s.Bytes, Total: l.s.Total, At: time.Now().UTC().Truncate(time.Second)}
}
