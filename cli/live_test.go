package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/csobackup/cso_backupnrestore/internal/dial"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/test/embedded"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// site is a real cso-temporald with a real worker, on which small workflows of
// the product's names end as the test says: what is tested is the command.
type site struct {
	t    *testing.T
	root string
	srv  *embedded.Server
	c    client.Client
	w    worker.Worker
}

func newSite(t *testing.T) *site {
	s := &site{t: t, srv: embedded.Start(t, filepath.Join(t.TempDir(), "state")), root: filepath.Join(t.TempDir(), "backups")}
	t.Setenv("CSO_BACKUP_TEMPORAL", s.srv.Address)
	var err error
	if s.c, _, err = dial.Client(filepath.Join(s.srv.State, "pki"), dial.Control, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.c.Close)
	ref, err := manifest.ParseRef("MAR09/2026-03-09T14-02-11Z")
	if err != nil {
		t.Fatal(err)
	}
	if err := makeBackup(s.root, filepath.Join(s.srv.State, "keys"), ref, ""); err != nil {
		t.Fatal(err)
	}
	return s
}

// work starts the worker; stop ends it.
func (s *site) work() {
	s.w = worker.New(s.c, workflows.ControlQueue, worker.Options{WorkerStopTimeout: time.Second})
	for name, f := range map[string]any{
		workflows.BackupType: backupAs, workflows.RestoreType: restoreAs, workflows.PlanType: planAs, workflows.HealthType: healthAs,
		workflows.VerifyType: verifyAs, workflows.ResolveType: resolveAs,
	} {
		s.w.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: name})
	}
	if err := s.w.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.w.Stop)
}

func end(code problem.Code, msg string) error {
	p := problem.Problem{Code: code, Message: msg, Hint: "the hint of " + string(code)}
	return temporal.NewApplicationErrorWithOptions(msg, string(code), temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{p}})
}

// backupAs ends as the name of the backup says.
func backupAs(ctx workflow.Context, in workflows.BackupInput) (workflows.Result, error) {
	now := workflow.Now(ctx)
	p := workflows.Progress{Operation: "backup", Backup: in.Name + "/2026-03-09T14-02-11Z", Phase: "copy", Since: now, Started: now, Phases: []workflows.PhaseMark{{Name: "copy", At: now}}}
	if err := workflow.SetQueryHandler(ctx, workflows.ProgressQuery, func() (workflows.Progress, error) { return p, nil }); err != nil {
		return workflows.Result{}, err
	}
	r := workflows.Result{Operation: "backup", Backup: p.Backup, Consistent: true, Units: []workflows.UnitResult{{Unit: "etcd", Artifacts: 1}}}
	switch {
	case in.Name == "WARN":
		r.Warnings = []string{"look at this"}
	case in.Name == "LONG":
		err := workflow.Sleep(ctx, time.Minute)
		p.Phase = "cleanup"
		if err != nil {
			free, _ := workflow.NewDisconnectedContext(ctx)
			return r, temporal.NewCanceledError(workflow.Sleep(free, 4*time.Second))
		}
	case in.Name == "STUCK":
		panic("a bug in the workflow's code")
	case strings.HasPrefix(in.Name, "E-"):
		return r, end(problem.Code(strings.TrimPrefix(in.Name, "E-")), "it ended as "+in.Name)
	case in.Name == "PLAIN":
		return r, temporal.NewNonRetryableApplicationError("an error without a code", "SomethingElse", nil)
	}
	return r, nil
}

func planAs(_ workflow.Context, in workflows.RestoreInput) (workflows.RestorePlan, error) {
	p := workflows.RestorePlan{Backup: in.Backup, Forever: in.Disaster, Units: []workflows.UnitPlan{{Unit: "etcd", Change: 2, Grade: string(plugins.Green)}}}
	if in.InPlace {
		p.Refusals = []string{"etcd: 3 GiB are needed and 1 GiB is free"}
	}
	return p, nil
}

func restoreAs(_ workflow.Context, in workflows.RestoreInput) (workflows.Result, error) {
	return workflows.Result{Operation: "restore", Backup: in.Backup, Drift: "confirm=" + in.Confirm, Units: []workflows.UnitResult{{Unit: "etcd", Digest: "equal"}}}, nil
}

func resolveAs(_ workflow.Context, in workflows.ResolveInput) (workflows.Result, error) {
	return workflows.Result{Operation: "resolve", Backup: in.Confirm, Drift: in.Action}, nil
}

func healthAs(_ workflow.Context, in workflows.HealthInput) (workflows.HealthResult, error) {
	grade := plugins.Green
	switch strings.Join(in.Components, ",") {
	case "etcd":
		grade = plugins.Amber
	case "mariadb":
		grade = plugins.Red
	}
	return workflows.HealthResult{Grade: string(grade)}, nil
}

func verifyAs(_ workflow.Context, in workflows.VerifyInput) (workflows.VerifyResult, error) {
	r := workflows.VerifyResult{Backup: in.Backup, Pieces: 9}
	if in.Quick {
		r.Damaged = []string{"etcd: piece ab12"}
	}
	return r, nil
}

