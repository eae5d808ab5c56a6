package worker

import (
	"context"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"

	"github.com/csobackup/cso_backupnrestore/internal/beat"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// beating are the activities that beat by themselves, with live details.
var beating = []string{"Copy", "RestoreUnit", "Bootstrap", "SwitchAccounts", "CompareUnit", "Pin", "ReindexUnit", "VerifyStored", "WatchVMs", "HoldMaintenance"}

// alive beats for every other activity that has a heartbeat timeout. Without
// it a step whose worker died stands still until its start-to-close timeout,
// which for a step in maintenance means minutes of maintenance for nothing; and
// a plan that takes longer than the heartbeat timeout would never end.
type alive struct {
	interceptor.WorkerInterceptorBase
	client client.Client
}

func (a alive) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &living{interceptor.ActivityInboundInterceptorBase{Next: next}, a.client}
}

type living struct {
	interceptor.ActivityInboundInterceptorBase
	client client.Client
}

func (l *living) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (out any, err error) {
	i := activity.GetInfo(ctx)
	if i.HeartbeatTimeout == 0 || slices.Contains(beating, i.ActivityType.Name) {
		return l.Next.ExecuteActivity(ctx, in)
	}
	options := beat.ForStep(i.HeartbeatTimeout)
	if i.ActivityType.Name == "PlanUnit" { // reads whole databases: it can be cancelled
		options = beat.For(i.HeartbeatTimeout)
	}
	err = beat.Run(ctx, l.client, options, func() any { return workflows.Beat{At: time.Now().UTC().Truncate(time.Second)} }, func(ctx context.Context) (err error) {
		out, err = l.Next.ExecuteActivity(ctx, in)
		return err
	})
	return out, err
}
