// Package etcd protects etcd clusters, 3.4 to 3.7, through the v3 API.
//
// A backup is one snapshot of one member, at one revision, read with bbolt on
// this side. A restore compares such a snapshot of the live cluster with the
// backup and writes only what differs, in transactions that the cluster
// refuses once a newer epoch has claimed it (see guard.go). Disaster recovery
// makes new data directories from the stored snapshot (see bootstrap.go).
// README.md says what is exact and what is not.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plugin is the plugin for etcd.
type Plugin struct {
	root  string // where Discover looks for the standard places; empty: /
	known memory
}

// New makes the plugin.
func New() *Plugin { return &Plugin{} }

// Info describes the plugin.
func (*Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: "etcd",
		Product:   "etcd",
		Versions:  "3.4 to 3.7",
		Scope:     plugins.ScopeCluster,
		Inexact: []plugins.Inexact{
			{What: "passwords of users that are missing or have another password", Why: "the API takes no password hashes; a missing user gets a random password, and the restore names both kinds (disaster recovery brings all hashes back)"},
			{What: "revisions, versions and history of keys", Why: "a restore on a live cluster writes, and each write counts up (disaster recovery keeps versions and raises the revision)"},
			{What: "remaining time of leases", Why: "a lease that is granted again starts with its full time"},
		},
	}
}

// Open connects and proves that the cluster answers to the credentials.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	cfg, err := newConfig(t)
	if err != nil {
		return nil, err
	}
	c, err := cfg.dial(ctx, cfg.endpoints...)
	if err != nil {
		return nil, err
	}
	s := &session{cfg: cfg, c: c, known: &p.known}
	if _, err := c.Get(ctx, epochKey); err != nil {
		return nil, errors.Join(cfg.wrap("read a key", err), s.Close())
	}
	return s, nil
}

type session struct {
	cfg *config
	c   *clientv3.Client // all endpoints

	known *memory

	mu  sync.Mutex
	one *clientv3.Client // one endpoint, see single
}

var (
	_ plugins.Bootstrapper    = (*Plugin)(nil)
	_ plugins.Pinner          = (*session)(nil)
	_ plugins.Planner         = (*session)(nil)
	_ plugins.AccountSwitcher = (*session)(nil)
	_ plugins.Switch          = (*session)(nil)
)

// single is a connection to one member: what must be asked of the very member
// that was asked before goes through it.
func (s *session) single(ctx context.Context) (*clientv3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.one != nil {
		return s.one, nil
	}
	var errs []error
	for _, ep := range s.cfg.endpoints {
		c, err := s.cfg.dial(ctx, ep)
		if err == nil {
			// A linearizable read: the member is in touch with a quorum.
			if _, err = c.Get(ctx, epochKey); err == nil {
				s.one = c
				return c, nil
			}
			err = errors.Join(s.cfg.wrap(ep, err), c.Close())
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no member answers: %w", errors.Join(errs...))
}

// PreHook has nothing to stop: a snapshot does not disturb the cluster.
func (s *session) PreHook(_ context.Context, run plugins.Run) error {
	run.Log.Debug("pre-hook", slog.String("target", s.cfg.target.String()))
	return nil
}

// PostHook undoes PreHook.
func (s *session) PostHook(_ context.Context, run plugins.Run) error {
	run.Log.Debug("post-hook", slog.String("target", s.cfg.target.String()))
	return nil
}

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range []*clientv3.Client{s.c, s.one} {
		if c != nil {
			// The client's own context ends with it, which Close reports as an error.
			if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
