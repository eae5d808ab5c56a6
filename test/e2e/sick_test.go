package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// sick gives the reasons of a unit that is not GREEN.
func (b *bench) sick(unit string) (grade, reasons string) {
	b.t.Helper()
	var h workflows.HealthResult
	b.ask([]int{0, problem.Warnings.Exit(), problem.Unhealthy.Exit()}, &h, "-b", "healthcheck")
	for _, u := range h.Units {
		if u.Unit == unit {
			return u.Grade, strings.Join(u.Reasons, "; ")
		}
	}
	b.t.Fatalf("no unit %s in %+v", unit, h.Units)
	return "", ""
}

// TestSick: a component is damaged and alive. Nothing is overwritten without
// the operator's word, and with it the restore mends.
func TestSick(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 51, "small"))
	b.lasting()
	b.sql("CREATE TABLE torture.sick (id INT PRIMARY KEY, v VARCHAR(50)) ENGINE=MyISAM; INSERT INTO torture.sick VALUES (1,'one'),(2,'two')")
	before := b.fingerprint()
	b.backup("WELL", "-m", "yes")

	t.Run("a crashed table", func(t *testing.T) {
		b := b.of(t)
		b.sql("FLUSH TABLES")
		files, err := filepath.Glob(b.path("mariadb-1", "data", "torture", "sick.MY[ID]"))
		b.check(err)
		if len(files) != 2 {
			t.Fatalf("the table has files %v", files)
		}
		for _, f := range files {
			b.check(os.Truncate(f, 3))
		}
		if grade, why := b.sick("mariadb"); grade != "RED" || !strings.Contains(why, "torture.sick") {
			t.Errorf("health of a server with a crashed table: %s, %q", grade, why)
		}
		d := b.ask([]int{problem.Unhealthy.Exit()}, nil, "-b", "backup", "-s", "NOTWELL", "-m", "yes")
		if d.Error == nil || !strings.Contains(d.Error.Message, "sick") {
			t.Errorf("backup: %+v", d.Error)
		}
		b.settled()
		b.ask([]int{problem.Unhealthy.Exit()}, nil, "-b", "restore", "-s", "WELL")
		b.settled()
		var plan workflows.RestorePlan
		b.ask([]int{0, 3}, &plan, "-b", "restore", "-s", "WELL", "--plan")
		if !strings.Contains(strings.Join(append(plan.Warnings, plan.Inexact...), "\n"), "safety backup") {
			t.Errorf("the plan does not say what cannot be saved: %+v", plan)
		}
		b.restored("-s", "WELL", "--confirm", "WELL")
		b.equal(before)
		if grade, why := b.sick("mariadb"); grade == "RED" {
			t.Errorf("after the restore: %s, %q", grade, why)
		}
	})

	t.Run("etcd without space", func(t *testing.T) {
		b := b.of(t)
		b.alarm(true)
		defer b.alarm(false)
		if grade, why := b.sick("etcd"); grade != "RED" || !strings.Contains(why, "NOSPACE") {
			t.Errorf("health: %s, %q", grade, why)
		}
		// The switch lies in this very etcd: maintenance cannot be entered, and is as it was.
		for _, args := range [][]string{
			{"-b", "backup", "-s", "NOSPACE", "-m", "yes"}, {"-b", "backup", "-s", "NOSPACE"},
			{"-b", "restore", "-s", "WELL"}, {"-b", "restore", "-s", "WELL", "--confirm", "WELL"},
		} {
			d := b.ask([]int{problem.Failed.Exit(), problem.Unhealthy.Exit()}, nil, args...)
			if d.Error == nil || !strings.Contains(strings.ToUpper(d.Error.Message), "SPACE") || d.Error.Hint == "" {
				t.Errorf("%v: %+v", args, d.Error)
			}
			b.settled()
		}
		b.equal(before)
		b.alarm(false)
		b.backup("SPACE", "-m", "yes")
		b.equal(before)
	})
}

// TestMemberDown: a cluster with a dead member is AMBER, and works.
func TestMemberDown(t *testing.T) {
	b := trio.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 61, "small"))
	before := b.fingerprint()
	b.check(b.Kill(ctx, "zookeeper-3"))
	b.eventually(30*time.Second, "the other members have elected a leader, and the dead one is told", func() bool {
		grade, why := b.sick("zookeeper")
		return grade == "AMBER" && strings.Contains(why, "zookeeper-3")
	})
	e := b.want([]int{problem.Warnings.Exit()}, "-b", "backup", "-s", "TWO", "-m", "yes")
	if !strings.Contains(e.stdout+e.stderr, "zookeeper-3") {
		t.Errorf("the backup does not tell of the dead member:\n%s%s", e.stdout, e.stderr)
	}
	b.settled()
	b.check(b.StartMember(ctx, "zookeeper-3"))
	b.check(b.Wreck(ctx, 61))
	b.check(b.Kill(ctx, "zookeeper-1"))
	b.eventually(30*time.Second, "the other members have elected a leader", func() bool { grade, _ := b.sick("zookeeper"); return grade == "AMBER" })
	b.restored("-s", "TWO")
	b.check(b.StartMember(ctx, "zookeeper-1"))
	b.equal(before) // all three members: the oracle compares them
}

// TestPriorMaintenance: an estate that was in maintenance before stays in it,
// whatever runs and whatever dies.
func TestPriorMaintenance(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 71, "small"))
	b.etcdctl("put", "/lb/maintenance", "true")
	before := b.fingerprint()
	b.prior = "true"
	defer b.etcdctl("put", "/lb/maintenance", "false")
	since := b.switchValues()
	b.backup("CLOSED", "-m", "yes")
	b.backup("CLOSED")
	b.check(b.Wreck(ctx, 71))
	r, _, w := b.stand("restore", "write", "-b", "restore", "-s", "CLOSED", "--confirm", "CLOSED", "-o", "json")
	b.check(b.Kill(ctx, control))
	w.thaw()
	b.check(b.StartMember(ctx, control))
	b.expect(r.wait(), fine...)
	b.settled()
	r, _, w = b.stand("backup", "pin", "-b", "backup", "-s", "CLOSED", "-m", "yes", "-o", "json")
	b.want([]int{0}, "cancel")
	w.thaw()
	b.expect(r.wait(), problem.Cancelled.Exit())
	b.settled()
	if seen := since(); slices.ContainsFunc(seen, func(v string) bool { return v != "true" }) {
		t.Errorf("the switch was %q meanwhile", seen)
	}
	b.equal(before)
}
