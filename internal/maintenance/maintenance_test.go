package maintenance_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/maintenance"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// lamp is a maintenance switch in memory.
type lamp struct {
	mu    sync.Mutex
	state plugins.SwitchState
	dead  bool
}

func (l *lamp) ReadSwitch(context.Context) (plugins.SwitchState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return plugins.SwitchState{}, plugins.ErrUnavailable
	}
	return l.state, nil
}

func (l *lamp) WriteSwitch(_ context.Context, s plugins.SwitchState) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return plugins.ErrUnavailable
	}
	l.state = s
	return nil
}

func (l *lamp) on() bool { s, _ := l.ReadSwitch(context.Background()); return s.On() }

type house struct {
	*maintenance.Keeper
	lamp   *lamp
	claim  epoch.Claim
	closed bool
	cannot error
}

func newHouse(t *testing.T) *house {
	t.Helper()
	root := t.TempDir()
	j, err := journal.At(root)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{lamp: &lamp{state: plugins.SwitchState{Present: true, Value: "false"}}}
	h.Keeper = &maintenance.Keeper{Journal: j, Root: root, Log: slog.New(slog.DiscardHandler),
		RunClosed: func(context.Context, string, epoch.Claim) (bool, error) { return h.closed, h.cannot },
		Settings: func() (maintenance.Settings, error) {
			return maintenance.Settings{OpenSwitch: func(context.Context) (plugins.Switch, io.Closer, error) {
				return h.lamp, io.NopCloser(nil), nil
			}}, nil
		}}
	s, err := j.Claim(t.Context(), journal.Request{Cluster: "c", Workflow: "w", Run: "r", Operation: "backup", Backup: "A/B"})
	if err != nil {
		t.Fatal(err)
	}
	h.claim = s.Claim
	return h
}

// hold starts a holder; the returned function ends it with a cause and gives its error.
func (h *house) hold(t *testing.T) func(error) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Hold(ctx, h.claim, "r/1") }()
	end := func(cause error) error { cancel(cause); return <-done }
	t.Cleanup(func() { cancel(nil) })
	return end
}

func (h *house) enter(t *testing.T, max time.Duration) {
	t.Helper()
	if _, err := h.EnterMode(t.Context(), h.claim, max, false); err != nil {
		t.Fatal(err)
	}
	if !h.lamp.on() {
		t.Fatal("the switch is not on")
	}
}

func TestEnterNeedsHolder(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := h.EnterMode(ctx, h.claim, 0, false); !errors.Is(err, maintenance.ErrNoHolder) || h.lamp.on() {
		t.Errorf("entered without a holder: %v", err)
	}
}

func TestEnterAndLeave(t *testing.T) {
	for _, prior := range []plugins.SwitchState{{}, {Present: true, Value: "false"}, plugins.SwitchOn} {
		h := newHouse(t)
		h.lamp.state = prior
		end := h.hold(t)
		h.enter(t, 0)
		l, err := h.LeaveMode(t.Context(), h.claim)
		if err != nil || l.Gap || h.lamp.state != prior {
			t.Errorf("left with %+v, %v; the switch is %+v, before it was %+v", l, err, h.lamp.state, prior)
		}
		if _, err := h.LeaveMode(t.Context(), h.claim); err != nil {
			t.Errorf("leaving twice: %v", err)
		}
		_ = end(beat.ErrCancelled)
		if err := h.Journal.Close(t.Context(), h.claim, "done"); err != nil {
			t.Error(err)
		}
	}
}

// TestHolderEnds: no cancellation alone ends maintenance.
func TestHolderEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		cause  error
		closed bool
		cannot error
		half   bool
		on     bool // maintenance afterwards
	}{
		{"stale attempt, run goes on", beat.ErrSuperseded, false, nil, false, true},
		{"terminated run", beat.ErrSuperseded, true, nil, false, false},
		{"terminated run, half written", beat.ErrSuperseded, true, nil, true, true},
		{"server silent", beat.ErrSilent, false, errors.New("no answer"), false, true},
		{"worker stops", context.Canceled, false, nil, false, true},
		{"cancelled, workflow did not ask", beat.ErrCancelled, false, nil, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.closed, h.cannot = c.closed, c.cannot
			end := h.hold(t)
			h.enter(t, 0)
			if c.half {
				if err := h.Journal.BeginWrite(t.Context(), h.claim, "x"); err != nil {
					t.Fatal(err)
				}
			}
			_ = end(c.cause)
			if h.lamp.on() != c.on {
				t.Errorf("maintenance is %v afterwards", h.lamp.on())
			}
			s, err := h.Journal.Read()
			if err != nil || (s.Hold != nil) != c.half {
				t.Errorf("hold %+v, %v", s.Hold, err)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	h := newHouse(t)
	end := h.hold(t)
	h.enter(t, 300*time.Millisecond)
	for i := 0; h.lamp.on(); i++ {
		if i > 100 {
			t.Fatal("the deadline passed and maintenance is still on")
		}
		time.Sleep(50 * time.Millisecond)
	}
	l, err := h.LeaveMode(t.Context(), h.claim)
	if err != nil || !l.Gap {
		t.Errorf("%+v, %v: a backup whose maintenance ran out has a gap", l, err)
	}
	_ = end(beat.ErrCancelled)
}

func TestSomebodyElseTurnsItOff(t *testing.T) {
	h := newHouse(t)
	end := h.hold(t)
	h.enter(t, 0)
	if err := h.lamp.WriteSwitch(t.Context(), plugins.SwitchState{}); err != nil {
		t.Fatal(err)
	}
	if l, err := h.LeaveMode(t.Context(), h.claim); err != nil || !l.Gap {
		t.Errorf("%+v, %v: want a gap", l, err)
	}
	_ = end(beat.ErrCancelled)
}

func TestReap(t *testing.T) {
	h := newHouse(t)
	end := h.hold(t)
	h.enter(t, 0)
	h.closed = true
	if did, err := h.Reap(t.Context()); did != "" || err != nil || !h.lamp.on() {
		t.Errorf("reaped %q, %v while a holder lives", did, err)
	}
	h.closed = false
	_ = end(context.Canceled) // the worker dies
	if did, err := h.Reap(t.Context()); did != "" || err != nil || !h.lamp.on() {
		t.Errorf("reaped %q, %v while the run goes on", did, err)
	}
	h.closed = true
	if did, err := h.Reap(t.Context()); did == "" || err != nil || h.lamp.on() {
		t.Errorf("reaped %q, %v; maintenance %v", did, err, h.lamp.on())
	}
	if s, _ := h.Journal.Read(); s.Open() {
		t.Error("the journal is still open")
	}
}

func TestDisasterWithDeadSwitch(t *testing.T) {
	h := newHouse(t)
	end := h.hold(t)
	h.lamp.dead = true
	w, err := h.EnterMode(t.Context(), h.claim, 0, true)
	if err != nil || w == "" {
		t.Errorf("warning %q, %v", w, err)
	}
	h.lamp.dead = false
	if _, err := h.LeaveMode(t.Context(), h.claim); err != nil || h.lamp.on() {
		t.Errorf("%v, maintenance %v", err, h.lamp.on())
	}
	_ = end(beat.ErrCancelled)
}
