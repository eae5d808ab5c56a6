package workflows

import (
	"slices"
	"strconv"

	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// repairPasses is how often somebody else's later writes are repaired before the run ends with a warning.
const repairPasses = 3

// freshSafety is the change by which a restore learns from its own safety
// backup what the live data is, instead of reading it once more.
const freshSafety = "fresh-safety"

// hooksUndone is the change by which a restore runs its post-hooks; before it
// only backups did.
const hooksUndone = "hooks-undone"

// Restore puts the estate, or some of its components, back to a backup.
func Restore(ctx workflow.Context, in RestoreInput) (Result, error) {
	op := "restore"
	if in.Disaster {
		op = "disaster recovery"
	}
	r, err := begin(ctx, op, in.Backup)
	if err != nil {
		return Result{}, err
	}
	open, err := r.open(ctx, in)
	if err != nil {
		return Result{}, err
	}
	if err := r.admit(ctx, in, open); err != nil {
		return Result{}, err
	}
	f, err := r.fence(ctx, true)
	if err != nil {
		return Result{}, r.abandonRestore(ctx, err, "")
	}
	for _, u := range f.Written {
		if !slices.Contains(names(open.Units), u) {
			return Result{}, r.hold(ctx, "the restore does not cover "+u+", which an earlier run left half written: name it too, or leave out -t")
		}
	}
	w := &work{in: in, source: open.Backup, units: open.Units, members: open.Members, op: plugins.OpRestore}
	if in.Disaster {
		w.op = plugins.OpDisaster
	}
	w.options = in.options()
	return r.replace(ctx, w, f, open)
}

// open resolves the backup, proves that the identity opens it, and reads
// every piece that will be needed, before anything is touched.
func (r *run) open(ctx workflow.Context, in RestoreInput) (OpenResult, error) {
	var open OpenResult
	if err := r.look(ctx, ""); err != nil {
		return open, err
	}
	ask := OpenInput{Backup: in.Backup, Components: in.Components, Now: workflow.Now(ctx)}
	if err := workflow.ExecuteActivity(r.onControl(ctx, "open the backup"), "OpenBackup", ask).Get(ctx, &open); err != nil {
		return open, err
	}
	r.progress.Backup = open.Backup
	for _, w := range open.Warnings {
		r.warn("%s", w)
	}
	r.phase(ctx, "verify")
	verify := VerifyStoredInput{Backup: open.Backup, Units: open.Units, Heartbeat: r.survey.Heartbeat}
	err := workflow.ExecuteActivity(r.onControlLong(ctx, "verify:"+open.Backup), "VerifyStored", verify).Get(ctx, nil)
	return open, wrap(err, "verify the backup")
}

// admit refuses what cannot work while nothing has been touched yet.
func (r *run) admit(ctx workflow.Context, in RestoreInput, open OpenResult) error {
	r.phase(ctx, "preflight")
	if _, err := r.ping(ctx, r.survey.VMs); err != nil {
		return err
	}
	if in.Disaster {
		return nil
	}
	plan, err := r.plan(ctx, in, open)
	if err != nil {
		return err
	}
	for _, u := range plan.Units {
		if u.Grade == string(plugins.Red) && in.Confirm == "" && len(plan.Refusals) == 0 {
			return fail(problem.Unhealthy, "mend it, or add --confirm with the backup's name to restore over it", "%s is RED", u.Unit)
		}
	}
	if len(plan.Refusals) > 0 {
		return fail(problem.Unhealthy, "see `cso_backupnrestore restore "+open.Backup+" --plan`", "the restore cannot start: %s", sentence(plan.Refusals))
	}
	return nil
}

// work is one replacement of live data: a restore, its repetition, or a rollback.
type work struct {
	in      RestoreInput
	source  string   // NAME/TIMESTAMP that is read
	safety  string   // NAME/TIMESTAMP of what was overwritten; empty: there is none
	fresh   bool     // the safety backup is of this run: it says what the live data is
	gaps    []string // what its safety backup could not take, in words
	units   []Unit
	members []Unit // of cluster units: disaster recovery builds each of them anew
	op      plugins.Operation
	options map[string]string
	results []UnitResult
}

// replace runs the phases of a restore from maintenance to the closed journal.
func (r *run) replace(ctx workflow.Context, w *work, f FenceResult, open OpenResult) (Result, error) {
	r.declare(w.units)
	confirmed := w.in.Confirm != ""
	if err := r.enter(ctx, 0, w.in.Disaster); err != nil {
		return Result{}, r.abandonRestore(ctx, err, "")
	}
	if !w.in.Disaster {
		if err := r.stability(ctx, w.units, confirmed || f.Held, true); err != nil {
			return Result{}, r.abandonRestore(ctx, err, "")
		}
	}
	w.safety = f.Safety
	if !w.in.Disaster && w.safety == "" && len(f.Written) == 0 {
		ref := "_safety/" + r.survey.Backup
		p := protection{ref: ref, op: plugins.OpSafety, units: w.units, trigger: "restore", started: r.progress.Started}
		_, saved, err := r.protect(ctx, p)
		if err != nil {
			return Result{}, r.abandonRestore(ctx, wrap(err, "safety backup"), ref)
		}
		for _, u := range saved {
			for _, why := range u.Warnings {
				w.gaps = append(w.gaps, joined(u.Unit, why))
			}
		}
		w.safety, w.fresh = ref, workflow.GetVersion(ctx, freshSafety, workflow.DefaultVersion, 1) == 1
	}
	if err := r.mark(ctx, MarkInput{Phase: "restore", Targets: names(w.units), Safety: w.safety}); err != nil {
		return Result{}, r.abandonRestore(ctx, err, "")
	}
	err := r.write(ctx, w)
	if err == nil && !w.in.Disaster {
		err = r.settle(ctx, w.units)
	}
	if err != nil {
		return Result{}, r.rollback(ctx, w, err)
	}
	if err := r.finishWrite(ctx, "restored"); err != nil {
		return Result{}, err
	}
	res := r.result(ctx, w.results)
	res.Safety, res.Drift = w.safety, open.Drift
	for _, u := range w.results {
		res.Bytes += u.Bytes
		res.Warnings = append(res.Warnings, u.Warnings...)
	}
	return res, nil
}

// write changes the estate: groups in restore order, digests, accounts, and
// the parts that are switched last.
func (r *run) write(ctx workflow.Context, w *work) error {
	w.results = make([]UnitResult, len(w.units))
	data, last := split(w.units)
	if w.op == plugins.OpRollback || w.op == plugins.OpDisaster {
		if err := r.writeGroup(ctx, w, last); err != nil { // logins must match before the servers are asked again
			return err
		}
	}
	for _, group := range data {
		if err := r.writeGroup(ctx, w, group); err != nil {
			return err
		}
	}
	all := slices.Concat(data...)
	if err := r.prove(ctx, w, all, true); err != nil {
		return err
	}
	r.phase(ctx, "accounts")
	if err := r.each(ctx, all, "accounts", func(ctx workflow.Context, u Unit, l *UnitProgress) error {
		l.ActivityID = r.id("accounts", u)
		return workflow.ExecuteActivity(r.onVM(ctx, u.VM, l.ActivityID), "SwitchAccounts", r.input(u, w.op, w.source, w.options)).Get(ctx, nil)
	}); err != nil {
		return err
	}
	if w.op == plugins.OpRestore {
		if err := r.writeGroup(ctx, w, last); err != nil {
			return err
		}
	}
	if err := r.prove(ctx, w, slices.Concat(all, last), false); err != nil {
		return err
	}
	if workflow.GetVersion(ctx, hooksUndone, workflow.DefaultVersion, 1) == 1 {
		r.undoHooks(ctx, w)
	}
	return nil
}

// undoHooks gives back what the pre-hooks of a restore took, once the data is
// proven. Nothing of the data depends on it, so a failure is a warning.
func (r *run) undoHooks(ctx workflow.Context, w *work) {
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if err := r.hooks(ctx, w.units, w.op, w.source, true); err != nil {
		r.warn("%s: what the hook before the restore had switched off is off still; the next backup or restore of the unit switches it on", cause(err))
	}
}

// writeGroup restores units in parallel.
func (r *run) writeGroup(ctx workflow.Context, w *work, units []Unit) error {
	if len(units) == 0 {
		return nil
	}
	r.phase(ctx, "restore")
	if err := r.mark(ctx, MarkInput{Begin: names(units)}); err != nil {
		return err
	}
	r.began = append(r.began, names(units)...)
	if err := r.hooks(ctx, units, w.op, w.source, false); err != nil && w.op != plugins.OpDisaster {
		return err
	}
	if w.op == plugins.OpDisaster {
		return r.bootstrap(ctx, w, units)
	}
	return r.each(ctx, units, "restore", func(ctx workflow.Context, u Unit, l *UnitProgress) error {
		l.ActivityID = r.id("restore", u)
		res := w.result(u)
		in := r.input(u, w.op, w.source, w.options)
		if w.fresh {
			in.Safety = w.safety
		}
		err := workflow.ExecuteActivity(r.onVM(ctx, u.VM, l.ActivityID), "RestoreUnit", in).Get(ctx, res)
		l.Bytes = res.Bytes
		return err
	})
}

// bootstrap builds units anew on every member of their clusters: all members
// at once, because some need each other to come up.
func (r *run) bootstrap(ctx workflow.Context, w *work, units []Unit) error {
	var members []Unit
	of := map[Unit]Unit{}
	for _, u := range units {
		if u.Member != ClusterMember {
			members = append(members, u)
			of[u] = u
		}
		for _, m := range w.members {
			if u.Member == ClusterMember && m.Component == u.Component && m.Instance == u.Instance {
				members = append(members, m)
				of[m] = u
			}
		}
	}
	r.declare(members)
	return r.each(ctx, members, "bootstrap", func(ctx workflow.Context, m Unit, l *UnitProgress) error {
		l.ActivityID = r.id("bootstrap", m)
		in := r.input(of[m], w.op, w.source, w.options)
		in.Member = m.Member
		var res UnitResult
		if err := workflow.ExecuteActivity(r.onVM(ctx, m.VM, l.ActivityID), "Bootstrap", in).Get(ctx, &res); err != nil {
			return err
		}
		l.Bytes = res.Bytes
		if have := w.result(of[m]); res.Artifacts >= have.Artifacts { // members that only join report less
			res.Unit, res.VM = have.Unit, have.VM
			*have = res
		}
		return nil
	})
}

// prove compares live data with the backup; what somebody else has written
// since is repaired, a few times, then named. With dataOnly accounts are left
// out, because they have not been switched yet.
func (r *run) prove(ctx workflow.Context, w *work, units []Unit, dataOnly bool) error {
	if len(units) == 0 {
		return nil
	}
	r.phase(ctx, "digests")
	err := r.each(ctx, units, "digests", func(ctx workflow.Context, u Unit, l *UnitProgress) error {
		for pass := 1; ; pass++ {
			var c CompareResult
			l.ActivityID = r.id("digest", u)
			in := r.input(u, w.op, w.source, w.options)
			in.DataOnly, in.Proven = dataOnly, w.fresh && !dataOnly && !component(u).Last
			if err := workflow.ExecuteActivity(r.onVM(ctx, u.VM, l.ActivityID), "CompareUnit", in).Get(ctx, &c); err != nil {
				return err
			}
			switch {
			case c.Equal:
				w.result(u).Digest = "equal"
				return nil
			case !c.Foreign && !(w.fresh && dataOnly && pass == 1): // the safety backup may have been overtaken by somebody's write: read again, once
				return fail(problem.Integrity, "look at the worker's log on "+u.VM, "not equal after the restore: %s", sentence(c.Differences))
			case pass > repairPasses:
				w.result(u).Digest = "others wrote"
				r.warn("%s: somebody wrote during the restore and goes on: %s", u, sentence(c.Differences))
				return nil
			}
			l.ActivityID = r.id("repair"+strconv.Itoa(pass), u)
			if err := workflow.ExecuteActivity(r.onVM(ctx, u.VM, l.ActivityID), "RestoreUnit", in).Get(ctx, nil); err != nil {
				return err
			}
		}
	})
	return err
}

func (w *work) result(u Unit) *UnitResult {
	i := slices.Index(w.units, u)
	w.results[i].Unit, w.results[i].VM = u.String(), u.VM
	return &w.results[i]
}

func (r *run) mark(ctx workflow.Context, in MarkInput) error {
	in.Claim = r.claim
	return workflow.ExecuteActivity(r.onControl(ctx, "write the journal"), "Mark", in).Get(ctx, nil)
}

// finishWrite declares everything proven and ends the run; nothing may stop it half way.
func (r *run) finishWrite(ctx workflow.Context, outcome string) error {
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if len(r.began) > 0 {
		if err := r.mark(ctx, MarkInput{Proven: r.began}); err != nil {
			return r.hold(ctx, "the journal could not be written: "+cause(err))
		}
	}
	return r.close(ctx, "", outcome)
}

func names(units []Unit) []string {
	out := make([]string, len(units))
	for i, u := range units {
		out[i] = u.String()
	}
	return out
}

// split orders units by the component table: groups that run one after the
// other, and those that are switched last.
func split(units []Unit) (groups [][]Unit, last []Unit) {
	order := 0
	sorted := slices.Clone(units)
	slices.SortStableFunc(sorted, func(a, b Unit) int { return component(a).Order - component(b).Order })
	for _, u := range sorted {
		c := component(u)
		if c.Last {
			last = append(last, u)
			continue
		}
		if len(groups) == 0 || c.Order != order {
			groups = append(groups, nil)
			order = c.Order
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], u)
	}
	return groups, last
}

func component(u Unit) plugins.Component {
	c, _ := plugins.Lookup(u.Component)
	return c
}