// cmd runs the command in this process, as a script without a terminal does.
func (s *site) cmd(ctx context.Context, line string) (int, string) {
	s.t.Helper()
	var out syncBuffer
	env := map[string]string{"CSO_BACKUP_ROOT": s.root, "CSO_BACKUP_STATE": s.srv.State, "CSO_BACKUP_ESTATE": filepath.Join(s.root, "none.yaml"), "TZ": "UTC"}
	code := Run(ctx, Process{Args: strings.Fields(line), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: func(k string) string { return env[k] }})
	return code, out.String()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (s *site) expect(line string, code int, parts ...string) string {
	s.t.Helper()
	got, out := s.cmd(s.t.Context(), line)
	if got != code {
		s.t.Errorf("%s: exit %d, want %d\n%s", line, got, code, out)
	}
	for _, p := range parts {
		if !strings.Contains(out, p) {
			s.t.Errorf("%s: %q is not in\n%s", line, p, out)
		}
	}
	return out
}

func TestLive(t *testing.T) {
	s := newSite(t)
	s.expect("-b backup -s MAR10", 4, "nobody polls the queue cso-control", "systemctl start cso-backup-worker")
	s.expect("status", 0, "no operation ran yet")
	s.expect("cancel", 1, "nothing is running")
	s.expect("attach", 1, "nothing is running")
	s.work()
	t.Run("ends", s.testEnds)
	t.Run("restore", s.testRestore)
	t.Run("busy", s.testBusy)
	t.Run("detach", s.testDetach)
	t.Run("stuck", s.testStuck)
}

// Every end has its exit status, and says what it means.
func (s *site) testEnds(t *testing.T) {
	s.expect("-b backup -s MAR10", 0, "copy\n", "OK  MAR10/2026-03-09T14-02-11Z saved: 1 unit", "next: cso_backupnrestore verify")
	s.expect("-b backup -s WARN", 3, "warning: look at this", "WARNINGS  WARN/")
	for code, exit := range problem.Codes() {
		if code == problem.Detached {
			continue // a run does not end so
		}
		s.expect("-b backup -s E-"+string(code), exit, "it ended as E-"+string(code), "hint: the hint of "+string(code))
	}
	s.expect("-b backup -s PLAIN", 1, "an error without a code")
	s.expect("-b healthcheck", 0, "Overall cluster status : GREEN")
	s.expect("healthcheck --databases etcd", 3, "Overall cluster status : AMBER")
	s.expect("healthcheck --databases mariadb", 5, "Overall cluster status : RED")
	s.expect("verify MAR09", 0, "OK  MAR09/2026-03-09T14-02-11Z is whole: 9 pieces")
	s.expect("verify MAR09 --quick", 13, "damaged: etcd: piece ab12", "is damaged")
	s.expect("resolve retry --confirm MAR09", 0, "resolved by retry", "drift: retry")
	out := s.expect("-b backup -s E-held -o json", 15)
	var d document
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if d.Verdict != "FAILED" || d.Exit != 15 || d.Error == nil || d.Error.Code != problem.Held || d.Command != "backup" {
		t.Errorf("document %+v", d)
	}
}

func (s *site) testRestore(*testing.T) {
	s.expect("restore MAR09 --plan", 0, "planned only: nothing was changed", "etcd")
	s.expect("-b restore -s MAR09", 0, "OK  MAR09/2026-03-09T14-02-11Z restored", "digests equal", "drift: confirm=\n")
	s.expect("-b restore -s MAR09 --confirm MAR09", 0, "drift: confirm=MAR09")
	s.expect("-b restore -s MAR09 -r yes --plan", 0, "LOST FOR GOOD", "--confirm MAR09")
	s.expect("-b restore -s MAR09 -r yes", 14, "add --confirm MAR09", "nothing was changed")
	s.expect("-b restore -s MAR09 -r yes --confirm MAR09", 0, "restored")
	s.expect("-b restore -s MAR09 --in-place", 5, "refused", "3 GiB are needed")
	s.expect("-b restore -s MAR09 --in-place --plan", 5, "would be refused")
}

func (s *site) testBusy(t *testing.T) {
	s.expect("backup LONG --detach", 0, "OK  started, run ")
	s.expect("-b backup -s MAR10", 11, "another operation is running: backup LONG/2026-03-09T14-02-11Z, phase copy, for", "cso_backupnrestore cancel")
	s.expect("-b restore -s MAR09", 11, "another operation is running")
	s.expect("status", 0, "backup LONG/2026-03-09T14-02-11Z", "running since")
	s.expect("status -o json", 0, `"running": true`)
	s.expect("cancel", 0, "asked to stop")
	s.expect("cancel", 1, "already asked to stop")
	s.expect("attach", 1, "the operation was cancelled")
	s.expect("status", 0, "Nothing is running.", "cancelled")
}

// Ctrl-C lets go; the run goes on.
func (s *site) testDetach(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(3*time.Second, func() { cancel(errInterrupted) })
	code, out := s.cmd(ctx, "-b backup -s LONG")
	if code != 130 || !strings.Contains(out, "detached: the operation goes on by itself") || !strings.Contains(out, "cso_backupnrestore attach") {
		t.Errorf("exit %d\n%s", code, out)
	}
	s.expect("status", 0, "running since")
	s.expect("cancel", 0)
	s.expect("attach", 1)
}

// A workflow whose code fails is told as stuck, and cancel ends it for good.
func (s *site) testStuck(t *testing.T) {
	s.expect("backup STUCK --detach", 0)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		_, out := s.cmd(t.Context(), "status")
		if strings.Contains(out, "workflow stuck: a bug in the workflow's code") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never told as stuck:\n%s", out)
		}
		time.Sleep(time.Second)
	}
	s.expect("cancel", 3, "the workflow was stuck", "a bug in the workflow's code")
	s.expect("status", 0, "Nothing is running.")
	s.expect("-b backup -s MAR10", 0)
}

// A run that no worker begins is taken back, so that it does not begin at night.
func TestLive_noWorkerBegins(t *testing.T) {
	s := newSite(t)
	s.work()
	s.expect("-b healthcheck", 0)
	s.w.Stop() // it is still known to have polled a moment ago
	s.expect("-b backup -s MAR10", 4, "no control worker has answered", "it was taken back, nothing has happened")
	s.expect("status", 0, "Nothing is running.")
}
