package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/csobackup/cso_backupnrestore/internal/gateway"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// taken is a VM of the estate's owner that is in somebody else's hands: it has
// a worker's certificate, and none of the units is on it.
const taken = "vm-taken"

// TestClosed: what a worker's certificate can do to the whole product while a
// backup is being made through the store gateway. It can do nothing.
func TestClosed(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 21, "small"))
	good := b.fingerprint()
	certs := b.path("state", "pki")
	b.check(pki.Ensure(certs, taken))
	address := b.serveGateway()

	d := b.closeDoor()
	run := b.start("-b", "backup", "-s", "CLOSED", "-m", "yes", "-o", "json")
	d.await()
	s := b.journal()
	ref, err := manifest.ParseRef(s.Backup)
	b.check(err)
	own := manifest.UnitID{Component: "etcd", Instance: "central", Member: manifest.ClusterMember}

	t.Run("engine", func(t *testing.T) { b.of(t).attackEngine(certs, s.Claim.Run) })
	t.Run("store", func(t *testing.T) {
		b := b.of(t)
		c := b.gatewayAs(certs, address, pki.Worker(taken))
		if _, err := c.Begin(ctx, ref, own, gateway.Begin{Claim: s.Claim}); !errors.Is(err, gateway.ErrRefused) {
			t.Errorf("adds to another VM's unit: %v", err)
		}
		if _, _, err := c.List(ctx, ref, own); !errors.Is(err, gateway.ErrRefused) {
			t.Errorf("reads another VM's list: %v", err)
		}
		if err := c.Piece(ctx, ref, own, manifest.Hash{}, &bytes.Buffer{}); !errors.Is(err, gateway.ErrRefused) {
			t.Errorf("reads another VM's piece: %v", err)
		}
		// The worker of this VM, in a backup that nobody makes.
		mine := b.gatewayAs(certs, address, pki.Worker(b.vm()))
		other := manifest.Ref{Name: "FORGED", Timestamp: ref.Timestamp}
		if _, err := mine.Begin(ctx, other, own, gateway.Begin{Claim: s.Claim}); !errors.Is(err, gateway.ErrRefused) {
			t.Errorf("invents a backup: %v", err)
		}
		stale := s.Claim
		stale.Nonce = "guessed"
		if _, err := mine.Begin(ctx, ref, own, gateway.Begin{Claim: stale}); err == nil {
			t.Error("writes without the claim in force")
		}
		if _, err := os.Stat(b.path("backups", "FORGED")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a forged backup left something: %v", err)
		}
	})
	t.Run("delete and replace", func(t *testing.T) { b.of(t).attackObjects(certs, address, ref, own) })
	t.Run("revoked", func(t *testing.T) {
		b := b.of(t)
		raw := b.raw(certs, pki.Worker(taken))
		c := b.gatewayAs(certs, address, pki.Worker(taken))
		_, err := raw.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "cso"})
		b.check(err)
		b.check(pki.Revoke(certs, pki.Worker(taken)))
		_, err = raw.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "cso"})
		b.denied("a revoked worker, at its next call", err, "revoked")
		if _, _, err := c.List(ctx, ref, own); err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("a revoked worker, at the store gateway: %v", err)
		}
	})

	d.open()
	b.read(b.expect(run.wait(), fine...), nil)
	b.settled()
	log, err := os.ReadFile(b.path("log", "worker.log"))
	b.check(err)
	for _, unit := range []string{"etcd/central/cluster", "secrets/central/", "certificates/central/"} {
		if !strings.Contains(string(log), "unit received") || !strings.Contains(string(log), "unit="+unit) {
			t.Errorf("unit %s did not come through the gateway", unit)
		}
	}
	mine := b.gatewayAs(certs, address, pki.Worker(b.vm()))
	if _, err := mine.Begin(ctx, ref, own, gateway.Begin{Claim: s.Claim}); err == nil {
		t.Error("a unit of a sealed backup is opened again")
	}
	var r workflows.Result
	b.backup("AGAIN") // after maintenance, whose switch lies in etcd and changes its snapshot
	b.ask(fine, &r, "-b", "backup", "-s", "THIRD")
	if r.New*100 > r.Stored {
		t.Errorf("unchanged data, and %d of %d bytes were sent again", r.New, r.Stored)
	}
	b.check(b.Wreck(ctx, 21))
	b.restored("-s", "CLOSED")
	b.equal(good)
}

