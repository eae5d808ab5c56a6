package worker

import (
	"context"
	"sync"

	"go.temporal.io/sdk/client"
)

// greeter notices that another Temporal answers: its database was lost, or the
// profile names a new one. A worker that runs on reconnects without a
// word; then the search attributes are missing, which lets every workflow task
// fail, and so are the schedules.
type greeter struct {
	worker    *Worker
	client    client.Client
	namespace string
	cluster   func(context.Context) (string, error)

	mu         sync.Mutex
	met        string // cluster that has our schedules
	asked      string // cluster that was asked for the attributes
	attributes bool
}

// greet makes what a Temporal not met before is missing, and says whether it
// has the search attributes. What fails is tried again at the next call.
func (g *greeter) greet(ctx context.Context) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, err := g.cluster(ctx)
	if err != nil {
		return g.attributes
	}
	if id != g.asked {
		if g.asked != "" {
			g.worker.Log.Warn("this is another temporal than before: its database was lost, or the profile has changed", "cluster", id, "before", g.asked)
		}
		err := attributes(ctx, g.client, g.namespace)
		g.asked, g.attributes = id, err == nil
		if err != nil {
			g.worker.Log.Warn("the Web UI will show fewer columns", "err", err)
		}
	}
	if id != g.met {
		if err := g.worker.schedules(ctx, g.client); err != nil {
			g.worker.Log.Warn("schedules could not be reconciled with their files; this is tried again within a minute", "err", err)
		} else {
			g.met = id
		}
	}
	return g.attributes
}
