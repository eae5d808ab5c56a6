package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

func (a *app) statusCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "status", Short: "what is running, or what ran last", Args: exactly(0, ""),
		Example: "  cso_backupnrestore status\n  cso_backupnrestore status -o json",
	}, func(ctx context.Context, _ []string) (*outcome, error) { return a.status(ctx) })
}

// statusView is the result of status.
type statusView struct {
	Running  bool                `json:"running"`
	Run      *run                `json:"run,omitempty"` // the running one, or the last
	Outcome  string              `json:"outcome,omitempty"`
	Started  *time.Time          `json:"started,omitempty"`
	Ended    *time.Time          `json:"ended,omitempty"`
	Progress *workflows.Progress `json:"progress,omitempty"`
	Note     string              `json:"note,omitempty"`    // what holds it up
	Ending   bool                `json:"ending"`            // cancel was asked for
	Journal  []string            `json:"journal,omitempty"` // an open run's record, which outlives Temporal
}

// status joins what Temporal knows with the journal, which is the truth about
// a half-done operation and readable without Temporal.
func (a *app) status(ctx context.Context) (*outcome, error) {
	state, err := a.journal()
	if err != nil {
		a.note("the journal cannot be read: %v", err)
	}
	record := journal.Summary(state)
	o, err := a.statusOf(ctx, record)
	if o == nil {
		o = &outcome{Result: statusView{Journal: record}}
	}
	first := o.Text
	o.Text = func() {
		if first != nil {
			first()
		}
		for _, l := range record {
			a.out.Paragraph("journal: ", l)
		}
	}
	if l := state.Lease; err == nil && o.Code == "" && state.Open() && state.Hold == nil && l != nil && l.Entered && !running(o) {
		o.Code, o.Message = problem.Warnings, "maintenance mode is on, and the operation that entered it does not run here: the control worker leaves it within a minute if the operation has ended; if its Temporal is gone, the next operation leaves it, or resolve accept"
		o.Next = []string{"cso_backupnrestore resolve accept --confirm " + nameOf(state.Backup)}
	}
	if state.Hold != nil && !state.Closed && err == nil {
		name := nameOf(state.Backup)
		o.Code, o.Message = problem.Held, "the estate is held in maintenance mode until somebody decides"
		o.Next = []string{"cso_backupnrestore resolve retry --confirm " + name, "cso_backupnrestore resolve rollback --confirm " + name, "cso_backupnrestore resolve accept --confirm " + name}
	}
	return o, err
}

// running says whether a status is that of a running operation.
func running(o *outcome) bool {
	v, ok := o.Result.(statusView)
	return ok && v.Running
}

// journal reads the journal, without making one.
func (a *app) journal() (journal.State, error) {
	if _, err := os.Stat(filepath.Join(a.paths.Root, ".cso", "journal")); errors.Is(err, fs.ErrNotExist) {
		return journal.State{}, nil
	}
	j, err := journal.At(a.paths.Root)
	if err != nil {
		return journal.State{}, err
	}
	return j.Read()
}

func (a *app) statusOf(ctx context.Context, record []string) (*outcome, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, d, err := a.current(ctx, c)
	if errors.Is(err, errNothing) {
		return &outcome{Result: statusView{Journal: record}, Text: func() { a.out.Line("Nothing is running, and no operation ran yet.") },
			Next: []string{"cso_backupnrestore -b backup -s NAME"}}, nil
	}
	if err != nil {
		return nil, err
	}
	info := d.GetWorkflowExecutionInfo()
	begun := info.GetStartTime().AsTime()
	v := statusView{Run: &r, Started: &begun, Running: info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, Ending: d.GetWorkflowExtendedInfo().GetCancelRequested(), Journal: record}
	if !v.Running {
		return a.ended(ctx, c, v, info.GetType().GetName(), info.GetCloseTime().AsTime())
	}
	var m moment
	if err := a.look(ctx, c, r, &m); err != nil {
		return nil, a.temporalError(err, "look at the running operation")
	}
	v.Note = m.note
	if !m.asked.IsZero() {
		v.Progress = &m.progress
	}
	s := a.newScreen()
	s.open = false
	o := &outcome{Result: v, Next: []string{"cso_backupnrestore attach", "cso_backupnrestore cancel"}}
	o.Text = func() {
		lines := s.lines(m)
		for i, l := range lines[:len(lines)-1] { // without the line about Ctrl-C
			a.out.Line("%s", a.paint(i, l))
		}
		a.out.Line("  running since %s (%s)", begun.Local().Format("2006-01-02 15:04:05 MST"), ui.Took(a.now().Sub(begun)))
		if v.Ending {
			a.out.Line("  it was asked to stop and is cleaning up")
		}
	}
	if m.note != "" {
		o.Code, o.Message = problem.Warnings, m.note
	}
	return o, nil
}

