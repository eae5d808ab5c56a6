package workflows

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func code(err error) problem.Code {
	if err == nil {
		return ""
	}
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return problem.Code(app.Type())
	}
	if cancelled(err) {
		return problem.Cancelled
	}
	return problem.Code("untyped: " + err.Error())
}

func TestBackup(t *testing.T) {
	for _, maintenance := range []bool{false, true} {
		w := newWorld()
		w.unpinnable = "secrets"
		res, err := w.play(t, Backup, BackupInput{Name: "MAR09", Maintenance: maintenance})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.sealed, []string{"MAR09/2026-01-02T03-04-05Z"}) || res.Backup != w.sealed[0] || len(res.Units) != 4 {
			t.Errorf("sealed %v, result %+v", w.sealed, res)
		}
		if w.entered != maintenance || w.maintenance || w.outcome != "sealed" || w.held != "" {
			t.Errorf("maintenance entered %v, still on %v, outcome %q, held %q", w.entered, w.maintenance, w.outcome, w.held)
		}
		if maintenance && w.gap {
			t.Error("a unit without a pin was copied outside of maintenance")
		}
		if maintenance && slices.Index(w.calls, "ExitMaintenance") > slices.Index(w.calls, "VerifyStored") {
			t.Error("maintenance lasted until the verification")
		}
	}
}

func TestBackup_maintenanceWithoutSwitch(t *testing.T) {
	w := newWorld()
	w.noSwitch = true
	res, err := w.play(t, Backup, BackupInput{Name: "MAR09", Maintenance: true})
	if err != nil || res.Consistent || len(res.Warnings) == 0 {
		t.Errorf("error %v, consistent %v, warnings %v: nothing stopped the writers", err, res.Consistent, res.Warnings)
	}
}

// TestBackup_phaseFails breaks each step of a backup: nothing is sealed,
// maintenance is left, the journal closed, the incomplete backup removed.
func TestBackup_phaseFails(t *testing.T) {
	for _, step := range []string{"Survey", "Ping", "Fence", "Quiet", "Health", "EnterMaintenance", "PreHook", "Pin", "Copy", "PostHook", "VerifyStored", "Seal"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld()
			w.failing[step] = 1
			_, err := w.play(t, Backup, BackupInput{Name: "MAR09", Maintenance: true})
			if err == nil || len(w.sealed) > 0 {
				t.Fatalf("error %v, sealed %v: a broken %s must fail the backup", err, w.sealed, step)
			}
			if w.maintenance || w.held != "" {
				t.Errorf("maintenance on %v, held %q", w.maintenance, w.held)
			}
			if w.claims > 0 && step != "Fence" && (w.outcome != "failed" || w.discarded != "MAR09/2026-01-02T03-04-05Z") {
				t.Errorf("outcome %q, removed %q", w.outcome, w.discarded)
			}
			if slices.Contains(w.calls, "PreHook") && !slices.Contains(w.calls, "PostHook") && step != "PreHook" {
				t.Error("what the pre-hooks did was not undone")
			}
		})
	}
}

func TestBackup_maintenanceCannotBeLeft(t *testing.T) {
	w := newWorld()
	w.failing["ExitMaintenance"] = -1
	_, err := w.play(t, Backup, BackupInput{Name: "MAR09", Maintenance: true})
	if code(err) != problem.Held || w.held == "" || !strings.Contains(err.Error(), "stays in maintenance") {
		t.Errorf("error %v, held %q: want a loud hold", err, w.held)
	}
}

// TestBackup_vmLost: a VM whose worker falls silent ends the run, whatever its units do.
func TestBackup_vmLost(t *testing.T) {
	w := newWorld()
	w.failing["WatchVMs"], w.code = 1, problem.Unreachable
	w.stall = "Copy"
	_, err := w.play(t, Backup, BackupInput{Name: "MAR09", Maintenance: true})
	if code(err) != problem.Unreachable || w.maintenance || len(w.sealed) > 0 || w.outcome != "failed" {
		t.Errorf("error %v, maintenance %v, sealed %v, outcome %q", err, w.maintenance, w.sealed, w.outcome)
	}
}

func TestBackup_pinLost(t *testing.T) {
	w := newWorld()
	w.failing["Copy"], w.code = 1, pinLost
	res, err := w.play(t, Backup, BackupInput{Name: "MAR09"})
	if err != nil || len(w.sealed) != 1 {
		t.Fatalf("error %v, sealed %v", err, w.sealed)
	}
	var pins int
	for _, c := range w.calls {
		if c == "Pin" {
			pins++
		}
	}
	if pins != 2*len(w.units) || len(res.Warnings) == 0 {
		t.Errorf("%d pins taken, warnings %v: a lost pin means that all units are pinned again", pins, res.Warnings)
	}
}

