package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// blow is what is done to a run that stands still in a phase, from the moment
// it is struck until the killed part is back. It may start a successor.
type blow struct {
	name string
	do   func(k *strike) *running
}

// strike is one blow on its way.
type strike struct {
	b     *bench
	phase phase
	view  view
	held  *process // the worker that stands still in the phase
	cli   *running
	at    time.Time
	again []string // command line of a successor
	rng   *rand.Rand
}

// blows of the matrix: each part of the product, each database of the lab,
// and what an operator with a Temporal client can do from outside. Of a cluster
// one member is struck, whichever. Labs but the first add deaths that no other has.
func (s *shared) blows() []blow {
	var deaths []blow
	for _, c := range s.components {
		if s.slow && slices.Contains(trio.components, c) {
			continue
		}
		if n := s.size(c); n == 1 {
			deaths = append(deaths, blow{c, func(k *strike) *running { return k.kill(c + "-1") }})
		} else if n > 1 {
			deaths = append(deaths, blow{"one of " + strconv.Itoa(n) + " " + c, func(k *strike) *running {
				return k.kill(c + "-" + strconv.Itoa(1+k.rng.IntN(n)))
			}})
		}
	}
	if s != killLabs[0] {
		return deaths
	}
	return slices.Concat([]blow{
		{"worker", func(k *strike) *running { return k.kill(agent) }},
		{"control worker", func(k *strike) *running { return k.kill(control) }},
		{"cso-temporald", func(k *strike) *running { return k.kill(engineOf) }},
		{"CLI", (*strike).killCLI},
	}, deaths, []blow{
		{"worker frozen", func(k *strike) *running { return k.freeze(agent) }},
		{"control worker frozen", func(k *strike) *running { return k.freeze(control) }},
		{"terminate", (*strike).terminate},
		{"reset", (*strike).reset},
		{"cancel", (*strike).cancel},
	})
}

// pause is how long a dead part stays away.
func (k *strike) pause() time.Duration { return time.Duration(100+k.rng.IntN(1500)) * time.Millisecond }

// kill ends a part as kill -9 does, lets the run go on, and starts the part again.
func (k *strike) kill(member string) *running {
	b := k.b
	b.t.Helper()
	b.check(b.Kill(b.t.Context(), member))
	k.held.thaw()
	time.Sleep(k.pause())
	b.check(b.StartMember(b.t.Context(), member))
	return nil
}

func (k *strike) killCLI() *running {
	k.b.t.Helper()
	k.b.check(k.cli.cmd.Process.Kill())
	k.cli.killed = true
	<-k.cli.done
	k.held.thaw()
	r := k.b.start("attach", k.view.run, "-o", "json") // what an operator types then
	return r
}

// freeze holds a worker for longer than the heartbeat timeout.
func (k *strike) freeze(member string) *running {
	p := k.held
	if member != k.held.name {
		p = k.b.process(member)
		p.stop()
		k.held.thaw()
	}
	time.Sleep(killBeat + killBeat/2)
	p.thaw()
	return nil
}

// terminate ends the run from outside; a successor is started at once, while
// the worker that did the run's work still stands.
func (k *strike) terminate() *running {
	b := k.b
	b.t.Helper()
	b.check(b.client.TerminateWorkflow(b.t.Context(), workflows.ExclusiveID, k.view.run, "from outside"))
	r := b.start(k.again...)
	time.Sleep(k.pause() / 4)
	k.held.thaw()
	return r
}

// cancel asks the run to stop; a successor is started at once.
func (k *strike) cancel() *running {
	b := k.b
	b.t.Helper()
	b.want([]int{0}, "cancel")
	r := b.start(k.again...)
	time.Sleep(k.pause() / 4)
	k.held.thaw()
	return r
}

// reset begins the run anew from outside, from its beginning or from its
// last workflow task. Our own Temporal refuses that to everyone; a foreign one
// does not, so it is asked for through the port that only the server's own
// parts may use.
func (k *strike) reset() *running {
	b := k.b
	b.t.Helper()
	ctx, done := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer done()
	ask := &workflowservice.ResetWorkflowExecutionRequest{
		Namespace: "cso", WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: workflows.ExclusiveID, RunId: k.view.run},
		Reason: "from outside", RequestId: strconv.FormatInt(time.Now().UnixNano(), 36), WorkflowTaskFinishEventId: k.resetPoint(),
	}
	var denied *serviceerror.PermissionDenied
	if _, err := b.client.WorkflowService().ResetWorkflowExecution(ctx, ask); !errors.As(err, &denied) {
		b.t.Errorf("a reset by the operator: %v", err)
	}
	conn := b.inner()
	defer conn.Close()
	_, err := workflowservice.NewWorkflowServiceClient(conn).ResetWorkflowExecution(ctx, ask)
	b.check(err)
	r := b.start(k.again...)
	time.Sleep(k.pause() / 4)
	k.held.thaw()
	return r
}

// resetPoint is the first or the last completed workflow task.
func (k *strike) resetPoint() int64 {
	var tasks []int64
	for _, e := range k.b.history(k.view.run) {
		if e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			tasks = append(tasks, e.EventId)
		}
	}
	if len(tasks) == 0 {
		k.b.t.Fatal("the run has no workflow task to go back to")
	}
	if k.rng.IntN(2) == 0 {
		return tasks[0]
	}
	return slices.Max(tasks)
}

// inner connects as the server's own parts do.
func (b *bench) inner() *grpc.ClientConn {
	b.t.Helper()
	conf, err := pki.InternodeTLS(filepath.Join(b.Dir(), "state", "pki"))
	b.check(err)
	host, port, err := net.SplitHostPort(b.value("LAB_TEMPORAL_ADDR"))
	b.check(err)
	n, err := strconv.Atoi(port)
	b.check(err)
	conn, err := grpc.NewClient(net.JoinHostPort(host, fmt.Sprint(n+1)), grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	b.check(err)
	return conn
}

// fenced is when a run's fence was complete on every VM; zero when it never was.
func fenced(events []*historypb.HistoryEvent) time.Time {
	quiet := map[int64]bool{}
	var at time.Time
	for _, e := range events {
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil && a.ActivityType.GetName() == "Quiet" {
			quiet[e.EventId] = true
		}
		if a := e.GetActivityTaskCompletedEventAttributes(); a != nil && quiet[a.ScheduledEventId] {
			at = e.EventTime.AsTime()
			delete(quiet, a.ScheduledEventId)
		}
	}
	if len(quiet) > 0 {
		return time.Time{}
	}
	return at
}
