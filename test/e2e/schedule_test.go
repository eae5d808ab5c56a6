package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/schedule"
)

// scheduled is an entry of `schedule list -o json`.
type scheduled struct {
	Name   string
	Cron   string
	Paused bool
	Next   []time.Time
	State  *schedule.State
}

func (b *bench) schedules() []scheduled {
	b.t.Helper()
	var out []scheduled
	b.ask(fine, &out, "schedule", "list")
	return out
}

// TestSchedules: files are the truth, also when Temporal is lost.
func TestSchedules(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 4, "small"))

	e := b.want([]int{0}, "-b", "scheduledbackup", "-s", "NIGHTLY", "-c", "30-2-*-*-*", "-m", "yes")
	if n := strings.Count(e.stdout, " 02:30 "); n != 5 {
		t.Errorf("%d next runs are printed, want 5:\n%s", n, e.stdout)
	}
	list := b.schedules()
	if len(list) != 1 || list[0].Name != "NIGHTLY" || len(list[0].Next) != 5 || list[0].State == nil {
		t.Fatalf("schedule list: %+v", list)
	}

	// A run out of turn makes a backup, in maintenance as the schedule says.
	b.want([]int{0}, "schedule", "run", "NIGHTLY")
	var backups []struct {
		Backup, Status, Trigger string
		Maintenance             struct{ Asked, Held bool }
	}
	b.eventually(60*time.Second, "the scheduled backup is complete", func() bool {
		b.ask(fine, &backups, "-b", "listbackups", "-s", "NIGHTLY")
		return len(backups) == 1 && backups[0].Status == "complete"
	})
	same(t, "trigger", "schedule", backups[0].Trigger)
	if !backups[0].Maintenance.Held {
		t.Errorf("maintenance of the scheduled backup: %+v", backups[0].Maintenance)
	}
	b.idle()
	b.settled()

	// While something else runs it is skipped, and says so.
	door := b.closeDoor()
	busy := b.start("-b", "backup", "-s", "BYHAND", "-m", "yes", "-o", "json")
	door.await()
	b.want([]int{0}, "schedule", "run", "NIGHTLY")
	var skipped string
	b.eventually(60*time.Second, "the scheduled run is skipped", func() bool {
		for _, p := range b.schedules()[0].State.Recent {
			if p.Outcome == "skipped" {
				skipped = p.Skipped
			}
		}
		return skipped != ""
	})
	if !strings.HasPrefix(skipped, "busy {backup, enter maintenance, ") {
		t.Errorf("skipped: %q", skipped)
	}
	door.open()
	b.expect(busy.wait(), fine...)
	b.settled()
	b.ask(fine, &backups, "-b", "listbackups", "-s", "NIGHTLY")
	same(t, "backups of the schedule", 1, len(backups))
	e = b.want(fine, "-b", "healthcheck")
	if !strings.Contains(strings.Join(strings.Fields(e.stdout), " "), "skipped because something else ran") {
		t.Errorf("healthcheck does not count the skipped run:\n%s", e.stdout)
	}

	// A pause outlives a lost Temporal.
	b.want([]int{0}, "schedule", "pause", "NIGHTLY", "--reason", "upgrade until Friday")
	for _, m := range []string{"worker", "temporald"} {
		b.check(b.Stop(ctx, m))
	}
	b.check(os.RemoveAll(b.path("state", "temporal")))
	for _, m := range []string{"temporald", "worker"} {
		b.check(b.StartMember(ctx, m))
	}
	handle := b.client.ScheduleClient().GetHandle(ctx, schedule.ID("NIGHTLY"))
	b.eventually(30*time.Second, "the worker has brought the schedule back", func() bool {
		d, err := handle.Describe(ctx)
		return err == nil && d.Schedule.State.Paused && strings.Contains(d.Schedule.State.Note, "upgrade until Friday")
	})
	list = b.schedules()
	if len(list) != 1 || !list[0].Paused {
		t.Errorf("after a lost Temporal: %+v", list)
	}
	epoch := b.journal().Claim.Epoch
	b.backup("AFTERLOSS", "-m", "yes")
	if now := b.journal().Claim.Epoch; now <= epoch {
		t.Errorf("epoch %d after %d: a new Temporal must not start anew", now, epoch)
	}

	b.want([]int{0}, "schedule", "resume", "NIGHTLY")
	b.want([]int{0}, "schedule", "delete", "NIGHTLY")
	if list := b.schedules(); len(list) != 0 {
		t.Errorf("after delete: %+v", list)
	}
	var all []struct{ Backup string }
	b.ask(fine, &all, "-b", "listbackups", "-s", "NIGHTLY")
	if !slices.ContainsFunc(all, func(e struct{ Backup string }) bool { return strings.HasPrefix(e.Backup, "NIGHTLY/") }) {
		t.Error("the backups went with their schedule")
	}
}
