package journal_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func open(t *testing.T) *journal.Journal {
	t.Helper()
	j, err := journal.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func claim(t *testing.T, j *journal.Journal, run string, repairs bool) epoch.Claim {
	t.Helper()
	s, err := j.Claim(t.Context(), journal.Request{Cluster: "c", Workflow: "w", Run: run, Operation: "restore", Backup: "A/B", Repairs: repairs})
	if err != nil {
		t.Fatal(err)
	}
	return s.Claim
}

func TestClaim(t *testing.T) {
	j := open(t)
	a := claim(t, j, "run-a", false)
	if again := claim(t, j, "run-a", false); again != a {
		t.Errorf("the same run got %+v, then %+v", a, again)
	}
	b := claim(t, j, "run-b", false)
	if b.Epoch != a.Epoch+1 || b.Nonce == a.Nonce {
		t.Errorf("claims %+v and %+v: epochs grow, nonces differ", a, b)
	}
	if err := j.Check(a); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("the older run may still write: %v", err)
	}
	if _, err := j.Update(t.Context(), a, func(*journal.State) error { return nil }); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("the older run may still change the journal: %v", err)
	}
	if err := j.Close(t.Context(), b, "done"); err != nil {
		t.Fatal(err)
	}
	if err := j.Check(b); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("a run that has ended may still write: %v", err)
	}
	if err := j.Close(t.Context(), b, "done"); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if c := claim(t, j, "run-c", false); c.Epoch != b.Epoch+1 {
		t.Errorf("epoch %d after %d: it grows for ever", c.Epoch, b.Epoch)
	}
}

func TestHalfWritten(t *testing.T) {
	j, ctx := open(t), t.Context()
	a := claim(t, j, "run-a", true)
	if err := j.BeginWrite(ctx, a, "x", "y"); err != nil {
		t.Fatal(err)
	}
	if err := j.Proven(ctx, a, "y"); err != nil {
		t.Fatal(err)
	}
	_, err := j.Claim(ctx, journal.Request{Cluster: "c", Workflow: "w", Run: "backup", Operation: "backup"})
	if problem.As(err).Code != problem.Held {
		t.Errorf("a backup of half-written data was let in: %v", err)
	}
	s, err := j.Claim(ctx, journal.Request{Cluster: "c", Workflow: "w", Run: "repair", Operation: "restore", Repairs: true})
	if err != nil || len(s.Written) != 1 || s.Written[0] != "x" {
		t.Errorf("a repairing run got %+v, %v: want x handed on", s.Written, err)
	}
}

// TestLeaseIsHandedOn: the switch's prior state survives a chain of broken runs.
func TestLeaseIsHandedOn(t *testing.T) {
	j, ctx := open(t), t.Context()
	a := claim(t, j, "run-a", false)
	prior := plugins.SwitchState{Present: true, Value: "false"}
	if _, err := j.Update(ctx, a, func(s *journal.State) error {
		s.Lease = &journal.Lease{Prior: prior, Known: true, Entered: true, Since: journal.Now()}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(ctx, a, "done"); err == nil {
		t.Error("closed while maintenance is on")
	}
	claim(t, j, "run-b", false)
	s, err := j.Read()
	if err != nil || s.Lease == nil || s.Lease.Prior != prior || !s.Lease.Known || !s.Lease.Entered {
		t.Errorf("the next run knows %+v, %v", s.Lease, err)
	}
}

func TestHold(t *testing.T) {
	j, ctx := open(t), t.Context()
	a := claim(t, j, "run-a", true)
	if err := j.HoldEstate(ctx, a, "broken"); err != nil {
		t.Fatal(err)
	}
	s, err := j.Read()
	if err != nil || s.Hold == nil || len(journal.Summary(s)) < 2 {
		t.Errorf("state %+v, %v, summary %v", s, err, journal.Summary(s))
	}
	if _, err := j.Claim(ctx, journal.Request{Run: "b"}); problem.As(err).Code != problem.Held {
		t.Errorf("a hold let a backup in: %v", err)
	}
}

func TestLockWaitsAndGivesUp(t *testing.T) {
	j := open(t)
	a := claim(t, j, "run-a", false)
	entered, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := j.Update(context.Background(), a, func(*journal.State) error { close(entered); <-leave; return nil })
		done <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := j.Update(ctx, a, func(*journal.State) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two writers at once: %v", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestBoot(t *testing.T) {
	now := journal.Now()
	if now.Zero() || now.ID == "" {
		t.Fatalf("boot clock %+v", now)
	}
	for _, c := range []struct {
		name string
		at   journal.Boot
		want bool
	}{
		{"unset", journal.Boot{}, false}, {"later", now.Add(time.Hour), false}, {"earlier", now.Add(-time.Hour), true},
		{"another boot", journal.Boot{ID: "x", Elapsed: now.Elapsed + time.Hour}, true},
	} {
		if c.at.Past(now) != c.want {
			t.Errorf("%s: Past is %v", c.name, !c.want)
		}
	}
}
