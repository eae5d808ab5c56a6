package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workerpb "go.temporal.io/api/worker/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/api/adminservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// What each role may call, written out a second time and on purpose: a new server version that brings new calls, or
// declares an old one read-only, must fail here and be looked at.
var (
	reads = strings.Fields(`
		CountActivityExecutions CountNexusOperationExecutions CountSchedules CountWorkers CountWorkflowExecutions DescribeActivityExecution
		DescribeBatchOperation DescribeDeployment DescribeNamespace DescribeNexusOperationExecution DescribeSchedule DescribeTaskQueue
		DescribeWorker DescribeWorkerDeployment DescribeWorkerDeploymentVersion DescribeWorkflowExecution DescribeWorkflowRule
		FetchWorkerConfig GetClusterInfo GetCurrentDeployment GetDeploymentReachability GetSearchAttributes GetSystemInfo
		GetWorkerBuildIdCompatibility GetWorkerTaskReachability GetWorkerVersioningRules GetWorkflowExecutionHistory
		GetWorkflowExecutionHistoryReverse ListActivityExecutions ListArchivedWorkflowExecutions ListBatchOperations
		ListClosedWorkflowExecutions ListDeployments ListNamespaces ListNexusOperationExecutions ListOpenWorkflowExecutions
		ListScheduleMatchingTimes ListSchedules ListSearchAttributes ListTaskQueuePartitions ListWorkerDeployments ListWorkers
		ListWorkflowExecutions ListWorkflowRules PollActivityExecution PollNexusOperationExecution PollWorkflowExecutionTimeSkipping
		PollWorkflowExecutionUpdate QueryWorkflow ScanWorkflowExecutions ValidateWorkerDeploymentVersionComputeConfig`)
	works = strings.Fields(`DescribeNamespace GetSystemInfo PollActivityTaskQueue RecordActivityTaskHeartbeat RecordWorkerHeartbeat
		RespondActivityTaskCanceled RespondActivityTaskCompleted RespondActivityTaskFailed ShutdownWorker`)
	may = map[string][]string{
		"ui": slices.Concat(reads, []string{"ListNexusEndpoints"}),
		"operator": slices.Concat(reads, strings.Fields(`StartWorkflowExecution SignalWorkflowExecution SignalWithStartWorkflowExecution
			UpdateWorkflowExecution RequestCancelWorkflowExecution TerminateWorkflowExecution CreateSchedule UpdateSchedule PatchSchedule
			DeleteSchedule AddSearchAttributes`)),
		"control": slices.Concat(works, strings.Fields(`PollWorkflowTaskQueue RespondWorkflowTaskCompleted RespondWorkflowTaskFailed
			RespondQueryTaskCompleted DescribeWorkflowExecution GetWorkflowExecutionHistory ListWorkflowExecutions ListOpenWorkflowExecutions
			CountWorkflowExecutions QueryWorkflow GetClusterInfo DescribeTaskQueue ListWorkers CreateSchedule UpdateSchedule PatchSchedule
			DeleteSchedule DescribeSchedule ListSchedules AddSearchAttributes ListSearchAttributes`)),
		"worker-vm-a": works,
	}
)

// Every method of every service a client could name, with every role.
func TestEveryCallOfEveryRole(t *testing.T) {
	for role, allowed := range may {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			conn := shared.conn(t, role)
			called := map[string]bool{}
			for _, service := range []grpc.ServiceDesc{
				workflowservice.WorkflowService_ServiceDesc, operatorservice.OperatorService_ServiceDesc, adminservice.AdminService_ServiceDesc,
			} {
				for _, m := range service.Methods {
					reason := callEmpty(t, conn, service.ServiceName, m.MethodName)
					// With an allowed call, the empty request may still be refused for its queue or token.
					refused := strings.Contains(reason, "may not call") || strings.Contains(reason, "denied to everyone") || strings.Contains(reason, "closed to everyone")
					want := slices.Contains(allowed, m.MethodName) && service.ServiceName != adminservice.AdminService_ServiceDesc.ServiceName
					if refused == want {
						t.Errorf("%s/%s: allowed must be %v, reason %q", service.ServiceName, m.MethodName, want, reason)
					}
					called[m.MethodName] = true
				}
			}
			for _, name := range allowed {
				if !called[name] {
					t.Errorf("%s does not exist", name)
				}
			}
		})
	}
}

// callEmpty sends a request with nothing but the namespace and returns the reason of the refusal, "" if there is none.
func callEmpty(t *testing.T, conn *grpc.ClientConn, service, method string) string {
	t.Helper()
	pkg := service[:strings.LastIndexByte(service, '.')+1]
	make := func(suffix string) proto.Message {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(pkg + method + suffix))
		if err != nil {
			t.Fatal(err)
		}
		return kind.New().Interface()
	}
	req := make("Request")
	if f := req.ProtoReflect().Descriptor().Fields().ByName("namespace"); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
		req.ProtoReflect().Set(f, protoreflect.ValueOfString(namespace))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	return refusal(conn.Invoke(ctx, "/"+service+"/"+method, req, make("Response")))
}

