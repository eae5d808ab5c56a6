package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/maintenance"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/internal/topology"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// Control are the activities of the installer-vm's control worker.
type Control struct {
	Client   client.Client // of the control role
	Registry *plugins.Registry
	Estate   func() (*config.Estate, error)
	Store    *store.Store
	Journal  *journal.Journal
	Keeper   *maintenance.Keeper
	Paths    config.Paths
	Log      *slog.Logger
	// Greet says whether the search attributes exist on the Temporal that answers now,
	// after it has made one that was not met before ours: attributes and schedules.
	Greet     func(context.Context) bool
	Namespace string
}

// Survey says what there is: units, VMs, times, and the name of the new backup.
func (c *Control) Survey(ctx context.Context, in workflows.SurveyInput) (workflows.Survey, error) {
	e, err := c.Estate()
	if err != nil {
		return workflows.Survey{}, told(ctx, fmt.Errorf("%w: %w", plugins.ErrConfig, err))
	}
	units, err := topology.Units(e, c.Registry)
	if err != nil {
		return workflows.Survey{}, told(ctx, err)
	}
	if len(units) == 0 {
		return workflows.Survey{}, told(ctx, fmt.Errorf("the estate file lists no instance: %w", plugins.ErrConfig))
	}
	free, err := c.Store.Free()
	if err != nil {
		return workflows.Survey{}, told(ctx, err)
	}
	s := workflows.Survey{
		Attributes: c.Greet(ctx), Free: free,
		Backup: manifest.Timestamp(in.Started), Units: units, Reindexable: topology.Reindexable(units, c.Registry), VMs: topology.VMs(units), HasSwitch: e.Switch != nil || len(e.Settings.Hooks.EnterMaintenance) > 0,
		MaxMaintenance: time.Duration(e.Settings.MaxMaintenance), Parallel: e.Settings.Parallel,
		Heartbeat: time.Duration(e.Settings.Heartbeat), VMLostAfter: time.Duration(e.Settings.VMLostAfter),
	}
	if in.Name != "" {
		ref := manifest.Ref{Name: in.Name, Timestamp: s.Backup}
		if err := ref.Validate(); err != nil {
			return s, told(ctx, problem.New(problem.Usage, "", "%w", err))
		}
		s.Backup = ref.String()
	}
	return s, nil
}

// Fence claims the journal for the calling run.
func (c *Control) Fence(ctx context.Context, in workflows.FenceInput) (workflows.FenceResult, error) {
	info := activity.GetInfo(ctx)
	cluster, err := c.Cluster(ctx)
	if err != nil {
		return workflows.FenceResult{}, told(ctx, err)
	}
	s, err := c.Journal.Claim(ctx, journal.Request{
		Cluster: cluster, Workflow: info.WorkflowExecution.ID, Run: info.WorkflowExecution.RunID,
		Operation: in.Operation, Backup: in.Backup, Repairs: in.Repairs,
	})
	if err != nil {
		return workflows.FenceResult{}, told(ctx, err)
	}
	out := workflows.FenceResult{Claim: s.Claim, Written: s.Written, Held: s.Hold != nil}
	if s.Half() || s.Hold != nil {
		out.Safety, out.Source, out.Targets = s.Safety, s.Backup, s.Targets
	}
	out.Entered = s.Lease != nil && s.Lease.Entered
	return out, nil
}

