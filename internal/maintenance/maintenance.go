// Package maintenance holds the product's maintenance mode as a lease: who
// turned it on, what was before, and when it must be left whatever dies. The
// record is the journal; the switch belongs to a plugin.
package maintenance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/runcmd"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Keeper turns maintenance on and off under the journal.
type Keeper struct {
	Journal *journal.Journal
	Root    string
	// Settings reads the estate's settings afresh: they may change while the worker runs.
	Settings func() (Settings, error)
	// RunClosed asks the engine named in the claim whether the run has ended; an error means "cannot tell",
	// ErrElsewhere that another engine answers than the one the claim names.
	RunClosed func(ctx context.Context, workflow string, c epoch.Claim) (bool, error)
	Log       *slog.Logger
}

// Settings are how maintenance is switched in this estate.
type Settings struct {
	// OpenSwitch connects to the holder of the switch; nil when the estate names none.
	OpenSwitch func(context.Context) (plugins.Switch, io.Closer, error)
	// Enter and Leave are the operator's own programs (argument vectors), run after the switch
	// is on and before it is off.
	Enter, Leave []string
}

// ErrNoHolder: the lease has no living holder, so maintenance is not entered.
var ErrNoHolder = errors.New("no process holds the maintenance lease yet")

// ErrElsewhere: the run lives on another engine than the one that answers;
// that one was lost, or is another one's. What this one does not know says nothing.
var ErrElsewhere = errors.New("the run lives on another temporal cluster")

func (k *Keeper) holderFile() string {
	return filepath.Join(k.Root, ".cso", "journal", "holder.lock")
}

// live says whether some process holds the lease right now.
func (k *Keeper) live() (bool, error) {
	f, err := os.OpenFile(k.holderFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, fmt.Errorf("maintenance lease: %w", err)
	}
	defer func() { _ = f.Close() }()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return errors.Is(err, unix.EWOULDBLOCK), nil
}

// held says whether a living process holds the lease for this run.
func (k *Keeper) held(c epoch.Claim) (bool, error) {
	s, err := k.Journal.Read()
	if err != nil || s.Claim != c || s.Lease == nil || !strings.HasPrefix(s.Lease.Holder, c.Run+"/") {
		return false, err
	}
	return k.live()
}