func TestBackup_cancelled(t *testing.T) {
	w := newWorld()
	_, err := w.play(t, Backup, BackupInput{Name: "MAR09", Maintenance: true}, func(env *testsuite.TestWorkflowEnvironment) {
		env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
			if info.ActivityType.Name == "Pin" {
				env.CancelWorkflow()
			}
		})
	})
	if code(err) != problem.Cancelled || w.maintenance || w.outcome != "cancelled" || len(w.sealed) > 0 {
		t.Errorf("error %v, maintenance %v, outcome %q, sealed %v", err, w.maintenance, w.outcome, w.sealed)
	}
}

func TestScheduledBackup(t *testing.T) {
	w := newWorld()
	if res, err := w.play(t, ScheduledBackup, BackupInput{Name: "DAILY"}); err != nil || len(w.sealed) != 1 || res.Skipped != "" {
		t.Errorf("error %v, sealed %v, result %+v", err, w.sealed, res)
	}
	w = newWorld()
	w.failing["Seal"] = 1
	if _, err := w.play(t, ScheduledBackup, BackupInput{Name: "DAILY"}); err == nil {
		t.Error("the child's failure is the schedule's failure")
	}
}

func TestRestore(t *testing.T) {
	w := newWorld()
	const ref = "MAR09/2026-01-01T00-00-00Z"
	res, err := w.play(t, Restore, RestoreInput{Backup: ref})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range w.units {
		if w.content[u.String()] != ref {
			t.Errorf("%s holds %q", u, w.content[u.String()])
		}
	}
	if w.maintenance || w.outcome != "restored" || len(w.begun) > 0 || !strings.HasPrefix(res.Safety, "_safety/") || !slices.Contains(w.sealed, res.Safety) {
		t.Errorf("maintenance %v, outcome %q, begun %v, safety %q, sealed %v", w.maintenance, w.outcome, w.begun, res.Safety, w.sealed)
	}
	for _, u := range res.Units {
		if u.Digest != "equal" {
			t.Errorf("%s: digest %q", u.Unit, u.Digest)
		}
	}
	order := slices.DeleteFunc(slices.Clone(w.calls), func(c string) bool {
		return !slices.Contains([]string{"VerifyStored", "Fence", "EnterMaintenance", "Seal", "RestoreUnit", "SwitchAccounts", "ExitMaintenance"}, c)
	})
	if order[0] != "VerifyStored" || order[1] != "Fence" || order[2] != "EnterMaintenance" || order[len(order)-1] != "ExitMaintenance" {
		t.Errorf("order %v: verified first, maintenance around everything", order)
	}
	w.hooksUndone(t, len(w.units))
}

// hooksUndone: whatever pre-hooks did is undone, for so many units, after the last proof.
func (w *world) hooksUndone(t *testing.T, units int) {
	t.Helper()
	end := slices.DeleteFunc(slices.Clone(w.calls), func(c string) bool { return c != "CompareUnit" && c != "CompareRollback" && c != "PostHook" })
	if n := len(end) - units; n < 1 || end[n-1] == "PostHook" || slices.ContainsFunc(end[n:], func(c string) bool { return c != "PostHook" }) {
		t.Errorf("order %v: want the post-hooks of %d units after the last proof", end, units)
	}
}

// More members of one instance than a VM has slots: each waits for the others, as those of a Cassandra ring do.
func TestRestore_membersWaitForEachOther(t *testing.T) {
	w := newWorld()
	for _, m := range []string{"one", "two", "three"} {
		u := Unit{Component: "cassandra", Instance: "central", Member: m, VM: "vm1"}
		w.units = append(w.units, u)
		w.content[u.String()] = "live"
	}
	w.meet = &sync.WaitGroup{}
	w.meet.Add(3)
	if _, err := w.play(t, Restore, RestoreInput{Backup: "MAR09"}); err != nil {
		t.Fatal(err)
	}
}

