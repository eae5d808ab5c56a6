package worker

import (
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/activities"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// registry is what workers and replayers have in common.
type registry interface {
	RegisterWorkflowWithOptions(w any, o workflow.RegisterOptions)
}

// Workflows registers every workflow under its type name.
func Workflows(r registry) {
	for _, w := range []struct {
		name string
		f    any
	}{
		{workflows.BackupType, workflows.Backup},
		{workflows.ScheduledType, workflows.ScheduledBackup},
		{workflows.RestoreType, workflows.Restore},
		{workflows.PlanType, workflows.PlanRestore},
		{workflows.ResolveType, workflows.Resolve},
		{workflows.VerifyType, workflows.Verify},
		{workflows.HealthType, workflows.HealthCheck},
		{workflows.ReindexType, workflows.Reindex},
	} {
		r.RegisterWorkflowWithOptions(w.f, workflow.RegisterOptions{Name: w.name})
	}
}

// transfers registers the long activities of a VM.
func transfers(w worker.Worker, v *activities.VM) {
	for name, f := range map[string]any{
		"Copy": v.Copy, "PlanUnit": v.PlanUnit, "RestoreUnit": v.RestoreUnit, "Bootstrap": v.Bootstrap,
		"SwitchAccounts": v.SwitchAccounts, "CompareUnit": v.CompareUnit, "ReindexUnit": v.ReindexUnit,
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// ctl registers the short activities of a VM, pins among them.
func ctl(w worker.Worker, v *activities.VM) {
	for name, f := range map[string]any{
		"Ping": v.Ping, "Quiet": v.Quiet, "Release": v.Release, "End": v.End, "Health": v.Health, "Hook": v.Hook, "Pin": v.Pin,
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// control registers the steps of the installer-vm.
func control(w worker.Worker, c *activities.Control) {
	for name, f := range map[string]any{
		"Survey": c.Survey, "Fence": c.Fence, "Held": c.Held, "Mark": c.Mark, "EnterMaintenance": c.EnterMaintenance,
		"ExitMaintenance": c.ExitMaintenance, "Cleanup": c.Cleanup, "Holder": c.Holder, "OpenBackup": c.OpenBackup,
		"VerifyStored": c.VerifyStored, "Seal": c.Seal, "Notes": c.Notes, "WatchVMs": c.WatchVMs,
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// lease registers the holder of maintenance.
func lease(w worker.Worker, c *activities.Control) {
	w.RegisterActivityWithOptions(c.HoldMaintenance, activity.RegisterOptions{Name: "HoldMaintenance"})
}
