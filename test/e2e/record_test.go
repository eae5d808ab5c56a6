//go:build record

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
)

// TestRecordHistories plays every operation on real servers and writes each
// run's history into $CSO_RECORD, a directory that must not exist yet: what
// was recorded once is what a later version must be able to go on with.
func TestRecordHistories(t *testing.T) {
	dir := os.Getenv("CSO_RECORD")
	if dir == "" {
		t.Fatal("CSO_RECORD names no directory: use `make record-history`")
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Fatalf("%s exists: histories are recorded once and never again", dir)
	}
	b := whole.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 21, "small"))
	before := b.fingerprint()
	b.backup("PLAIN")
	b.backup("WHOLE", "-m", "yes")
	b.want([]int{0}, "verify", "WHOLE")
	b.want(fine, "-b", "healthcheck")
	b.check(b.Wreck(ctx, 9))
	b.want(fine, "-b", "restore", "-s", "WHOLE", "--plan")
	b.want(fine, "-b", "restore", "-s", "WHOLE", "-t", "etcd")
	b.restored("-s", "WHOLE", "--confirm", "WHOLE")
	b.equal(before)
	b.lose()
	b.want(fine, "-b", "restore", "-s", "WHOLE", "-r", "yes", "--confirm", "WHOLE")
	b.settled()
	numbers := map[string]int{}
	b.export(dir, numbers)
	t.Run("blows", func(t *testing.T) {
		b := small.bench(t)
		b.blows()
		b.export(dir, numbers)
	})
	t.Run("reindex", func(t *testing.T) {
		b := (&shared{components: []string{"elasticsearch", "etcd", "secrets"}}).bench(t)
		b.check(b.Fill(ctx, 21, "small"))
		b.want(fine, "-b", "reindex")
		b.reindexKilled()
		b.export(dir, numbers)
	})
	for _, kind := range []string{"Backup-completed", "Backup-failed", "Restore-completed", "Restore-failed", "Restore-terminated",
		"ScheduledBackup-completed", "PlanRestore-completed", "HealthCheck-completed", "Verify-completed", "Resolve-completed", "Reindex-completed"} {
		if numbers[kind] == 0 {
			t.Errorf("no history of the kind %s was recorded: %v", kind, numbers)
		}
	}
	t.Logf("recorded in %s: %v", dir, numbers)
}

// blows plays what does not end by itself, and what a schedule starts.
func (b *bench) blows() {
	ctx := b.t.Context()
	before := b.fillLarge(21)
	b.backup("DEATHS", "-m", "yes")

	// Cancelled after writes: rolled back.
	b.check(b.Wreck(ctx, 9))
	r := b.start("-b", "restore", "-s", "DEATHS", "-o", "json")
	b.strike(r, "restore", inRestore)
	b.want([]int{0}, "cancel")
	b.check(b.Thaw(ctx, "worker"))
	b.expect(r.wait(), 1)
	b.settled()

	// Terminated after writes: held; then rolled back, accepted, tried again.
	for _, resolve := range []string{"rollback", "accept", "retry"} {
		if resolve == "retry" {
			b.check(b.Wreck(ctx, 9))
		}
		b.terminated(b.fingerprint(), before)
		b.want(fine, "resolve", resolve, "--confirm", "DEATHS")
		b.settled()
	}
	b.equal(before)

	// Cancelled before any write; and the worker dies in the copy of another.
	r = b.start("-b", "backup", "-s", "STOPPED", "-m", "yes", "-o", "json")
	b.strike(r, "pin", func(m moment) bool { return m.has("pin:secrets/installer-vm") })
	b.want([]int{0}, "cancel")
	b.check(b.Thaw(ctx, "worker"))
	b.expect(r.wait(), 1)
	b.flood()
	r = b.start("-b", "backup", "-s", "KILLED", "-m", "yes", "-o", "json")
	b.strike(r, "copy", inCopy)
	b.killWorker()
	b.expect(r.wait(), fine...)
	b.settled()

	// Scheduled: one that runs, one that finds another running.
	b.want([]int{0}, "schedule", "add", "NIGHTLY", "30 2 * * *", "--maintenance")
	b.want([]int{0}, "schedule", "run", "NIGHTLY")
	var list []struct{ Status string }
	b.eventually(time.Minute, "the scheduled backup is complete", func() bool {
		b.ask(fine, &list, "-b", "listbackups", "-s", "NIGHTLY")
		return len(list) == 1 && list[0].Status == "complete"
	})
	b.idle()
	door := b.closeDoor()
	r = b.start("-b", "backup", "-s", "BYHAND", "-m", "yes", "-o", "json")
	door.await()
	b.want([]int{0}, "schedule", "run", "NIGHTLY")
	b.eventually(time.Minute, "the scheduled run is skipped", func() bool { return b.schedules()[0].State.Skipped() > 0 })
	door.open()
	b.expect(r.wait(), fine...)
}

// export writes the history of every run, oldest first.
func (b *bench) export(dir string, numbers map[string]int) {
	b.t.Helper()
	ctx := b.t.Context()
	b.check(os.MkdirAll(dir, 0o755))
	host, err := os.Hostname()
	b.check(err)
	var page []byte
	for {
		list, err := b.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{NextPageToken: page})
		b.check(err)
		for _, e := range list.Executions {
			if strings.HasPrefix(e.Execution.WorkflowId, "temporal-sys-") {
				continue
			}
			h := &historypb.History{}
			it := b.client.GetWorkflowHistory(ctx, e.Execution.WorkflowId, e.Execution.RunId, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			for it.HasNext() {
				event, err := it.Next()
				b.check(err)
				h.Events = append(h.Events, event)
			}
			text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(h)
			b.check(err)
			// Only where the SDK writes the host's name: identities, sticky queues. A host may be called like anything.
			text = []byte(strings.NewReplacer("@"+host+"@", "@installer-vm@", `"`+host+":", `"installer-vm:`).Replace(string(text)))
			kind := e.Type.Name + "-" + strings.ToLower(e.Status.String())
			numbers[kind]++
			b.check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.json", kind, numbers[kind])), append(text, '\n'), 0o644))
		}
		if page = list.NextPageToken; len(page) == 0 {
			break
		}
	}
}