// TestRestore_phaseFails breaks each step: before the first write nothing has
// changed, after it what was there is put back and proven.
func TestRestore_phaseFails(t *testing.T) {
	const ref = "MAR09/2026-01-01T00-00-00Z"
	for step, written := range map[string]bool{
		"Survey": false, "OpenBackup": false, "VerifyStored": false, "Ping": false, "PlanUnit": false, "Fence": false, "Quiet": false,
		"EnterMaintenance": false, "Health": false, "Pin": false, "Copy": false, "Seal": false,
		"RestoreUnit": true, "CompareUnit": true, "SwitchAccounts": true,
	} {
		t.Run(step, func(t *testing.T) {
			w := newWorld()
			w.failing[step] = 1
			if step == "CompareUnit" {
				w.failing[step] = -1 // one that differs is read and restored again
			}
			_, err := w.play(t, Restore, RestoreInput{Backup: ref})
			if err == nil {
				t.Fatal("no error")
			}
			if w.maintenance || w.held != "" || len(w.begun) > 0 {
				t.Errorf("maintenance %v, held %q, still half written %v", w.maintenance, w.held, w.begun)
			}
			for u, c := range w.content {
				if c == ref || c == "half" || (!written && c != "live") {
					t.Errorf("%s holds %q after a failed restore", u, c)
				}
			}
			if written && w.outcome != "rolled back" {
				t.Errorf("outcome %q", w.outcome)
			}
			if written && step == "SwitchAccounts" {
				w.hooksUndone(t, len(w.units)-1) // accounts are switched before the last unit is begun
			}
		})
	}
}

// A restore learns from its own safety backup what the live data is; when
// that was overtaken by a write, it reads again, once; rollbacks always read.
func TestRestore_freshSafety(t *testing.T) {
	w := newWorld()
	w.failing["CompareUnit"] = 1
	const ref = "MAR09/2026-01-01T00-00-00Z"
	res, err := w.play(t, Restore, RestoreInput{Backup: ref})
	if err != nil {
		t.Fatal(err)
	}
	told, again := 0, 0
	for _, in := range w.written {
		switch in.Safety {
		case res.Safety:
			told++
		case "":
			again++
		default:
			t.Errorf("%s was told of %q", in.Unit, in.Safety)
		}
	}
	if told != len(w.units) || again != 1 {
		t.Errorf("%d units knew the safety backup and %d were read again, want %d and 1", told, again, len(w.units))
	}
	for _, in := range w.compared {
		if in.Proven && (in.DataOnly || component(in.Unit).Last) {
			t.Errorf("%s is taken as proven before it was", in.Unit)
		}
	}
	w = newWorld()
	w.failing["SwitchAccounts"] = 1
	if _, err := w.play(t, Restore, RestoreInput{Backup: ref}); err == nil {
		t.Fatal("no error")
	}
	for _, in := range w.written {
		if in.Operation == plugins.OpRollback && in.Safety != "" {
			t.Error("a rollback trusted a safety backup instead of reading")
		}
	}
	for _, in := range w.compared {
		if in.Operation == plugins.OpRollback && in.Proven {
			t.Error("a rollback took as proven what the restore had proven")
		}
	}
}

// What is restored and proven is not undone because a server was away for a moment.
func TestRestore_secondLook(t *testing.T) {
	const ref = "MAR09/2026-01-01T00-00-00Z"
	for _, c := range []struct {
		sick    int
		outcome string
	}{{0, "restored"}, {3, "restored"}, {-1, "rolled back"}} {
		w := newWorld()
		w.lateSick = c.sick
		res, err := w.play(t, Restore, RestoreInput{Backup: ref})
		if (err == nil) != (c.outcome == "restored") || w.outcome != c.outcome || w.maintenance || len(res.Warnings) > 0 {
			t.Errorf("RED %d times: %v, outcome %q, maintenance %v, warnings %q; want it %s", c.sick, err, w.outcome, w.maintenance, res.Warnings, c.outcome)
		}
	}
}

// A rollback does not claim that what its safety backup could not take is back.
func TestRestore_gaps(t *testing.T) {
	w := newWorld()
	w.unreadable = "not in this safety backup: torture.e_mrg"
	w.failing["SwitchAccounts"] = 1
	_, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/2026-01-01T00-00-00Z"})
	if err == nil || w.outcome != "rolled back" || !strings.Contains(Problem(err).Message, w.unreadable) {
		t.Errorf("%v, outcome %q: want a rollback that names what is missing", err, w.outcome)
	}
}

func TestRestore_rollbackFailsToo(t *testing.T) {
	w := newWorld()
	w.failing["SwitchAccounts"], w.failing["Rollback"] = 1, -1
	_, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/2026-01-01T00-00-00Z"})
	if code(err) != problem.Held || !w.maintenance || w.held == "" {
		t.Errorf("error %v, maintenance %v, held %q: want exit 15 and maintenance on", err, w.maintenance, w.held)
	}
}

func TestRestore_othersWrite(t *testing.T) {
	w := newWorld()
	w.foreign = 2
	if _, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/2026-01-01T00-00-00Z"}); err != nil {
		t.Fatal(err)
	}
	w = newWorld()
	w.foreign = 1000
	res, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/2026-01-01T00-00-00Z"})
	if err != nil || len(res.Warnings) == 0 {
		t.Errorf("error %v, warnings %v: others who never stop are named, not fought for ever", err, res.Warnings)
	}
}

