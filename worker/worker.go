package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"github.com/csobackup/cso_backupnrestore/activities"
	"github.com/csobackup/cso_backupnrestore/internal/attempts"
	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/dial"
	"github.com/csobackup/cso_backupnrestore/internal/fences"
	"github.com/csobackup/cso_backupnrestore/internal/guard"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/maintenance"
	"github.com/csobackup/cso_backupnrestore/internal/pins"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/schedule"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

const (
	pinKeep    = 6 * time.Hour // a pin nobody fetches is let go of; every run that ends in order lets go of its own
	reapEvery  = 30 * time.Second
	stopWithin = 10 * time.Second
	slots      = 32 // of the VM's queues; how many run is the workflow's decision
)

// Worker is a running agent.
type Worker struct {
	Paths    config.Paths
	Registry *plugins.Registry
	Out      io.Writer // one READY line
	Log      *slog.Logger

	store   *store.Store
	control *activities.Control
	vm      *activities.VM
	local   discovery
	stops   []func()
}

// Run works until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	defer w.stop()
	if err := w.prepare(); err != nil {
		return err
	}
	if err := w.startVM(ctx); err != nil {
		return err
	}
	if err := w.startControl(ctx); err != nil {
		return err
	}
	fmt.Fprintf(w.Out, "READY vm=%s root=%s\n", w.Paths.VM, w.Paths.Root)
	w.reap(ctx)
	return nil
}

// Reap applies the rule of the maintenance lease once; a system timer calls it.
func (w *Worker) Reap(ctx context.Context) error {
	defer w.stop()
	if err := w.prepare(); err != nil {
		return err
	}
	if err := w.openControl(ctx); err != nil {
		return err
	}
	did, err := w.control.Keeper.Reap(ctx)
	if did != "" {
		fmt.Fprintln(w.Out, did)
	}
	return err
}

func (w *Worker) prepare() error {
	if err := pki.CheckVM(w.Paths.VM); err != nil {
		return err
	}
	if err := pki.Ensure(w.Paths.PKI(), w.Paths.VM); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	if _, err := keys.Ensure(w.Paths.Keys()); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	var err error
	if w.store, err = store.Open(w.Paths.Root); err != nil {
		return err
	}
	w.stops = append(w.stops, func() { _ = w.store.Close() })
	return nil
}

// estate reads the estate file, or finds the servers of this host where there is none.
func (w *Worker) estate(ctx context.Context) (*config.Estate, error) {
	e, err := config.Load(w.Paths.Estate)
	if errors.Is(err, config.ErrNoFile) {
		return w.local.estate(ctx, w)
	}
	return e, err
}

// estateFor is estate for those who ask while ctx lives.
func (w *Worker) estateFor(ctx context.Context) func() (*config.Estate, error) {
	return func() (*config.Estate, error) { return w.estate(ctx) }
}

func (w *Worker) dial(role string) (client.Client, string, error) {
	o, _, err := dial.Options(w.Paths.PKI(), role, w.Log)
	if err != nil {
		return nil, "", err
	}
	o.Identity = fmt.Sprintf("%s/%d", w.Paths.VM, os.Getpid())
	c, err := client.NewLazyClient(o)
	if err != nil {
		return nil, "", fmt.Errorf("temporal at %s: %w", o.HostPort, err)
	}
	w.stops = append(w.stops, c.Close)
	return c, o.Namespace, nil
}

// startVM polls the queues of this VM.
func (w *Worker) startVM(ctx context.Context) error {
	c, namespace, err := w.dial(dial.WorkerRole(w.Paths.VM))
	if err != nil {
		return err
	}
	v := &activities.VM{
		Name: w.Paths.VM, Client: c, Registry: w.Registry, Estate: w.estateFor(ctx), Pins: pins.New(pinKeep), Store: w.store,
		Keys: w.Paths.Keys(), Scratch: filepath.Join(w.Paths.Worker(), "scratch"), Log: w.Log,
	}
	if err := os.MkdirAll(v.Scratch, 0o700); err != nil {
		return fmt.Errorf("scratch directory: %w", err)
	}
	e, err := w.estate(ctx)
	if err != nil && !errors.Is(err, config.ErrNoFile) {
		return err
	}
	if v.Gateway, err = w.gatewayClient(e); err != nil {
		return err
	}
	if v.Guard, err = guard.Open(w.Paths.Worker()); err != nil {
		return err
	}
	if v.Fences, err = fences.Open(filepath.Join(w.Paths.Worker(), "fences")); err != nil {
		return err
	}
	w.stops = append(w.stops, func() { _ = v.Fences.Close() })
	w.vm = v
	if v.Attempts, err = attempts.New(filepath.Join(w.Paths.Worker(), "units")); err != nil {
		return err
	}
	if err := v.CleanScratch(); err != nil {
		w.Log.Warn("scratch files of older runs", "err", err)
	}
	for queue, register := range map[string]func(worker.Worker, *activities.VM){
		workflows.VMQueue(w.Paths.VM): transfers, workflows.CtlQueue(w.Paths.VM): ctl,
	} {
		if err := w.reach(ctx, c, namespace, queue); err != nil {
			return err
		}
		x := worker.New(c, queue, w.options(c, true))
		register(x, v)
		if err := w.start(x); err != nil {
			return err
		}
	}
	return nil
}

