package workflows

import (
	"strconv"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// protection is one backup of some units at one point: a named backup, or the
// safety backup of a restore.
type protection struct {
	ref         string
	op          plugins.Operation
	units       []Unit
	trigger     string
	started     time.Time
	maintenance bool          // enter and leave it around the pins
	max         time.Duration // longest time in it
	asked       bool          // maintenance belongs to this backup's promise
}

// pinTries is how often all units are pinned again after a pin was lost.
const pinTries = 3

// protect takes the backup and commits it. One manifest never mixes two pins
// of a unit: when a pin is lost, all units are pinned again.
func (r *run) protect(ctx workflow.Context, p protection) (SealResult, []UnitResult, error) {
	r.declare(p.units)
	for try := 1; ; try++ {
		results, pins, err := r.copyAll(ctx, p)
		if err == nil {
			sealed, err := r.seal(ctx, p, pins)
			return sealed, results, err
		}
		if Problem(err).Code != pinLost || try == pinTries || ctx.Err() != nil {
			return SealResult{}, nil, err
		}
		r.warn("%s: all units are pinned again", cause(err))
		r.release(ctx)
	}
}

// pinLost is the problem code of an attempt whose view is gone; it never reaches the operator as such.
const pinLost problem.Code = "pin-lost"

func (r *run) copyAll(ctx workflow.Context, p protection) ([]UnitResult, []SealUnit, error) {
	if p.maintenance {
		if err := r.enter(ctx, p.max, false); err != nil {
			return nil, nil, err
		}
	}
	if p.op == plugins.OpBackup {
		if err := r.stability(ctx, p.units, false, false); err != nil {
			return nil, nil, err
		}
	}
	if err := r.hooks(ctx, p.units, p.op, p.ref, false); err != nil {
		return nil, nil, err
	}
	pins, err := r.pin(ctx, p)
	results := make([]UnitResult, len(p.units))
	if err == nil {
		err = r.copy(ctx, p, pins, results, true)
	}
	// what PreHook did is undone whatever happened, on a context that a cancellation does not reach
	dctx, done := workflow.NewDisconnectedContext(ctx)
	herr := r.hooks(dctx, p.units, p.op, p.ref, true)
	done()
	if err = firstOf(err, herr); err != nil {
		return nil, nil, err
	}
	if p.maintenance {
		dctx, done := workflow.NewDisconnectedContext(ctx)
		err := r.leave(dctx)
		done()
		if err != nil {
			return nil, nil, err
		}
	}
	return results, pins, r.copy(ctx, p, pins, results, false)
}

// pin takes all views as close together as possible.
func (r *run) pin(ctx workflow.Context, p protection) ([]SealUnit, error) {
	r.phase(ctx, "pin")
	out := make([]SealUnit, len(p.units))
	futures := make([]workflow.Future, len(p.units))
	for i, u := range p.units {
		l := r.line(u)
		l.State, l.Phase = "running", "pin"
		futures[i] = workflow.ExecuteActivity(r.onCtlLong(ctx, u.VM, r.id("pin", u)), "Pin", r.input(u, p.op, p.ref, nil))
	}
	var first error
	for i, f := range futures {
		out[i].Unit = p.units[i]
		if err := f.Get(ctx, &out[i].Pinned); err != nil {
			first = firstOf(first, wrap(err, "pin %s", p.units[i]))
			continue
		}
		out[i].Early = out[i].Pinned.ID == ""
		r.line(p.units[i]).State = "waiting"
	}
	return out, first
}

// copy transfers the units that have no pin (early) or those that have one.
func (r *run) copy(ctx workflow.Context, p protection, pins []SealUnit, results []UnitResult, early bool) error {
	var units []Unit
	index := map[string]int{}
	for i, s := range pins {
		if s.Early == early {
			units = append(units, s.Unit)
			index[s.Unit.String()+s.Unit.VM] = i
		}
	}
	if len(units) == 0 {
		return nil
	}
	r.phase(ctx, "copy")
	return r.each(ctx, units, "copy", func(ctx workflow.Context, u Unit, l *UnitProgress) error {
		i := index[u.String()+u.VM]
		in := r.input(u, p.op, p.ref, nil)
		in.Pinned = pins[i].Pinned.ID
		l.ActivityID = r.id("copy", u)
		if err := workflow.ExecuteActivity(r.onVM(ctx, u.VM, l.ActivityID), "Copy", in).Get(ctx, &results[i]); err != nil {
			return err
		}
		l.Bytes, l.Stored = results[i].Bytes, results[i].Stored
		return nil
	})
}

// seal re-reads what was stored and writes the manifest, the last act of a backup.
func (r *run) seal(ctx workflow.Context, p protection, pins []SealUnit) (SealResult, error) {
	r.release(ctx)
	r.phase(ctx, "verify")
	r.serial++
	verify := VerifyStoredInput{Backup: p.ref, NewOnly: true, Units: p.units, Heartbeat: r.survey.Heartbeat}
	err := workflow.ExecuteActivity(r.onControlLong(ctx, "verify:"+p.ref+"#"+strconv.Itoa(r.serial)), "VerifyStored", verify).Get(ctx, nil)
	if err != nil {
		return SealResult{}, wrap(err, "verify what was stored")
	}
	r.phase(ctx, "seal")
	in := SealInput{Claim: r.claim, Backup: p.ref, Operation: string(p.op), Trigger: p.trigger, Started: p.started,
		Units: pins, Asked: p.asked, Maintenance: r.lease.held, Warnings: r.warnings}
	in.Pinned, in.Skew = span(pins)
	in.Consistent = r.consistent(p)
	in.Consistency = sayConsistency(in)
	var out SealResult
	err = workflow.ExecuteActivity(r.onControl(ctx, "write the manifest"), "Seal", in).Get(ctx, &out)
	return out, wrap(err, "seal")
}

// consistent says whether the backup keeps its promise: maintenance that was
// asked for stopped the writers without a gap until the last pin.
func (r *run) consistent(p protection) bool {
	return !p.asked || (!r.lease.gap && r.survey.HasSwitch)
}

// span is the last pin and the time between first and last.
func span(pins []SealUnit) (last time.Time, skew time.Duration) {
	var first time.Time
	for _, s := range pins {
		if at := s.Pinned.At; !at.IsZero() {
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
	}
	return last, last.Sub(first)
}

func sayConsistency(in SealInput) string {
	skew := in.Skew.Round(time.Millisecond).String()
	switch {
	case in.Asked && in.Consistent:
		return "one consistency point: maintenance was held without a gap until the last unit was pinned"
	case in.Asked:
		return "no consistency point: maintenance was asked for and did not stop the writers without a gap"
	default:
		return "each unit is consistent in itself; all were pinned within " + skew + " while writers went on"
	}
}
