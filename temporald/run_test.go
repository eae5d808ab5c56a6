package main

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	tokenspb "go.temporal.io/server/api/token/v1"
	"google.golang.org/protobuf/proto"
)

var quiet = slog.New(slog.DiscardHandler)

// run1 is shaped like the real workflows: activities on a VM, on the control queue (eager), and on the lease queue,
// a signal, a query and an update.
func run1(ctx workflow.Context) (string, error) {
	phase := "start"
	if err := workflow.SetQueryHandler(ctx, "progress", func() (string, error) { return phase, nil }); err != nil {
		return "", err
	}
	if err := workflow.SetUpdateHandler(ctx, "set", func(_ workflow.Context, p string) (string, error) { phase = p; return "was set", nil }); err != nil {
		return "", err
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, temporal.NewSearchAttributeKeyKeyword("CsoOperation").ValueSet("backup"),
		temporal.NewSearchAttributeKeyKeywordList("CsoComponents").ValueSet([]string{"one", "two"}),
		temporal.NewSearchAttributeKeyBool("CsoMaintenance").ValueSet(true), temporal.NewSearchAttributeKeyInt64("CsoBytes").ValueSet(42)); err != nil {
		return "", err
	}
	all := ""
	for _, queue := range []string{"cso-vm-vm-a", "cso-control", "cso-lease"} {
		ctx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: queue, StartToCloseTimeout: 20 * time.Second, HeartbeatTimeout: 10 * time.Second})
		var got string
		if err := workflow.ExecuteActivity(ctx, "Work", queue).Get(ctx, &got); err != nil {
			return "", err
		}
		all += got + " "
	}
	phase = "waiting"
	workflow.GetSignalChannel(ctx, "go").Receive(ctx, nil)
	return all, nil
}

// gate lets a test hold the activity on vm-a; closed channels hold nothing.
type gate struct{ started, release chan []byte }

func (g gate) Work(ctx context.Context, queue string) (string, error) {
	activity.RecordHeartbeat(ctx, "beat")
	if queue == "cso-vm-vm-a" && g.started != nil {
		g.started <- activity.GetInfo(ctx).TaskToken
		select {
		case <-g.release:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "did " + queue, nil
}

// startWorkers runs the processes of an installer-vm and of vm-a.
func startWorkers(t *testing.T, p *program, g gate) {
	t.Helper()
	control := p.sdk(t, "control")
	for i, w := range []worker.Worker{
		worker.New(control, "cso-control", worker.Options{}),
		worker.New(control, "cso-lease", worker.Options{DisableWorkflowWorker: true}),
		worker.New(p.sdk(t, "worker-vm-a"), "cso-vm-vm-a", worker.Options{DisableWorkflowWorker: true}),
	} {
		if i == 0 {
			w.RegisterWorkflowWithOptions(run1, workflow.RegisterOptions{Name: "Run"})
		}
		w.RegisterActivityWithOptions(g.Work, activity.RegisterOptions{Name: "Work"})
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
	}
}

func TestNormalWorkIsNeverRefused(t *testing.T) {
	logQuiet()
	before := strings.Count(shared.log.String(), "call refused")
	g := gate{started: make(chan []byte, 1), release: make(chan []byte)}
	startWorkers(t, shared, g)
	ctx, operator := short(t), shared.sdk(t, "operator")
	run, err := operator.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "cso/exclusive", TaskQueue: "cso-control",
		WorkflowExecutionErrorWhenAlreadyStarted: true}, "Run")
	if err != nil {
		t.Fatal(err)
	}
	token := <-g.started

	// While the activity runs: a worker that knows the IDs, as every worker of the run does, tries to answer for vm-a.
	forged, err := proto.Marshal(&tokenspb.Task{NamespaceId: namespaceID(t, operator), WorkflowId: run.GetID(), RunId: run.GetRunID(),
		ScheduledEventId: 6, Attempt: 1, ActivityId: "6", ActivityType: "Work"})
	if err != nil {
		t.Fatal(err)
	}
	// The server itself takes it, as its own certificate shows, so the refusals below are the authorizer's work.
	_, err = workflowservice.NewWorkflowServiceClient(shared.admin(t)).RecordActivityTaskHeartbeat(ctx, &workflowservice.RecordActivityTaskHeartbeatRequest{Namespace: namespace, TaskToken: forged})
	wantAllowed(t, "the forged token without the authorizer", err)
	_, err = workflowservice.NewWorkflowServiceClient(shared.conn(t, "worker-vm-b")).RespondActivityTaskCompleted(ctx,
		&workflowservice.RespondActivityTaskCompletedRequest{Namespace: namespace, TaskToken: token})
	wantRefusal(t, "vm-b completes with the token of vm-a", err, "task token was not given to")
	for _, role := range []string{"worker-vm-a", "worker-vm-b", "control"} {
		raw := workflowservice.NewWorkflowServiceClient(shared.conn(t, role))
		_, err := raw.RespondActivityTaskCompleted(ctx, &workflowservice.RespondActivityTaskCompletedRequest{Namespace: namespace, TaskToken: forged})
		wantRefusal(t, role+" completes with a forged token", err, "task token was not given to")
		_, err = raw.RecordActivityTaskHeartbeat(ctx, &workflowservice.RecordActivityTaskHeartbeatRequest{Namespace: namespace, TaskToken: forged})
		wantRefusal(t, role+" heartbeats with a forged token", err, "task token was not given to")
	}
	queries(t, operator, run)
	close(g.release)
	reconcile(t, operator)
	eventually(t, "phase waiting", func() bool { return query(t, operator, run) == "waiting" })
	updates(t, operator, run)
	uiQuery(t, run)
	if err := operator.SignalWorkflow(ctx, run.GetID(), run.GetRunID(), "go", nil); err != nil {
		t.Fatal(err)
	}
	var result string
	if err := run.Get(ctx, &result); err != nil {
		t.Fatal(err)
	}
	if result != "did cso-vm-vm-a did cso-control did cso-lease " {
		t.Errorf("result %q", result)
	}
	if got := query(t, operator, run); got != "waiting" && got != "set by operator" { // a closed run is answered by a query task
		t.Errorf("query of the closed run: %q", got)
	}
	principals(t, operator, run)
	for _, q := range []string{`CsoOperation = 'backup'`, `CsoComponents = 'two' AND CsoMaintenance = true`, `CsoBytes > 41`} {
		eventually(t, "found by "+q, func() bool {
			list, err := operator.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: q + ` AND WorkflowId = 'cso/exclusive'`})
			return err == nil && len(list.Executions) == 1
		})
	}
	// Nine refusals are this test's own: one borrowed token, three forgers with two calls each, and two of control's in
	// queries. Any other would be a call that a role needs and lacks.
	logQuiet()
	if n := strings.Count(shared.log.String(), "call refused") - before; n != 9 {
		t.Errorf("%d refusals instead of 9:\n%s", n, shared.log)
	}
}

