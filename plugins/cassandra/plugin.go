// Package cassandra protects Apache Cassandra clusters, 4.0 to 5.0.
//
// Every node is a unit. A pin is a snapshot (flush and hard links) of all user
// tables of one node; a backup reads the linked SSTable files, which never change, and the
// definitions as the server itself describes them, with the ids of tables. A restore puts each
// node's own files back with `nodetool import` after a TRUNCATE, or after the
// table was made anew with the same id; the nodes' units agree on the steps through a table of the
// product (see agree.go). README.md says what is exact and what is not.
package cassandra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plugin is the plugin for Cassandra.
type Plugin struct {
	root string // stands for / in tests of Discover
	seen seen
}

// New makes the plugin.
func New() *Plugin { return &Plugin{} }

// Info describes the plugin.
func (*Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: "cassandra",
		Product:   "Apache Cassandra",
		Versions:  "4.0 to 5.0",
		Scope:     plugins.ScopeNode,
		Inexact: []plugins.Inexact{
			{What: "the moment of the backup across nodes", Why: "each node's snapshot is one moment, but Cassandra has none for the whole cluster; the manifest records how far apart they are"},
			{What: "write times of roles and grants", Why: "accounts are written anew as rows, so that nobody is locked out on the way; their content is exact"},
			{What: "keyspaces system, system_traces and system_distributed", Why: "they describe the running cluster, not its data"},
			{What: "names, levels and repair marks of SSTable files, and index files", Why: "an import names files anew and the server rebuilds indexes; the rows, their write times and expiries are exact"},
			{What: "rows of materialized views whose update had not left a node's batch log at the pin", Why: "the server writes views after it has acknowledged a write to their table; writers that rest in maintenance leave none behind after a few seconds, otherwise make the view anew"},
			{What: "the product's own keyspace " + ownKeyspace, Why: "it holds who may restore; a restore needs and keeps it"},
		},
	}
}

// Open connects to the node and proves that it answers to the credentials. When the node itself is
// down, a session with another member is opened, so that health can tell and a backup can go on.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	cfg, err := newConfig(t)
	if err != nil {
		return nil, err
	}
	s := &session{cfg: cfg, admin: newAdmin(cfg), seen: &p.seen}
	c, err := cfg.connect(ctx, cfg.self)
	if err == nil {
		s.c = c
		return s, s.begin(ctx)
	}
	if !errors.Is(err, plugins.ErrUnavailable) {
		return nil, err
	}
	for _, m := range t.Members {
		if m.Name == cfg.self.Name || ctx.Err() != nil {
			continue
		}
		if other, oerr := cfg.connect(ctx, m); oerr == nil {
			s.c, s.down = other, err
			return s, s.begin(ctx)
		}
	}
	return nil, err
}

type session struct {
	cfg     *config
	c       *gocql.Session
	admin   admin
	seen    *seen
	down    error // why the session's own node does not answer; nil: it does
	version string
	v5      bool // 5.0 or newer: write times of collections, guardrails

	mu   sync.Mutex
	dirs []string
}

var (
	_ plugins.Pinner          = (*session)(nil)
	_ plugins.Planner         = (*session)(nil)
	_ plugins.AccountSwitcher = (*session)(nil)
	_ plugins.Fencer          = (*session)(nil)
)

// begin asks the version; it closes the session when that fails.
func (s *session) begin(ctx context.Context) error {
	err := s.c.Query("SELECT release_version FROM system.local").WithContext(ctx).Scan(&s.version)
	if err == nil {
		var major, minor int
		if _, perr := fmt.Sscanf(s.version, "%d.%d", &major, &minor); perr != nil || major < 4 {
			err = fmt.Errorf("%s: server %s: %w: this product supports 4.0 to 5.0", s.cfg.target, s.version, plugins.ErrVersion)
		}
		s.v5 = major >= 5
	} else {
		err = s.cfg.wrap(ctx, "ask for the version", err)
	}
	if err != nil {
		s.c.Close()
		return err
	}
	return nil
}

// PreHook ends what dead runs left behind on the node.
func (s *session) PreHook(ctx context.Context, run plugins.Run) error {
	run.Log.Debug("pre-hook", slog.String("target", s.cfg.target.String()))
	return s.sweep(ctx, run)
}

// PostHook undoes PreHook, which holds nothing.
func (s *session) PostHook(ctx context.Context, run plugins.Run) error {
	run.Log.Debug("post-hook", slog.String("target", s.cfg.target.String()))
	return nil
}

func (s *session) Close() error {
	s.c.Close()
	return nil
}
