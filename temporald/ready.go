package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

const (
	readyTimeout = 60 * time.Second // a host under heavy load; normally it takes one
	canaryID     = "cso-canary"     // of the workflow and of the schedule; neither is seen by operators
)

// ready asserts what the namespace must be and proves that the parts work together, as their users will use them.
// It returns the cluster id.
func (s *server) ready(ctx context.Context) (cluster string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	inner, err := pki.InternodeTLS(s.pki)
	if err != nil {
		return "", err
	}
	admin, err := dial(s.dialAddress(1), inner)
	if err != nil {
		return "", err
	}
	defer admin.Close()
	if err := assertNamespace(ctx, admin); err != nil {
		return "", fmt.Errorf("set up namespace %s: %w", namespace, err)
	}
	outer, err := pki.ClientTLS(s.pki, pki.Operator)
	if err != nil {
		return "", err
	}
	operator, err := dial(s.dialAddress(0), outer)
	if err != nil {
		return "", err
	}
	defer operator.Close()
	if cluster, err = s.canaryRun(ctx, operator, admin); err != nil {
		return "", fmt.Errorf("the server started but does not work: %w", err)
	}
	return cluster, s.probeUI(ctx)
}

func dial(address string, config *tls.Config) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}

// until repeats call, as the services come up one after the other, till it succeeds, fails for good, or ctx ends.
func until(ctx context.Context, what string, call func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := call(attempt)
		cancel()
		switch status.Code(err) {
		case codes.OK:
			return nil
		case codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented, codes.AlreadyExists:
			return fmt.Errorf("%s: %w", what, explain(err))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), explain(err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// explain adds the authorizer's reason, which the plain text hides.
func explain(err error) error {
	var denied *serviceerror.PermissionDenied
	if e := serviceerror.FromStatus(status.Convert(err)); errors.As(e, &denied) {
		return fmt.Errorf("%w: %s", e, denied.Reason)
	}
	return err
}

// assertNamespace sets retention and search attributes at every start: what the database was made with does not count.
func assertNamespace(ctx context.Context, admin *grpc.ClientConn) error {
	client, operator := workflowservice.NewWorkflowServiceClient(admin), operatorservice.NewOperatorServiceClient(admin)
	return until(ctx, "assert retention and search attributes", func(ctx context.Context) error {
		ns, err := client.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		if err != nil {
			return err
		}
		if ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() != retention {
			if _, err := client.UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
				Namespace: namespace, Config: &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(retention)},
			}); err != nil {
				return err
			}
		}
		have, err := operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
		if err != nil {
			return err
		}
		missing := map[string]enumspb.IndexedValueType{}
		for name, kind := range searchAttributes {
			if got, ok := have.GetCustomAttributes()[name]; !ok {
				missing[name] = kind
			} else if got != kind {
				return status.Errorf(codes.FailedPrecondition, "search attribute %s is a %s, needed is %s; remove it with the temporal CLI or move the database aside", name, got, kind)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		_, err = operator.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
		return err
	})
}

// canaryRun does once what operators do: start, describe and end a workflow, find runs by attribute, and create, read
// and delete a schedule (the first thing that breaks on a database of another version). Its start delay keeps the
// canary away from workers and its division keeps it out of lists; the deletion at the end takes the server a minute.
func (s *server) canaryRun(ctx context.Context, operator, admin *grpc.ClientConn) (cluster string, err error) {
	client := workflowservice.NewWorkflowServiceClient(operator)
	var run string
	queue := &taskqueuepb.TaskQueue{Name: controlQueue}
	kind := &commonpb.WorkflowType{Name: canaryID}
	timeout := durationpb.New(time.Minute)
	schedule := &schedulepb.Schedule{
		Spec:  &schedulepb.ScheduleSpec{Interval: []*schedulepb.IntervalSpec{{Interval: durationpb.New(365 * 24 * time.Hour)}}},
		State: &schedulepb.ScheduleState{Paused: true},
		Action: &schedulepb.ScheduleAction{Action: &schedulepb.ScheduleAction_StartWorkflow{StartWorkflow: &workflowpb.NewWorkflowExecutionInfo{
			WorkflowId: canaryID, WorkflowType: kind, TaskQueue: queue}}},
	}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"ask for the cluster", func(ctx context.Context) error {
			info, err := client.GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
			cluster = info.GetClusterId()
			return err
		}},
		{"start a workflow", func(ctx context.Context) error {
			resp, err := client.StartWorkflowExecution(ctx, &workflowservice.StartWorkflowExecutionRequest{
				Namespace: namespace, WorkflowId: canaryID, WorkflowType: kind, TaskQueue: queue, RequestId: s.canary,
				WorkflowStartDelay: timeout, WorkflowExecutionTimeout: timeout, Identity: "cso-temporald",
				// One that a crash left behind must not be in the way.
				WorkflowIdConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
				// Lists leave out runs of another division, as they do with the server's own.
				SearchAttributes: &commonpb.SearchAttributes{IndexedFields: map[string]*commonpb.Payload{
					"TemporalNamespaceDivision": {Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: []byte(`"` + canaryID + `"`)},
				}},
			})
			run = resp.GetRunId()
			return err
		}},
		{"describe a workflow", func(ctx context.Context) error {
			_, err := client.DescribeWorkflowExecution(ctx, &workflowservice.DescribeWorkflowExecutionRequest{
				Namespace: namespace, Execution: &commonpb.WorkflowExecution{WorkflowId: canaryID, RunId: run}})
			return err
		}},
		{"terminate a workflow", func(ctx context.Context) error {
			_, err := client.TerminateWorkflowExecution(ctx, &workflowservice.TerminateWorkflowExecutionRequest{
				Namespace: namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: canaryID, RunId: run},
				Reason: "start-up canary", Identity: "cso-temporald"})
			return err
		}},
		{"find runs by attribute", func(ctx context.Context) error {
			_, err := client.CountWorkflowExecutions(ctx, &workflowservice.CountWorkflowExecutionsRequest{
				Namespace: namespace, Query: "CsoOperation = 'backup' AND CsoComponents = 'x'"})
			return err
		}},
		{"create a schedule", func(ctx context.Context) error {
			_, err := client.CreateSchedule(ctx, &workflowservice.CreateScheduleRequest{
				Namespace: namespace, ScheduleId: canaryID, RequestId: s.canary, Schedule: schedule, Identity: "cso-temporald"})
			if status.Code(err) == codes.AlreadyExists { // left by a crash, or by an attempt whose answer was late
				return nil
			}
			return err
		}},
		{"describe a schedule", func(ctx context.Context) error {
			_, err := client.DescribeSchedule(ctx, &workflowservice.DescribeScheduleRequest{Namespace: namespace, ScheduleId: canaryID})
			return err
		}},
		{"delete a schedule", func(ctx context.Context) error {
			_, err := client.DeleteSchedule(ctx, &workflowservice.DeleteScheduleRequest{Namespace: namespace, ScheduleId: canaryID, Identity: "cso-temporald"})
			return err
		}},
		{"delete the canary", func(ctx context.Context) error {
			_, err := workflowservice.NewWorkflowServiceClient(admin).DeleteWorkflowExecution(ctx, &workflowservice.DeleteWorkflowExecutionRequest{
				Namespace: namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: canaryID, RunId: run}})
			return err
		}},
	}
	for _, step := range steps {
		if err := until(ctx, step.what, step.do); err != nil {
			return "", err
		}
	}
	return cluster, nil
}

// probeUI asks the Web UI for something it can only know through its own certificate.
func (s *server) probeUI(ctx context.Context) error {
	if s.ui == nil {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ui.address+"/api/v1/namespaces/"+namespace+"/workflow-count", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the Web UI: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the Web UI cannot read from the server: HTTP %s; start with --ui-port 0 to go without it", resp.Status)
	}
	return nil
}
