package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

func scheduleOptions(id string, every time.Duration, paused bool) client.ScheduleOptions {
	return client.ScheduleOptions{ID: id, Paused: paused,
		Spec:   client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: every}}},
		Action: &client.ScheduleWorkflowAction{ID: "by-" + id, Workflow: "Run", TaskQueue: "cso-control"}}
}

func startRun(t *testing.T, c client.Client, id string) (client.WorkflowRun, error) {
	t.Helper()
	return c.ExecuteWorkflow(short(t), client.StartWorkflowOptions{ID: id, TaskQueue: "cso-control"}, "Run")
}

// One state directory through the life of an installation: first start, power cut, restart below the space floor.
func TestRestartKeepsEverythingAndTheFloorHolds(t *testing.T) {
	state := t.TempDir()
	p := own(t, state)
	ctx, operator := short(t), p.sdk(t, "operator")
	run, err := startRun(t, operator, "cso/exclusive")
	wantAllowed(t, "start", err)
	for _, s := range []client.ScheduleOptions{scheduleOptions("DAILY", 24*time.Hour, false), scheduleOptions("OFTEN", time.Second, true)} {
		h, err := operator.ScheduleClient().Create(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		// Answered when the scheduler is idle. Killed while it works, the restarted server takes 10 s to try again.
		_, err = h.Describe(ctx)
		wantAllowed(t, "describe schedule", err)
	}
	// Somebody shortened the retention; every start puts it back.
	_, err = workflowservice.NewWorkflowServiceClient(p.admin(t)).UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: namespace, Config: &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(48 * time.Hour)}})
	wantAllowed(t, "shorten the retention", err)
	p.end(syscall.SIGKILL)

	q := own(t, state, "--min-free", strconv.FormatUint(1<<62, 10))
	if q.cluster != p.cluster {
		t.Errorf("cluster id changed from %s to %s", p.cluster, q.cluster)
	}
	operator = q.sdk(t, "operator")
	ns, err := operator.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if got := ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); err != nil || got != retention {
		t.Errorf("retention %v, %v", got, err)
	}
	d, err := operator.DescribeWorkflowExecution(ctx, run.GetID(), run.GetRunID())
	if err != nil || d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		t.Errorf("the run did not survive: %v, %v", d, err)
	}
	daily := operator.ScheduleClient().GetHandle(ctx, "DAILY")
	if _, err := daily.Describe(ctx); err != nil {
		t.Errorf("the schedule did not survive: %v", err)
	}

	wantNoSpace := func(what string, err error) {
		t.Helper()
		var e *serviceerror.FailedPrecondition
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "MiB are free") || !strings.Contains(err.Error(), "free space there") {
			t.Errorf("%s below the floor: %v", what, err)
		}
	}
	_, err = startRun(t, operator, "another")
	wantNoSpace("start", err)
	_, err = operator.SignalWithStartWorkflow(ctx, "another", "s", nil, client.StartWorkflowOptions{TaskQueue: "cso-control"}, "Run")
	wantNoSpace("signal with start", err)
	_, err = operator.ScheduleClient().Create(ctx, scheduleOptions("NEW", time.Hour, false))
	wantNoSpace("new schedule", err)
	wantNoSpace("trigger", daily.Trigger(ctx, client.ScheduleTriggerOptions{}))
	wantAllowed(t, "pause", daily.Pause(ctx, client.SchedulePauseOptions{}))
	wantAllowed(t, "signal of a running run", operator.SignalWorkflow(ctx, run.GetID(), run.GetRunID(), "s", nil))
	// The server starts scheduled runs itself, through its inner port; the floor holds there too.
	wantAllowed(t, "unpause", operator.ScheduleClient().GetHandle(ctx, "OFTEN").Unpause(ctx, client.ScheduleUnpauseOptions{}))
	eventually(t, "the scheduled start is refused and logged", func() bool { return strings.Contains(q.log.String(), "start of by-OFTEN") })
	list, err := operator.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: `WorkflowType = 'Run'`})
	if err != nil || len(list.GetExecutions()) != 1 {
		t.Errorf("only the first run may exist: %v, %v", list.GetExecutions(), err)
	}
	wantAllowed(t, "terminate", operator.TerminateWorkflow(ctx, run.GetID(), run.GetRunID(), "test"))
	if code := q.end(syscall.SIGTERM); code != exitOK {
		t.Errorf("SIGTERM: exit %d\n%s", code, q.log)
	}
}

func TestDatabaseVanishesUnderTheServer(t *testing.T) {
	for name, strike := range map[string]func(db string) error{
		"deleted": os.Remove,
		"replaced": func(db string) error {
			data, err := os.ReadFile(db)
			if err != nil {
				return err
			}
			if err := os.WriteFile(db+".copy", data, 0o600); err != nil {
				return err
			}
			return os.Rename(db+".copy", db)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			p := own(t, state)
			if err := strike(filepath.Join(state, "temporal", "temporal.db")); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(2*watchInterval + 10*time.Second); code != exitFileLost {
				t.Fatalf("exit %d\n%s", code, p.log)
			}
			if log := p.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "deleted or replaced") || !strings.Contains(log, "Start cso-temporald again") {
				t.Errorf("the log does not say what happened and what to do:\n%s", log)
			}
			if name == "replaced" {
				return
			}
			q := own(t, state)
			if q.cluster == p.cluster {
				t.Error("an empty database must have a new cluster id")
			}
			if log := q.log.String(); !strings.Contains(log, "lost_cluster="+p.cluster) {
				t.Errorf("the loss was not reported:\n%s", log)
			}
		})
	}
}