// EnterMode waits for a living holder, turns maintenance on and reads it
// back. max is the longest time it may last (0: until the run is done). With
// tolerant a switch that cannot be reached is a warning: disaster recovery
// begins on dead servers.
func (k *Keeper) EnterMode(ctx context.Context, c epoch.Claim, max time.Duration, tolerant bool) (warning string, err error) {
	for {
		ok, err := k.held(c)
		if err != nil {
			return "", err
		}
		if ok {
			break
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w: is the control worker running? %w", ErrNoHolder, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
	prior, err := k.read(ctx)
	if err != nil {
		if !tolerant {
			return "", fmt.Errorf("read the maintenance switch: %w", err)
		}
		warning = "the maintenance switch could not be reached: " + err.Error()
	}
	now := journal.Now()
	_, err = k.Journal.Update(ctx, c, func(s *journal.State) error {
		if s.Lease == nil {
			s.Lease = &journal.Lease{}
		}
		l := s.Lease
		if !l.Known {
			l.Prior, l.Known = prior, warning == ""
		}
		l.Entered, l.Asked, l.Since = true, false, now
		l.Deadline = journal.Boot{}
		if max > 0 {
			l.Deadline = now.Add(max)
		}
		s.Phase = "maintenance"
		return nil
	})
	if err != nil {
		return warning, err
	}
	if warning == "" {
		if err := k.write(ctx, plugins.SwitchOn); err != nil {
			return "", fmt.Errorf("turn maintenance on: %w", err)
		}
	}
	if err := k.hook(ctx, true); err != nil {
		return warning, fmt.Errorf("hook enter_maintenance: %w", err)
	}
	_, err = k.Journal.Update(ctx, c, func(s *journal.State) error { s.Lease.Verified = true; return nil })
	return warning, err
}

// Left tells how maintenance was left.
type Left struct {
	Was  bool          // it had been entered
	Held time.Duration // how long
	Gap  bool          // it was not held without interruption
}

// LeaveMode puts the switch back to what it was before and reads it back. It
// is safe to repeat.
func (k *Keeper) LeaveMode(ctx context.Context, c epoch.Claim) (Left, error) {
	return k.leave(ctx, c, true)
}

func (k *Keeper) leave(ctx context.Context, c epoch.Claim, asked bool) (Left, error) {
	s, err := k.Journal.Update(ctx, c, func(s *journal.State) error {
		if s.Lease != nil && asked {
			s.Lease.Asked = true
		}
		return nil
	})
	if err != nil {
		return Left{}, err
	}
	l := s.Lease
	if l == nil {
		return Left{}, nil
	}
	out := Left{Was: true, Gap: l.Gap, Held: journal.Now().Elapsed - l.Since.Elapsed}
	if !l.Entered {
		return out, nil
	}
	on, unread := k.read(ctx)
	if unread == nil && l.Verified && !on.On() {
		out.Gap = true // somebody else turned it off in between
	}
	if err := k.hook(ctx, false); err != nil {
		return out, fmt.Errorf("hook exit_maintenance: %w", err)
	}
	// What is as it was needs no write: a server that refuses writes must not hold an estate that was never changed.
	if unread != nil || on != l.Prior {
		if err := k.write(ctx, l.Prior); err != nil {
			return out, fmt.Errorf("put the maintenance switch back: %w", err)
		}
	}
	_, err = k.Journal.Update(ctx, c, func(s *journal.State) error {
		s.Lease.Entered = false
		s.Lease.Gap = s.Lease.Gap || out.Gap || !asked
		return nil
	})
	return out, err
}

func (k *Keeper) hook(ctx context.Context, enter bool) error {
	set, err := k.Settings()
	if err != nil {
		return err
	}
	argv := set.Leave
	if enter {
		argv = set.Enter
	}
	if len(argv) == 0 {
		return nil
	}
	return runcmd.Run(ctx, argv)
}

// read gives the switch's state; without a switch in the estate it is as good as on.
func (k *Keeper) read(ctx context.Context) (plugins.SwitchState, error) {
	set, err := k.Settings()
	if err != nil {
		return plugins.SwitchState{}, err
	}
	if set.OpenSwitch == nil {
		return plugins.SwitchOn, nil
	}
	sw, closer, err := set.OpenSwitch(ctx)
	if err != nil {
		return plugins.SwitchState{}, err
	}
	defer func() { _ = closer.Close() }()
	return sw.ReadSwitch(ctx)
}

func (k *Keeper) write(ctx context.Context, want plugins.SwitchState) error {
	set, err := k.Settings()
	if err != nil || set.OpenSwitch == nil {
		return err
	}
	sw, closer, err := set.OpenSwitch(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = closer.Close() }()
	if err := sw.WriteSwitch(ctx, want); err != nil {
		return err
	}
	got, err := sw.ReadSwitch(ctx)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the switch reads %q after %q was written: somebody else writes it", got.Value, want.Value)
	}
	return nil
}

// Hold keeps the lease until the workflow has left maintenance and ends it.
// No cancellation alone ends maintenance: Hold acts only when the journal
// still names this claim and the workflow asked for it, or the run has ended
// on the very engine the claim names, or a backup's deadline has passed.
func (k *Keeper) Hold(ctx context.Context, c epoch.Claim, attempt string) error {
	f, err := os.OpenFile(k.holderFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("maintenance lease: %w", err)
	}
	defer func() { _ = f.Close() }()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("maintenance lease is held by another process: %w", context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	if _, err := k.Journal.Update(ctx, c, func(s *journal.State) error {
		if s.Lease == nil {
			s.Lease = &journal.Lease{}
		}
		s.Lease.Holder = attempt
		return nil
	}); err != nil {
		return err
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return k.released(context.WithoutCancel(ctx), context.Cause(ctx), c, attempt)
		case <-tick.C:
			s, err := k.Journal.Read()
			switch {
			case err != nil:
				k.Log.Error("maintenance lease", "err", err)
			case s.Claim != c || s.Closed || s.Hold != nil:
				return nil // the run is over, or held: the lease is settled
			default:
				if err := k.expire(ctx, s); err != nil {
					k.Log.Error("maintenance deadline", "err", err)
				}
			}
		}
	}
}

// watchEvery is how often the holder looks at the journal.
const watchEvery = 100 * time.Millisecond

// expire leaves maintenance when a backup's deadline has passed.
func (k *Keeper) expire(ctx context.Context, s journal.State) error {
	if s.Lease == nil || !s.Lease.Entered || !s.Lease.Deadline.Past(journal.Now()) || s.Half() {
		return nil
	}
	k.Log.Warn("maintenance has lasted as long as it may: leaving it, this backup has no consistency point", "epoch", s.Claim.Epoch)
	_, err := k.leave(ctx, s.Claim, false)
	return err
}

// released decides what the end of the holder means.
func (k *Keeper) released(ctx context.Context, cause error, c epoch.Claim, attempt string) error {
	ctx, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	s, err := k.Journal.Read()
	if err != nil {
		return err
	}
	if s.Claim != c || s.Lease == nil || s.Lease.Holder != attempt || !s.Lease.Entered {
		return cause
	}
	if !errors.Is(cause, beat.ErrCancelled) || !s.Lease.Asked {
		closed, err := k.RunClosed(ctx, s.Workflow, c)
		if err != nil || !closed {
			k.Log.Warn("maintenance holder ends, the lease stays", "cause", cause, "err", err)
			return cause
		}
	}
	return errors.Join(cause, k.settle(ctx, s))
}

// settle ends a run that is over: maintenance is left, unless data is half
// written, then the estate is held.
func (k *Keeper) settle(ctx context.Context, s journal.State) error {
	if s.Half() {
		if s.Hold != nil {
			return nil
		}
		k.Log.Error("the run has ended with data half written: the estate stays in maintenance", "epoch", s.Claim.Epoch, "units", s.Written)
		return k.Journal.HoldEstate(ctx, s.Claim, "the run ended while data was half written")
	}
	if _, err := k.leave(ctx, s.Claim, false); err != nil {
		return err
	}
	return k.Journal.Close(ctx, s.Claim, "ended from outside")
}

// Reap applies the holder's rule to a run whose holder died: it is run by the
// control worker at start and every 30 s, and by a system timer. It says what it did.
func (k *Keeper) Reap(ctx context.Context) (string, error) {
	s, err := k.Journal.Read()
	if err != nil || !s.Open() || s.Hold != nil {
		return "", err
	}
	if ok, err := k.live(); err != nil || ok {
		return "", err
	}
	if s.Lease != nil && s.Lease.Entered && s.Lease.Deadline.Past(journal.Now()) && !s.Half() {
		if _, err := k.leave(ctx, s.Claim, false); err != nil {
			return "", err
		}
		return "left maintenance after its deadline", nil
	}
	closed, err := k.RunClosed(ctx, s.Workflow, s.Claim)
	if errors.Is(err, ErrElsewhere) && s.Half() {
		// Only said, not done: the lease stays, and if the run lives on after all, its end takes the hold back.
		return fmt.Sprintf("held epoch %d, whose temporal is gone", s.Claim.Epoch),
			k.Journal.HoldEstate(ctx, s.Claim, "the Temporal that ran it is gone, and data is half written")
	}
	if err != nil || !closed {
		return "", err
	}
	return fmt.Sprintf("settled epoch %d, whose run has ended", s.Claim.Epoch), k.settle(ctx, s)
}
