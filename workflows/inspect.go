package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// PlanRestore says what a restore would do, without the lock and without touching anything.
func PlanRestore(ctx workflow.Context, in RestoreInput) (RestorePlan, error) {
	r, err := begin(ctx, "plan", in.Backup)
	if err != nil {
		return RestorePlan{}, err
	}
	if err := r.look(ctx, ""); err != nil {
		return RestorePlan{}, err
	}
	var open OpenResult
	ask := OpenInput{Backup: in.Backup, Components: in.Components, Now: workflow.Now(ctx)}
	if err := workflow.ExecuteActivity(r.onControl(ctx, "open the backup"), "OpenBackup", ask).Get(ctx, &open); err != nil {
		return RestorePlan{}, err
	}
	if _, err := r.ping(ctx, r.survey.VMs); err != nil {
		return RestorePlan{}, err
	}
	return r.plan(ctx, in, open)
}

// plan asks every unit what would change. A unit that cannot be read is a
// refusal, unless its servers are to be built anew.
func (r *run) plan(ctx workflow.Context, in RestoreInput, open OpenResult) (RestorePlan, error) {
	r.phase(ctx, "plan")
	r.declare(open.Units)
	out := RestorePlan{Backup: open.Backup, Taken: open.Taken, Age: workflow.Now(ctx).Sub(open.Taken), Drift: open.Drift,
		Warnings: open.Warnings, Inexact: open.Inexact, Units: make([]UnitPlan, len(open.Units))}
	index := map[string]int{}
	for i, u := range open.Units {
		index[u.String()+u.VM] = i
	}
	var refused []string
	err := r.each(ctx, open.Units, "plan", func(ctx workflow.Context, u Unit, l *UnitProgress) error {
		i := index[u.String()+u.VM]
		l.ActivityID = r.id("plan", u)
		var p UnitPlanResult
		on := r.onVM(ctx, u.VM, l.ActivityID)
		if r.progress.Operation == "plan" {
			on = workflow.WithRetryPolicy(on, *brief)
		}
		err := workflow.ExecuteActivity(on, "PlanUnit", r.input(u, plugins.OpInspect, open.Backup, in.options())).Get(ctx, &p)
		if err != nil {
			if cancelled(err) {
				return err
			}
			p.Plan = UnitPlan{Unit: u.String(), VM: u.VM, Grade: string(plugins.Red), Empty: false}
			p.Refusals = []string{cause(err)}
		}
		out.Units[i] = p.Plan
		if p.Plan.Grade == string(plugins.Red) && !in.Disaster && len(p.Refusals) == 0 {
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s is RED: the restore needs --confirm with the backup's name, and what cannot be read now is in no safety backup", u))
		}
		for _, w := range p.Refusals {
			refused = append(refused, joined(u.String(), w))
		}
		for _, w := range p.Warnings {
			out.Warnings = append(out.Warnings, joined(u.String(), w))
		}
		for _, w := range p.Inexact {
			out.Inexact = append(out.Inexact, joined(u.String(), w))
		}
		return nil
	})
	if in.Disaster {
		out.Warnings = append(out.Warnings, refused...)
		for _, u := range out.Units {
			out.Forever = out.Forever || (!u.Empty && u.Grade != string(plugins.Red)) // no safety backup is taken
		}
	} else {
		out.Refusals = refused
	}
	return out, err
}

// HealthCheck looks at every VM and every instance; it never takes the lock.
func HealthCheck(ctx workflow.Context, in HealthInput) (HealthResult, error) {
	r, err := begin(ctx, "healthcheck", "")
	if err != nil {
		return HealthResult{}, err
	}
	if err := r.look(ctx, ""); err != nil {
		return HealthResult{}, err
	}
	r.phase(ctx, "health")
	out := HealthResult{Grade: string(plugins.Green)}
	worse := func(g string) {
		if g == string(plugins.Red) || (g == string(plugins.Amber) && out.Grade == string(plugins.Green)) {
			out.Grade = g
		}
	}
	pings := make([]workflow.Future, len(r.survey.VMs))
	for i, vm := range r.survey.VMs {
		pings[i] = workflow.ExecuteActivity(onPing(ctx, vm), "Ping")
	}
	asked := workflow.Now(ctx)
	units := choose(r.survey.Units, in.Components)
	health := make([]workflow.Future, len(units))
	for i, u := range units {
		health[i] = workflow.ExecuteActivity(r.onCtl(ctx, u.VM, "health of "+u.String()), "Health", u)
	}
	came := arrivals(ctx, pings)
	for i, f := range pings {
		v := VMHealth{VM: r.survey.VMs[i], Grade: string(plugins.Green)}
		var p PingResult
		if err := f.Get(ctx, &p); err != nil {
			v.Grade, v.Reasons = string(plugins.Red), []string{"the worker does not answer: " + cause(err)}
		} else {
			at, slow := workflow.Now(ctx), time.Duration(0)
			if came != nil {
				at, slow = came[i], came[i].Sub(asked)
			}
			v.Version, v.Free, v.Skew = p.Version, p.Free, p.Now.Sub(at)
			if v.Skew.Abs() > maxSkew+slow {
				v.Grade, v.Reasons = string(plugins.Amber), []string{"the clock is off by " + v.Skew.String()}
			}
		}
		worse(v.Grade)
		out.VMs = append(out.VMs, v)
	}
	for i, f := range health {
		var h UnitHealth
		if err := f.Get(ctx, &h); err != nil {
			h = UnitHealth{Unit: units[i].String(), VM: units[i].VM, Grade: string(plugins.Red), Reasons: []string{cause(err)}}
		}
		worse(h.Grade)
		out.Units = append(out.Units, h)
	}
	if err := workflow.ExecuteActivity(r.onControl(ctx, "keys, store, journal, schedules"), "Notes").Get(ctx, &out.Notes); err != nil {
		return out, err
	}
	for _, n := range out.Notes {
		worse(n.Grade)
	}
	r.phase(ctx, "done")
	return out, nil
}

// choose keeps the units of the components or instances named; none named keeps all.
func choose(units []Unit, names []string) []Unit {
	if len(names) == 0 {
		return units
	}
	var out []Unit
	for _, u := range units {
		for _, n := range names {
			if Selects(n, u) {
				out = append(out, u)
				break
			}
		}
	}
	return out
}

// Selects says whether a name given by an operator means a unit: a
// component ("etcd": all its instances), an instance ("etcd@east",
// "etcd@central") or a unit as printed.
func Selects(name string, u Unit) bool {
	return name == u.Component || name == u.Component+"@"+u.Instance || name == u.String()
}

// Verify reads a whole backup again.
func Verify(ctx workflow.Context, in VerifyInput) (VerifyResult, error) {
	r, err := begin(ctx, "verify", in.Backup)
	if err != nil {
		return VerifyResult{}, err
	}
	if err := r.look(ctx, ""); err != nil {
		return VerifyResult{}, err
	}
	r.phase(ctx, "verify")
	start := workflow.Now(ctx)
	var out VerifyResult
	ask := VerifyStoredInput{Backup: in.Backup, Quick: in.Quick, Heartbeat: r.survey.Heartbeat}
	err = workflow.ExecuteActivity(r.onControlLong(ctx, "verify:"+in.Backup), "VerifyStored", ask).Get(ctx, &out)
	out.Took = workflow.Now(ctx).Sub(start)
	return out, err
}
