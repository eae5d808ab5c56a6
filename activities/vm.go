package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/attempts"
	"github.com/csobackup/cso_backupnrestore/internal/buildinfo"
	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/fences"
	"github.com/csobackup/cso_backupnrestore/internal/gateway"
	"github.com/csobackup/cso_backupnrestore/internal/guard"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/pins"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// VM are the activities of every VM's worker, on its two queues.
type VM struct {
	Name     string
	Client   client.Client // of the role that polls, for heartbeats
	Registry *plugins.Registry
	Estate   func() (*config.Estate, error)
	Guard    *guard.Guard
	Attempts *attempts.Registry
	Pins     *pins.Table
	Fences   *fences.Table
	Store    *store.Store
	Gateway  *gateway.Client // to the store on the installer-vm; nil: Store is it
	Keys     string          // directory of the keys
	Scratch  string          // directory for temporary files
	Log      *slog.Logger
}

// Ping answers that the worker is there.
func (v *VM) Ping(ctx context.Context) (workflows.PingResult, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(v.Scratch, &st); err != nil {
		return workflows.PingResult{}, told(ctx, fmt.Errorf("scratch directory %s: %w", v.Scratch, err))
	}
	return workflows.PingResult{VM: v.Name, Now: time.Now().UTC(), Version: buildinfo.Version(), Free: int64(st.Bavail) * st.Bsize}, nil
}

// Quiet accepts a claim and returns when no attempt of a lower epoch runs here.
func (v *VM) Quiet(ctx context.Context, c epoch.Claim) error {
	if err := own(ctx, c); err != nil {
		return told(ctx, err)
	}
	if err := v.Guard.Raise(c); err != nil {
		return told(ctx, err)
	}
	if err := v.Attempts.Quiet(ctx, c); err != nil {
		return told(ctx, err)
	}
	if err := v.unfence(ctx, c.Epoch-1); err != nil {
		v.Log.Warn("fences of older runs", "err", err) // swept later; this run does not need them gone
	}
	return told(ctx, v.Pins.Release(ctx, epoch.Claim{Epoch: c.Epoch - 1}))
}

// Release lets go of the run's pins and removes its scratch files.
func (v *VM) Release(ctx context.Context, c epoch.Claim) error {
	if err := v.check(ctx, c); err != nil {
		return told(ctx, err)
	}
	return told(ctx, v.letGo(ctx, c))
}

// End is the run's last act on this VM: it lets go as Release does, and from
// then on the claim is refused here.
func (v *VM) End(ctx context.Context, c epoch.Claim) error {
	if err := own(ctx, c); err != nil {
		return told(ctx, err)
	}
	if err := v.Guard.End(c); err != nil {
		return told(ctx, err)
	}
	return told(ctx, errors.Join(v.unfence(ctx, c.Epoch), v.letGo(ctx, c)))
}

func (v *VM) letGo(ctx context.Context, c epoch.Claim) error {
	if err := v.Pins.Release(ctx, c); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(v.Scratch, strconv.FormatUint(c.Epoch, 10))); err != nil {
		return fmt.Errorf("remove scratch files: %w", err)
	}
	return nil
}

// Health asks the instance of a unit how it is.
func (v *VM) Health(ctx context.Context, u workflows.Unit) (workflows.UnitHealth, error) {
	out := workflows.UnitHealth{Unit: u.String(), VM: v.Name}
	s, err := v.open(ctx, u)
	if err != nil {
		out.Grade, out.Reasons = string(plugins.Red), []string{short(err.Error())}
		return out, nil
	}
	defer func() { _ = s.Close() }()
	h, err := s.Health(ctx)
	if err != nil {
		out.Grade, out.Reasons = string(plugins.Red), []string{short(err.Error())}
		return out, nil
	}
	out.Grade, out.Version, out.Members, out.Bytes, out.Reasons = string(h.Grade), h.Version, h.Members, h.Estimate, bounded(h.Reasons)
	return out, nil
}

// Hook runs the life-cycle hook of a unit.
func (v *VM) Hook(ctx context.Context, in workflows.UnitInput) error {
	if err := v.check(ctx, in.Claim); err != nil {
		return told(ctx, err)
	}
	s, err := v.open(ctx, in.Unit)
	if err != nil {
		return told(ctx, err)
	}
	defer func() { _ = s.Close() }()
	run, err := v.run(ctx, in, nil)
	if err != nil {
		return told(ctx, err)
	}
	if in.Post {
		return told(ctx, s.PostHook(ctx, run))
	}
	if err := s.PreHook(ctx, run); err != nil {
		return told(ctx, err)
	}
	return told(ctx, v.fence(ctx, in, s, run))
}

func (v *VM) target(u workflows.Unit) (plugins.Plugin, plugins.Target, error) {
	p, err := v.Registry.Get(u.Component)
	if err != nil {
		return nil, plugins.Target{}, err
	}
	e, err := v.Estate()
	if err != nil {
		return nil, plugins.Target{}, fmt.Errorf("%w: %w", plugins.ErrConfig, err)
	}
	member := u.Member
	if member == workflows.ClusterMember {
		member = ""
	}
	t, err := e.Target(u.Component, u.Instance, member)
	return p, t, err
}

func (v *VM) open(ctx context.Context, u workflows.Unit) (plugins.Session, error) {
	p, t, err := v.target(u)
	if err != nil {
		return nil, err
	}
	return p.Open(ctx, t)
}

// run prepares what a session is handed; the scratch directory is the same for every attempt of a unit and epoch.
func (v *VM) run(ctx context.Context, in workflows.UnitInput, p plugins.Progress) (plugins.Run, error) {
	unit := in.Unit.Component + "-" + in.Unit.Instance + "-" + in.Unit.Member
	if in.Member != "" {
		unit += "-" + in.Member
	}
	dir := filepath.Join(v.Scratch, fmt.Sprintf("%d", in.Claim.Epoch), unit)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return plugins.Run{}, fmt.Errorf("scratch directory: %w", err)
	}
	info := activity.GetInfo(ctx)
	return plugins.Run{
		Epoch: in.Claim.Epoch, Operation: in.Operation, Backup: in.Backup, Options: in.Options, Parallel: max(1, in.Parallel),
		Attempt: fmt.Sprintf("%s/%s/%d", info.WorkflowExecution.RunID, info.ActivityID, info.Attempt),
		Scratch: dir, Progress: p, Log: v.Log.With("unit", in.Unit.String(), "epoch", in.Claim.Epoch),
	}, nil
}

func (v *VM) writer() (keys.Writer, error) { return keys.LoadWriter(v.Keys) }
func (v *VM) reader() (keys.Reader, error) { return keys.LoadReader(v.Keys) }

// CleanScratch removes the scratch files of all epochs below the one in
// force; a worker calls it at start, when nothing of them can be in use.
func (v *VM) CleanScratch() error {
	list, err := os.ReadDir(v.Scratch)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if e.Name() != fmt.Sprintf("%d", v.Guard.Current().Epoch) {
			errs = append(errs, os.RemoveAll(filepath.Join(v.Scratch, e.Name())))
		}
	}
	return errors.Join(errs...)
}

const (
	maxItems = 10
	maxText  = 300
)

// bounded keeps results small: at most ten short lines.
func bounded(s []string) []string {
	out := make([]string, 0, min(len(s), maxItems+1))
	for i, x := range s {
		if i == maxItems {
			out = append(out, fmt.Sprintf("and %d more", len(s)-maxItems))
			break
		}
		out = append(out, short(x))
	}
	return out
}

func short(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}
