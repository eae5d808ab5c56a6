package e2e

import (
	"context"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// moment is where the exclusive run stands.
type moment struct {
	run        string
	activities map[string]int32 // running, by ID without its number; value: attempt
	journal    journal.State
}

// moment asks Temporal and reads the journal; false while no run is open.
func (b *bench) moment() (moment, bool) {
	ctx, done := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer done()
	d, err := b.client.DescribeWorkflowExecution(ctx, workflows.ExclusiveID, "")
	if err != nil || d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return moment{}, false
	}
	m := moment{run: d.WorkflowExecutionInfo.Execution.RunId, activities: map[string]int32{}}
	for _, p := range d.PendingActivities {
		if p.State == enumspb.PENDING_ACTIVITY_STATE_STARTED {
			id, _, _ := strings.Cut(p.ActivityId, "#")
			m.activities[id] = p.Attempt
		}
	}
	m.journal = b.journal()
	return m, m.journal.Claim.Run == m.run
}

// idle waits until the exclusive run has ended.
func (b *bench) idle() {
	b.t.Helper()
	b.eventually(30*time.Second, "the run has ended", func() bool {
		d, err := b.client.DescribeWorkflowExecution(b.t.Context(), workflows.ExclusiveID, "")
		return err == nil && d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	})
}

func (m moment) has(activity string) bool { _, ok := m.activities[activity]; return ok }

const (
	copying   = "copy:secrets/installer-vm"
	restoring = "restore:secrets/installer-vm"
)

// inCopy: files are being stored. inRestore: files are being replaced, and the journal says so.
func inCopy(m moment) bool { return m.has(copying) && !m.journal.Half() }
func inRestore(m moment) bool {
	return m.has(restoring) && m.journal.Half() && m.journal.Safety != ""
}

// fillLarge makes copy and restore of the files last for seconds.
func (b *bench) fillLarge(seed int64) print {
	b.t.Helper()
	b.check(b.Fill(b.t.Context(), seed, "small"))
	b.check(b.Fill(b.t.Context(), seed, "large", "secrets"))
	big := make([]byte, 96<<20)
	_, _ = rand.Read(big)
	b.check(os.WriteFile(b.path("secrets-1", "etc", "secrets", "big.bin"), big, 0o600))
	return b.fingerprint()
}

// killWorker ends the worker as kill -9 does, and starts it again.
func (b *bench) killWorker() {
	b.t.Helper()
	b.check(b.Kill(b.t.Context(), "worker"))
	b.check(b.StartMember(b.t.Context(), "worker"))
}

// attempts counts the attempts of an activity, by the beginning of its ID.
func (b *bench) attempts(run, id string) (n int) {
	b.t.Helper()
	ids := map[int64]bool{}
	it := b.client.GetWorkflowHistory(b.t.Context(), workflows.ExclusiveID, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		b.check(err)
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil && strings.HasPrefix(a.ActivityId, id+"#") {
			ids[e.EventId] = true
		}
		if a := e.GetActivityTaskStartedEventAttributes(); a != nil && ids[a.ScheduledEventId] {
			n += int(a.Attempt)
		}
	}
	return n
}

