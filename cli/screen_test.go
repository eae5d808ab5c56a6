package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

var update = flag.Bool("update", false, "write the golden files anew")

var fixed = time.Date(2026, 3, 9, 14, 4, 42, 0, time.UTC)

// golden compares a text with testdata/golden/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (go test ./cli -update accepts it):\n%s", name, d)
	}
}

// testApp is an app at a fixed time that writes into a buffer.
func testApp(t *testing.T, width int) (*app, *bytes.Buffer) {
	t.Helper()
	t.Setenv("TZ", "UTC")
	var b bytes.Buffer
	a := newApp(Process{Stdin: strings.NewReader(""), Stdout: &b, Stderr: &b, Getenv: func(string) string { return "" }})
	a.now = func() time.Time { return fixed }
	a.out.Width = width
	return a, &b
}

func backupMoment(step time.Duration) moment {
	at := fixed.Add(step)
	n := int64(step / time.Second)
	return moment{
		at: at, asked: at, attempts: map[string]int32{"copy:etcd#2": 2},
		progress: workflows.Progress{
			Operation: "backup", Backup: "MAR09/2026-03-09T14-02-11Z", Epoch: 7, Phase: "copy", Since: fixed.Add(-12 * time.Second), Started: fixed.Add(-151 * time.Second),
			Phases:      []workflows.PhaseMark{{Name: "preflight", At: fixed.Add(-151 * time.Second)}, {Name: "copy", At: fixed.Add(-12 * time.Second)}},
			Maintenance: "left", Warnings: []string{"etcd: the alarm NOSPACE\x1b[2J is set"},
			Units: []workflows.UnitProgress{
				{Unit: "mariadb", VM: "installer-vm", State: "running", Phase: "copy", ActivityID: "copy:mariadb#1", Estimate: 3 << 30},
				{Unit: "etcd", VM: "installer-vm", State: "running", Phase: "copy", ActivityID: "copy:etcd#2"},
				{Unit: "zookeeper@east", VM: "vm2", State: "running", Phase: "pin", ActivityID: "pin:zookeeper#3"},
				{Unit: "secrets/installer-vm", VM: "installer-vm", State: "done", Bytes: 1 << 20, Stored: 300 << 10, Took: 400 * time.Millisecond},
				{Unit: "certificates/installer-vm", VM: "installer-vm", State: "waiting"},
				{Unit: "elasticsearch", VM: "vm3", State: "failed", Phase: "no space"},
			},
		},
		beats: map[string]workflows.Beat{
			"copy:mariadb#1": {Phase: "copy", Item: "db.table", Bytes: 1<<30 + n*(84<<20), At: at},
			"copy:etcd#2":    {Phase: "copy", Bytes: 5 << 20, At: fixed.Add(-20 * time.Second)},
		},
	}
}

func TestScreen_golden(t *testing.T) {
	for name, width := range map[string]int{"screen80.txt": 80, "screen40.txt": 40, "screen10.txt": 10} {
		a, _ := testApp(t, width)
		s := a.newScreen()
		var out string
		for i := range 3 {
			m := backupMoment(time.Duration(i*2) * time.Second)
			lines := s.lines(m)
			out = ""
			for _, l := range lines {
				out += a.out.Cut(l, width-1) + "\n"
			}
		}
		if strings.ContainsRune(out, 0x1b) {
			t.Error("an escape from a warning reached the screen")
		}
		golden(t, name, out)
	}
}

func TestScreen_plain(t *testing.T) {
	a, b := testApp(t, 80)
	s := a.newScreen()
	m := backupMoment(0)
	s.show(m)
	s.show(backupMoment(2 * time.Second)) // only bytes changed: nothing to say
	m = backupMoment(4 * time.Second)
	m.progress.Phase, m.progress.Phases = "verify", append(m.progress.Phases, workflows.PhaseMark{Name: "verify", At: fixed})
	m.progress.Units[0].State, m.progress.Units[0].Bytes, m.progress.Units[0].Took = "done", 3<<30, time.Minute
	s.show(m)
	m.note = "no control worker has answered for 12s: systemctl status cso-backup-worker"
	s.show(m)
	m.note = "no control worker has answered for 13s: systemctl status cso-backup-worker"
	s.show(m)
	golden(t, "plain.txt", b.String())
}

func TestScreen_manyUnitsFitTheHeight(t *testing.T) {
	a, _ := testApp(t, 80)
	a.out.Height = 10
	m := backupMoment(0)
	for range 30 {
		m.progress.Units = append(m.progress.Units, workflows.UnitProgress{Unit: "mariadb", State: "done", Bytes: 1})
	}
	for _, l := range a.newScreen().lines(m) {
		if strings.Contains(l, "mariadb") && strings.Contains(l, "done") {
			t.Fatalf("a finished unit takes the place of running ones: %q", l)
		}
	}
}

func TestRate(t *testing.T) {
	var r rate
	if r.perSecond() != 0 || r.bytes() != 0 {
		t.Error("a rate out of nothing")
	}
	for i := range 60 {
		at := fixed.Add(time.Duration(i) * time.Second)
		r.add(at, int64(i)*100)
		r.add(at, int64(i)*100) // the same heartbeat, read twice
	}
	if got := r.perSecond(); got < 99 || got > 101 {
		t.Errorf("rate %v, want 100", got)
	}
	if span := r.at[len(r.at)-1].Sub(r.at[0]); span < rateWindow || span > rateWindow+2*time.Second {
		t.Errorf("window %s", span)
	}
}

