package worker

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/dial"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/gateway"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// gatewayClient is how this VM stores when the estate file names a gateway; nil: it writes to the store itself.
func (w *Worker) gatewayClient(e *config.Estate) (*gateway.Client, error) {
	if e == nil || e.Settings.Gateway == "" {
		return nil, nil
	}
	t, err := pki.GatewayTLS(w.Paths.PKI(), dial.WorkerRole(w.Paths.VM))
	if err != nil {
		return nil, err
	}
	c := gateway.NewClient(e.Settings.Gateway, t)
	w.stops = append(w.stops, c.Close)
	return c, nil
}

// serveGateway opens the store to the workers of the estate, when the estate file names a gateway.
func (w *Worker) serveGateway(ctx context.Context, e *config.Estate) error {
	if e == nil || e.Settings.Gateway == "" {
		return nil
	}
	t, err := pki.ServerTLS(w.Paths.PKI(), pki.Gateway, pki.CA)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", e.Settings.Gateway)
	if err != nil {
		return fmt.Errorf("store gateway: %w: correct settings.gateway in the estate file, or end what listens there", err)
	}
	s := &gateway.Server{
		Store: w.store, Revoked: pki.NewRevocations(w.Paths.PKI()), Log: w.Log,
		Writer: func() (keys.Writer, error) { return keys.LoadWriter(w.Paths.Keys()) },
		Rules:  gateway.Rules{Owns: w.owns(ctx), Open: inProgress(w.control.Journal)},
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(ctx, l, t); err != nil {
			w.Log.Error("worker", "err", err)
		}
	}()
	w.stops = append(w.stops, func() { stop(); <-ended })
	return nil
}

// owns says which units are a VM's: those of its members, and those of a
// cluster that has a member there, because any member may store it.
func (w *Worker) owns(ctx context.Context) func(string, manifest.UnitID) (bool, error) {
	return func(vm string, u manifest.UnitID) (bool, error) {
		e, err := w.estate(ctx)
		if err != nil {
			return false, err
		}
		p, err := w.Registry.Get(u.Component)
		if err != nil {
			return false, nil
		}
		cluster := p.Info().Scope == plugins.ScopeCluster
		return slices.ContainsFunc(e.Instances, func(in config.Instance) bool {
			return in.Component == u.Component && in.Name == u.Instance && slices.ContainsFunc(in.Members, func(m config.Member) bool {
				return m.VM == vm && (cluster && u.Member == workflows.ClusterMember || !cluster && u.Member == m.Name)
			})
		}), nil
	}
}

// inProgress accepts the backup that the journal says is being made, and the safety backup of a restore.
func inProgress(j *journal.Journal) func(context.Context, manifest.Ref, epoch.Claim) error {
	return func(_ context.Context, ref manifest.Ref, c epoch.Claim) error {
		if err := j.Check(c); err != nil {
			return err
		}
		s, err := j.Read()
		if err != nil {
			return err
		}
		if s.Backup == ref.String() && s.Operation == string(plugins.OpBackup) || ref.Safety() && s.Operation != string(plugins.OpBackup) {
			return nil
		}
		return fmt.Errorf("%w: %s is not the backup being made", gateway.ErrRefused, ref)
	}
}
