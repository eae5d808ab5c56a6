package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workerpb "go.temporal.io/api/worker/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/api"
	"go.temporal.io/server/common/authorization"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

const authType = "mtls"

// identity is what a certificate says: a role, or why it says none.
type identity struct{ role, invalid string }

// mapper turns the client's certificate into an identity. The server asks it at every call, so a revocation acts on
// connections that are already open.
type mapper struct{ revoked *pki.Revocations }

// GetClaims implements authorization.ClaimMapper. It returns no error for a bad certificate, because the server would
// hide the reason from the caller; the authorizer refuses with it instead.
func (m mapper) GetClaims(info *authorization.AuthInfo) (*authorization.Claims, error) {
	claims := &authorization.Claims{AuthType: authType}
	cert := authorization.PeerCert(info.TLSConnection)
	if cert == nil {
		claims.Extensions = identity{invalid: "no client certificate"}
		return claims, nil
	}
	claims.Subject = cert.Subject.CommonName
	if len(cert.Subject.OrganizationalUnit) != 1 {
		claims.Extensions = identity{invalid: "the certificate does not name exactly one role (OU)"}
		return claims, nil
	}
	who := identity{role: cert.Subject.OrganizationalUnit[0]}
	switch gone, err := m.revoked.Contains(cert.SerialNumber); {
	case err != nil:
		who = identity{invalid: "the list of revoked certificates is unreadable: " + err.Error()}
	case gone:
		who = identity{invalid: "the certificate was revoked"}
	}
	claims.Extensions = who
	return claims, nil
}

// authorizer decides every call of both frontends.
type authorizer struct {
	tokens tokenSigner
	space  spaceGate
	log    *slog.Logger
	limit  logLimit
}

// Authorize implements authorization.Authorizer. Who calls is recorded in the history of the run (the principal), who
// was refused in the log: the server itself logs no refusal.
func (z *authorizer) Authorize(_ context.Context, claims *authorization.Claims, t *authorization.CallTarget) (authorization.Result, error) {
	who, reason := identify(claims), ""
	switch {
	case isInternal(claims):
		return authorization.Result{Decision: authorization.DecisionAllow}, nil
	case who.invalid != "":
		reason = who.invalid
	default:
		reason = check(who.role, t, z.tokens)
	}
	if reason == "" {
		return authorization.Result{Decision: authorization.DecisionAllow, Principal: &commonpb.Principal{Type: authType, Name: who.role}}, nil
	}
	if dropped, ok := z.limit.allow(); ok {
		subject := ""
		if claims != nil {
			subject = claims.Subject
		}
		z.log.Warn("call refused", "role", who.role, "certificate", subject, "method", api.MethodName(t.APIName), "reason", reason, "not_logged_before", dropped)
	}
	return authorization.Result{Decision: authorization.DecisionDeny, Reason: reason}, nil
}

// isInternal recognizes the server's calls to itself, which come through the inner port and its own authority.
func isInternal(c *authorization.Claims) bool {
	return c != nil && c.AuthType == authorization.InternalPrincipalType && c.System == authorization.RoleAdmin
}

func identify(c *authorization.Claims) identity {
	if c == nil || c.AuthType != authType {
		return identity{invalid: "no client certificate"}
	}
	who, ok := c.Extensions.(identity)
	if !ok || who.role == "" && who.invalid == "" {
		return identity{invalid: "the certificate names no role"}
	}
	return who
}

// check returns "" if role may make this call, else the reason why not.
func check(role string, t *authorization.CallTarget, tokens tokenSigner) string {
	if strings.HasPrefix(t.APIName, "/grpc.health.v1.Health/") {
		return ""
	}
	if !strings.HasPrefix(t.APIName, api.WorkflowServicePrefix) && !strings.HasPrefix(t.APIName, api.OperatorServicePrefix) {
		return "service " + api.ServiceName(t.APIName) + " is closed to everyone"
	}
	method, meta := api.MethodName(t.APIName), api.GetMethodMetadata(t.APIName)
	if t.Namespace != namespace && (t.Namespace != "" || meta.Scope == api.ScopeNamespace) {
		return fmt.Sprintf("only namespace %s is served, not %q", namespace, t.Namespace)
	}
	if deniedToAll[method] {
		return method + " is denied to everyone"
	}
	readOnly := meta.Access == api.AccessReadOnly
	vm, isWorker := strings.CutPrefix(role, "worker:")
	isWorker = isWorker && pki.CheckVM(vm) == nil
	known := isWorker || role == pki.Control || role == pki.Operator || role == pki.UI
	switch {
	case known && everyone[method]:
		return ""
	case role == pki.UI && (readOnly || uiExtra[method]):
		return ""
	case role == pki.Operator && (readOnly || operatorWrites[method]):
		return checkWrite(t.Request)
	case role == pki.Control && (workerCalls[method] || controlCalls[method]):
		if reason := checkWrite(t.Request); reason != "" {
			return reason
		}
		return checkQueueOrToken(role, t.Request, tokens, controlQueue, leaseQueue)
	case isWorker && workerCalls[method]:
		return checkQueueOrToken(role, t.Request, tokens, "cso-vm-"+vm, "cso-vm-"+vm+"-ctl")
	}
	return role + " may not call " + method
}

