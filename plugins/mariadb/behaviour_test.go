package mariadb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Replacing tables one by one ends the same way as the swap.
func TestInPlace(t *testing.T) {
	suiteFill(t, target(), 5)
	before := fingerprint(t)
	s := open(t)
	m := backup(t, s)
	for i, at := range []int{-1, 4} {
		suiteWreck(t, target(), int64(30+i))
		run := newRun(t, plugins.OpRestore)
		run.Options["in-place"] = "yes"
		if at >= 0 {
			if _, err := s.Restore(t.Context(), run, m.Clone().KillAtArtifact(at)); err == nil {
				t.Errorf("store died after %d artifacts, and the restore did not", at)
			}
		}
		restore(t, s, m, run)
		sameFingerprint(t, before, fingerprint(t))
		s = open(t)
	}
}

// A killed restore leaves the old rows whole until its swap.
func TestKilledBeforeTheSwapLeavesAllRows(t *testing.T) {
	suiteFill(t, target(), 6)
	s := open(t)
	m := backup(t, s)
	suiteFill(t, target(), 7)
	rows := func() string {
		var out []string
		for l := range strings.Lines(fingerprint(t)) {
			if strings.HasPrefix(l, "rows\t") || strings.HasPrefix(l, "content\t") || strings.HasPrefix(l, "table\t") {
				if !strings.Contains(l, "`_cso_") {
					out = append(out, l)
				}
			}
		}
		if len(out) < 10 {
			t.Fatalf("the fingerprint has only %d lines about tables", len(out))
		}
		return strings.Join(out, "")
	}
	want := rows()
	run := newRun(t, plugins.OpRestore)
	// The definitions come first, then eleven tables that differ: one of the last ones dies.
	if _, err := s.Restore(t.Context(), run, m.Clone().KillAtArtifact(9)); err == nil {
		t.Fatal("the store died and the restore did not")
	}
	sameFingerprint(t, want, rows())
	restore(t, s, m, run)
}

func TestSchemaChangeLosesThePin(t *testing.T) {
	suiteFill(t, target(), 8)
	s := open(t)
	run := newRun(t, plugins.OpBackup)
	p, err := s.Pin(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release(t.Context())
	execSQL(t, s, "ALTER TABLE one.num MODIFY v VARCHAR(300), DROP COLUMN f")
	if _, err := p.Backup(t.Context(), run, plugins.NewDigester()); !errors.Is(err, plugins.ErrPinLost) {
		t.Errorf("backup after a schema change: %v, want ErrPinLost", err)
	}
}

// A pin holds no lock: commits and schema changes go on, and the view stays.
func TestPinBlocksNobody(t *testing.T) {
	suiteFill(t, target(), 9)
	s := open(t)
	want, err := s.Digest(t.Context(), newRun(t, plugins.OpInspect))
	if err != nil {
		t.Fatal(err)
	}
	run := newRun(t, plugins.OpBackup)
	p, err := s.Pin(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release(t.Context())
	begin := time.Now()
	execSQL(t, s, "UPDATE one.num SET v='later'", "DELETE FROM one.isam", "UPDATE one.aria SET b=77", "CREATE TABLE one.unrelated (a INT)")
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("writers waited %v for a held pin", d)
	}
	d := plugins.NewDigester()
	if _, err := p.Backup(t.Context(), run, d); err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		if got := d.Digests()[name]; got != w {
			t.Errorf("%s: %v in the pin, %v before later writes", name, got, w)
		}
	}
}