func TestAdminStreamIsClosed(t *testing.T) {
	stream, err := adminservice.NewAdminServiceClient(shared.conn(t, "operator")).StreamWorkflowReplicationMessages(short(t))
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("got %v", err)
	}
}

func TestPollsStayOnOwnQueues(t *testing.T) {
	normal, sticky := enumspb.TASK_QUEUE_KIND_NORMAL, enumspb.TASK_QUEUE_KIND_STICKY
	for _, c := range []struct {
		role     string
		workflow bool
		queue    *taskqueuepb.TaskQueue
		reason   string // "" = allowed
	}{
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-a"}, ""},
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-a-ctl", Kind: normal}, ""},
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-b", Kind: normal}, "may not serve"},
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "cso-control", Kind: normal}, "may not serve"},
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "/_sys/cso-vm-vm-b/1", Kind: normal}, "may not serve"},
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "/_sys/cso-vm-vm-a/1", Kind: normal}, "may not serve"},
		// This one was exploited: the server looks at Name, so an authorizer that trusts NormalName gives away VM b's tasks.
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-b", Kind: sticky, NormalName: "cso-vm-vm-a"}, "plain task queues only"},
		{"worker-vm-a", false, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-b", Kind: enumspb.TASK_QUEUE_KIND_WORKER_COMMANDS}, "plain task queues only"},
		{"worker-vm-a", false, nil, "may not serve"},
		{"worker-vm-a", true, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-a", Kind: normal}, "may not call"},
		{"control", false, &taskqueuepb.TaskQueue{Name: "cso-lease", Kind: normal}, ""},
		{"control", false, &taskqueuepb.TaskQueue{Name: "cso-vm-vm-a", Kind: normal}, "may not serve"},
		{"control", true, &taskqueuepb.TaskQueue{Name: "cso-control", Kind: normal}, ""},
		{"control", true, &taskqueuepb.TaskQueue{Name: "host:uuid", Kind: sticky, NormalName: "cso-control"}, ""},
		{"control", true, &taskqueuepb.TaskQueue{Name: "host:uuid", Kind: sticky, NormalName: "temporal-sys-per-ns-tq"}, "may not serve"},
		{"control", true, &taskqueuepb.TaskQueue{Name: "temporal-sys-per-ns-tq", Kind: normal}, "may not serve"},
		{"operator", true, &taskqueuepb.TaskQueue{Name: "cso-control", Kind: normal}, "may not call"},
		{"ui", false, &taskqueuepb.TaskQueue{Name: "cso-control", Kind: normal}, "may not call"},
	} {
		client := workflowservice.NewWorkflowServiceClient(shared.conn(t, c.role))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		var err error
		if c.workflow {
			_, err = client.PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{Namespace: namespace, TaskQueue: c.queue})
		} else {
			_, err = client.PollActivityTaskQueue(ctx, &workflowservice.PollActivityTaskQueueRequest{Namespace: namespace, TaskQueue: c.queue})
		}
		cancel()
		if got := refusal(err); (c.reason == "") != (got == "") || !strings.Contains(got, c.reason) {
			t.Errorf("%s polls %v: want %q, got %q", c.role, c.queue, c.reason, got)
		}
	}
	// Each allowed poll above was as short as a worker's probe at its start.
	if strings.Contains(shared.log.String(), probeMessage) {
		t.Error("probes are logged as errors")
	}
}