// ended tells how the last run went.
func (a *app) ended(ctx context.Context, c client.Client, v statusView, kind string, at time.Time) (*outcome, error) {
	v.Ended = &at
	var res workflows.Result
	v.Outcome = "completed"
	if err := a.result(ctx, c, *v.Run, &res); err != nil {
		p := problem.As(err)
		v.Outcome = string(p.Code) + ": " + p.Message
	}
	return &outcome{Result: v, Text: func() {
		a.out.Line("Nothing is running.")
		a.out.Paragraph("last: ", fmt.Sprintf("%s, ended %s after %s: %s", strings.TrimSpace(kind+" "+res.Backup), ui.Ago(a.now().Sub(at)), ui.Took(at.Sub(*v.Started)), v.Outcome))
	}}, nil
}

func (a *app) attachCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "attach [RUN]", Short: "watch the running operation to its end",
		Long: `Watch the running operation; Ctrl-C lets go of it again. With RUN, the run that
an earlier command named, it shows how that one ended. The exit status is that
of the operation.`,
		Example: "  cso_backupnrestore attach", Args: atMost(1, "[RUN]"),
	}, func(ctx context.Context, args []string) (*outcome, error) {
		id := ""
		if len(args) == 1 {
			id = args[0]
		}
		return a.attach(ctx, id)
	})
}

func (a *app) attach(ctx context.Context, runID string) (*outcome, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := run{ID: workflows.ExclusiveID, RunID: runID}
	if runID == "" {
		var cur run
		cur, d, err := a.current(ctx, c)
		if err != nil && !errors.Is(err, errNothing) {
			return nil, err
		}
		if err != nil || d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return nil, problem.New(problem.Failed, "see how the last one ended: cso_backupnrestore status", "nothing is running")
		}
		r = cur
	}
	var res workflows.Result
	if err := a.watch(ctx, c, r, &res); err != nil {
		if notFound(err) {
			return nil, problem.New(problem.Failed, "see cso_backupnrestore status", "there is no run %q", runID)
		}
		return &outcome{Result: r}, err
	}
	if res.Operation == opBackup {
		return a.backupDone(res), nil
	}
	return a.restoreDone(res), nil
}

func notFound(err error) bool {
	var missing *serviceerror.NotFound
	return errors.As(err, &missing)
}

func (a *app) cancelCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "cancel", Short: "end the running operation in good order", Args: exactly(0, ""),
		Long: `Ask the running operation to stop. Before it has written anything it stops and
leaves maintenance mode. After that it first puts back what it has overwritten,
which takes its time and cannot be cancelled in turn.`,
		Example: "  cso_backupnrestore cancel",
	}, func(ctx context.Context, _ []string) (*outcome, error) { return a.cancel(ctx) })
}

func (a *app) cancel(ctx context.Context) (*outcome, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, d, err := a.current(ctx, c)
	if err != nil && !errors.Is(err, errNothing) {
		return nil, err
	}
	if err != nil || d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return nil, problem.New(problem.Failed, "see how the last one ended: cso_backupnrestore status", "nothing is running")
	}
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if d.GetPendingWorkflowTask().GetAttempt() >= stuckAt {
		why := a.stuckCause(ctx, c, r)
		if err := c.TerminateWorkflow(call, r.ID, r.RunID, "cancel of a stuck workflow by "+who()); err != nil {
			return nil, a.temporalError(err, "terminate")
		}
		return &outcome{Result: r, Code: problem.Warnings, Message: "the workflow was stuck (" + why + ") and was terminated; the control worker now leaves maintenance mode and cleans up, within a minute",
			Next: []string{"cso_backupnrestore status", "cso_backupnrestore healthcheck"}}, nil
	}
	if d.GetWorkflowExtendedInfo().GetCancelRequested() {
		return nil, problem.New(problem.Failed, "watch it: cso_backupnrestore attach", "the operation was already asked to stop and is cleaning up: it puts back what it has overwritten and leaves maintenance mode; this must not be cut short")
	}
	if err := c.CancelWorkflow(call, r.ID, r.RunID); err != nil {
		return nil, a.temporalError(err, "cancel")
	}
	return &outcome{Result: r, Message: "the operation was asked to stop; it cleans up first", Next: []string{"cso_backupnrestore attach"}}, nil
}
