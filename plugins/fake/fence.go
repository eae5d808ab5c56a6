package fake

import (
	"context"
	"fmt"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// fenceFor is how long the database refuses ordinary writers after Fence; it
// then lets them in by itself, whatever has died. Fence again to prolong.
const fenceFor = 10 * time.Minute

// Fence makes the database refuse every writer that has no epoch.
func (s *session) Fence(ctx context.Context, run plugins.Run) error {
	return s.fence(ctx, run, time.Now().Add(fenceFor))
}

// Unfence lets ordinary writers in again.
func (s *session) Unfence(ctx context.Context, run plugins.Run) error {
	return s.fence(ctx, run, time.Time{})
}

func (s *session) fence(ctx context.Context, run plugins.Run, until time.Time) error {
	if err := s.db.Update(ctx, run.Epoch, func(r *Root) error { r.Fenced = until; return nil }); err != nil {
		return fmt.Errorf("fence %s: %w", s.target, err)
	}
	return nil
}

// ReadSwitch reads the maintenance switch, which is no table: no backup, digest or restore sees it.
func (s *session) ReadSwitch(context.Context) (plugins.SwitchState, error) {
	r, err := s.db.Root()
	return r.Switch, err
}

// WriteSwitch sets the maintenance switch to exactly the state given. It
// carries no epoch, because giving up maintenance must work for whoever
// reads the journal; a fence does not hold it back.
func (s *session) WriteSwitch(ctx context.Context, st plugins.SwitchState) error {
	return s.db.commit(ctx, func(r *Root) error { r.Switch = st; return nil })
}