// Held says what an open hold is about, or that there is none.
func (c *Control) Held(ctx context.Context, in workflows.ResolveInput) (workflows.FenceResult, error) {
	s, err := c.Journal.Read()
	if err != nil {
		return workflows.FenceResult{}, told(ctx, err)
	}
	lost := false // maintenance is on, and the Temporal that could leave it is gone
	if s.Open() && s.Hold == nil && !s.Half() && s.Lease != nil && s.Lease.Entered {
		_, err := c.RunClosed(ctx, s.Workflow, s.Claim)
		lost = errors.Is(err, maintenance.ErrElsewhere)
	}
	if !s.Open() || (s.Hold == nil && !s.Half() && !lost) {
		return workflows.FenceResult{}, told(ctx, problem.New(problem.Failed, "see `cso_backupnrestore status`", "nothing is held: there is nothing to resolve"))
	}
	if lost && in.Action != workflows.ResolveAccept {
		return workflows.FenceResult{}, told(ctx, problem.New(problem.Usage, "type `resolve accept --confirm NAME`: it ends maintenance mode",
			"the %s of %s has written nothing: there is nothing to put back or to finish", s.Operation, s.Backup))
	}
	if name, _, _ := strings.Cut(s.Backup, "/"); in.Confirm != s.Backup && in.Confirm != name {
		return workflows.FenceResult{}, told(ctx, problem.New(problem.Confirm, "type `resolve "+in.Action+" --confirm "+name+"`",
			"resolving the hold of %s needs its name to be confirmed", s.Backup))
	}
	return workflows.FenceResult{Written: s.Written, Safety: s.Safety, Source: s.Backup, Targets: s.Targets, Held: true}, nil
}

// Mark writes a phase, begun or proven units into the journal.
func (c *Control) Mark(ctx context.Context, in workflows.MarkInput) error {
	if err := own(ctx, in.Claim); err != nil {
		return told(ctx, err)
	}
	if in.Phase != "" || in.Safety != "" || len(in.Targets) > 0 {
		_, err := c.Journal.Update(ctx, in.Claim, func(s *journal.State) error {
			s.Phase = in.Phase
			if in.Safety != "" {
				s.Safety = in.Safety
			}
			if len(in.Targets) > 0 {
				s.Targets = in.Targets
			}
			return nil
		})
		if err != nil {
			return told(ctx, err)
		}
	}
	if err := c.Journal.BeginWrite(ctx, in.Claim, in.Begin...); err != nil {
		return told(ctx, err)
	}
	return told(ctx, c.Journal.Proven(ctx, in.Claim, in.Proven...))
}

// HoldMaintenance keeps the maintenance lease until the workflow drops it.
func (c *Control) HoldMaintenance(ctx context.Context, in workflows.HoldInput) error {
	if err := own(ctx, in.Claim); err != nil {
		return told(ctx, err)
	}
	info := activity.GetInfo(ctx)
	attempt := fmt.Sprintf("%s/%d", info.WorkflowExecution.RunID, info.Attempt)
	err := beat.Run(ctx, c.Client, beat.For(in.Heartbeat), func() any { return workflows.Beat{Phase: "holding", At: time.Now().UTC()} },
		func(ctx context.Context) error { return c.Keeper.Hold(ctx, in.Claim, attempt) })
	return told(ctx, err)
}

// EnterMaintenance turns maintenance on under a living holder.
func (c *Control) EnterMaintenance(ctx context.Context, in workflows.EnterInput) (workflows.EnterResult, error) {
	if err := own(ctx, in.Claim); err != nil {
		return workflows.EnterResult{}, told(ctx, err)
	}
	w, err := c.Keeper.EnterMode(ctx, in.Claim, in.Max, in.Tolerant)
	if errors.Is(err, plugins.ErrSpace) { // nobody frees space for a run that has not begun
		err = problem.New(problem.Unhealthy, "look at `cso_backupnrestore -b healthcheck`, free space, and start again", "%v", err)
	}
	return workflows.EnterResult{Warning: short(w)}, told(ctx, err)
}

// ExitMaintenance puts maintenance back as it was.
func (c *Control) ExitMaintenance(ctx context.Context, claim epoch.Claim) (workflows.LeaveResult, error) {
	if err := own(ctx, claim); err != nil {
		return workflows.LeaveResult{}, told(ctx, err)
	}
	l, err := c.Keeper.LeaveMode(ctx, claim)
	return workflows.LeaveResult{Was: l.Was, Held: l.Held, Gap: l.Gap}, told(ctx, err)
}

