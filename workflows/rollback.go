package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// abandonRestore ends a restore that has not written anything. A hold that it
// adopted stays a hold.
func (r *run) abandonRestore(ctx workflow.Context, why error, discard string) error {
	if len(r.adopted) > 0 {
		return r.hold(ctx, cause(why)+"; still half written from before: "+sentence(r.adopted))
	}
	if discard != "" {
		r.survey.Backup = discard
	}
	return r.abandon(ctx, why)
}

// rollback puts back what a failed or cancelled restore has overwritten,
// proves it, and leaves maintenance. Without a safety backup, or when the
// rollback fails too, the estate is held.
func (r *run) rollback(ctx workflow.Context, w *work, why error) error {
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if len(r.began) == 0 {
		return r.abandonRestore(ctx, why, "")
	}
	if w.safety == "" {
		return r.hold(ctx, cause(why)+"; there is no safety backup to put back")
	}
	word := "failed"
	if cancelled(why) {
		word = "was cancelled"
	}
	r.warn("%s %s: putting back what was there before", r.progress.Operation, word)
	r.phase(ctx, "rollback")
	back := &work{in: w.in, source: w.safety, op: plugins.OpRollback, options: w.options}
	for _, u := range w.units {
		if slices.Contains(r.began, u.String()) {
			back.units = append(back.units, u)
		}
	}
	if err := r.write(ctx, back); err != nil {
		return r.hold(ctx, cause(why)+"; and putting the safety backup "+w.safety+" back failed: "+cause(err))
	}
	outcome := "rolled back"
	if err := r.finishWrite(ctx, outcome); err != nil {
		return err
	}
	is := "what was there before is back, proven equal to " + w.safety
	if len(w.gaps) > 0 {
		is += " (" + sentence(w.gaps) + ")"
	}
	if cancelled(why) {
		return fail(problem.Cancelled, "", "cancelled; %s", is)
	}
	p := Problem(why)
	p.Message += "; " + is
	return ended(p)
}

// Resolve ends a hold: retry goes on with the restore that was half done,
// rollback puts its safety backup back, accept leaves things as they are.
func Resolve(ctx workflow.Context, in ResolveInput) (Result, error) {
	r, err := begin(ctx, "resolve "+in.Action, in.Confirm)
	if err != nil {
		return Result{}, err
	}
	if err := r.look(ctx, ""); err != nil {
		return Result{}, err
	}
	var f FenceResult
	if err := workflow.ExecuteActivity(r.onControl(ctx, "what is held"), "Held", in).Get(ctx, &f); err != nil {
		return Result{}, err
	}
	r.progress.Backup = f.Source
	if _, err := r.ping(ctx, r.survey.VMs); err != nil {
		return Result{}, err
	}
	if f, err = r.fence(ctx, true); err != nil {
		return Result{}, err
	}
	r.began = f.Written
	switch in.Action {
	case ResolveAccept:
		if err := r.enter(ctx, 0, true); err != nil { // adopts the lease, so that leaving puts the prior state back
			return Result{}, r.hold(ctx, cause(err))
		}
		if err := r.finishWrite(ctx, "accepted as it is"); err != nil {
			return Result{}, err
		}
		return r.result(ctx, nil), nil
	case ResolveRollback:
		if f.Safety == "" {
			return Result{}, r.hold(ctx, "there is no safety backup to put back: use resolve retry, resolve accept, or restore a backup")
		}
		return r.resume(ctx, f, f.Safety, plugins.OpRollback, f.Written)
	default:
		return r.resume(ctx, f, f.Source, plugins.OpRestore, f.Targets)
	}
}

// resume repeats a restore or a rollback for the units named, without a new safety backup.
func (r *run) resume(ctx workflow.Context, f FenceResult, source string, op plugins.Operation, units []string) (Result, error) {
	open, err := r.open(ctx, RestoreInput{Backup: source, Components: units})
	if err != nil {
		return Result{}, r.hold(ctx, cause(err))
	}
	w := &work{source: source, safety: f.Safety, units: open.Units, op: op}
	r.declare(w.units)
	if err := r.enter(ctx, 0, true); err != nil {
		return Result{}, r.hold(ctx, cause(err))
	}
	if err := r.write(ctx, w); err != nil {
		return Result{}, r.hold(ctx, cause(err))
	}
	if err := r.finishWrite(ctx, "resolved"); err != nil {
		return Result{}, err
	}
	res := r.result(ctx, w.results)
	res.Safety = f.Safety
	return res, nil
}