// TestDeaths strikes the product's parts in named phases. Each case leaves the
// estate equal to one of two states, journal closed, maintenance as before.
func TestDeaths(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	before := b.fillLarge(3)

	t.Run("worker dies in copy", func(t *testing.T) {
		b := b.of(t)
		r := b.start("-b", "backup", "-s", "DEATHS", "-m", "yes", "-o", "json")
		m := b.strike(r, "copy", inCopy)
		b.killWorker()
		var res workflows.Result
		b.read(b.expect(r.wait(), fine...), &res)
		b.settled()
		if n := b.attempts(m.run, copying); n < 2 {
			t.Errorf("%d attempts of the copy: it was not struck", n)
		}
		if !res.Consistent || !strings.Contains(strings.Join(res.Warnings, "\n"), "pinned again") {
			t.Errorf("the pins died with the worker, and the result says: consistent %t, %q", res.Consistent, res.Warnings)
		}
		b.want([]int{0}, "verify", res.Backup)
		b.equal(before)
	})
	b.check(b.Wreck(ctx, 3))
	t.Run("worker dies in restore", func(t *testing.T) {
		b := b.of(t)
		r := b.start("-b", "restore", "-s", "DEATHS", "-o", "json")
		m := b.strike(r, "restore", inRestore)
		b.killWorker()
		b.read(b.expect(r.wait(), fine...), nil)
		b.settled()
		if n := b.attempts(m.run, restoring); n < 2 {
			t.Errorf("%d attempts of the restore: it was not struck", n)
		}
		b.equal(before)
	})

	t.Run("cso-temporald dies in backup", func(t *testing.T) {
		b := b.of(t)
		b.flood()
		r := b.start("-b", "backup", "-s", "ENGINE", "-m", "yes", "-o", "json")
		b.strike(r, "copy", inCopy)
		b.check(b.Kill(ctx, "temporald"))
		b.check(b.Thaw(ctx, "worker"))
		b.check(b.StartMember(ctx, "temporald"))
		var res workflows.Result
		b.read(b.expect(r.wait(), fine...), &res)
		b.settled()
		if !res.Consistent {
			t.Errorf("result: %+v", res)
		}
		b.want([]int{0}, "verify", res.Backup)
	})

	t.Run("terminated in maintenance", func(t *testing.T) {
		b := b.of(t)
		r := b.start("-b", "backup", "-s", "CUT", "-m", "yes", "-o", "json")
		m := b.strike(r, "pin in maintenance", func(m moment) bool {
			return m.has("pin:secrets/installer-vm") && m.journal.Lease != nil && m.journal.Lease.Entered && m.journal.Lease.Verified
		})
		same(t, "maintenance while the run stands still", "true", b.maintenance())
		b.check(b.client.TerminateWorkflow(ctx, workflows.ExclusiveID, m.run, "test"))
		b.check(b.Thaw(ctx, "worker"))
		b.expect(r.wait(), problem.Failed.Exit())
		b.eventually(60*time.Second, "maintenance is left by itself", func() bool { return !b.journal().Open() })
		b.settled()
		b.backup("CUT", "-m", "yes") // and the next one finds nothing in its way
	})

	t.Run("terminated after writes, then rolled back", func(t *testing.T) {
		b := b.of(t)
		b.check(b.Wreck(ctx, 4))
		wrecked := b.fingerprint()
		b.terminated(wrecked, before)
		b.want(fine, "resolve", "rollback", "--confirm", "DEATHS")
		b.settled()
		b.equal(wrecked)
	})

	t.Run("terminated after writes, then tried again", func(t *testing.T) {
		b := b.of(t)
		b.terminated(b.fingerprint(), before)
		b.want(fine, "resolve", "retry", "--confirm", "DEATHS")
		b.settled()
		b.equal(before)
	})

	t.Run("cancelled after writes", func(t *testing.T) {
		b := b.of(t)
		b.check(b.Wreck(ctx, 5))
		wrecked := b.fingerprint()
		r := b.start("-b", "restore", "-s", "DEATHS", "-o", "json")
		b.strike(r, "restore", inRestore)
		b.want([]int{0}, "cancel")
		b.check(b.Thaw(ctx, "worker"))
		d := b.read(b.expect(r.wait(), problem.Cancelled.Exit()), nil)
		if d.Error == nil || d.Error.Code != problem.Cancelled || !strings.Contains(d.Error.Message, "is back") {
			t.Errorf("error: %+v", d.Error)
		}
		b.settled()
		b.equal(wrecked)
		b.restored("-s", "DEATHS")
		b.equal(before)
	})
}

// flood replaces the large file, so that the next copy has something to store.
func (b *bench) flood() {
	b.t.Helper()
	big := make([]byte, 96<<20)
	_, _ = rand.Read(big)
	b.check(os.WriteFile(b.path("secrets-1", "etc", "secrets", "big.bin"), big, 0o600))
}

// terminated ends a restore from outside after it has written, and checks that
// the estate is then held in maintenance and says so.
func (b *bench) terminated(wrecked, before print) {
	t := b.t
	t.Helper()
	ctx := t.Context()
	start := b.entries()
	r := b.start("-b", "restore", "-s", "DEATHS", "-o", "json")
	m := b.strike(r, "restore", func(m moment) bool { return inRestore(m) && b.changed(start) > 20 })
	if half := b.fingerprint("secrets").sums["secrets"]; half == wrecked.sums["secrets"] || half == before.sums["secrets"] {
		t.Fatal("the files are not half written")
	}
	b.check(b.client.TerminateWorkflow(ctx, workflows.ExclusiveID, m.run, "test"))
	b.check(b.Thaw(ctx, "worker"))
	b.expect(r.wait(), problem.Failed.Exit())
	b.eventually(60*time.Second, "the estate is held", func() bool { return b.journal().Hold != nil })
	same(t, "maintenance of a held estate", "true", b.maintenance())
	var status struct{ Journal []string }
	b.ask([]int{0, problem.Held.Exit()}, &status, "status")
	if !strings.Contains(strings.Join(status.Journal, "\n"), "HELD") {
		t.Errorf("status does not show the hold: %q", status.Journal)
	}
	d := b.ask([]int{problem.Held.Exit()}, nil, "-b", "backup", "-s", "REFUSED")
	if d.Error == nil || d.Error.Code != problem.Held {
		t.Errorf("a backup of a held estate: %+v", d.Error)
	}
	d = b.ask([]int{problem.Confirm.Exit()}, nil, "resolve", "rollback", "--confirm", "WRONG")
	if d.Error == nil || d.Error.Code != problem.Confirm {
		t.Errorf("resolve with another name: %+v", d.Error)
	}
}

// entries lists the protected files with what a restore changes, content apart.
func (b *bench) entries() map[string]string {
	out := map[string]string{}
	_ = filepath.WalkDir(b.path("secrets-1", "etc", "secrets"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it vanished meanwhile, which is what is looked for
		}
		if fi, err := d.Info(); err == nil {
			out[p] = fi.Mode().String() + fi.ModTime().String()
		}
		return nil
	})
	return out
}

// changed counts the entries that are not as they were.
func (b *bench) changed(before map[string]string) (n int) {
	now := b.entries()
	for p, e := range before {
		if now[p] != e {
			n++
		}
	}
	return n
}
