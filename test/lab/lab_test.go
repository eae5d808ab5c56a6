package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// helperEnv makes this test binary start a lab and be killed, for TestGuard.
const helperEnv = "CSO_LAB_TEST_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		if _, err := Start(context.Background(), Options{Dir: dir, Components: []string{"etcd"}, ServersOnly: true, Out: os.Stderr}); err != nil {
			panic(err)
		}
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Kill()
		}
		panic(errors.Join(errors.New("survived its own SIGKILL"), err))
	}
	os.Exit(m.Run())
}

// processesOf finds every process whose arguments name the directory.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// shortDir is a directory with a short path, as sockets need, removed in the end.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func isRunning(t *testing.T, l *Lab, member string, wantRunning, wantFrozen bool) {
	t.Helper()
	running, frozen, err := l.Running(member)
	if err != nil {
		t.Fatal(err)
	}
	if running != wantRunning || frozen != wantFrozen {
		t.Fatalf("%s: running %t, frozen %t; want %t, %t", member, running, frozen, wantRunning, wantFrozen)
	}
}

// TestLife runs clusters of three and a second instance of etcd, and does to
// its members all that a lab can do.
func TestLife(t *testing.T) {
	ctx := t.Context()
	dir := shortDir(t)
	options := Options{Dir: dir, Components: []string{"etcd", "etcd@east", "zookeeper", "secrets"}, Members: 3, ServersOnly: true}
	l, err := Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		if left := processesOf(t, dir); len(left) > 0 {
			t.Errorf("left running: %q", left)
		}
	})
	if err := l.Fill(ctx, 7, "small"); err != nil {
		t.Fatal(err)
	}
	before, err := l.Fingerprint(ctx, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if before["etcd"] == before["etcd@east"] {
		t.Error("two instances hold the same data: a mix-up would not show")
	}

	// One member of three may be missing or frozen; a second one cannot be started twice.
	for _, m := range []string{"etcd-1", "zookeeper-2"} {
		if err := l.Kill(ctx, m); err != nil {
			t.Fatal(err)
		}
		isRunning(t, l, m, false, false)
		if err := l.StartMember(ctx, m); err != nil {
			t.Fatal(err)
		}
		if err := l.StartMember(ctx, m); err != nil {
			t.Fatalf("starting a running member: %v", err)
		}
		if err := l.Freeze(ctx, m); err != nil {
			t.Fatal(err)
		}
		isRunning(t, l, m, true, true)
		if err := l.Thaw(ctx, m); err != nil {
			t.Fatal(err)
		}
		isRunning(t, l, m, true, false)
	}
	if err := l.Kill(ctx, "secrets-1"); err != nil {
		t.Errorf("killing what has no process: %v", err)
	}
	if err := l.Freeze(ctx, "secrets-1"); err == nil {
		t.Error("froze what has no process")
	}
	if err := l.Kill(ctx, "etcd-9"); err == nil || !strings.Contains(err.Error(), "etcd-east-3") {
		t.Errorf("an unknown member must be answered with the known ones, got %v", err)
	}

	// A whole cluster stopped by its control program, then everything brought back by up.
	for _, m := range []string{"etcd-east-1", "etcd-east-2", "etcd-east-3"} {
		if out, err := exec.CommandContext(ctx, filepath.Join(dir, "control"), "stop", m).CombinedOutput(); err != nil {
			t.Fatalf("control stop: %v\n%s", err, out)
		}
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "control"), "status", m).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || strings.TrimSpace(string(out)) != "stopped" {
			t.Fatalf("control status: %v\n%s", err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(dir, "control"), "start", "etcd-east-1").CombinedOutput(); err != nil {
		t.Fatalf("control start must not wait for a quorum: %v\n%s", err, out)
	}
	if _, err := Start(ctx, options); err != nil {
		t.Fatal(err)
	}
	after, err := l.Fingerprint(ctx, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("kills and restarts changed the content:\n%s", diff)
	}
	checkEstate(t, l)
	checkEnv(t, l)

	// Freshly installed servers hold nothing, and the same log-ins open them.
	if err := l.Reinstall(ctx, "etcd@east", "zookeeper"); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	empty, err := l.Fingerprint(ctx, &text)
	if err != nil {
		t.Fatal(err)
	}
	if empty["etcd"] != before["etcd"] || empty["secrets"] != before["secrets"] {
		t.Error("what was not named was reinstalled")
	}
	fresh := text.String()[strings.Index(text.String(), "fingerprint etcd "):]
	if strings.Contains(fresh, "key\t") || strings.Contains(fresh, "/cso") {
		t.Errorf("a fresh server holds data:\n%.2000s", fresh)
	}
	if err := l.Fill(ctx, 7, "small", "etcd@east", "zookeeper"); err != nil {
		t.Fatal(err)
	}
	if again, err := l.Fingerprint(ctx, &bytes.Buffer{}); err != nil || !cmp.Equal(before, again) {
		t.Errorf("filled again: %v\n%s", err, cmp.Diff(before, again))
	}
}

