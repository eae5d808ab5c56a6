package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/csobackup/cso_backupnrestore/internal/dial"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// Times in which Temporal must answer, so that a command never hangs.
const (
	reachTime = 5 * time.Second
	callTime  = 10 * time.Second
	queryTime = 4 * time.Second
	settle    = 4 * time.Second // until a worker that starts is known as a poller
)

const profileHint = "this comes from the Temporal profile (TEMPORAL_*, temporal.toml): check it, or unset it to use the embedded server"

// connect gives a client of a Temporal that answers, or says what to do.
func (a *app) connect(ctx context.Context) (client.Client, error) {
	o, external, err := dial.Options(a.paths.PKI(), dial.Operator, a.log)
	if err != nil && external {
		return nil, problem.New(problem.Unreachable, profileHint, "cannot connect to Temporal: %w", err)
	}
	if err == nil && !external {
		if _, _, err := net.SplitHostPort(o.HostPort); err != nil {
			return nil, problem.New(problem.Unreachable, "write it like 127.0.0.1:7233, or unset CSO_BACKUP_TEMPORAL", "cannot connect to Temporal: CSO_BACKUP_TEMPORAL is no HOST:PORT: %w", err)
		}
	}
	if err != nil {
		return nil, problem.New(problem.Unreachable, "start the embedded server once, it makes the certificates: systemctl start cso-temporald; or run this as root on the installer-vm: cso_backupnrestore doctor",
			"cannot connect to Temporal: %w", err)
	}
	c, err := client.NewLazyClient(o)
	if err != nil {
		return nil, problem.New(problem.Unreachable, "check the Temporal profile, or unset TEMPORAL_*", "cannot connect to Temporal: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	if _, err := c.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		c.Close()
		hint := "start it: systemctl start cso-temporald; then: cso_backupnrestore doctor"
		if external {
			hint = profileHint
		}
		return nil, problem.New(problem.Unreachable, hint, "Temporal at %s does not answer: %w", o.HostPort, cause(err))
	}
	return c, nil
}

// cause shortens what gRPC says to the part that tells something.
func cause(err error) error {
	s := err.Error()
	for _, cut := range []string{"last connection error: ", "Error while dialing: ", "transport: "} {
		if i := strings.LastIndex(s, cut); i >= 0 {
			s = s[i+len(cut):]
		}
	}
	if strings.Contains(s, "no children to pick from") {
		s = "its name does not resolve to an address"
	}
	if errors.Is(err, context.DeadlineExceeded) && s == context.DeadlineExceeded.Error() {
		s = "no answer within " + ui.Took(reachTime)
	}
	return errors.New(strings.Trim(s, `"`))
}

// ready says whether somebody works on the control queue; without, a run
// would wait for ever. A worker that has just started is not known at once.
func (a *app) ready(ctx context.Context, c client.Client) error {
	for until := a.now().Add(settle); ; {
		n, _, err := pollers(ctx, c, workflows.ControlQueue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
		if err != nil {
			return a.temporalError(err, "ask for the control worker")
		}
		if n > 0 {
			return nil
		}
		if a.now().Before(until) && ctx.Err() == nil {
			time.Sleep(settle / 10)
			continue
		}
		return problem.New(problem.Unreachable, "start it on the installer-vm: systemctl start cso-backup-worker; then: cso_backupnrestore doctor",
			"the control worker does not answer: nobody polls the queue %s", workflows.ControlQueue)
	}
}

// pollers counts who polled a queue lately. A long poll lasts a minute, so
// one that was not seen for longer is gone.
func pollers(ctx context.Context, c client.Client, queue string, kind enumspb.TaskQueueType) (n int, last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	d, err := c.DescribeTaskQueue(ctx, queue, kind)
	if err != nil {
		return 0, last, err
	}
	for _, p := range d.GetPollers() {
		t := p.GetLastAccessTime().AsTime()
		if time.Since(t) < 75*time.Second {
			n++
		}
		if t.After(last) {
			last = t
		}
	}
	return n, last, nil
}

// run is one started workflow.
type run struct {
	ID    string `json:"workflowId"`
	RunID string `json:"runId"`
	ours  bool   // started by this command, which may therefore take it back
}

// startOptions describe a run to Temporal and to whoever looks at its Web UI.
type startOptions struct {
	id, kind, summary string
	operation, backup string
	components        []string
	maintenance       bool
}

func (s startOptions) exclusive() bool { return s.id == workflows.ExclusiveID }

// start starts a workflow, and fails with Busy when its ID is taken.
func (a *app) start(ctx context.Context, c client.Client, s startOptions, input any) (run, error) {
	if err := a.ready(ctx, c); err != nil {
		return run{}, err
	}
	o := client.StartWorkflowOptions{
		ID: s.id, TaskQueue: workflows.ControlQueue,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            s.summary,
		Memo:                                     map[string]any{"operation": s.operation, "startedBy": who(), "trigger": "cli"},
		TypedSearchAttributes:                    attributes(s),
	}
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	w, err := c.ExecuteWorkflow(call, o, s.kind, input)
	if unknownAttribute(err) {
		a.note("this Temporal does not know our search attributes, so its Web UI shows less; the control worker makes them when it starts")
		o.TypedSearchAttributes = temporal.SearchAttributes{}
		w, err = c.ExecuteWorkflow(call, o, s.kind, input)
	}
	if taken := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &taken) {
		return run{}, a.busy(ctx, c, s.id, taken.RunId)
	}
	if err != nil {
		return run{}, a.temporalError(err, "start "+s.operation)
	}
	return run{ID: w.GetID(), RunID: w.GetRunID(), ours: true}, nil
}

func who() string {
	u, err := user.Current()
	if err != nil {
		return "unknown"
	}
	return u.Username
}

func attributes(s startOptions) temporal.SearchAttributes {
	up := []temporal.SearchAttributeUpdate{temporal.NewSearchAttributeKeyKeyword(workflows.AttrOperation).ValueSet(s.operation)}
	if s.backup != "" {
		up = append(up, temporal.NewSearchAttributeKeyKeyword(workflows.AttrBackup).ValueSet(s.backup))
	}
	if len(s.components) > 0 {
		up = append(up, temporal.NewSearchAttributeKeyKeywordList(workflows.AttrComponents).ValueSet(s.components))
	}
	if s.exclusive() {
		up = append(up, temporal.NewSearchAttributeKeyBool(workflows.AttrMaintenance).ValueSet(s.maintenance))
	}
	return temporal.NewSearchAttributes(up...)
}

func unknownAttribute(err error) bool {
	bad := (*serviceerror.InvalidArgument)(nil)
	return errors.As(err, &bad) && strings.Contains(strings.ToLower(bad.Error()), "search attribute")
}

// busy says what is in the way.
func (a *app) busy(ctx context.Context, c client.Client, id, runID string) error {
	hint := "watch it: cso_backupnrestore attach; end it: cso_backupnrestore cancel"
	if id != workflows.ExclusiveID {
		hint = "wait for it, or look: cso_backupnrestore status"
	}
	p, err := a.progress(ctx, c, run{ID: id, RunID: runID})
	if err != nil {
		return problem.New(problem.Busy, hint, "another operation is running (it does not say which: %w)", cause(err))
	}
	what := p.Operation
	if p.Backup != "" {
		what += " " + p.Backup
	}
	return problem.New(problem.Busy, hint, "another operation is running: %s, phase %s, for %s", what, orDash(p.Phase), ui.Took(a.now().Sub(p.Started)))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// progress asks a run how far it is.
func (a *app) progress(ctx context.Context, c client.Client, r run) (workflows.Progress, error) {
	var p workflows.Progress
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	v, err := c.QueryWorkflow(ctx, r.ID, r.RunID, workflows.ProgressQuery)
	if err != nil {
		return p, err
	}
	if err := v.Get(&p); err != nil {
		return p, fmt.Errorf("progress of another version: %w", err)
	}
	return p, nil
}

// temporalError turns a failed call into a problem.
func (a *app) temporalError(err error, doing string) error {
	var (
		denied  *serviceerror.PermissionDenied
		missing *serviceerror.NotFound
		nspace  *serviceerror.NamespaceNotFound
		full    *serviceerror.ResourceExhausted
	)
	switch {
	case errors.As(err, &denied):
		return problem.New(problem.Failed, "run it as root on the installer-vm", "%s: Temporal refuses this role: %w", doing, err)
	case errors.As(err, &nspace):
		return problem.New(problem.Unreachable, "create the namespace there, or correct the Temporal profile", "%s: %w", doing, err)
	case errors.As(err, &full):
		return problem.New(problem.Failed, "see the message; free space on the installer-vm if it is about space", "%s: %w", doing, err)
	case errors.As(err, &missing):
		return problem.New(problem.Failed, "see cso_backupnrestore status", "%s: %w", doing, err)
	case unreachable(err):
		return problem.New(problem.Unreachable, "is it running? systemctl status cso-temporald; then: cso_backupnrestore doctor", "%s: Temporal does not answer: %w", doing, cause(err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func unreachable(err error) bool {
	var (
		gone *serviceerror.Unavailable
		late *serviceerror.DeadlineExceeded
	)
	return errors.As(err, &gone) || errors.As(err, &late) || errors.Is(err, context.DeadlineExceeded)
}
