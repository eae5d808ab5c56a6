package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

const (
	pollEvery  = time.Second
	giveUp     = 5 * time.Minute // without any answer of Temporal
	staleAfter = 10 * time.Second
	stuckAt    = 3                // attempts of one workflow task
	unclaimed  = 10 * time.Second // a workflow task that waits longer has no worker
	abandon    = 30 * time.Second // a run that no worker has even begun is taken back after this time
	untouched  = 2                // events of such a run: started, first task scheduled
)

// moment is what is known of a run at one time.
type moment struct {
	progress workflows.Progress
	asked    time.Time                 // when progress was answered
	beats    map[string]workflows.Beat // by activity ID
	attempts map[string]int32          // of activities, by ID
	note     string                    // what holds it up, if anything does
	waiting  time.Duration             // how long the run waits for its very first worker
	status   enumspb.WorkflowExecutionStatus
	at       time.Time
}

// startAndWatch starts a run and shows it to its end, which done tells; detached it returns at once.
func (a *app) startAndWatch(ctx context.Context, c client.Client, detached bool, done func(workflows.Result) *outcome, s startOptions, input any) (*outcome, error) {
	r, err := a.start(ctx, c, s, input)
	if err != nil {
		return nil, err
	}
	if detached {
		return started(r), nil
	}
	var res workflows.Result
	if err := a.watch(ctx, c, r, &res); err != nil {
		return &outcome{Result: r}, err
	}
	return done(res), nil
}

// watch follows a run to its end and decodes its result into v. Letting go of
// ctx detaches: the run goes on.
func (a *app) watch(ctx context.Context, c client.Client, r run, v any) error {
	s := a.newScreen()
	defer s.close()
	var m moment
	answered := a.now()
	tick := time.NewTicker(pollEvery / 5) // a short run should not be waited for
	defer tick.Stop()
	calm := time.AfterFunc(2*pollEvery, func() { tick.Reset(pollEvery) })
	defer calm.Stop()
	over, done := closing(ctx, c, r)
	defer done()
	for {
		err := a.look(ctx, c, r, &m)
		switch {
		case ctx.Err() != nil:
			return a.detached(r)
		case err == nil:
			answered = a.now()
			s.show(m)
			if m.status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
				s.close()
				return a.result(ctx, c, r, v)
			}
			if m.waiting > abandon && r.ours {
				return a.takeBack(ctx, c, r)
			}
		case !unreachable(err):
			return a.temporalError(err, "watch")
		case a.now().Sub(answered) > giveUp:
			return problem.New(problem.Unreachable, "the operation goes on by itself; when Temporal runs again: cso_backupnrestore attach "+r.attachArg(),
				"Temporal did not answer for %s", ui.Took(giveUp))
		default:
			m.note = fmt.Sprintf("Temporal does not answer for %s; the operation goes on by itself", ui.Took(a.now().Sub(answered)))
			m.at = a.now()
			s.show(m)
		}
		select {
		case <-ctx.Done():
			return a.detached(r)
		case <-tick.C:
		case <-over: // nobody waits for the next tick
			over = nil
		}
	}
}

// closing tells at once when a run has ended, or when that cannot be waited for any more; done ends the waiting.
func closing(ctx context.Context, c client.Client, r run) (over <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		_ = c.GetWorkflow(ctx, r.ID, r.RunID).Get(ctx, nil) // the result is read by whoever is told
	}()
	return ch, func() {
		cancel()
		<-ch
	}
}

// takeBack ends a run that no worker has begun: nothing has happened, and it
// must not begin hours later, when nobody expects it.
func (a *app) takeBack(ctx context.Context, c client.Client, r run) error {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := c.TerminateWorkflow(call, r.ID, r.RunID, "no worker began it"); err != nil {
		return a.temporalError(err, "take back the run that no worker has begun")
	}
	return problem.New(problem.Unreachable, "start it on the installer-vm: systemctl start cso-backup-worker; then: cso_backupnrestore doctor",
		"no control worker took the operation within %s; it was taken back, nothing has happened", ui.Took(abandon))
}

func (r run) attachArg() string {
	if r.ID == workflows.ExclusiveID {
		return r.RunID
	}
	return r.ID + " " + r.RunID
}

func (a *app) detached(r run) error {
	hint := ""
	if r.ID == workflows.ExclusiveID {
		hint = "watch it: cso_backupnrestore attach; end it: cso_backupnrestore cancel"
	}
	return problem.New(problem.Detached, hint, "detached: the operation goes on by itself (run %s)", r.RunID)
}

// result waits for the end of a closed run and decodes what it returned.
func (a *app) result(ctx context.Context, c client.Client, r run, v any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err := c.GetWorkflow(ctx, r.ID, r.RunID).Get(ctx, v)
	if err == nil {
		return nil
	}
	if unreachable(err) {
		return a.temporalError(err, "read the result")
	}
	return failure(err)
}

