package schedule

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/dial"
	"github.com/csobackup/cso_backupnrestore/test/embedded"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

func connect(t *testing.T, s *embedded.Server, role string) client.Client {
	t.Helper()
	t.Setenv("CSO_BACKUP_TEMPORAL", s.Address)
	c, _, err := dial.Client(filepath.Join(s.State, "pki"), role, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// One server, one test: each step goes on from the state of the one before.
func TestReconcile_onARealServer(t *testing.T) {
	s := embedded.Start(t, t.TempDir())
	c := connect(t, s, dial.Operator)
	ctx := t.Context()
	dir := t.TempDir()
	zone := load(t, "America/Los_Angeles")
	save := func(e Entry) {
		t.Helper()
		if err := Save(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(step string, want Changes) {
		t.Helper()
		// Temporal's list of schedules is eventually consistent: deletion may need a second look.
		var got Changes
		for range 20 {
			g, err := Reconcile(ctx, c, dir, zone)
			if err != nil {
				t.Fatalf("%s: %v", step, err)
			}
			got.Created, got.Updated, got.Deleted = append(got.Created, g.Created...), append(got.Updated, g.Updated...), append(got.Deleted, g.Deleted...)
			got.Unchanged = g.Unchanged
			if len(got.Deleted) >= len(want.Deleted) {
				break
			}
			time.Sleep(250 * time.Millisecond)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s: %s", step, d)
		}
	}
	daily := Entry{Name: "DAILY", Cron: "30-2-*-*-*", Maintenance: true}
	weekly := Entry{Name: "WEEKLY", Cron: "0-13-1-*-0"}
	save(daily)
	save(weekly)
	// Somebody else's schedule is not ours to touch.
	foreign, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{ID: "theirs", Spec: client.ScheduleSpec{CronExpressions: []string{"0 0 1 1 *"}},
		Action: &client.ScheduleWorkflowAction{ID: "theirs", Workflow: "Theirs", TaskQueue: workflows.ControlQueue}})
	if err != nil {
		t.Fatal(err)
	}
	expect("first", Changes{Created: []string{"DAILY", "WEEKLY"}})
	expect("again", Changes{Unchanged: []string{"DAILY", "WEEKLY"}})

	st, err := Inspect(ctx, c, "WEEKLY")
	if err != nil {
		t.Fatal(err)
	}
	cron, err := Parse(weekly.Cron)
	if err != nil {
		t.Fatal(err)
	}
	var server, own []string
	for i, n := range cron.NextN(time.Now().In(zone), 5) {
		own = append(own, n.Format(time.RFC3339))
		if i < len(st.Next) {
			server = append(server, st.Next[i].In(zone).Format(time.RFC3339))
		}
	}
	if d := cmp.Diff(own, server); d != "" {
		t.Errorf("next runs, own against the server's: %s", d)
	}

	daily.Paused, daily.Note = true, "paused by a test"
	save(daily)
	expect("pause", Changes{Updated: []string{"DAILY"}, Unchanged: []string{"WEEKLY"}})
	d, err := c.ScheduleClient().GetHandle(ctx, ID("DAILY")).Describe(ctx)
	if err != nil || !d.Schedule.State.Paused || d.Schedule.State.Note != daily.Note {
		t.Fatalf("paused: %+v, %v", d.Schedule.State, err)
	}
	// The files are the truth: what was changed in Temporal alone is changed back.
	if err := c.ScheduleClient().GetHandle(ctx, ID("DAILY")).Unpause(ctx, client.ScheduleUnpauseOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("unpaused behind our back", Changes{Updated: []string{"DAILY"}, Unchanged: []string{"WEEKLY"}})

	// A file that cannot be read costs nothing: its schedule stays as it is.
	if err := os.WriteFile(filepath.Join(dir, "WEEKLY.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Reconcile(ctx, c, dir, zone); err == nil || len(got.Deleted) != 0 {
		t.Fatalf("a broken file: %+v, %v", got, err)
	}
	if err := Remove(dir, "WEEKLY"); err != nil {
		t.Fatal(err)
	}
	expect("delete", Changes{Deleted: []string{"WEEKLY"}, Unchanged: []string{"DAILY"}})
	if _, err := foreign.Describe(ctx); err != nil {
		t.Errorf("the foreign schedule: %v", err)
	}

	// Another zone is another schedule.
	zone = time.UTC
	expect("zone", Changes{Updated: []string{"DAILY"}})

	// A server that lost everything gets all back.
	s.Stop()
	s2 := embedded.Start(t, t.TempDir())
	c = connect(t, s2, dial.Operator)
	expect("new server", Changes{Created: []string{"DAILY"}})
	testRuns(t, s2, c)
}

// testRuns triggers the schedule twice on a worker whose backup finds the estate busy.
func testRuns(t *testing.T, s *embedded.Server, c client.Client) {
	w := worker.New(connect(t, s, dial.Control), workflows.ControlQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(_ workflow.Context, in workflows.BackupInput) (workflows.Result, error) {
		if in.Name != "DAILY" || !in.Maintenance || in.Trigger != "schedule" {
			t.Errorf("started with %+v", in)
		}
		return workflows.Result{Skipped: "busy {restore MAR09, copy, 5m}"}, nil
	}, workflow.RegisterOptions{Name: workflows.ScheduledType})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	ctx := t.Context()
	if err := c.ScheduleClient().GetHandle(ctx, ID("DAILY")).Trigger(ctx, client.ScheduleTriggerOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		st, err := Inspect(ctx, c, "DAILY")
		if err != nil {
			t.Fatal(err)
		}
		if st.Skipped() == 1 {
			if p := st.Recent[0]; p.Outcome != "skipped" || p.Skipped != "busy {restore MAR09, copy, 5m}" {
				t.Errorf("recent: %+v", p)
			}
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Error("the triggered run was never seen as skipped")
}
