package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Reindex rebuilds derived data. It writes nothing that a restore would have
// to undo: killed at any moment, old or new data serves under each name, and
// the next reindex cleans up and finishes. So a failure closes the journal
// and never holds the estate.
func Reindex(ctx workflow.Context, in ReindexInput) (Result, error) {
	r, err := begin(ctx, "reindex", "")
	if err != nil {
		return Result{}, err
	}
	if err := r.look(ctx, ""); err != nil {
		return Result{}, err
	}
	units := choose(r.survey.Reindexable, in.Components)
	if len(units) == 0 {
		return Result{}, fail(problem.Failed, "nothing needs to be done: what was asked for keeps no derived data that can be rebuilt",
			"reindex: none of the %d units of this estate that were asked for can be reindexed", len(choose(r.survey.Units, in.Components)))
	}
	r.phase(ctx, "preflight")
	if _, err := r.ping(ctx, r.survey.VMs); err != nil {
		return Result{}, err
	}
	if _, err := r.fence(ctx, false); err != nil {
		return Result{}, r.giveUp(ctx, err)
	}
	results, err := r.rebuild(ctx, in, units)
	if err != nil {
		return Result{}, r.giveUp(ctx, err)
	}
	if err := r.close(ctx, "", "done"); err != nil {
		return Result{}, err
	}
	return r.result(ctx, results), nil
}

// rebuild reindexes all units, in maintenance when that was asked for.
func (r *run) rebuild(ctx workflow.Context, in ReindexInput, units []Unit) ([]UnitResult, error) {
	r.declare(units)
	if in.Maintenance {
		if !r.survey.HasSwitch {
			r.warn("the estate file names neither a maintenance switch nor a hook: maintenance stops no writer")
		}
		if err := r.enter(ctx, r.survey.MaxMaintenance, false); err != nil {
			return nil, err
		}
	}
	if err := r.stability(ctx, units, false, true); err != nil {
		return nil, err
	}
	r.phase(ctx, "reindex")
	results := make([]UnitResult, len(units))
	index := map[string]int{}
	for i, u := range units {
		index[u.String()+u.VM] = i
	}
	err := r.each(ctx, units, "reindex", func(ctx workflow.Context, u Unit, l *UnitProgress) error {
		i := index[u.String()+u.VM]
		l.ActivityID = r.id("reindex", u)
		task := r.input(u, plugins.OpReindex, "", in.options())
		if err := workflow.ExecuteActivity(r.onVM(ctx, u.VM, l.ActivityID), "ReindexUnit", task).Get(ctx, &results[i]); err != nil {
			return err
		}
		l.Bytes = results[i].Bytes
		return nil
	})
	return results, err
}