func sampleResult() workflows.Result {
	return workflows.Result{
		Operation: "backup", Backup: "MAR09/2026-03-09T14-02-11Z", Epoch: 7, Bytes: 4 << 30, Stored: 1 << 30, New: 200 << 20, Took: 151 * time.Second, Maintenance: 3 * time.Second,
		Consistent: true, Consistency: "consistency point: all units pinned within 0.4s in maintenance mode",
		Units: []workflows.UnitResult{
			{Unit: "mariadb", Artifacts: 1214, Records: 12345678, Bytes: 3 << 30, Stored: 900 << 20, Took: 61 * time.Second, Digest: "9f1c77ab00112233445566778899aabbccddeeff"},
			{Unit: "zookeeper@east", Artifacts: 3, Records: 4011, Bytes: 4 << 20, Stored: 1 << 20, Took: 900 * time.Millisecond, Digest: "00ff", Inexact: []string{"2 ephemeral nodes: they belong to living sessions"}},
			{Unit: "secrets/installer-vm", Artifacts: 1, Records: 12, Bytes: 9000, Stored: 4000, Took: 100 * time.Millisecond, Digest: "abcd", Warnings: []string{"/etc/cso/secrets/\x1b[31mx is not readable"}},
		},
	}
}

func TestClosing_golden(t *testing.T) {
	for name, width := range map[string]int{"closing80.txt": 80, "closing40.txt": 40} {
		a, b := testApp(t, width)
		if code := a.finish(a.backupDone(sampleResult()), nil); code != 3 {
			t.Errorf("exit %d, want 3 for a warning", code)
		}
		golden(t, name, b.String())
	}
	a, b := testApp(t, 80)
	r := sampleResult()
	r.Operation, r.Safety, r.Drift = "restore", "_safety/2026-03-09T14-02-30Z", "only mariadb is restored from a backup that is 12 days old: other databases may know what it does not"
	r.Units = r.Units[:1]
	r.Units[0].Digest, r.Units[0].Unchanged, r.Units[0].Removed, r.Units[0].Artifacts = "equal", 1200, 2, 14
	if code := a.finish(a.restoreDone(r), nil); code != 0 {
		t.Errorf("exit %d", code)
	}
	golden(t, "restored80.txt", b.String())
}

func samplePlan() workflows.RestorePlan {
	return workflows.RestorePlan{
		Backup: "MAR09/2026-03-09T14-02-11Z", Taken: fixed.Add(-12 * 24 * time.Hour), Age: 12 * 24 * time.Hour,
		Units: []workflows.UnitPlan{
			{Unit: "mariadb", VM: "vm1", Unchanged: 1200, Change: 13, Add: 1, Remove: 2, Changes: []string{"~ shop.orders", "+ shop.gone", "- shop.\x1b[2Jlater"}, Write: 3 << 30, Space: 4 << 30, Free: 88 << 30, Grade: "GREEN"},
			{Unit: "etcd", VM: "vm1", Grade: "AMBER", Empty: true},
		},
		Warnings: []string{"etcd: member etcd-3 lags behind"}, Inexact: []string{"etcd: password hashes of changed users"},
		Drift: "only a part of the estate goes back 12 days",
	}
}

func TestPlan_golden(t *testing.T) {
	for name, width := range map[string]int{"plan80.txt": 80, "plan40.txt": 40} {
		a, b := testApp(t, width)
		if code := a.finish(a.planOnly(samplePlan()), nil); code != 0 {
			t.Errorf("exit %d", code)
		}
		golden(t, name, b.String())
	}
}

func TestHealth_golden(t *testing.T) {
	a, b := testApp(t, 80)
	a.heading("HEALTH CHECK FOR INFRASTRUCTURE COMPONENTS STARTED")
	a.showHealth(workflows.HealthResult{
		Grade: "RED",
		VMs:   []workflows.VMHealth{{VM: "installer-vm", Grade: "GREEN", Free: 71 << 30, Skew: -200 * time.Millisecond}, {VM: "vm2", Grade: "RED", Reasons: []string{"the worker does not answer"}}},
		Units: []workflows.UnitHealth{
			{Unit: "etcd", Grade: "GREEN", Version: "3.4.30", Members: 3},
			{Unit: "mariadb", Grade: "RED", Version: "10.11.6", Members: 1, Reasons: []string{"galera: the node is not in the primary component"}},
			{Unit: "zookeeper@east", Grade: "AMBER", Members: 3, Reasons: []string{"one of 3 members does not answer"}},
		},
		Notes: []workflows.VMNote{{Grade: "AMBER", Reason: "no copy of the identity was seen: cso_backupnrestore setup --confirm-key COPY"}},
	})
	golden(t, "health80.txt", b.String())
}

// What is put into a table or a paragraph never makes a line wider than the terminal.
func TestWidth_everyScreen(t *testing.T) {
	for width := 10; width <= 120; width += 7 {
		a, b := testApp(t, width)
		a.showPlan(samplePlan(), true)
		s := a.newScreen()
		for _, l := range s.lines(backupMoment(0)) {
			a.out.Line("%s", a.out.Cut(l, width-1))
		}
		for _, l := range strings.Split(b.String(), "\n") {
			if ui.Columns(l) > width && width >= 60 {
				t.Errorf("width %d: %d columns: %q", width, ui.Columns(l), l)
			}
		}
	}
}