// reach waits for Temporal and proves that this worker may poll the queue.
func (w *Worker) reach(ctx context.Context, c client.Client, namespace, queue string) error {
	for said := false; ; said = true {
		err := mayPoll(ctx, c, namespace, queue, w.Paths.VM)
		if err == nil || errors.Is(err, errRefused) || ctx.Err() != nil {
			return err
		}
		if !said {
			w.Log.Warn("waiting for temporal", "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func (w *Worker) openControl(ctx context.Context) error {
	c, namespace, err := w.dial(dial.Control)
	if err != nil {
		return err
	}
	j, err := journal.At(w.Paths.Root)
	if err != nil {
		return err
	}
	ctl := &activities.Control{Client: c, Registry: w.Registry, Estate: w.estateFor(ctx), Store: w.store, Journal: j, Paths: w.Paths, Log: w.Log, Namespace: namespace}
	ctl.Keeper = &maintenance.Keeper{Journal: j, Root: w.Paths.Root, RunClosed: ctl.RunClosed, Log: w.Log, Settings: ctl.MaintenanceSettings}
	g := &greeter{worker: w, client: c, namespace: namespace, cluster: ctl.Cluster}
	ctl.Greet = g.greet
	w.control = ctl
	return nil
}

// startControl polls the control and lease queues when this is the installer-vm.
func (w *Worker) startControl(ctx context.Context) error {
	e, err := w.estate(ctx)
	if err != nil && !errors.Is(err, config.ErrNoFile) {
		return err
	}
	if err == nil && e.VMs[0].Name != w.Paths.VM {
		return nil
	}
	if err := w.openControl(ctx); err != nil {
		return err
	}
	if err := w.serveGateway(ctx, e); err != nil {
		return err
	}
	c, namespace := w.control.Client, w.control.Namespace
	if err := w.reach(ctx, c, namespace, workflows.ControlQueue); err != nil {
		return err
	}
	if err := replayable(ctx, c); err != nil {
		return err
	}
	w.control.Greet(ctx)
	x := worker.New(c, workflows.ControlQueue, w.options(c, false))
	Workflows(x)
	control(x, w.control)
	if err := w.start(x); err != nil {
		return err
	}
	l := worker.New(c, workflows.LeaseQueue, w.options(c, true))
	lease(l, w.control)
	return w.start(l)
}

// schedules makes Temporal's schedules equal to the files, pauses included.
func (w *Worker) schedules(ctx context.Context, c client.Client) error {
	zone, err := schedule.Zone(os.Getenv)
	if err != nil {
		return err
	}
	ctx, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	ch, err := schedule.Reconcile(ctx, c, w.Paths.Schedules(), zone)
	if n := len(ch.Created) + len(ch.Updated) + len(ch.Deleted); n > 0 {
		w.Log.Info("schedules reconciled", "created", ch.Created, "updated", ch.Updated, "deleted", ch.Deleted)
	}
	return err
}

func (w *Worker) options(c client.Client, activitiesOnly bool) worker.Options {
	return worker.Options{
		DisableWorkflowWorker: activitiesOnly, MaxConcurrentActivityExecutionSize: slots, WorkerStopTimeout: stopWithin,
		Identity: fmt.Sprintf("%s/%d", w.Paths.VM, os.Getpid()), Interceptors: []interceptor.WorkerInterceptor{&sizes{}, &alive{client: c}},
		OnFatalError: func(err error) { w.Log.Error("worker", "err", err) },
	}
}

func (w *Worker) start(x worker.Worker) error {
	if err := x.Start(); err != nil {
		return fmt.Errorf("start polling: %w", err)
	}
	w.stops = append(w.stops, x.Stop)
	return nil
}

func (w *Worker) stop() {
	for i := len(w.stops) - 1; i >= 0; i-- {
		w.stops[i]()
	}
	w.stops = nil
}

// reap runs until ctx ends.
func (w *Worker) reap(ctx context.Context) {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		if err := w.vm.SweepFences(ctx); err != nil {
			w.Log.Warn("fences", "err", err)
		}
		if w.control != nil {
			w.control.Greet(ctx)
			switch did, err := w.control.Keeper.Reap(ctx); {
			case err != nil:
				w.Log.Warn("reaper", "err", err)
			case did != "":
				w.Log.Warn("reaper", "did", did)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