// attackObjects asks the store gateway, in the name of the VM that owns the
// unit, for what no VM may: to delete or to replace.
func (b *bench) attackObjects(certs, address string, ref manifest.Ref, own manifest.UnitID) {
	b.t.Helper()
	conf, err := pki.GatewayTLS(certs, pki.Worker(b.vm()))
	b.check(err)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
	defer c.CloseIdleConnections()
	before := b.stored()
	piece := strings.Repeat("0", 64)
	for _, method := range []string{http.MethodDelete, http.MethodPatch, http.MethodPut, "MOVE", http.MethodPost} {
		for _, path := range []string{"", "/unit.json", "/pieces/" + piece, "/../../../manifest.json", "/pieces/..%2f..%2f..%2f..%2fmanifest.json"} {
			r, err := http.NewRequestWithContext(b.t.Context(), method, "https://"+address+"/v1/"+ref.String()+"/"+own.String()+path, strings.NewReader("x"))
			b.check(err)
			answer, err := c.Do(r)
			b.check(err)
			answer.Body.Close()
			if answer.StatusCode < 400 || answer.StatusCode >= 500 {
				b.t.Errorf("%s %s: %s", method, path, answer.Status)
			}
		}
	}
	if diff := cmp.Diff(before, b.stored()); diff != "" {
		b.t.Errorf("the store changed:\n%s", diff)
	}
}

// stored lists all backups and objects, with size and time of change.
func (b *bench) stored() []string {
	b.t.Helper()
	var out []string
	b.check(filepath.WalkDir(b.path("backups"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(p, b.path("backups", ".cso")) && !strings.HasPrefix(p, b.path("backups", ".cso", "objects")) {
			return nil // journal, state and scratch files live
		}
		fi, err := d.Info()
		if err == nil {
			out = append(out, fmt.Sprintf("%s %s %d %s", p, fi.Mode(), fi.Size(), fi.ModTime()))
		}
		return err
	}))
	return out
}

// serveGateway writes a gateway into the estate file and starts the worker anew.
func (b *bench) serveGateway() string {
	b.t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", freePorts(b.t, 1))
	before, err := os.ReadFile(b.path("estate.yaml"))
	b.check(err)
	with := strings.Replace(string(before), "settings:\n", "settings:\n    gateway: "+address+"\n", 1)
	if with == string(before) {
		b.t.Fatalf("the lab's estate file has no settings:\n%s", with)
	}
	b.check(os.WriteFile(b.path("estate.yaml"), []byte(with), 0o600))
	restart := func(ctx context.Context) {
		b.check(b.Stop(ctx, "worker"))
		b.check(b.StartMember(ctx, "worker"))
	}
	restart(b.t.Context())
	b.t.Cleanup(func() {
		b.check(os.WriteFile(b.path("estate.yaml"), before, 0o600))
		restart(context.Background())
	})
	return address
}

func (b *bench) vm() string {
	b.t.Helper()
	list, err := filepath.Glob(b.path("state", "pki", "worker-*.crt"))
	b.check(err)
	for _, p := range list {
		if vm := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(p), "worker-"), ".crt"); vm != taken {
			return vm
		}
	}
	b.t.Fatal("this VM has no certificate")
	return ""
}

func (b *bench) gatewayAs(certs, address, name string) *gateway.Client {
	b.t.Helper()
	conf, err := pki.GatewayTLS(certs, name)
	b.check(err)
	c := gateway.NewClient(address, conf)
	b.t.Cleanup(c.Close)
	return c
}

// raw calls the engine with a certificate, past what the SDK would allow.
func (b *bench) raw(certs, name string) workflowservice.WorkflowServiceClient {
	b.t.Helper()
	conf, err := pki.ClientTLS(certs, name)
	b.check(err)
	c, err := client.Dial(client.Options{HostPort: b.value("LAB_TEMPORAL_ADDR"), Namespace: "cso", ConnectionOptions: client.ConnectionOptions{TLS: conf}})
	b.check(err)
	b.t.Cleanup(c.Close)
	return c.WorkflowService()
}

func (b *bench) denied(what string, err error, reason string) {
	b.t.Helper()
	var denied *serviceerror.PermissionDenied
	if !errors.As(err, &denied) || !strings.Contains(denied.Reason, reason) {
		b.t.Errorf("%s: want a refusal with %q, got %v", what, reason, err)
	}
}

