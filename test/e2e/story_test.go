package e2e

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/test/lab/mariadb"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// TestStory is the main job on every component and two instances of one:
// back up, wreck, restore, and the oracle finds the estate as it was.
func TestStory(t *testing.T) {
	b := whole.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 9, "small"))

	// A backup beside a writer: consistent in itself, proven below.
	busy := b.besideWriter(func() string { return b.backup("BUSY") })

	before := b.fingerprint()
	if len(before.sums) != len(whole.components) {
		t.Fatalf("the oracle judges %d instances of %d", len(before.sums), len(whole.components))
	}
	ref := b.backup("MAR09", "-m", "yes")
	b.equal(before) // a backup changes nothing
	t.Run("second backup stores next to nothing", func(t *testing.T) {
		b := b.of(t)
		var r workflows.Result
		b.ask(fine, &r, "-b", "backup", "-s", "AGAIN")
		b.settled()
		for _, u := range r.Units {
			// Not the etcd that holds the switch: every run writes it, and so changes the snapshot for disaster recovery.
			if u.Unit != "etcd" && u.New > u.Stored/50 {
				t.Errorf("%s: %d of %d bytes are new in a second backup of unchanged data", u.Unit, u.New, u.Stored)
			}
		}
	})

	b.check(b.Wreck(ctx, 9))
	wrecked := b.fingerprint()
	for name, sum := range before.sums {
		if wrecked.sums[name] == sum {
			t.Fatalf("%s was not wrecked: the comparison would prove nothing", name)
		}
	}

	t.Run("plan touches nothing", func(t *testing.T) {
		b := b.of(t)
		var plan workflows.RestorePlan
		b.ask([]int{0}, &plan, "-b", "restore", "-s", "MAR09", "--plan")
		if plan.Backup != ref || len(plan.Units) != len(whole.components) || len(plan.Refusals) > 0 || plan.Forever {
			t.Errorf("plan: %+v", plan)
		}
		for _, u := range plan.Units {
			if u.Change+u.Add+u.Remove == 0 {
				t.Errorf("the plan for %s finds nothing to do on a wrecked estate", u.Unit)
			}
		}
		b.settled()
		b.equal(wrecked)
	})

	t.Run("restore", func(t *testing.T) {
		b := b.of(t)
		r := b.restored("-s", "MAR09")
		same(t, "backup", ref, r.Backup)
		if !strings.HasPrefix(r.Safety, "_safety/") {
			t.Errorf("no safety backup of what was overwritten: %+v", r)
		}
		b.equal(before)
		b.healthy()
	})

	t.Run("second restore changes nothing and says so", func(t *testing.T) {
		b := b.of(t)
		r := b.restored("-s", "MAR09")
		for _, u := range r.Units {
			if u.Artifacts != 0 || u.Removed != 0 {
				t.Errorf("%s: %d artifacts changed, %d removed by a second restore", u.Unit, u.Artifacts, u.Removed)
			}
		}
		b.equal(before)
	})

	t.Run("one component", func(t *testing.T) {
		b := b.of(t)
		b.check(b.Wreck(ctx, 10))
		wrecked := b.fingerprint()
		e := b.want(fine, "-b", "restore", "-s", "MAR09", "-t", "etcd@east")
		if !strings.Contains(e.stdout, "drift") {
			t.Errorf("a partial restore does not warn of drift:\n%s", e.stdout)
		}
		b.settled()
		got := b.fingerprint()
		for name := range before.sums {
			want := wrecked.sums[name]
			if name == "etcd@east" {
				want = before.sums[name]
			}
			if got.sums[name] != want {
				t.Errorf("%s is not as it must be after a restore of etcd@east alone", name)
			}
		}
		var r workflows.Result
		b.ask(fine, &r, "-b", "restore", "-s", "MAR09", "-t", "etcd")
		if r.Drift == "" || len(r.Units) != 2 {
			t.Errorf("restore of both instances of etcd: drift %q, %d units", r.Drift, len(r.Units))
		}
		b.settled()
		got = b.fingerprint()
		for name := range before.sums {
			if want := before.sums[name]; strings.HasPrefix(name, "etcd") && got.sums[name] != want {
				t.Errorf("%s is not restored", name)
			} else if !strings.HasPrefix(name, "etcd") && got.sums[name] != wrecked.sums[name] {
				t.Errorf("%s was touched by a restore of etcd", name)
			}
		}
	})

	t.Run("backup taken beside a writer", func(t *testing.T) {
		b := b.of(t)
		b.restored("-s", busy, "--confirm", "BUSY") // the wrecked server is sick: that is what is to be mended
		same(t, "sum of the ledger", int64(mariadb.LedgerTotal), b.ledger())
		first := b.fingerprint()
		b.check(b.Wreck(ctx, 11))
		b.restored("-s", busy, "--confirm", "BUSY")
		b.equal(first)
	})
}

// of is the same lab in the hands of a subtest.
func (b *bench) of(t *testing.T) *bench { c := *b; c.t = t; return &c }