func TestRestore_partial(t *testing.T) {
	w := newWorld()
	const ref = "MAR09/2026-01-01T00-00-00Z"
	if _, err := w.play(t, Restore, RestoreInput{Backup: ref, Components: []string{"etcd"}}); err != nil {
		t.Fatal(err)
	}
	for u, c := range w.content {
		if (u == "etcd") != (c == ref) {
			t.Errorf("%s holds %q", u, c)
		}
	}
}

func TestRestore_disaster(t *testing.T) {
	w := newWorld()
	const ref = "MAR09/2026-01-01T00-00-00Z"
	if _, err := w.play(t, Restore, RestoreInput{Backup: ref, Disaster: true}); err != nil {
		t.Fatal(err)
	}
	if len(w.sealed) > 0 || slices.Contains(w.calls, "RestoreUnit") || !slices.Contains(w.calls, "Bootstrap") {
		t.Errorf("sealed %v, calls %v: disaster recovery bootstraps and takes no safety backup", w.sealed, w.calls)
	}
	for _, want := range []string{"etcd a", "etcd b", "secrets/vm2 vm2"} {
		if !slices.Contains(w.built, want) {
			t.Errorf("built %q: %s is missing, every member is built anew", w.built, want)
		}
	}
	w = newWorld()
	w.failing["Bootstrap"] = 1
	if _, err := w.play(t, Restore, RestoreInput{Backup: ref, Disaster: true}); code(err) != problem.Held {
		t.Errorf("error %v: a failed disaster recovery has nothing to put back and holds", err)
	}
}

func TestResolve(t *testing.T) {
	held := FenceResult{Held: true, Written: []string{"etcd", "mariadb"}, Safety: "_safety/S", Source: "MAR09/T", Targets: []string{"zookeeper", "etcd", "mariadb"}}
	for action, want := range map[string]string{ResolveRetry: "MAR09/T", ResolveRollback: "_safety/S", ResolveAccept: "live"} {
		w := newWorld()
		w.adopt, w.begun, w.maintenance = held, slices.Clone(held.Written), true
		if _, err := w.play(t, Resolve, ResolveInput{Action: action, Confirm: "MAR09"}); err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		if w.maintenance || w.content["etcd"] != want || w.content["secrets/vm2"] != "live" || w.held != "" || len(w.begun) > 0 {
			t.Errorf("%s: maintenance %v, etcd %q, held %q, begun %v", action, w.maintenance, w.content["etcd"], w.held, w.begun)
		}
		w = newWorld()
		w.adopt, w.begun, w.maintenance = held, slices.Clone(held.Written), true
		w.failing["Survey"] = 0
		w.failing["RestoreUnit"], w.failing["Rollback"], w.failing["EnterMaintenance"] = -1, -1, -1
		if _, err := w.play(t, Resolve, ResolveInput{Action: action, Confirm: "MAR09"}); code(err) != problem.Held || !w.maintenance {
			t.Errorf("%s that fails: %v, maintenance %v: the hold must stay", action, err, w.maintenance)
		}
	}
}

func TestRestore_adoptsHold(t *testing.T) {
	w := newWorld()
	w.adopt = FenceResult{Held: true, Written: []string{"etcd"}, Safety: "_safety/S", Source: "OLD/T"}
	w.begun, w.maintenance = []string{"etcd"}, true
	if _, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/T", Components: []string{"mariadb"}}); code(err) != problem.Held {
		t.Errorf("error %v: a restore that leaves half-written units out must not end the hold", err)
	}
	if _, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/T"}); err != nil || w.maintenance || len(w.sealed) > 0 {
		t.Errorf("error %v, maintenance %v, sealed %v: an adopted hold takes no safety backup of half-written data", err, w.maintenance, w.sealed)
	}
}

func TestRestore_cancelledWhileWriting(t *testing.T) {
	w := newWorld()
	_, err := w.play(t, Restore, RestoreInput{Backup: "MAR09/2026-01-01T00-00-00Z"}, func(env *testsuite.TestWorkflowEnvironment) {
		env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
			if info.ActivityType.Name == "SwitchAccounts" {
				env.CancelWorkflow()
			}
		})
	})
	if code(err) != problem.Cancelled || w.maintenance || w.outcome != "rolled back" {
		t.Errorf("error %v, maintenance %v, outcome %q", err, w.maintenance, w.outcome)
	}
}

func TestSelects(t *testing.T) {
	east := Unit{Component: "etcd", Instance: "east", Member: ClusterMember, VM: "vm1"}
	for name, want := range map[string]bool{"etcd": true, "etcd@east": true, "etcd@central": false, "mariadb": false} {
		if Selects(name, east) != want {
			t.Errorf("Selects(%q) = %v", name, !want)
		}
	}
}
