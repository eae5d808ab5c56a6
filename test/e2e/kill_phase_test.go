package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// step is an activity that has begun and not ended, as Temporal knows it.
type step struct {
	id, kind, vm string
	attempt      int32
}

// view is where the exclusive run stands at one moment.
type view struct {
	run     string
	asked   bool // to stop
	steps   []step
	journal journal.State
}

// look gives the view; false while no run is open.
func (b *bench) look() (view, bool) {
	ctx, done := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer done()
	d, err := b.client.DescribeWorkflowExecution(ctx, workflows.ExclusiveID, "")
	if err != nil || d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return view{}, false
	}
	v := view{run: d.WorkflowExecutionInfo.Execution.RunId, asked: d.GetWorkflowExtendedInfo().GetCancelRequested(), journal: b.journal()}
	for _, p := range d.PendingActivities {
		if p.State == enumspb.PENDING_ACTIVITY_STATE_STARTED || p.State == enumspb.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED {
			vm, _, _ := strings.Cut(p.LastWorkerIdentity, "/")
			v.steps = append(v.steps, step{p.ActivityId, p.ActivityType.GetName(), vm, p.Attempt})
		}
	}
	return v, true
}

func (v view) own() bool { return v.journal.Claim.Run == v.run }

// lease says whether maintenance is on and was read back.
func (v view) lease() bool {
	l := v.journal.Lease
	return v.own() && l != nil && l.Entered && l.Verified
}

func (v view) left() bool { l := v.journal.Lease; return v.own() && l != nil && !l.Entered && l.Asked }

// saved says whether what is overwritten lies in a safety backup.
func (v view) saved() bool { return v.lease() && v.journal.Safety != "" }

// proven says whether everything was written and proven, or nothing written yet.
func (v view) proven() bool { return v.saved() && !v.journal.Half() }

// unsaved says whether maintenance is on and nothing was read yet that will be overwritten.
func (v view) unsaved() bool { return v.lease() && v.journal.Safety == "" && !v.journal.Half() }

// entered says whether maintenance was on once.
func (v view) entered() bool { return v.lease() || v.left() }

// of finds the running steps of some kinds on a VM.
func (v view) of(vm string, kinds ...string) []step {
	var out []step
	for _, s := range v.steps {
		if s.vm == vm && slices.Contains(kinds, s.kind) {
			out = append(out, s)
		}
	}
	return out
}

// phase is a named part of a run. in gives the steps that make it up and run
// now, none when the run is elsewhere; near says that it may come next, nil that
// the worker is to stand from the run's beginning; by is the worker that does these steps.
type phase struct {
	op, name, by string
	near         func(view) bool
	in           func(view) []step
}

const (
	first = "installer-vm"
	dbvm  = "db-vm"
)

// when gives the steps while a condition of the journal holds.
func when(cond func(view) bool, vm string, kinds ...string) func(view) []step {
	return func(v view) []step {
		if !cond(v) {
			return nil
		}
		return v.of(vm, kinds...)
	}
}

func always(view) bool    { return true }
func foreign(v view) bool { return !v.own() }
func half(v view) bool    { return v.own() && v.journal.Half() }

// data leaves the files that are switched last out of steps; onlyLast keeps them.
func data(in func(view) []step) func(view) []step {
	return func(v view) []step {
		return slices.DeleteFunc(in(v), func(s step) bool { return strings.HasPrefix(s.id, "restore:secrets") })
	}
}

func onlyLast(in func(view) []step) func(view) []step {
	return func(v view) []step {
		return slices.DeleteFunc(in(v), func(s step) bool { return !strings.HasPrefix(s.id, "restore:secrets") })
	}
}

// phases of a backup and of a restore, in their order.
var phases = []phase{
	{"backup", "preflight", agent, nil, when(foreign, dbvm, "Ping")},
	{"backup", "fence", control, always, when(always, first, "Fence", "Quiet")},
	{"backup", "enter maintenance", control, view.own, when(view.own, first, "EnterMaintenance")},
	{"backup", "stability and hooks", agent, view.own, when(view.lease, dbvm, "Health", "Hook")},
	{"backup", "pin", agent, view.lease, when(view.lease, dbvm, "Pin")},
	{"backup", "leave maintenance", control, view.lease, when(view.own, first, "ExitMaintenance")},
	{"backup", "copy", agent, view.entered, when(view.own, dbvm, "Copy")},
	{"backup", "verify", control, view.left, when(view.left, first, "VerifyStored")},
	{"backup", "seal", control, view.left, when(view.left, first, "Seal")},
	{"backup", "cleanup", control, view.left, when(view.own, first, "Cleanup")},

	{"restore", "verify", control, always, when(foreign, first, "VerifyStored")},
	{"restore", "preflight", agent, nil, when(foreign, dbvm, "Ping")},
	{"restore", "plan", agent, always, when(foreign, dbvm, "PlanUnit")},
	{"restore", "fence", control, always, when(always, first, "Fence", "Quiet")},
	{"restore", "enter maintenance", control, view.own, when(view.own, first, "EnterMaintenance")},
	{"restore", "stability", agent, view.own, when(view.unsaved, dbvm, "Health")},
	{"restore", "safety backup", agent, view.lease, when(view.lease, dbvm, "Pin", "Copy")},
	{"restore", "safety seal", control, view.lease, when(view.lease, first, "Seal")},
	{"restore", "write", agent, view.lease, data(when(half, dbvm, "RestoreUnit"))},
	{"restore", "digests", agent, half, when(half, dbvm, "CompareUnit")},
	{"restore", "accounts", agent, half, when(half, dbvm, "SwitchAccounts")},
	{"restore", "secrets", agent, half, onlyLast(when(half, dbvm, "RestoreUnit"))},
	{"restore", "last stability check", agent, half, when(half, dbvm, "Health")},
	{"restore", "leave maintenance", control, view.proven, when(view.own, first, "ExitMaintenance")},
	{"restore", "cleanup", control, view.left, when(view.own, first, "Cleanup")},
	{"restore", "rollback", agent, half, nil}, // after a cancellation: see rolling
}

