// Package fake is the reference plugin: a complete implementation of the
// contract for a small database of tables in a directory. A new plugin starts
// as a copy of this folder, and the conformance suite is tested on it.
//
// Where each promise of the contract is kept:
//
//   - fake.go: what the plugin says of itself, and opening a session;
//   - backup.go: the pinned view, copying it, live digests;
//   - restore.go: plan, restore by difference, accounts last, comparison;
//   - fence.go: the database refuses foreign writers; the maintenance switch;
//   - database.go: the database itself; a real plugin has a driver here.
package fake

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plugin is the reference plugin. It has no row in the component table, so
// it takes the place of the component it is made for.
type Plugin struct{ component string }

// New makes the plugin under the name of a component.
func New(component string) *Plugin { return &Plugin{component} }

// Info describes the plugin.
func (p *Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: p.component,
		Product:   "Tables in a directory",
		Versions:  "1",
		Scope:     plugins.ScopeCluster,
		Inexact:   []plugins.Inexact{{What: "revision numbers", Why: "a restore writes, and each write counts up"}},
	}
}

// Open opens the directory that the member's option "dir" names.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	self, err := t.Self()
	if err != nil {
		return nil, err
	}
	dir := self.Options["dir"]
	if dir == "" {
		return nil, fmt.Errorf("%s: option dir of member %s is missing: %w: name the database's directory", t, self.Name, plugins.ErrConfig)
	}
	db, err := OpenDB(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return &session{target: t, db: db}, nil
}

type session struct {
	target plugins.Target
	db     *DB
}

// The optional interfaces, checked by the compiler.
var (
	_ plugins.Pinner          = (*session)(nil)
	_ plugins.Planner         = (*session)(nil)
	_ plugins.AccountSwitcher = (*session)(nil)
	_ plugins.Fencer          = (*session)(nil)
	_ plugins.Switch          = (*session)(nil)
)

func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	r, err := s.db.Root()
	if err != nil {
		return plugins.Health{}, fmt.Errorf("%s: %w: look at the newest root file", s.target, err)
	}
	h := plugins.Health{Grade: plugins.Green, Version: "1", Members: len(s.target.Members), Empty: len(r.Tables) == 0}
	for _, t := range r.Tables {
		n, err := s.db.size(t)
		if err != nil {
			h.Grade = plugins.Red
			h.Reasons = append(h.Reasons, err.Error())
		}
		h.Estimate += n
	}
	return h, ctx.Err()
}

// PreHook has nothing to stop in this database.
func (s *session) PreHook(_ context.Context, run plugins.Run) error {
	run.Log.Debug("pre-hook", slog.String("target", s.target.String()))
	return nil
}

// PostHook undoes PreHook.
func (s *session) PostHook(_ context.Context, run plugins.Run) error {
	run.Log.Debug("post-hook", slog.String("target", s.target.String()))
	return nil
}

func (s *session) Close() error { return nil }