// Cleanup removes an incomplete backup, closes the journal, or holds the estate.
func (c *Control) Cleanup(ctx context.Context, in workflows.CleanupInput) error {
	if err := own(ctx, in.Claim); err != nil {
		return told(ctx, err)
	}
	if in.Hold != "" {
		c.Log.Error("the estate is held in maintenance", "epoch", in.Claim.Epoch, "reason", in.Hold)
		return told(ctx, c.Journal.HoldEstate(ctx, in.Claim, in.Hold))
	}
	if in.Backup != "" {
		if err := c.Journal.Check(in.Claim); err != nil {
			return told(ctx, err)
		}
		if err := c.discard(ctx, in.Backup); err != nil {
			return told(ctx, err)
		}
	}
	if err := c.Journal.Close(ctx, in.Claim, in.Outcome); err != nil {
		return told(ctx, err)
	}
	if in.Outcome == "sealed" {
		c.tidy(ctx)
	}
	return told(ctx, c.trimSafety(ctx))
}

// tidyWithin bounds the removal of what dead runs left in the store; the next run goes on with it.
const tidyWithin = time.Minute

// tidy removes incomplete backups and unused objects; no run is open that could need them.
func (c *Control) tidy(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, tidyWithin)
	defer done()
	rep, err := c.Store.Cleanup(ctx)
	if err != nil {
		c.Log.Warn("store cleanup", "err", err)
	}
	if len(rep.Incomplete) > 0 || rep.Objects > 0 {
		c.Log.Info("store cleanup", "incomplete", rep.Incomplete, "objects", rep.Objects, "bytes", rep.Bytes)
	}
}

// Holder asks who holds the estate.
func (c *Control) Holder(ctx context.Context) (workflows.Progress, error) {
	var p workflows.Progress
	v, err := c.Client.QueryWorkflow(ctx, workflows.ExclusiveID, "", workflows.ProgressQuery)
	if err != nil {
		return p, told(ctx, err)
	}
	return p, told(ctx, v.Get(&p))
}

// Cluster is the identity of the Temporal that answers.
func (c *Control) Cluster(ctx context.Context) (string, error) {
	info, err := c.Client.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	if err != nil {
		return "", fmt.Errorf("which temporal cluster is this: %w", err)
	}
	return info.ClusterId, nil
}

// RunClosed asks the engine whether a run has ended. On another cluster than
// the claim's, or without an answer, it cannot tell.
func (c *Control) RunClosed(ctx context.Context, workflow string, claim epoch.Claim) (bool, error) {
	id, err := c.Cluster(ctx)
	if err != nil {
		return false, err
	}
	if id != claim.Cluster {
		return false, fmt.Errorf("%w (%s, this is %s): use `resolve` if that one is gone", maintenance.ErrElsewhere, claim.Cluster, id)
	}
	d, err := c.Client.DescribeWorkflowExecution(ctx, workflow, claim.Run)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return d.WorkflowExecutionInfo.Status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// MaintenanceSettings reads how maintenance is switched in this estate.
func (c *Control) MaintenanceSettings() (maintenance.Settings, error) {
	e, err := c.Estate()
	if err != nil {
		return maintenance.Settings{}, err
	}
	s := maintenance.Settings{Enter: e.Settings.Hooks.EnterMaintenance, Leave: e.Settings.Hooks.ExitMaintenance}
	if e.Switch != nil {
		s.OpenSwitch = func(ctx context.Context) (plugins.Switch, io.Closer, error) { return c.openSwitch(ctx, e) }
	}
	return s, nil
}

func (c *Control) openSwitch(ctx context.Context, e *config.Estate) (plugins.Switch, io.Closer, error) {
	p, err := c.Registry.Get(e.Switch.Component)
	if err != nil {
		return nil, nil, err
	}
	t, err := e.Target(e.Switch.Component, e.Switch.Instance, "")
	if err != nil {
		return nil, nil, err
	}
	s, err := p.Open(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	sw, ok := s.(plugins.Switch)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("%s holds no maintenance switch: %w", t, plugins.ErrConfig), s.Close())
	}
	return sw, s, nil
}