func TestRequestsAreLookedInto(t *testing.T) {
	ctx := short(t)
	as := func(role string) workflowservice.WorkflowServiceClient {
		return workflowservice.NewWorkflowServiceClient(shared.conn(t, role))
	}
	queue := func(name string) *taskqueuepb.TaskQueue { return &taskqueuepb.TaskQueue{Name: name} }
	kind := &commonpb.WorkflowType{Name: "Any"}
	schedule := func(name string) *schedulepb.Schedule {
		return &schedulepb.Schedule{Spec: &schedulepb.ScheduleSpec{}, Action: &schedulepb.ScheduleAction{
			Action: &schedulepb.ScheduleAction_StartWorkflow{StartWorkflow: &workflowpb.NewWorkflowExecutionInfo{
				WorkflowId: "x", WorkflowType: kind, TaskQueue: queue(name)}}}}
	}
	scheduler := &commonpb.WorkflowExecution{WorkflowId: "temporal-sys-scheduler:DAILY"}
	operator, workerA := as("operator"), as("worker-vm-a")
	for _, c := range []struct {
		what, reason string
		call         func() error
	}{
		{"start on a VM's queue", "cso-control only", func() error {
			_, err := operator.StartWorkflowExecution(ctx, &workflowservice.StartWorkflowExecutionRequest{Namespace: namespace, WorkflowId: "x", WorkflowType: kind, TaskQueue: queue("cso-vm-vm-a")})
			return err
		}},
		{"eager start", "eager start", func() error {
			_, err := operator.StartWorkflowExecution(ctx, &workflowservice.StartWorkflowExecutionRequest{Namespace: namespace, WorkflowId: "x", WorkflowType: kind, TaskQueue: queue("cso-control"), RequestEagerExecution: true})
			return err
		}},
		{"signal with start on a system queue", "cso-control only", func() error {
			_, err := operator.SignalWithStartWorkflowExecution(ctx, &workflowservice.SignalWithStartWorkflowExecutionRequest{Namespace: namespace, WorkflowId: "x", SignalName: "s", WorkflowType: kind, TaskQueue: queue("temporal-sys-per-ns-tq")})
			return err
		}},
		{"schedule on a VM's queue", "cso-control only", func() error {
			_, err := operator.CreateSchedule(ctx, &workflowservice.CreateScheduleRequest{Namespace: namespace, ScheduleId: "x", Schedule: schedule("cso-vm-vm-a")})
			return err
		}},
		{"control's schedule on a VM's queue", "cso-control only", func() error {
			_, err := as("control").CreateSchedule(ctx, &workflowservice.CreateScheduleRequest{Namespace: namespace, ScheduleId: "x", Schedule: schedule("cso-vm-vm-a")})
			return err
		}},
		{"schedule moved to a VM's queue", "cso-control only", func() error {
			_, err := operator.UpdateSchedule(ctx, &workflowservice.UpdateScheduleRequest{Namespace: namespace, ScheduleId: "x", Schedule: schedule("cso-vm-vm-a")})
			return err
		}},
		{"signal to a scheduler", "belongs to the server", func() error {
			_, err := operator.SignalWorkflowExecution(ctx, &workflowservice.SignalWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: scheduler, SignalName: "update"})
			return err
		}},
		{"update of a scheduler", "belongs to the server", func() error {
			_, err := operator.UpdateWorkflowExecution(ctx, &workflowservice.UpdateWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: scheduler})
			return err
		}},
		{"cancel of a scheduler", "belongs to the server", func() error {
			_, err := operator.RequestCancelWorkflowExecution(ctx, &workflowservice.RequestCancelWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: scheduler})
			return err
		}},
		{"end of a scheduler", "belongs to the server", func() error {
			_, err := operator.TerminateWorkflowExecution(ctx, &workflowservice.TerminateWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: scheduler})
			return err
		}},
		{"system namespace", "only namespace cso", func() error {
			_, err := operator.ListWorkflowExecutions(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: "temporal-system"})
			return err
		}},
		{"namespace by its ID", "only namespace cso", func() error {
			_, err := workerA.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Id: "32049b68-7872-4094-8e63-d0dd59896a83"})
			return err
		}},
		{"shutdown of another VM's worker", "may not serve", func() error {
			_, err := workerA.ShutdownWorker(ctx, &workflowservice.ShutdownWorkerRequest{Namespace: namespace, TaskQueue: "cso-vm-vm-b"})
			return err
		}},
		{"another VM's sign of life", "may not serve", func() error {
			_, err := workerA.RecordWorkerHeartbeat(ctx, &workflowservice.RecordWorkerHeartbeatRequest{Namespace: namespace,
				WorkerHeartbeat: []*workerpb.WorkerHeartbeat{{TaskQueue: "cso-vm-vm-a"}, {TaskQueue: "cso-vm-vm-b"}}})
			return err
		}},
		{"another VM's sign of life in a shutdown", "may not serve", func() error {
			_, err := workerA.ShutdownWorker(ctx, &workflowservice.ShutdownWorkerRequest{Namespace: namespace, TaskQueue: "cso-vm-vm-a",
				WorkerHeartbeat: &workerpb.WorkerHeartbeat{TaskQueue: "cso-vm-vm-b"}})
			return err
		}},
		{"reset", "denied to everyone", func() error {
			_, err := operator.ResetWorkflowExecution(ctx, &workflowservice.ResetWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: "x"}})
			return err
		}},
	} {
		wantRefusal(t, c.what, c.call(), c.reason)
	}
	logQuiet()
	_, err := operator.ResetWorkflowExecution(ctx, &workflowservice.ResetWorkflowExecutionRequest{Namespace: namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: "x"}})
	wantRefusal(t, "reset again", err, "denied to everyone")
	eventually(t, "refusals are logged with role, method and reason", func() bool {
		return strings.Contains(shared.log.String(), `msg="call refused" role=operator certificate=operator method=ResetWorkflowExecution reason="ResetWorkflowExecution is denied to everyone"`)
	})
}