func namespaceID(t *testing.T, c client.Client) string {
	t.Helper()
	ns, err := c.WorkflowService().DescribeNamespace(short(t), &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return ns.GetNamespaceInfo().GetId()
}

func query(t *testing.T, c client.Client, run client.WorkflowRun) (phase string) {
	t.Helper()
	v, err := c.QueryWorkflow(short(t), run.GetID(), run.GetRunID(), "progress")
	if err != nil {
		t.Errorf("query: %v (%s)", err, refusal(err))
		return ""
	}
	if err := v.Get(&phase); err != nil {
		t.Error(err)
	}
	return phase
}

// queries is what status asks while a run is in progress, by the operator and by the control worker.
func queries(t *testing.T, operator client.Client, run client.WorkflowRun) {
	t.Helper()
	ctx, control := short(t), shared.sdk(t, "control")
	for who, c := range map[string]client.Client{"operator": operator, "control": control} {
		if got := query(t, c, run); got != "start" {
			t.Errorf("%s: phase %q", who, got)
		}
		d, err := c.DescribeWorkflowExecution(ctx, run.GetID(), run.GetRunID())
		if err != nil || len(d.GetPendingActivities()) != 1 {
			t.Errorf("%s: describe: %v, %v", who, d.GetPendingActivities(), err)
		}
		if !c.GetWorkflowHistory(ctx, run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).HasNext() {
			t.Errorf("%s: no history", who)
		}
		q, err := c.DescribeTaskQueue(ctx, "cso-vm-vm-a", enumspb.TASK_QUEUE_TYPE_ACTIVITY)
		if err != nil || len(q.GetPollers()) == 0 {
			t.Errorf("%s: no pollers of vm-a: %v", who, err)
		}
	}
	wantRefusal(t, "control cancels", control.CancelWorkflow(ctx, "no-such-run", ""), "may not call")
	wantRefusal(t, "control terminates", control.TerminateWorkflow(ctx, "no-such-run", "", ""), "may not call")
}

// reconcile is what the control worker does with schedules and search attributes at its start, and what the operator
// does with a schedule afterwards.
func reconcile(t *testing.T, operator client.Client) {
	t.Helper()
	ctx, control := short(t), shared.sdk(t, "control")
	attributes, err := control.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	wantAllowed(t, "list search attributes", err)
	if diff := cmp.Diff(searchAttributes, attributes.GetCustomAttributes()); diff != "" {
		t.Errorf("search attributes:\n%s", diff)
	}
	_, err = control.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace,
		SearchAttributes: map[string]enumspb.IndexedValueType{"CsoLater": enumspb.INDEXED_VALUE_TYPE_KEYWORD}})
	wantAllowed(t, "add a search attribute", err)

	h, err := control.ScheduleClient().Create(ctx, scheduleOptions("NIGHTLY", 24*time.Hour, true))
	if err != nil {
		t.Fatalf("control creates a schedule: %v (%s)", err, refusal(err))
	}
	wantAllowed(t, "control updates a schedule", h.Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			s := in.Description.Schedule
			s.Spec = &client.ScheduleSpec{CronExpressions: []string{"0 4 * * *"}, TimeZoneName: "Europe/Berlin"}
			return &client.ScheduleUpdate{Schedule: &s}, nil
		}}))
	d, err := h.Describe(ctx)
	if err != nil || len(d.Info.NextActionTimes) == 0 || d.Info.NextActionTimes[0].In(time.UTC).Minute() != 0 {
		t.Errorf("control describes a schedule: %v, %v", d, err)
	}
	seen := operator.ScheduleClient().GetHandle(ctx, "NIGHTLY")
	wantAllowed(t, "operator triggers", seen.Trigger(ctx, client.ScheduleTriggerOptions{}))
	var id string
	eventually(t, "the triggered run", func() bool {
		list, err := operator.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: `WorkflowId STARTS_WITH 'by-NIGHTLY'`})
		if err != nil || len(list.GetExecutions()) != 1 {
			return false
		}
		id = list.GetExecutions()[0].GetExecution().GetWorkflowId()
		return true
	})
	wantAllowed(t, "operator signals the scheduled run", operator.SignalWorkflow(ctx, id, "", "go", nil))
	wantAllowed(t, "operator cancels the scheduled run", operator.CancelWorkflow(ctx, id, ""))
	wantAllowed(t, "operator terminates the scheduled run", operator.TerminateWorkflow(ctx, id, "", "test"))
	eventually(t, "control lists the schedule", func() bool {
		it, err := control.ScheduleClient().List(ctx, client.ScheduleListOptions{})
		if err != nil || !it.HasNext() {
			return false
		}
		entry, err := it.Next()
		return err == nil && entry.ID == "NIGHTLY"
	})
	wantAllowed(t, "control deletes a schedule", h.Delete(ctx))
}