// checkWrite refuses runs outside the control queue, directly or by a schedule: a run started on a VM's queue would
// wait there for ever, holding its workflow ID.
func checkWrite(req any) string {
	var queue *taskqueuepb.TaskQueue
	switch r := req.(type) {
	case *workflowservice.StartWorkflowExecutionRequest:
		if r.GetRequestEagerExecution() {
			return "eager start is refused: its task would bypass the queue" // and come back with an unsigned token
		}
		queue = r.GetTaskQueue()
	case *workflowservice.SignalWithStartWorkflowExecutionRequest:
		queue = r.GetTaskQueue()
	case *workflowservice.CreateScheduleRequest:
		queue = scheduledQueue(r.GetSchedule())
	case *workflowservice.UpdateScheduleRequest:
		queue = scheduledQueue(r.GetSchedule())
	case *workflowservice.SignalWorkflowExecutionRequest:
		return checkOwner(r.GetWorkflowExecution())
	case *workflowservice.UpdateWorkflowExecutionRequest:
		return checkOwner(r.GetWorkflowExecution())
	case *workflowservice.RequestCancelWorkflowExecutionRequest:
		return checkOwner(r.GetWorkflowExecution())
	case *workflowservice.TerminateWorkflowExecutionRequest:
		return checkOwner(r.GetWorkflowExecution())
	default:
		return ""
	}
	if queue.GetName() != controlQueue || queue.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY {
		return fmt.Sprintf("runs start on task queue %s only, not on %q", controlQueue, queue.GetName())
	}
	return ""
}

func scheduledQueue(s *schedulepb.Schedule) *taskqueuepb.TaskQueue {
	return s.GetAction().GetStartWorkflow().GetTaskQueue()
}

// checkOwner keeps the server's own workflows (schedules are such) out of reach: a signal to one could change a
// schedule past the check of its queue.
func checkOwner(w *commonpb.WorkflowExecution) string {
	if strings.HasPrefix(w.GetWorkflowId(), "temporal-sys-") {
		return "workflow " + w.GetWorkflowId() + " belongs to the server"
	}
	return ""
}

// checkQueueOrToken refuses polls, heartbeats and shutdowns for queues that are not the caller's own, and answers with
// a task token that was not given to this role.
func checkQueueOrToken(role string, req any, tokens tokenSigner, own ...string) string {
	foreign := func(queue string) string {
		if slices.Contains(own, queue) {
			return ""
		}
		return fmt.Sprintf("%s may not serve task queue %q", role, queue)
	}
	switch r := req.(type) {
	case *workflowservice.PollActivityTaskQueueRequest:
		// NormalName is not looked at: a sticky poll would name its own queue there and somebody else's in Name.
		if !plainQueue(r.GetTaskQueue()) {
			return "activities are polled from plain task queues only"
		}
		return foreign(r.GetTaskQueue().GetName())
	case *workflowservice.PollWorkflowTaskQueueRequest:
		switch q := r.GetTaskQueue(); {
		case plainQueue(q):
			return foreign(q.GetName())
		case q.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY:
			return foreign(q.GetNormalName())
		}
		return "workflow tasks are polled from plain and sticky task queues only"
	case *workflowservice.ShutdownWorkerRequest:
		if h := r.GetWorkerHeartbeat(); h != nil {
			return foreignHeartbeat(foreign, r.GetTaskQueue(), h)
		}
		return foreign(r.GetTaskQueue())
	case *workflowservice.RecordWorkerHeartbeatRequest:
		return foreignHeartbeat(foreign, own[0], r.GetWorkerHeartbeat()...)
	case interface{ GetTaskToken() []byte }:
		if !tokens.verify(role, r.GetTaskToken()) {
			return "the task token was not given to " + role
		}
	}
	return ""
}

func plainQueue(q *taskqueuepb.TaskQueue) bool {
	return q.GetKind() == enumspb.TASK_QUEUE_KIND_NORMAL || q.GetKind() == enumspb.TASK_QUEUE_KIND_UNSPECIFIED
}

func foreignHeartbeat(foreign func(string) string, queue string, beats ...*workerpb.WorkerHeartbeat) string {
	for _, h := range beats {
		if reason := foreign(h.GetTaskQueue()); reason != "" {
			return reason
		}
	}
	return foreign(queue)
}