// attackEngine tries on a running backup all that a worker's certificate must not do.
func (b *bench) attackEngine(certs, runID string) {
	t, ctx := b.t, b.t.Context()
	const ns = "cso"
	raw := b.raw(certs, pki.Worker(taken))
	exclusive := &commonpb.WorkflowExecution{WorkflowId: workflows.ExclusiveID, RunId: runID}
	d, err := b.client.DescribeWorkflowExecution(ctx, workflows.ExclusiveID, runID)
	b.check(err)
	if len(d.PendingActivities) == 0 {
		t.Fatal("no activity to attack")
	}
	_, err = raw.StartWorkflowExecution(ctx, &workflowservice.StartWorkflowExecutionRequest{Namespace: ns, WorkflowId: "evil",
		WorkflowType: &commonpb.WorkflowType{Name: workflows.RestoreType}, TaskQueue: &taskqueuepb.TaskQueue{Name: workflows.ControlQueue}})
	b.denied("starts a workflow", err, "may not call")
	for _, queue := range []string{workflows.VMQueue(b.vm()), workflows.CtlQueue(b.vm()), workflows.ControlQueue, workflows.LeaseQueue} {
		_, err = raw.PollActivityTaskQueue(ctx, &workflowservice.PollActivityTaskQueueRequest{Namespace: ns, TaskQueue: &taskqueuepb.TaskQueue{Name: queue}})
		b.denied("polls "+queue, err, "may not serve")
	}
	_, err = raw.PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{Namespace: ns, TaskQueue: &taskqueuepb.TaskQueue{Name: workflows.ControlQueue}})
	b.denied("polls for workflow tasks", err, "may not call")
	for _, p := range d.PendingActivities {
		_, err = raw.RespondActivityTaskCompletedById(ctx, &workflowservice.RespondActivityTaskCompletedByIdRequest{Namespace: ns,
			WorkflowId: workflows.ExclusiveID, RunId: runID, ActivityId: p.ActivityId})
		b.denied("completes by id "+p.ActivityId, err, "denied to everyone")
		_, err = raw.RespondActivityTaskFailedById(ctx, &workflowservice.RespondActivityTaskFailedByIdRequest{Namespace: ns,
			WorkflowId: workflows.ExclusiveID, RunId: runID, ActivityId: p.ActivityId})
		b.denied("fails by id "+p.ActivityId, err, "denied to everyone")
		_, err = raw.RecordActivityTaskHeartbeatById(ctx, &workflowservice.RecordActivityTaskHeartbeatByIdRequest{Namespace: ns,
			WorkflowId: workflows.ExclusiveID, RunId: runID, ActivityId: p.ActivityId})
		b.denied("beats by id "+p.ActivityId, err, "denied to everyone")
	}
	_, err = raw.TerminateWorkflowExecution(ctx, &workflowservice.TerminateWorkflowExecutionRequest{Namespace: ns, WorkflowExecution: exclusive})
	b.denied("terminates", err, "may not call")
	_, err = raw.RequestCancelWorkflowExecution(ctx, &workflowservice.RequestCancelWorkflowExecutionRequest{Namespace: ns, WorkflowExecution: exclusive})
	b.denied("cancels", err, "may not call")
	_, err = raw.SignalWorkflowExecution(ctx, &workflowservice.SignalWorkflowExecutionRequest{Namespace: ns, WorkflowExecution: exclusive, SignalName: "exit"})
	b.denied("signals", err, "may not call")
	_, err = raw.ResetWorkflowExecution(ctx, &workflowservice.ResetWorkflowExecutionRequest{Namespace: ns, WorkflowExecution: exclusive, WorkflowTaskFinishEventId: 4})
	b.denied("resets", err, "denied to everyone")
	_, err = raw.GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{Namespace: ns, Execution: exclusive})
	b.denied("reads the history", err, "may not call")
	_, err = raw.RespondActivityTaskCompleted(ctx, &workflowservice.RespondActivityTaskCompletedRequest{Namespace: ns, TaskToken: []byte("\x0a\x01x")})
	b.denied("answers with a token of its own making", err, "task token was not given")
}

// TestRefusedWorkerSaysSo: a worker whose polls the engine refuses ends at its
// start and names the cause, instead of waiting for work that never comes.
func TestRefusedWorkerSaysSo(t *testing.T) {
	b := small.bench(t)
	certs := b.path("state", "pki")
	b.check(pki.Ensure(certs, "vm-one"))
	state := t.TempDir()
	dir := filepath.Join(state, "pki")
	b.check(os.Mkdir(dir, 0o700))
	// A VM that was set up with the certificate of another one.
	for from, to := range map[string]string{"ca.crt": "ca.crt", "worker-vm-one.crt": "worker-vm-two.crt", "worker-vm-one.key": "worker-vm-two.key"} {
		content, err := os.ReadFile(filepath.Join(certs, from))
		b.check(err)
		b.check(os.WriteFile(filepath.Join(dir, to), content, 0o600))
	}
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "cso-backup-worker"), "-vm", "vm-two", "-state", state, "-root", filepath.Join(state, "root"), "-estate", b.path("estate.yaml"))
	cmd.Env = append(os.Environ(), b.env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit %d, %v\n%s", cmd.ProcessState.ExitCode(), err, out)
	}
	for _, want := range []string{"may not poll its queue", workflows.VMQueue("vm-two"), "worker:vm-one may not serve", "check CSO_BACKUP_VM"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the worker does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "READY") {
		t.Error("the worker says READY")
	}

	// The same VM with its own certificate, which was revoked.
	b.check(pki.Revoke(certs, "worker-vm-one"))
	for _, suffix := range []string{".crt", ".key"} {
		b.check(os.Rename(filepath.Join(dir, "worker-vm-two"+suffix), filepath.Join(dir, "worker-vm-one"+suffix)))
	}
	cmd = exec.CommandContext(ctx, filepath.Join(bin, "cso-backup-worker"), "-vm", "vm-one", "-state", state, "-root", filepath.Join(state, "root"), "-estate", b.path("estate.yaml"))
	cmd.Env = append(os.Environ(), b.env...)
	if out, _ = cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "the certificate was revoked") {
		t.Errorf("a revoked worker: exit %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
}
