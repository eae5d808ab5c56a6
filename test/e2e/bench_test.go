package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"

	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// bench is a lab with what a test does to it.
type bench struct {
	*lab.Lab
	t      *testing.T
	env    []string // of the command line
	client client.Client
	prior  string // of the maintenance switch, while nothing runs
}

func newBench(t *testing.T, l *lab.Lab) *bench {
	t.Helper()
	b := &bench{Lab: l, t: t, prior: "false"}
	lines, err := l.Env()
	b.check(err)
	b.env = lines
	b.client = b.dial(filepath.Join(l.Dir(), "state", "pki"), b.value("LAB_TEMPORAL_ADDR"))
	t.Cleanup(func() {
		if t.Failed() {
			b.t.Logf("end of the worker's log:\n%s", tail(filepath.Join(l.Dir(), "log", "worker.log"), 40))
		}
	})
	return b
}

// dial connects with the operator's certificate.
func (b *bench) dial(certs, address string) client.Client {
	b.t.Helper()
	conf, err := pki.ClientTLS(certs, pki.Operator)
	b.check(err)
	c, err := client.Dial(client.Options{HostPort: address, Namespace: "cso", ConnectionOptions: client.ConnectionOptions{TLS: conf},
		Logger: tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	b.check(err)
	b.t.Cleanup(c.Close)
	return c
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// value is one of the lab's KEY=value lines.
func (b *bench) value(key string) string {
	b.t.Helper()
	for _, l := range b.env {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			return v
		}
	}
	b.t.Fatalf("the lab has no %s", key)
	return ""
}

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.Dir()}, elem...)...)
}

// ended is a command that has ended.
type ended struct {
	args           []string
	code           int
	stdout, stderr string
}

// document is what -o json prints.
type document struct {
	Command string           `json:"command"`
	Verdict string           `json:"verdict"`
	Exit    int              `json:"exit"`
	Message string           `json:"message"`
	Result  json.RawMessage  `json:"result"`
	Error   *problem.Problem `json:"error"`
	Notes   []string         `json:"notes"`
}

// running is a command that runs.
type running struct {
	b      *bench
	cmd    *exec.Cmd
	args   []string
	out    bytes.Buffer
	err    bytes.Buffer
	begun  time.Time
	done   chan error // its end; filled once
	killed bool
}

