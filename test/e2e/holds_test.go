package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// TestHolds: a restore fails, and so does putting back what was there. The
// estate is then held in maintenance with exit 15, and every way out of it works.
func TestHolds(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 41, "small"))
	before := b.fingerprint()
	b.backup("HOLD", "-m", "yes")
	b.check(b.Wreck(ctx, 41))
	wrecked := b.fingerprint()
	restore := []string{"-b", "restore", "-s", "HOLD", "--confirm", "HOLD", "-o", "json"}

	// held checks what every hold owes.
	held := func(b *bench, r *running, why string) {
		b.t.Helper()
		d := b.read(b.expect(r.wait(), problem.Held.Exit()), nil)
		if d.Error == nil || d.Error.Code != problem.Held || !strings.Contains(d.Error.Message, why) || !strings.Contains(d.Error.Hint, "resolve") {
			b.t.Errorf("error: %+v, want one that tells of %q", d.Error, why)
		}
		same(b.t, "maintenance of a held estate", "true", b.maintenance())
		if s := b.journal(); s.Hold == nil || !s.Half() {
			b.t.Fatalf("journal: %+v", s)
		}
		b.ask([]int{problem.Held.Exit()}, nil, "status")
		b.ask([]int{problem.Held.Exit()}, nil, "-b", "backup", "-s", "REFUSED")
	}
	// readOnly ends a restore whose target has become read-only after it was written: it cannot be rolled back.
	readOnly := func(b *bench) {
		b.t.Helper()
		r, _, w := b.stand("restore", "digests", restore...)
		b.sql("SET GLOBAL read_only=ON")
		b.want([]int{0}, "cancel")
		w.thaw()
		held(b, r, "read_only")
	}
	writable := func(b *bench) { b.t.Helper(); b.sql("SET GLOBAL read_only=OFF") }

	t.Run("read-only target, rollback", func(t *testing.T) {
		b := b.of(t)
		defer writable(b)
		readOnly(b)
		b.want([]int{problem.Held.Exit()}, "resolve", "rollback", "--confirm", "HOLD") // the cause is not mended: it stays held
		same(t, "maintenance", "true", b.maintenance())
		writable(b)
		b.want(fine, "resolve", "rollback", "--confirm", "HOLD")
		b.settled()
		b.back(wrecked)
	})
	t.Run("read-only target, accept", func(t *testing.T) {
		b := b.of(t)
		defer writable(b)
		readOnly(b)
		half := b.fingerprint()
		b.want(fine, "resolve", "accept", "--confirm", "HOLD") // as it is, also while the target is read-only
		b.settled()
		if d := different(half.withoutSwitch(), b.fingerprint().withoutSwitch()); d != "" {
			t.Fatalf("accepting has changed the estate (-want +got):\n%s", d)
		}
		writable(b)
		b.restored("-s", "HOLD", "--confirm", "HOLD")
		b.back(before)
	})
	t.Run("safety backup damaged, retry", func(t *testing.T) {
		b := b.of(t)
		b.check(b.Wreck(ctx, 42))
		r, v, w := b.stand("restore", "write", restore...)
		b.flip(v.journal.Safety, "zookeeper")
		b.want([]int{0}, "cancel")
		w.thaw()
		held(b, r, "safety backup")
		d := b.ask([]int{problem.Held.Exit()}, nil, "resolve", "rollback", "--confirm", "HOLD")
		if d.Error == nil || !strings.Contains(d.Error.Message, "damaged") {
			t.Errorf("rollback from a damaged safety backup: %+v", d.Error)
		}
		b.want(fine, "resolve", "retry", "--confirm", "HOLD")
		b.settled()
		b.back(before)
	})
	t.Run("a restore adopts the hold", func(t *testing.T) {
		b := b.of(t)
		defer writable(b)
		b.check(b.Wreck(ctx, 43))
		readOnly(b)
		writable(b)
		safety := b.journal().Safety
		d := b.ask([]int{problem.Held.Exit()}, nil, "-b", "restore", "-s", "HOLD", "-t", "etcd", "--confirm", "HOLD") // leaves out what is half written
		if d.Error == nil || !strings.Contains(d.Error.Message, "half written") {
			t.Errorf("a partial restore over a hold: %+v", d.Error)
		}
		r := b.restored("-s", "HOLD", "--confirm", "HOLD")
		if r.Safety != "" && r.Safety != safety {
			t.Errorf("a safety backup of half-written data was taken: %s after %s", r.Safety, safety)
		}
		b.back(before)
		if !slices.Contains(fine, b.cso("status").code) {
			t.Error("status after the hold has ended")
		}
	})
}