func updates(t *testing.T, c client.Client, run client.WorkflowRun) {
	t.Helper()
	h, err := c.UpdateWorkflow(short(t), client.UpdateWorkflowOptions{WorkflowID: run.GetID(), RunID: run.GetRunID(), UpdateName: "set",
		Args: []any{"set by operator"}, WaitForStage: client.WorkflowUpdateStageCompleted})
	var answer string
	if err == nil {
		err = h.Get(short(t), &answer)
	}
	if err != nil || answer != "was set" {
		t.Errorf("update: %q, %v (%s)", answer, err, refusal(err))
	}
}

// uiQuery asks through the Web UI, the one POST that its guard lets pass; the ID's slash arrives as %2F.
func uiQuery(t *testing.T, run client.WorkflowRun) {
	t.Helper()
	status, body := httpDo(t, http.MethodPost, "/api/v1/namespaces/cso/workflows/cso%2Fexclusive/query/progress", nil,
		`{"execution":{"workflowId":"cso/exclusive","runId":"`+run.GetRunID()+`"},"query":{"queryType":"progress"}}`)
	if status != http.StatusOK || !strings.Contains(body, base64.StdEncoding.EncodeToString([]byte(`"set by operator"`))) {
		t.Errorf("query through the Web UI: %d %s", status, body)
	}
}

// principals checks that history says who did what.
func principals(t *testing.T, c client.Client, run client.WorkflowRun) {
	t.Helper()
	got := map[string]bool{}
	for it := c.GetWorkflowHistory(short(t), run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		got[e.GetEventType().String()+" by "+e.GetPrincipal().GetName()] = true
	}
	for _, want := range []string{"WorkflowExecutionStarted by operator", "ActivityTaskCompleted by worker:vm-a", "WorkflowTaskCompleted by control", "WorkflowExecutionSignaled by operator"} {
		if !got[want] {
			t.Errorf("history lacks %q: %v", want, got)
		}
	}
}