// refused starts the program and expects it to end with code 1 and a message that contains all of want.
func refused(t *testing.T, state string, args []string, want ...string) {
	t.Helper()
	p, err := begin(state, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	if code := p.wait(30 * time.Second); code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if line, ready := <-p.stdout; ready {
		t.Errorf("it said %q", line)
	}
	for _, w := range want {
		if !strings.Contains(p.log.String(), w) {
			t.Errorf("no %q in\n%s", w, p.log)
		}
	}
}

func TestForeignDatabasesAreRefused(t *testing.T) {
	state := t.TempDir()
	dir := filepath.Join(state, "temporal")
	p := own(t, state)
	if code := p.end(syscall.SIGTERM); code != exitOK {
		t.Fatalf("exit %d\n%s", code, p.log)
	}
	files := func() string {
		data, err := os.ReadFile(filepath.Join(dir, "temporal.db"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	before := files()
	writeStamp := func(s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, stampName), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeStamp(`{"server":"1.29.1","cluster":"` + p.cluster + `"}`)
	refused(t, state, nil, "made by Temporal server 1.29.1", "cannot be migrated", "mv "+dir)
	writeStamp(`half a sta`)
	refused(t, state, nil, "is damaged", "mv "+dir)
	if err := os.Remove(filepath.Join(dir, stampName)); err != nil {
		t.Fatal(err)
	}
	refused(t, state, nil, "not made by cso-temporald", "mv "+dir)
	if files() != before {
		t.Error("a refused database was changed")
	}
	writeStamp(`{"server":"1.32.1","cluster":"another-cluster"}`)
	refused(t, state, nil, "belongs to Temporal cluster "+p.cluster, "another-cluster")

	writeStamp(`{"server":"1.32.1","cluster":"` + p.cluster + `"}`)
	if err := os.WriteFile(filepath.Join(dir, "temporal.db"), []byte(strings.Repeat("rubbish ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, state, nil, "mv "+dir)
	if left, err := os.ReadFile(filepath.Join(dir, "temporal.db")); err != nil || !strings.HasPrefix(string(left), "rubbish ") {
		t.Errorf("a damaged database must stay for whoever wants to look at it: %v", err)
	}

	// What the message says to do must work.
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if q := own(t, state); q.cluster == p.cluster {
		t.Error("same cluster id after a new beginning")
	}
}

func TestOneServerPerStateAndPort(t *testing.T) {
	refused(t, shared.state, nil, "another cso-temporald uses", "stop it first")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	state, port := t.TempDir(), l.Addr().(*net.TCPAddr).Port
	refused(t, state, []string{"--ui-port", strconv.Itoa(port)}, "port "+strconv.Itoa(port)+" is not free", "--ui-port")
	refused(t, state, []string{"--port", strconv.Itoa(port - 2), "--ui-port", "0"}, "is not free", "five in a row")
}

// The frontend may face the other VMs; the inner ports and the Web UI never do. systemd is told when it is ready.
func TestBindAndNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	p := own(t, t.TempDir(), "--bind", "127.0.0.2")
	if want := net.JoinHostPort("127.0.0.2", strconv.Itoa(p.port)); p.address != want {
		t.Errorf("READY names %s instead of %s", p.address, want)
	}
	wantAllowed(t, "call on the bound address", clusterInfo(t, p.conn(t, "operator")))
	for i := range services + 1 {
		address := net.JoinHostPort("127.0.0.2", strconv.Itoa(p.port+i))
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		if open := err == nil; open != (i == 0) {
			t.Errorf("port %d of the bound address: open %v", i, open)
		}
	}
	if code := p.end(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit %d\n%s", code, p.log)
	}
	buf := make([]byte, 100)
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(buf)
		if got := string(buf[:n]); err != nil || got != want {
			t.Errorf("supervisor heard %q, %v; want %s", got, err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
		says string
	}{
		{[]string{"--version"}, exitOK, "Temporal server 1.32.1"},
		{[]string{"--help"}, exitOK, "state directory"},
		{[]string{"--no-such"}, exitUsage, "no-such"},
		{[]string{"start"}, exitUsage, "unexpected argument"},
		{[]string{"--bind", "localhost"}, exitUsage, "not an IP address"},
		{[]string{"--port", "65535"}, exitUsage, "--port"},
		{[]string{"--port", "0"}, exitUsage, "--port"},
		{[]string{"--ui-port", "7236"}, exitUsage, "one of the five ports"},
		{[]string{"--ui-port", "-1"}, exitUsage, "--ui-port"},
		{[]string{"--min-free", "lots"}, exitUsage, "min-free"},
	} {
		var out bytes.Buffer
		if _, code, done := parse(c.args, io.Writer(&out), &out); code != c.want || !done || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: code %d, done %v, %s", c.args, code, done, out.String())
		}
	}
	t.Setenv("CSO_BACKUP_STATE", "/somewhere")
	if opt, _, done := parse(nil, io.Discard, io.Discard); done || opt.state != "/somewhere" || opt.minFree != 256<<20 || opt.port != 7233 || opt.uiPort != 8233 || opt.bind != loopback {
		t.Errorf("defaults: %+v", opt)
	}
}

func TestLogLimit(t *testing.T) {
	var l logLimit
	passed := 0
	for range 5 * logsPerSecond {
		if _, ok := l.allow(); ok {
			passed++
		}
	}
	if passed < logsPerSecond || passed > 2*logsPerSecond { // at most two seconds are touched
		t.Errorf("%d lines passed", passed)
	}
	l.second--
	if dropped, ok := l.allow(); !ok || dropped == 0 {
		t.Errorf("after a pause: dropped %d, ok %v", dropped, ok)
	}
}
