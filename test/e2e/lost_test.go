package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/schedule"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// phaseOf finds a phase of the kill matrix.
func phaseOf(op, name string) phase {
	return phases[slices.IndexFunc(phases, func(p phase) bool { return p.op == op && p.name == name })]
}

// stand lets a command run into a phase; its worker then stands still.
func (b *bench) stand(op, name string, args ...string) (*running, view, *process) {
	b.t.Helper()
	for range killTries {
		r := b.start(args...)
		p := phaseOf(op, name)
		v, w, err := b.approach(r, p, p.in, killSlice)
		if err == nil {
			return r, v, w
		}
		r.wait()
		b.settleDown()
	}
	b.t.Fatalf("the %s's %s was missed again and again", op, name)
	return nil, view{}, nil
}

// loseTemporal destroys Temporal's database under a running operation; a new and
// empty one takes its place, with the same name and certificates.
func (b *bench) loseTemporal(w *process) {
	b.t.Helper()
	ctx := b.t.Context()
	b.check(b.Kill(ctx, engineOf))
	b.check(os.RemoveAll(b.path("state", "temporal")))
	b.check(b.StartMember(ctx, engineOf))
	w.thaw()
}

// TestLostTemporal: the SQLite file vanishes while something runs. The workers
// run on: they must find out by themselves that another Temporal answers.
func TestLostTemporal(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 31, "small"))
	before := b.fingerprint()
	b.backup("KEPT", "-m", "yes")
	b.want([]int{0}, "-b", "scheduledbackup", "-s", "WEEKLY", "-c", "30-2-*-*-1")
	b.want([]int{0}, "schedule", "pause", "WEEKLY", "--reason", "until the upgrade")
	worker, err := b.Pid(control)
	b.check(err)

	t.Run("during a backup", func(t *testing.T) {
		b := b.of(t)
		r, _, w := b.stand("backup", "pin", "-b", "backup", "-s", "LOST", "-m", "yes", "-o", "json")
		b.loseTemporal(w)
		if e := r.wait(); slices.Contains(fine, e.code) {
			t.Errorf("a backup whose Temporal is gone ended with exit %d", e.code)
		}
		handle := b.client.ScheduleClient().GetHandle(ctx, schedule.ID("WEEKLY"))
		b.eventually(60*time.Second, "the schedule is back, still paused", func() bool {
			d, err := handle.Describe(ctx)
			return err == nil && d.Schedule.State.Paused && strings.Contains(d.Schedule.State.Note, "until the upgrade")
		})
		// That this Temporal does not know the run does not mean that it has ended: the reaper looked, and left the lease.
		b.eventually(60*time.Second, "the reaper has looked", func() bool {
			return strings.Contains(tail(b.path("log", control+".log"), 200), "the run lives on another temporal cluster")
		})
		same(t, "maintenance", "true", b.maintenance())
		if s := b.journal(); !s.Open() {
			t.Fatalf("the journal was closed: %+v", s)
		}
		d := b.ask([]int{problem.Warnings.Exit()}, nil, "status")
		if !strings.Contains(d.Message, "resolve accept") {
			t.Errorf("status: %q", d.Message)
		}
		e := b.want([]int{problem.Unhealthy.Exit()}, "-b", "healthcheck")
		if !strings.Contains(strings.Join(strings.Fields(e.stdout), " "), "ran on another Temporal") {
			t.Errorf("healthcheck:\n%s", e.stdout)
		}
		b.ask([]int{problem.Usage.Exit()}, nil, "resolve", "rollback", "--confirm", "LOST")
		b.want(fine, "resolve", "accept", "--confirm", "LOST")
		b.settled()
		b.equal(before)
		b.backup("AFTER", "-m", "yes")
	})

	t.Run("during a restore", func(t *testing.T) {
		b := b.of(t)
		b.check(b.Wreck(ctx, 31))
		wrecked := b.fingerprint()
		r, _, w := b.stand("restore", "write", "-b", "restore", "-s", "KEPT", "--confirm", "KEPT", "-o", "json")
		b.loseTemporal(w)
		if e := r.wait(); slices.Contains(fine, e.code) {
			t.Errorf("a restore whose Temporal is gone ended with exit %d", e.code)
		}
		b.eventually(60*time.Second, "the estate is held", func() bool { return b.journal().Hold != nil })
		same(t, "maintenance", "true", b.maintenance())
		b.ask([]int{problem.Held.Exit()}, nil, "status")
		b.ask([]int{problem.Held.Exit()}, nil, "-b", "backup", "-s", "REFUSED")
		b.want(fine, "resolve", "rollback", "--confirm", "KEPT")
		b.settled()
		b.back(wrecked)
		b.restored("-s", "KEPT", "--confirm", "KEPT")
		b.back(before)
	})
	if now, err := b.Pid(control); err != nil || now != worker {
		t.Errorf("the control worker was restarted (%d, %d, %v): it did not find the new Temporal by itself", worker, now, err)
	}
	b.want([]int{0}, "schedule", "delete", "WEEKLY")
}

// TestOldTemporal: Temporal's database is put back to an hour ago, as with the
// snapshot of a VM, and knows a restore as running that ended long since.
// It goes on with it, and must write nothing.
func TestOldTemporal(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 35, "small"))
	before := b.fingerprint()
	b.backup("OLD", "-m", "yes")
	b.check(b.Wreck(ctx, 35))
	r, v, w := b.stand("restore", "write", "-b", "restore", "-s", "OLD", "--confirm", "OLD", "-o", "json")
	live, snapshot := b.path("state", "temporal"), b.path("state", "temporal.old")
	b.check(b.Kill(ctx, engineOf))
	b.check(os.CopyFS(snapshot, os.DirFS(live)))
	b.check(b.StartMember(ctx, engineOf))
	w.thaw()
	b.expect(r.wait(), fine...)
	b.settled()
	b.equal(before)

	b.check(b.Wreck(ctx, 36))
	wrecked, claim := b.fingerprint(), b.journal().Claim
	b.check(b.Kill(ctx, engineOf))
	b.check(os.RemoveAll(live))
	b.check(os.Rename(snapshot, live))
	b.check(b.StartMember(ctx, engineOf))
	status := enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING // as the snapshot knows it
	b.eventually(resumeWithin, "the old run has ended", func() bool {
		d, err := b.client.DescribeWorkflowExecution(ctx, workflows.ExclusiveID, v.run)
		if err == nil {
			status = d.WorkflowExecutionInfo.Status
		}
		return status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	})
	same(t, "how the old run ended", enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, status)
	same(t, "claim", claim, b.journal().Claim)
	b.settled()
	b.equal(wrecked)
	b.restored("-s", "OLD", "--confirm", "OLD") // by a newer epoch than any of both
	b.back(before)
}
