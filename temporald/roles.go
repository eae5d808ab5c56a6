package main

// The calls of each role, seen from the SDK (worker, client), the command line and the Web UI in use. Everything that
// is not listed is refused; operator and ui also get what the server's own table calls read-only.

const (
	namespace    = "cso"
	controlQueue = "cso-control"
	leaseQueue   = "cso-lease"
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

var (
	// deniedToAll would let somebody repeat, pause or answer work past the epoch and the journal. Listed, though not
	// allowed below either, so that the refusal says that no role will help.
	deniedToAll = set("ResetWorkflowExecution", "StartBatchOperation", "StopBatchOperation", "ExecuteMultiOperation",
		"PauseActivity", "UnpauseActivity", "ResetActivity", "UpdateActivityOptions",
		"PauseActivityExecution", "UnpauseActivityExecution", "ResetActivityExecution", "UpdateActivityExecutionOptions",
		"RecordActivityTaskHeartbeatById", "RespondActivityTaskCompletedById", "RespondActivityTaskFailedById", "RespondActivityTaskCanceledById",
		"UpdateWorkflowExecutionOptions", "PauseWorkflowExecution", "UnpauseWorkflowExecution", "DeleteWorkflowExecution",
		"PollNexusTaskQueue", "RespondNexusTaskCompleted", "RespondNexusTaskFailed")

	everyone = set("GetSystemInfo", "DescribeNamespace")

	workerCalls = set("PollActivityTaskQueue", "RespondActivityTaskCompleted", "RespondActivityTaskFailed", "RespondActivityTaskCanceled",
		"RecordActivityTaskHeartbeat", "RecordWorkerHeartbeat", "ShutdownWorker")

	// controlCalls: the control worker runs workflow code, replays open runs before it polls, reaps, and reconciles
	// schedules and search attributes from files. It cannot start, cancel or terminate a run by itself.
	controlCalls = set("PollWorkflowTaskQueue", "RespondWorkflowTaskCompleted", "RespondWorkflowTaskFailed", "RespondQueryTaskCompleted",
		"DescribeWorkflowExecution", "GetWorkflowExecutionHistory", "ListWorkflowExecutions", "ListOpenWorkflowExecutions",
		"CountWorkflowExecutions", "QueryWorkflow", "GetClusterInfo", "DescribeTaskQueue", "ListWorkers",
		"CreateSchedule", "UpdateSchedule", "PatchSchedule", "DeleteSchedule", "DescribeSchedule", "ListSchedules",
		"AddSearchAttributes", "ListSearchAttributes")

	operatorWrites = set("StartWorkflowExecution", "SignalWorkflowExecution", "SignalWithStartWorkflowExecution", "UpdateWorkflowExecution",
		"RequestCancelWorkflowExecution", "TerminateWorkflowExecution",
		"CreateSchedule", "UpdateSchedule", "PatchSchedule", "DeleteSchedule", "AddSearchAttributes")

	// uiExtra is "admin" in the server's table, but the UI asks for it on every page and shows an error without.
	uiExtra = set("ListNexusEndpoints")
)
