package main

import (
	"fmt"
	"log/slog"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sys/unix"
)

// spaceGate refuses new runs while the file system of the database has less than floor bytes free. A full disk stops
// every call, also those that would end a restore, so the rest is kept for the runs in progress.
type spaceGate struct {
	dir    string
	floor  uint64
	canary string // request id of the start-up canary, which must pass: a low disk is no reason not to come up
	log    *slog.Logger
	limit  *logLimit
}

// check returns FailedPrecondition for a request that starts something new; the SDK does not retry that code and
// shows its text. Scheduled starts, which the server makes itself, are refused too.
func (g spaceGate) check(req any) error {
	what := g.starts(req)
	if what == "" {
		return nil
	}
	free, err := freeBytes(g.dir)
	if err == nil && free >= g.floor {
		return nil
	}
	text := fmt.Sprintf("no new run is started: %d MiB are free in %s, the floor is %d MiB; free space there (running operations go on)",
		free>>20, g.dir, g.floor>>20)
	if err != nil {
		text = fmt.Sprintf("no new run is started: %v; repair the file system of %s", err, g.dir)
	}
	if dropped, ok := g.limit.allow(); ok {
		g.log.Error(text, "request", what, "not_logged_before", dropped)
	}
	return serviceerror.NewFailedPrecondition(text)
}

// starts names what req would start, "" if nothing.
func (g spaceGate) starts(req any) string {
	switch r := req.(type) {
	case *workflowservice.StartWorkflowExecutionRequest:
		if r.GetNamespace() == namespace && r.GetTaskQueue().GetName() == controlQueue && r.GetRequestId() != g.canary {
			return "start of " + r.GetWorkflowId()
		}
	case *workflowservice.SignalWithStartWorkflowExecutionRequest:
		if r.GetTaskQueue().GetName() == controlQueue {
			return "start of " + r.GetWorkflowId()
		}
	case *workflowservice.CreateScheduleRequest:
		if r.GetRequestId() != g.canary {
			return "schedule " + r.GetScheduleId()
		}
	case *workflowservice.PatchScheduleRequest:
		if p := r.GetPatch(); p.GetTriggerImmediately() != nil || len(p.GetBackfillRequest()) > 0 {
			return "trigger of schedule " + r.GetScheduleId()
		}
	}
	return ""
}

// freeBytes is what an unprivileged process could still write below dir.
func freeBytes(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}
