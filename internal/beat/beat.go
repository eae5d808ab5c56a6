// Package beat keeps a long activity alive on the server and ends it in time
// when the server has given up on it. It replaces the SDK's heartbeat,
// which was measured to cancel a healthy transfer after a server hang of
// two seconds.
package beat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// Causes with which Run cancels the work.
var (
	ErrCancelled  = errors.New("the workflow cancelled this activity")
	ErrSuperseded = errors.New("the server no longer knows this attempt")
	ErrPaused     = errors.New("the activity was paused or reset")
	ErrSilent     = errors.New("the server has not acknowledged this attempt for too long")
)

// Options are the times of a beat.
type Options struct {
	Every   time.Duration // between beats
	Timeout time.Duration // of one beat
	Silence time.Duration // the work is cancelled when the last acknowledged beat is older
	// Short: the work is one step that is over in moments and must not be cut in
	// two. It is not told of a cancellation, and most end before their first beat.
	Short bool
}

// For derives the times from the activity's heartbeat timeout h: an attempt
// that can run stops before its successor starts.
func For(h time.Duration) Options {
	return Options{Every: min(2*time.Second, h/5), Timeout: min(5*time.Second, h/4), Silence: h * 2 / 3}
}

// ForStep derives the times for a short step.
func ForStep(h time.Duration) Options {
	o := For(h)
	o.Short = true
	return o
}

// Run runs work while it beats with the details that detail returns (at most
// 256 bytes when encoded; display only). work's context is cancelled with
// one of the causes above; Run returns work's error, or a cancellation that
// the engine understands when the workflow asked for it.
func Run(ctx context.Context, c client.Client, o Options, detail func() any, work func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	token := activity.GetInfo(ctx).TaskToken
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { beat(ctx, c, token, o, detail, stop, cancel) })
	err := work(ctx)
	close(stop)
	if o.Short {
		cancel(nil)
	}
	wg.Wait()
	await(ctx, c, token, o, detail)
	cancel(nil)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		if errors.Is(cause, ErrCancelled) {
			return report(ctx, c, token)
		}
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// await beats once more, until the server answers: the SDK gives up telling the
// result after ten seconds, and a unit that ended while the server hung would
// be done again when the heartbeat timeout is over.
func await(ctx context.Context, c client.Client, token []byte, o Options, detail func() any) {
	for end := time.Now().Add(o.Silence); ctx.Err() == nil && time.Now().Before(end); {
		err := one(ctx, c, token, o.Timeout, detail())
		if err == nil || verdict(err) != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(o.Every / 4):
		}
	}
}

// report tells the server that the attempt has stopped as asked. The SDK
// takes a cancellation only from an activity whose heartbeat it sent itself
// (else it becomes "unexpected activity cancel error", measured), so the
// answer is given here and the SDK is told that it was.
func report(ctx context.Context, c client.Client, token []byte) error {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	if err := c.CompleteActivity(ctx, token, nil, temporal.NewCanceledError()); err != nil {
		return fmt.Errorf("report the cancellation: %w", err)
	}
	return activity.ErrResultPending
}

func beat(ctx context.Context, c client.Client, token []byte, o Options, detail func() any, stop <-chan struct{}, cancel context.CancelCauseFunc) {
	last := time.Now()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for now := !o.Short; ; now = true {
		if now {
			err := one(ctx, c, token, o.Timeout, detail())
			cause := verdict(err)
			switch {
			case err == nil, o.Short && cause == ErrCancelled:
				last = time.Now()
			case cause != nil:
				cancel(cause)
				return
			case time.Since(last) > o.Silence:
				cancel(ErrSilent)
				return
			}
		}
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func one(ctx context.Context, c client.Client, token []byte, timeout time.Duration, detail any) error {
	ctx, done := context.WithTimeout(ctx, timeout)
	defer done()
	return c.RecordActivityHeartbeat(ctx, token, detail)
}

// verdict tells a final answer of the server from a passing fault.
func verdict(err error) error {
	var cancelled *temporal.CanceledError
	var gone *serviceerror.NotFound
	switch {
	case errors.As(err, &cancelled):
		return ErrCancelled
	case errors.As(err, &gone):
		return ErrSuperseded
	case errors.Is(err, activity.ErrActivityPaused), errors.Is(err, activity.ErrActivityReset):
		return ErrPaused
	}
	return nil
}