// checkEstate reads back the estate file: what the product will see.
func checkEstate(t *testing.T, l *Lab) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Dir(), "estate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var es estate
	if err := yaml.Unmarshal(b, &es); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range es.Instances {
		for _, m := range in.Members {
			got = append(got, in.Component+"@"+in.Instance+"/"+m.Name)
			for key, value := range m.Options {
				if strings.HasSuffix(key, "_file") || key == "control_program" {
					if info, err := os.Stat(value); err != nil || info.Mode().Perm()&0o077 != 0 && key != "ca_file" {
						t.Errorf("%s of %s: %v, %v", key, m.Name, info, err)
					}
				}
			}
		}
	}
	want := []string{"etcd@central/etcd-1", "etcd@central/etcd-2", "etcd@central/etcd-3", "etcd@east/etcd-east-1", "etcd@east/etcd-east-2", "etcd@east/etcd-east-3",
		"zookeeper@central/zookeeper-1", "zookeeper@central/zookeeper-2", "zookeeper@central/zookeeper-3", "secrets@central/installer-vm"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("estate file (-want +got):\n%s", diff)
	}
	if es.Switch == nil || *es.Switch != (estateSwitch{Component: "etcd", Instance: "central"}) {
		t.Errorf("switch: %v", es.Switch)
	}
}

func checkEnv(t *testing.T, l *Lab) {
	t.Helper()
	lines, err := l.Env()
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, line := range lines {
		k, v, _ := strings.Cut(line, "=")
		if _, twice := env[k]; twice {
			t.Errorf("%s twice", k)
		}
		env[k] = v
	}
	for _, k := range []string{"LAB_ETCD_1_ENDPOINT", "LAB_ETCD_6_PASSWORD", "LAB_ETCD_4_CACERT", "LAB_ETCD_1_USER", "LAB_ZOOKEEPER_3_ADDR", "LAB_ZOOKEEPER_1_AUTH", "LAB_ETCDCTL", "LAB_BACKUPS",
		"LAB_SECRETS_1_PATHS", "CSO_BACKUP_ROOT", "CSO_BACKUP_STATE", "CSO_BACKUP_ESTATE", "CSO_BACKUP_VM"} {
		if env[k] == "" {
			t.Errorf("%s is missing", k)
		}
	}
	if env["LAB_ETCD_1_PASSWORD"] == env["LAB_ETCD_4_PASSWORD"] {
		t.Error("two instances share a password: a mix-up would not show")
	}
}

// TestGuard starts a lab in another process that then kills itself: nothing may stay.
func TestGuard(t *testing.T) {
	dir := shortDir(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the helper must end by a signal, got %v\n%s", err, out)
	}
	st, err := (&Lab{dir: dir}).read()
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Members) != 1 || st.Members[0].Process.Pid == 0 {
		t.Fatalf("the helper started nothing: %+v\n%s", st, out)
	}
	for deadline := time.Now().Add(20 * time.Second); len(processesOf(t, dir)) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still running: %q", processesOf(t, dir))
		}
	}
}

func TestStartRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"an unknown component": {Options{Components: []string{"oracle"}}, "unknown component"},
		"an empty instance":    {Options{Components: []string{"etcd@"}}, "unknown component"},
		"two members":          {Options{Members: 2}, "give 1 or 3"},
		"an unknown version":   {Options{Components: []string{"etcd"}, Versions: map[string]string{"etcd": "2.0"}}, `no etcd "2.0"`},
		"missing programs":     {Options{Components: []string{"secrets"}}, "make build"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(programEnv, t.TempDir())
			c.options.Dir = shortDir(t)
			c.options.ServersOnly = name != "missing programs"
			_, err := Start(t.Context(), c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if left := processesOf(t, c.options.Dir); len(left) > 0 {
				t.Errorf("left running: %q", left)
			}
		})
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "lab up") {
		t.Errorf("open nothing: %v", err)
	}
}

func TestSumLines(t *testing.T) {
	sum := func(text string) string {
		t.Helper()
		s, err := sumLines([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := sum("key\ta\t1\nkey\tb\t2\n")
	if sum("key\ta\t1\nephemeral\t/x\t-\nkey\tb\t2\n") != plain {
		t.Error("ephemeral lines must not be summed")
	}
	for _, other := range []string{"key\ta\t1\n", "key\ta\t1\nkey\tb\t3\n", "key\tb\t2\nkey\ta\t1\n", "key\ta\t1\nkey\tb\t2\n\n", ""} {
		if sum(other) == plain {
			t.Errorf("%q has the same sum", other)
		}
	}
	if _, err := sumLines([]byte("no end")); err == nil {
		t.Error("a cut line must be an error")
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "plain", "two words", "it's", `$HOME "x" \`, "new\nline"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+Quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q came back from the shell as %q (%v)", s, out, err)
		}
	}
}

func TestFreePortsAreDistinct(t *testing.T) {
	taken := map[int]bool{}
	total := 0
	for _, count := range []int{1, 5, 1, 5} {
		if _, err := freePorts(count, taken); err != nil {
			t.Fatal(err)
		}
		total += count
	}
	if len(taken) != total {
		t.Fatalf("%d ports for %d asked", len(taken), total)
	}
}