// written says whether a restore has written and proven everything when this phase begins.
func (p phase) written() bool {
	return p.op == "restore" && (p.name == "leave maintenance" || p.name == "cleanup")
}

// errMissed: the run went past the phase, or ended, before it could be struck.
var errMissed = errors.New("the phase was missed")

// approach lets the run go on to the phase and returns with its worker
// standing still in it. Near the phase the worker is let go for a few
// milliseconds at a time, and looked at while it stands.
func (b *bench) approach(r *running, p phase, in func(view) []step, slice time.Duration) (view, *process, error) {
	b.t.Helper()
	w := b.process(p.by)
	if p.near == nil {
		return b.await(r, p, w)
	}
	begun := false
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); {
		v, open := b.look()
		switch {
		case open && p.near(v):
			begun = true
			w.stop()
			time.Sleep(time.Millisecond) // what it has sent arrives
			if v, open = b.look(); open && len(in(v)) > 0 {
				return v, w, nil
			}
			w.thaw()
			w.turn(slice)
		case !open && (begun || r.over()):
			return view{}, nil, errMissed
		default:
			time.Sleep(2 * time.Millisecond)
		}
	}
	b.t.Fatalf("five minutes passed before the %s's %s\n%s\n%s", p.op, p.name, r.out.String(), r.err.String())
	return view{}, nil, nil
}

// await stops the worker and lets the run come to it. A backup's is stopped
// before the run begins; a restore's has the command's own plan to make first.
func (b *bench) await(r *running, p phase, w *process) (view, *process, error) {
	b.t.Helper()
	stands := p.op == "backup"
	if stands {
		w.stop()
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && !r.over(); time.Sleep(2 * time.Millisecond) {
		v, open := b.look()
		if open && !stands {
			w.stop()
			stands = true
		}
		if open && len(p.in(v)) > 0 {
			return v, w, nil
		}
	}
	w.thaw()
	return view{}, nil, errMissed
}

// struck proves from the history that the steps which were seen had begun
// before the blow and did not end before it.
func (b *bench) struck(v view, seen []step, at time.Time) bool {
	b.t.Helper()
	kinds := map[string]bool{}
	for _, s := range seen {
		kinds[s.id] = true
	}
	scheduled := map[int64]bool{}
	for _, e := range b.history(v.run) {
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil && kinds[a.ActivityId] {
			if e.EventTime.AsTime().After(at) {
				return false
			}
			scheduled[e.EventId] = true
		}
		if id := closes(e); id != 0 && scheduled[id] && e.EventTime.AsTime().Before(at) {
			delete(scheduled, id)
		}
	}
	return len(scheduled) > 0
}

// closes gives the scheduled event that an activity's last event belongs to.
func closes(e *historypb.HistoryEvent) int64 {
	switch {
	case e.GetActivityTaskCompletedEventAttributes() != nil:
		return e.GetActivityTaskCompletedEventAttributes().ScheduledEventId
	case e.GetActivityTaskFailedEventAttributes() != nil:
		return e.GetActivityTaskFailedEventAttributes().ScheduledEventId
	case e.GetActivityTaskTimedOutEventAttributes() != nil:
		return e.GetActivityTaskTimedOutEventAttributes().ScheduledEventId
	case e.GetActivityTaskCanceledEventAttributes() != nil:
		return e.GetActivityTaskCanceledEventAttributes().ScheduledEventId
	}
	return 0
}

func (b *bench) history(run string) []*historypb.HistoryEvent {
	b.t.Helper()
	var out []*historypb.HistoryEvent
	it := b.client.GetWorkflowHistory(b.t.Context(), workflows.ExclusiveID, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		b.check(err)
		out = append(out, e)
	}
	return out
}
