package e2e

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// settings edits the estate file for the length of a test.
func (b *bench) settings(old, new string) {
	b.t.Helper()
	path := b.path("estate.yaml")
	text, err := os.ReadFile(path)
	b.check(err)
	with := strings.Replace(string(text), old, new, 1)
	if with == string(text) {
		b.t.Fatalf("the estate file has no %q:\n%s", old, text)
	}
	b.check(os.WriteFile(path, []byte(with), 0o600))
	b.t.Cleanup(func() { _ = os.WriteFile(path, text, 0o600) })
}

// slowly lets a process run a twentieth of the time, until stop is called.
func (p *process) slowly() (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			p.stop()
			time.Sleep(95 * time.Millisecond)
			p.thaw()
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-gone })
}

// TestHang: cso-temporald stands still for 20 s in the middle of a dump, which
// goes on undisturbed with production's heartbeat.
func TestHang(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 81, "small"))
	b.check(b.Fill(ctx, 81, "large", "secrets"))
	b.settings("heartbeat: "+killBeat.String(), "heartbeat: 90s")
	r, v, w := b.stand("backup", "copy", "-b", "backup", "-s", "HANG", "-m", "yes", "-o", "json")
	normal := w.slowly() // the dump outlasts the hang
	b.check(b.Freeze(ctx, engineOf))
	time.Sleep(20 * time.Second)
	b.check(b.Thaw(ctx, engineOf))
	during, open := b.look()
	if !open || len(during.of(dbvm, "Copy")) == 0 {
		t.Fatalf("the dump did not last through the hang: %+v", during)
	}
	normal()
	var res workflows.Result
	b.read(b.expect(r.wait(), fine...), &res)
	b.settled()
	names := map[int64]string{}
	for _, e := range b.history(v.run) {
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil {
			names[e.EventId] = a.ActivityType.GetName() + " " + a.ActivityId
		}
		if a := e.GetActivityTaskStartedEventAttributes(); a != nil && a.Attempt > 1 {
			t.Errorf("%s needed attempt %d: %v", names[a.ScheduledEventId], a.Attempt, a.LastFailure)
		}
	}
	if !res.Consistent || len(res.Warnings) > 0 {
		t.Errorf("the hang has left its mark: %+v", res)
	}
	b.want([]int{0}, "verify", res.Backup)
}

// version is a control worker of another version: it runs a Backup of its own.
func (b *bench) version(f func(workflow.Context, workflows.BackupInput) (workflows.Result, error)) (stop func()) {
	b.t.Helper()
	conf, err := pki.ClientTLS(filepath.Join(b.Dir(), "state", "pki"), pki.Control)
	b.check(err)
	c := b.control(conf)
	w := worker.New(c, workflows.ControlQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: workflows.BackupType})
	b.check(w.Start())
	stop = sync.OnceFunc(func() { w.Stop(); c.Close() })
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) control(conf *tls.Config) client.Client {
	b.t.Helper()
	c, err := client.Dial(client.Options{HostPort: b.value("LAB_TEMPORAL_ADDR"), Namespace: "cso", ConnectionOptions: client.ConnectionOptions{TLS: conf},
		Logger: tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	b.check(err)
	return c
}

// TestOtherVersion: a run of another version is open. The control worker
// refuses to take it over, and says what to do.
func TestOtherVersion(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 91, "small"))
	b.check(b.Stop(ctx, control))
	back := sync.OnceFunc(func() { b.check(b.StartMember(t.Context(), control)) })
	defer back()
	stop := b.version(func(ctx workflow.Context, in workflows.BackupInput) (workflows.Result, error) {
		err := workflow.Sleep(ctx, time.Hour) // this version begins with a timer
		return workflows.Result{Operation: "backup", Backup: in.Name}, err
	})
	r := b.start("-b", "backup", "-s", "OLDER", "-o", "json")
	b.eventually(30*time.Second, "the other version has begun the run", func() bool {
		v, open := b.look()
		return open && len(b.history(v.run)) > 3
	})
	log := b.path("log", control+".log")
	before := tail(log, 1)
	if err := b.StartMember(ctx, control); err == nil {
		t.Error("the worker took over a run that it cannot replay")
	}
	if text := tail(log, 30); text == before || !strings.Contains(text, "this version cannot go on with the Backup that is running") || !strings.Contains(text, "or cancel it first") {
		t.Errorf("it does not say why:\n%s", text)
	}
	b.want([]int{0}, "cancel") // as it says; the version that began it ends it
	b.expect(r.wait(), problem.Cancelled.Exit())
	stop()
	back()
	b.backup("NEWER", "-m", "yes")
}

// TestStuck: workflow code fails in maintenance. It is told as stuck, cancel
// ends it, and the control worker leaves maintenance and cleans up.
func TestStuck(t *testing.T) {
	b := two.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 92, "small"))
	before := b.fingerprint()
	r, _, w := b.stand("backup", "pin", "-b", "backup", "-s", "STUCK", "-m", "yes", "-o", "json")
	b.check(b.Stop(ctx, control))
	back := sync.OnceFunc(func() { b.check(b.StartMember(t.Context(), control)) })
	defer back()
	stop := b.version(func(workflow.Context, workflows.BackupInput) (workflows.Result, error) {
		panic("a bug in the workflow's code")
	})
	w.thaw()
	b.eventually(2*time.Minute, "the run is told as stuck", func() bool {
		return strings.Contains(b.cso("status").stdout, "workflow stuck: ")
	})
	same(t, "maintenance while it is stuck", "true", b.maintenance())
	e := b.want([]int{problem.Warnings.Exit()}, "cancel")
	if !strings.Contains(e.stdout+e.stderr, "was stuck") {
		t.Errorf("cancel: %s%s", e.stdout, e.stderr)
	}
	b.expect(r.wait(), problem.Failed.Exit())
	stop()
	back()
	b.eventually(60*time.Second, "the control worker has cleaned up", func() bool { return !b.journal().Open() })
	b.settled()
	b.equal(before)
	b.backup("MENDED", "-m", "yes")
}