// A large table without snapshots is kept from writers until it is copied, and no longer.
func TestLargeTableWithoutSnapshots(t *testing.T) {
	suiteFill(t, target(), 13)
	runSQL(t, target(), "CREATE DATABASE heavy; USE heavy; CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(600)) ENGINE=MyISAM; INSERT INTO t SELECT seq, REPEAT(SHA2(seq,256),9) FROM seq_1_to_12000")
	defer runSQL(t, target(), "DROP DATABASE heavy")
	s := open(t)
	want, err := s.Digest(t.Context(), newRun(t, plugins.OpInspect))
	if err != nil {
		t.Fatal(err)
	}
	run := newRun(t, plugins.OpBackup)
	p, err := s.Pin(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release(t.Context())
	wrote := make(chan error, 1)
	db := admin(t, target())
	defer db.Close()
	go func() {
		_, err := db.Exec("UPDATE heavy.t SET v='later'")
		wrote <- err
	}()
	select {
	case <-wrote:
		t.Error("somebody wrote into the table before it was copied")
	case <-time.After(300 * time.Millisecond):
	}
	d := plugins.NewDigester()
	rep, err := p.Backup(t.Context(), run, d)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(rep.Consistency, "heavy.t") {
		t.Errorf("the report does not name the table: %s", rep.Consistency)
	}
	if got := d.Digests()["table/heavy/t"]; got != want["table/heavy/t"] || got.Records != 12000 {
		t.Errorf("digest %v in the pin, %v before", got, want["table/heavy/t"])
	}
	select {
	case err := <-wrote:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the writer still waits after the copy")
	}
}

func TestQuietEndsWhatAnEarlierAttemptHolds(t *testing.T) {
	suiteFill(t, target(), 10)
	s := open(t)
	old := newRun(t, plugins.OpBackup)
	p, err := s.Pin(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release(t.Context())
	now := newRun(t, plugins.OpRestore)
	if err := open(t).Quiet(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n := ask(t, target(), "SELECT COUNT(*) FROM (SELECT IS_USED_LOCK('cso_backup/p/0') AS id) AS x WHERE id IS NOT NULL"); n != "0" {
		t.Error("the earlier attempt's connection is still there")
	}
	if n := ask(t, target(), "SELECT COUNT(*) FROM information_schema.INNODB_TRX"); n != "0" {
		t.Errorf("%s snapshots of the earlier attempt are still there", n)
	}
	if _, err := p.Backup(t.Context(), old, plugins.NewDigester()); !errors.Is(err, plugins.ErrPinLost) {
		t.Errorf("backup of a pin that was ended: %v, want ErrPinLost", err)
	}
	m := backup(t, s)
	suiteWreck(t, target(), 3)
	restore(t, s, m, newRun(t, plugins.OpRestore))
	if err := open(t).Quiet(t.Context(), now); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("Quiet of an older epoch: %v, want ErrFenced", err)
	}
}

// The event scheduler is off from PreHook to PostHook, whoever dies between.
func TestEventSchedulerComesBack(t *testing.T) {
	state := func() string { return ask(t, target(), "SELECT @@GLOBAL.event_scheduler") }
	if state() != "ON" {
		t.Fatal("the lab's event scheduler is off: this proves nothing")
	}
	s := open(t)
	run := newRun(t, plugins.OpRestore)
	for range 2 { // the second time as if the first attempt had died
		if err := s.PreHook(t.Context(), run); err != nil {
			t.Fatal(err)
		}
		if got := state(); got != "OFF" {
			t.Errorf("after PreHook the scheduler is %s", got)
		}
	}
	for range 2 {
		if err := open(t).PostHook(t.Context(), run); err != nil {
			t.Fatal(err)
		}
		if got := state(); got != "ON" {
			t.Errorf("after PostHook the scheduler is %s", got)
		}
	}
}

// The plan says what a restore needs, and refuses what cannot work.
func TestPlanRefusals(t *testing.T) {
	suiteFill(t, target(), 12)
	s := open(t)
	m := backup(t, s)
	runSQL(t, target(), "DROP TABLE one.num; SET GLOBAL local_infile=OFF; SET GLOBAL read_only=ON")
	defer runSQL(t, target(), "SET GLOBAL local_infile=ON; SET GLOBAL read_only=OFF")
	p, err := s.Plan(t.Context(), newRun(t, plugins.OpInspect), m)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(p.Refusals, "; "); !strings.Contains(text, "local_infile") || !strings.Contains(text, "read_only") {
		t.Errorf("refusals %q, want both settings named", text)
	}
	if len(p.Add) != 1 || p.Add[0] != "table/one/num" || p.Space == 0 || p.Write == 0 {
		t.Errorf("plan: %+v", p)
	}
	if _, err := s.Restore(t.Context(), newRun(t, plugins.OpRestore), m); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("restore: %v, want ErrConfig", err)
	}
	h, err := s.Health(t.Context())
	if err != nil || h.Grade != plugins.Amber || len(h.Reasons) < 2 {
		t.Errorf("health: %+v, %v", h, err)
	}
}

// A backup of a newer server, or of one that knows names otherwise, is refused.
func TestOtherServerRefused(t *testing.T) {
	suiteFill(t, target(), 14)
	s := open(t)
	m := backup(t, s)
	runSQL(t, target(), "DROP TABLE one.num")
	s.major, s.lowerCase = 1006, "1"
	p, err := s.Plan(t.Context(), newRun(t, plugins.OpInspect), m)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(p.Refusals, "; "); !strings.Contains(text, "older") || !strings.Contains(text, "lower_case_table_names") {
		t.Errorf("refusals %q, want version and case named", text)
	}
	if majorOf("11.4.2-MariaDB") != 1104 || majorOf("bogus") != 0 {
		t.Error("versions are not read")
	}
}

// Tables that the server cannot open any more are replaced like others.
func TestDamagedTablesComeBack(t *testing.T) {
	suiteFill(t, target(), 15)
	before := fingerprint(t)
	s := open(t)
	m := backup(t, s)
	runSQL(t, target(), "CREATE TABLE one.later (a INT) ENGINE=MyISAM; INSERT INTO one.later VALUES (1); FLUSH TABLES")
	for _, f := range []string{"isam.MYI", "later.MYI", "num.ibd"} {
		if err := os.Remove(filepath.Join(server[0].Dir, "data", "one", f)); err != nil {
			t.Fatal(err)
		}
	}
	runSQL(t, target(), "FLUSH TABLES")
	if h, err := s.Health(t.Context()); err != nil || h.Grade != plugins.Red {
		t.Errorf("health with damaged tables: %+v, %v", h, err)
	}
	restore(t, s, m, newRun(t, plugins.OpRestore))
	sameFingerprint(t, before, fingerprint(t))
}

func TestOpenErrors(t *testing.T) {
	good := target().Members[0]
	for _, c := range []struct {
		name   string
		change func(*plugins.Member)
		want   error
	}{
		{"wrong password", func(m *plugins.Member) { m.Options["user"] = "nobody" }, plugins.ErrAuth},
		{"nobody listens", func(m *plugins.Member) { m.Address = "127.0.0.1:1"; delete(m.Options, "socket") }, plugins.ErrUnavailable},
		{"no port", func(m *plugins.Member) { m.Address = "localhost"; delete(m.Options, "socket") }, plugins.ErrConfig},
		{"unknown option", func(m *plugins.Member) { m.Options["colour"] = "blue" }, plugins.ErrConfig},
		{"tls that is no mode", func(m *plugins.Member) { m.Options["tls"] = "maybe"; delete(m.Options, "socket") }, plugins.ErrConfig},
	} {
		m := good
		m.Options = map[string]string{}
		for k, v := range good.Options {
			m.Options[k] = v
		}
		c.change(&m)
		s, err := New().Open(t.Context(), plugins.Target{Component: "mariadb", Members: []plugins.Member{m}})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}