// start starts the command line as its users do.
func (b *bench) start(args ...string) *running {
	b.t.Helper()
	r := &running{b: b, args: args, cmd: exec.Command(filepath.Join(bin, "cso_backupnrestore"), args...)}
	r.cmd.Env = append(os.Environ(), b.env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	b.check(r.cmd.Start())
	r.begun, r.done = time.Now(), make(chan error, 1)
	go func() { r.done <- r.cmd.Wait() }()
	return r
}

// over says whether the command has ended.
func (r *running) over() bool { return len(r.done) > 0 }

// wait returns when the command has ended by itself.
func (r *running) wait() ended {
	r.b.t.Helper()
	limit := time.AfterFunc(4*time.Minute, func() { _ = r.cmd.Process.Kill() })
	defer limit.Stop()
	var exit *exec.ExitError
	if err := <-r.done; err != nil && !errors.As(err, &exit) {
		r.b.t.Fatal(err)
	}
	e := ended{args: r.args, code: r.cmd.ProcessState.ExitCode(), stdout: r.out.String(), stderr: r.err.String()}
	r.b.t.Logf("$ cso_backupnrestore %s: exit %d after %.1f s", strings.Join(r.args, " "), e.code, time.Since(r.begun).Seconds())
	return e
}

func (b *bench) cso(args ...string) ended { b.t.Helper(); return b.start(args...).wait() }

// want runs a command that must end with one of the exit statuses.
func (b *bench) want(codes []int, args ...string) ended {
	b.t.Helper()
	return b.expect(b.cso(args...), codes...)
}

func (b *bench) expect(e ended, codes ...int) ended {
	b.t.Helper()
	if !slices.Contains(codes, e.code) {
		b.t.Fatalf("cso_backupnrestore %s: exit %d, want %v\n%s\n%s", strings.Join(e.args, " "), e.code, codes, e.stdout, e.stderr)
	}
	return e
}

// fine are the exit statuses of a run that did what it was asked: warnings are told, not hidden.
var fine = []int{0, 3}

// ask runs a command with -o json; result receives its result unless nil.
func (b *bench) ask(codes []int, result any, args ...string) document {
	b.t.Helper()
	return b.read(b.want(codes, append(args, "-o", "json")...), result)
}

func (b *bench) read(e ended, result any) document {
	b.t.Helper()
	var d document
	if err := json.Unmarshal([]byte(e.stdout), &d); err != nil {
		b.t.Fatalf("cso_backupnrestore %s: not one JSON document: %v\n%s\n%s", strings.Join(e.args, " "), err, e.stdout, e.stderr)
	}
	if d.Exit != e.code {
		b.t.Fatalf("the document says exit %d, the process ended with %d", d.Exit, e.code)
	}
	if result != nil && len(d.Result) > 0 {
		b.check(json.Unmarshal(d.Result, result))
	}
	return d
}

// backup takes a backup and gives its NAME/TIMESTAMP.
func (b *bench) backup(name string, more ...string) string {
	b.t.Helper()
	var r struct{ Backup string }
	b.ask(fine, &r, append([]string{"-b", "backup", "-s", name}, more...)...)
	b.settled()
	return r.Backup
}

// print is the oracle's view of the estate.
type print struct {
	sums map[string]string
	text string
}

func (b *bench) fingerprint(components ...string) print {
	b.t.Helper()
	var w bytes.Buffer
	begun := time.Now()
	sums, err := b.Fingerprint(b.t.Context(), &w, components...)
	b.check(err)
	b.t.Logf("the oracle took %.1f s", time.Since(begun).Seconds())
	return print{sums, w.String()}
}

// equal fails unless the estate, or some of its components, is as it was, naming what differs.
func (b *bench) equal(want print, components ...string) {
	b.t.Helper()
	got, old := b.fingerprint(components...), maps.Clone(want.sums)
	maps.DeleteFunc(old, func(name, _ string) bool { return len(components) > 0 && got.sums[name] == "" })
	if !maps.Equal(got.sums, old) {
		b.t.Fatalf("the oracle finds a difference (-want +got):\n%s", different(want.text, got.text))
	}
}

// different lists the lines that only one of two fingerprints has, cut to a readable size.
func different(a, b string) string {
	have := map[string]int{}
	for l := range strings.Lines(a) {
		have[l]--
	}
	for l := range strings.Lines(b) {
		have[l]++
	}
	var out []string
	for l, n := range have {
		if sign := map[bool]string{true: "+", false: "-"}[n > 0]; n != 0 {
			out = append(out, sign+strings.TrimSpace(l[:min(len(l), 200)]))
		}
	}
	slices.SortFunc(out, func(x, y string) int { return strings.Compare(x[1:], y[1:]) })
	return strings.Join(out[:min(len(out), 40)], "\n")
}

// journal reads the record of the last or running operation.
func (b *bench) journal() journal.State {
	b.t.Helper()
	j, err := journal.At(b.path("backups"))
	b.check(err)
	s, err := j.Read()
	b.check(err)
	return s
}

// settled fails unless the last operation has ended cleanly: journal closed,
// maintenance as it was before.
func (b *bench) settled() {
	b.t.Helper()
	if s := b.journal(); s.Open() || s.Hold != nil || len(s.Written) > 0 {
		b.t.Fatalf("the journal is open: %v", journal.Summary(s))
	}
	if got := b.maintenance(); got != b.prior {
		b.t.Fatalf("maintenance reads %q after the run, it was %q before", got, b.prior)
	}
}

// maintenance reads CSO's own switch with etcd's own client.
func (b *bench) maintenance() string {
	b.t.Helper()
	return strings.TrimSuffix(b.etcdctl("get", "/lb/maintenance", "--print-value-only"), "\n")
}

func (b *bench) etcdctl(args ...string) string {
	b.t.Helper()
	ctx, done := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer done()
	cmd := exec.CommandContext(ctx, b.value("LAB_ETCDCTL"), args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+b.value("LAB_ETCD_1_ENDPOINT"), "ETCDCTL_CACERT="+b.value("LAB_ETCD_1_CACERT"),
		"ETCDCTL_USER="+b.value("LAB_ETCD_1_USER")+":"+b.value("LAB_ETCD_1_PASSWORD"))
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("etcdctl %s: %v", args, err)
	}
	return string(out)
}

// eventually polls until done.
func (b *bench) eventually(limit time.Duration, what string, done func() bool) {
	b.t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("after %s still not: %s", limit, what)
		}
	}
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