// restored restores, and checks what every result owes.
func (b *bench) restored(args ...string) workflows.Result {
	b.t.Helper()
	var r workflows.Result
	d := b.ask(fine, &r, append([]string{"-b", "restore"}, args...)...)
	for _, u := range r.Units {
		if u.Digest != "equal" {
			b.t.Errorf("%s: digest %q", u.Unit, u.Digest)
		}
	}
	if d.Command != "restore" || len(r.Units) == 0 {
		b.t.Errorf("result: %+v", d)
	}
	b.settled()
	return r
}

// healthy fails when a unit is sick.
func (b *bench) healthy() {
	b.t.Helper()
	var h workflows.HealthResult
	b.ask(fine, &h, "-b", "healthcheck")
	for _, u := range h.Units {
		if u.Grade != "GREEN" {
			b.t.Errorf("%s is %s: %v", u.Unit, u.Grade, u.Reasons)
		}
	}
}

// ledger is the sum over a table that a writer kept constant.
func (b *bench) ledger() int64 {
	b.t.Helper()
	members, err := b.Members("mariadb", "")
	b.check(err)
	n, err := mariadb.LedgerSum(b.t.Context(), members)
	b.check(err)
	return n
}

// besideWriter does something while a writer moves money in a ledger.
func (b *bench) besideWriter(do func() string) string {
	b.t.Helper()
	members, err := b.Members("mariadb", "")
	b.check(err)
	ctx, stop := context.WithCancel(b.t.Context())
	defer stop()
	done := make(chan mariadb.Counts, 1)
	go func() {
		n, err := mariadb.Writer(ctx, members)
		if err != nil {
			b.t.Error(err)
		}
		done <- n
	}()
	out := do()
	stop()
	n := <-done
	if n.Transfers < 100 {
		b.t.Errorf("the writer moved money %d times only: the backup was not beside it", n.Transfers)
	}
	b.t.Logf("beside the backup: %d transfers, %d failed, slowest %s", n.Transfers, n.Failed, n.Slowest)
	return out
}

// TestJSON holds the shapes that scripts rely on.
func TestJSON(t *testing.T) {
	b := small.bench(t)
	b.check(b.Fill(t.Context(), 1, "small"))
	ref := b.backup("SHAPES")
	var list []struct {
		Backup  string
		Status  string
		Totals  struct{ Units int }
		Time    string
		Seal    string
		Problem []string
	}
	d := b.ask([]int{0}, &list, "-b", "listbackups", "-s", "SHAPES")
	same(t, "list", []any{"listbackups", "OK", 1}, []any{d.Command, d.Verdict, len(list)})
	same(t, "entry", []any{ref, "complete", len(small.components)}, []any{list[0].Backup, list[0].Status, list[0].Totals.Units})
	d = b.ask([]int{0}, nil, "-b", "backupdetails", "-s", "SHAPES")
	if !strings.Contains(string(d.Result), ref) {
		t.Errorf("backupdetails: %s", d.Result)
	}
	var health workflows.HealthResult
	if err := os.Remove(b.path("state", "keys", "confirmed")); err != nil && !errors.Is(err, fs.ErrNotExist) { // another test may have shown a copy
		t.Fatal(err)
	}
	b.ask([]int{3}, &health, "-b", "healthcheck") // AMBER: nobody has confirmed a copy of the identity
	if health.Grade != "AMBER" || len(health.Units) != len(small.components) || len(health.VMs) != 1 {
		t.Errorf("healthcheck: %+v", health)
	}
	b.confirmCopy()
	b.ask([]int{0}, &health, "-b", "healthcheck")
	if health.Grade != "GREEN" {
		t.Errorf("healthcheck after the copy was confirmed: %+v", health)
	}
	var v workflows.VerifyResult
	b.ask([]int{0}, &v, "verify", ref)
	if v.Pieces == 0 || v.Bytes == 0 || len(v.Damaged) > 0 {
		t.Errorf("verify: %+v", v)
	}
	var status struct {
		Running bool
		Outcome string
		Journal []string
	}
	b.ask([]int{0}, &status, "status")
	if status.Running || status.Outcome != "completed" || len(status.Journal) > 0 {
		t.Errorf("status: %+v", status)
	}
	d = b.ask([]int{1}, nil, "-b", "reindex")
	if d.Error == nil || d.Error.Code != problem.Failed || d.Error.Hint == "" {
		t.Errorf("reindex: %+v", d)
	}
}

// confirmCopy keeps a copy of the identity elsewhere and shows it, as the manual asks.
func (b *bench) confirmCopy() {
	b.t.Helper()
	text, err := os.ReadFile(b.path("state", "keys", "identity"))
	b.check(err)
	copied := filepath.Join(b.t.TempDir(), "identity")
	b.check(os.WriteFile(copied, text, 0o600))
	b.want([]int{0}, "setup", "--confirm-key", copied)
}
