package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

var errRefused = errors.New("this worker's certificate may not poll its queue")

// mayPoll asks once for a task of a queue: a refused poll is otherwise
// invisible, the worker starts and never gets work (measured). A task
// cannot arrive: the server gives none to polls shorter than two seconds.
func mayPoll(ctx context.Context, c client.Client, namespace, queue, identity string) error {
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	var denied *serviceerror.PermissionDenied
	if errors.As(err, &denied) { // a certificate that was revoked may not even ask that
		return fmt.Errorf("%w: %s: %w (%s): get a new certificate from the installer-vm", errRefused, queue, err, denied.Reason)
	}
	if err != nil {
		return fmt.Errorf("namespace %s: %w", namespace, err)
	}
	_, err = c.WorkflowService().PollActivityTaskQueue(ctx, &workflowservice.PollActivityTaskQueueRequest{
		Namespace: namespace, Identity: identity + "/probe", TaskQueue: &taskqueuepb.TaskQueue{Name: queue, Kind: enumspb.TASK_QUEUE_KIND_NORMAL},
	})
	if errors.As(err, &denied) {
		return fmt.Errorf("%w: %s: %w (%s): check CSO_BACKUP_VM and the certificate's name", errRefused, queue, err, denied.Reason)
	}
	return nil
}

// replayable replays the open exclusive run, if there is one, before this
// worker polls: code that cannot replay it must not take it over.
func replayable(ctx context.Context, c client.Client) error {
	ctx, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	d, err := c.DescribeWorkflowExecution(ctx, workflows.ExclusiveID, "")
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an open run: %w", err)
	}
	if d.WorkflowExecutionInfo.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return nil
	}
	var h historypb.History
	it := c.GetWorkflowHistory(ctx, workflows.ExclusiveID, d.WorkflowExecutionInfo.Execution.RunId, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			return fmt.Errorf("read the open run: %w", err)
		}
		h.Events = append(h.Events, e)
	}
	if len(h.Events) < 3 { // no worker has begun it: there is nothing to replay, and the replayer refuses it
		return nil
	}
	r := worker.NewWorkflowReplayer()
	Workflows(r)
	if err := r.ReplayWorkflowHistory(nil, &h); err != nil {
		return fmt.Errorf("this version cannot go on with the %s that is running (run %s): start the version that began it, or cancel it first: %w",
			d.WorkflowExecutionInfo.Type.Name, d.WorkflowExecutionInfo.Execution.RunId, err)
	}
	return nil
}

// attributes makes the search attributes that the Web UI shows; on a Temporal
// that does not allow it their absence is a warning.
func attributes(ctx context.Context, c client.Client, namespace string) error {
	ctx, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	op := c.OperatorService()
	have, err := op.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("list search attributes: %w", err)
	}
	missing := map[string]enumspb.IndexedValueType{}
	for name, kind := range map[string]enumspb.IndexedValueType{
		workflows.AttrOperation: enumspb.INDEXED_VALUE_TYPE_KEYWORD, workflows.AttrBackup: enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		workflows.AttrPhase: enumspb.INDEXED_VALUE_TYPE_KEYWORD, workflows.AttrComponents: enumspb.INDEXED_VALUE_TYPE_KEYWORD_LIST,
		workflows.AttrMaintenance: enumspb.INDEXED_VALUE_TYPE_BOOL, workflows.AttrOutcome: enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		workflows.AttrBytes: enumspb.INDEXED_VALUE_TYPE_INT,
	} {
		if _, ok := have.CustomAttributes[name]; !ok {
			missing[name] = kind
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = op.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
	if err != nil {
		return fmt.Errorf("add search attributes: %w", err)
	}
	return nil
}