// look takes a moment of a run. What could not be learned keeps its old value.
func (a *app) look(ctx context.Context, c client.Client, r run, m *moment) error {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	d, err := c.DescribeWorkflowExecution(call, r.ID, r.RunID)
	if err != nil {
		return err
	}
	m.at, m.note, m.waiting = a.now(), "", 0
	m.status = d.GetWorkflowExecutionInfo().GetStatus()
	m.beats, m.attempts = beats(d.GetPendingActivities())
	if m.status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		if p, err := a.progress(ctx, c, r); err == nil { // its last phases; a closed run answers too
			m.progress, m.asked = p, a.now()
		}
		return nil
	}
	if m.note = a.holdup(ctx, c, r, d); m.note != "" {
		if d.GetWorkflowExecutionInfo().GetHistoryLength() <= untouched {
			m.waiting = m.at.Sub(d.GetPendingWorkflowTask().GetScheduledTime().AsTime())
		}
		return nil // a query would wait for the same worker
	}
	if p, err := a.progress(ctx, c, r); err == nil {
		m.progress, m.asked = p, a.now()
	}
	return nil
}

// holdup says why a workflow does not move, if it does not.
func (a *app) holdup(ctx context.Context, c client.Client, r run, d *workflowservice.DescribeWorkflowExecutionResponse) string {
	t := d.GetPendingWorkflowTask()
	switch {
	case t == nil:
		return ""
	case t.GetAttempt() >= stuckAt:
		return "workflow stuck: " + a.stuckCause(ctx, c, r)
	case t.GetState() == enumspb.PENDING_WORKFLOW_TASK_STATE_SCHEDULED && a.now().Sub(t.GetScheduledTime().AsTime()) > unclaimed:
		return fmt.Sprintf("no control worker has answered for %s: systemctl status cso-backup-worker", ui.Took(a.now().Sub(t.GetScheduledTime().AsTime())))
	}
	return ""
}

// stuckCause reads the last failed workflow task out of the history.
func (a *app) stuckCause(ctx context.Context, c client.Client, r run) string {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	found := "its code fails again and again"
	it := c.GetWorkflowHistory(ctx, r.ID, r.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			break
		}
		found = taskFailure(e, found)
	}
	return found
}

func taskFailure(e *historypb.HistoryEvent, old string) string {
	f := e.GetWorkflowTaskFailedEventAttributes()
	if f == nil {
		return old
	}
	if msg := f.GetFailure().GetMessage(); msg != "" {
		return msg
	}
	return f.GetCause().String()
}

// beats reads the heartbeats of the running activities.
func beats(pending []*workflowpb.PendingActivityInfo) (map[string]workflows.Beat, map[string]int32) {
	out, attempts := map[string]workflows.Beat{}, map[string]int32{}
	for _, p := range pending {
		attempts[p.GetActivityId()] = p.GetAttempt()
		var b workflows.Beat
		if ps := p.GetHeartbeatDetails().GetPayloads(); len(ps) > 0 && converter.GetDefaultDataConverter().FromPayload(ps[0], &b) == nil {
			out[p.GetActivityId()] = b
		}
	}
	return out, attempts
}

// current finds the exclusive run, running or the last one; errNothing when there never was one.
func (a *app) current(ctx context.Context, c client.Client) (run, *workflowservice.DescribeWorkflowExecutionResponse, error) {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	d, err := c.DescribeWorkflowExecution(call, workflows.ExclusiveID, "")
	if notFound(err) {
		return run{}, nil, errNothing
	}
	if err != nil {
		return run{}, nil, a.temporalError(err, "look for a running operation")
	}
	return run{ID: workflows.ExclusiveID, RunID: d.GetWorkflowExecutionInfo().GetExecution().GetRunId()}, d, nil
}

var errNothing = errors.New("no operation is known")

// watchQuietly waits for a short run without a screen.
func (a *app) watchQuietly(ctx context.Context, c client.Client, r run, v any) error {
	tick := time.NewTicker(pollEvery / 5)
	defer tick.Stop()
	said := false
	for {
		var m moment
		err := a.look(ctx, c, r, &m)
		switch {
		case ctx.Err() != nil:
			return a.detached(r)
		case err != nil:
			return a.temporalError(err, "watch")
		case m.status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
			return a.result(ctx, c, r, v)
		case m.waiting > abandon && r.ours:
			return a.takeBack(ctx, c, r)
		case m.note != "" && !said:
			said = true
			a.note("%s", m.note)
		}
		select {
		case <-ctx.Done():
			return a.detached(r)
		case <-tick.C:
		}
	}
}
