package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/fences"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// fenceIdle is how long a run may do nothing on this VM before its fences
// here end: it may be dead, and nobody tells a VM.
const fenceIdle = 15 * time.Minute

// fence lets the database itself refuse foreign writes while a restore
// overwrites it, on top of maintenance. One that cannot is not stopped by it.
func (v *VM) fence(ctx context.Context, in workflows.UnitInput, s plugins.Session, run plugins.Run) error {
	f, ok := s.(plugins.Fencer)
	if !ok || (in.Operation != plugins.OpSafety && in.Operation != plugins.OpRestore && in.Operation != plugins.OpRollback) {
		return nil
	}
	v.Fences.Touch(in.Claim)
	if err := v.Fences.Add(fences.Entry{Claim: in.Claim, Unit: unitID(in.Unit)}); err != nil {
		return err
	}
	if err := f.Fence(ctx, run); errors.Is(err, plugins.ErrUnsupported) {
		return v.Fences.Remove(unitID(in.Unit))
	} else if err != nil && ctx.Err() == nil {
		// Maintenance and the proof at the end hold without it; the entry stays, because it may have taken effect.
		run.Log.Warn("foreign writes are not refused by the database", "err", err)
	}
	return ctx.Err()
}

// unfence lets writes in again where a run of this or a lower epoch has fenced.
func (v *VM) unfence(ctx context.Context, upTo uint64) error {
	list, err := v.Fences.List()
	errs := []error{err}
	for _, e := range list {
		if e.Claim.Epoch <= upTo {
			errs = append(errs, v.unfenceUnit(ctx, e))
		}
	}
	return errors.Join(errs...)
}

func (v *VM) unfenceUnit(ctx context.Context, e fences.Entry) error {
	s, err := v.open(ctx, workflows.Unit{Component: e.Unit.Component, Instance: e.Unit.Instance, Member: e.Unit.Member, VM: v.Name})
	if err != nil {
		return fmt.Errorf("let writes in again: %w", err)
	}
	defer func() { _ = s.Close() }()
	if f, ok := s.(plugins.Fencer); ok {
		if err := f.Unfence(ctx, plugins.Run{Epoch: e.Claim.Epoch, Log: v.Log}); err != nil {
			return fmt.Errorf("let writes in again: %w", err)
		}
	}
	return v.Fences.Remove(e.Unit)
}

// SweepFences ends the fences of runs that have ended, or that have done
// nothing here for long. The worker calls it at start and from time to time.
func (v *VM) SweepFences(ctx context.Context) error {
	list, err := v.Fences.List()
	errs := []error{err}
	for _, e := range list {
		if v.fenceHeld(e.Claim) {
			continue
		}
		v.Log.Warn("a run has ended or fallen silent: writes are let in again", "unit", e.Unit.String(), "epoch", e.Claim.Epoch)
		errs = append(errs, v.unfenceUnit(ctx, e))
	}
	return errors.Join(errs...)
}

func (v *VM) fenceHeld(c epoch.Claim) bool {
	return v.Guard.Check(c) == nil && v.Fences.Idle(c) < fenceIdle
}
