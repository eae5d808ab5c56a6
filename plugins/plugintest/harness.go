package plugintest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Harness describes to the suite a plugin and the real servers it is tested on.
type Harness struct {
	Plugin   plugins.Plugin
	Target   plugins.Target
	Second   *plugins.Target // another instance of the same component; nil: that case says it did not run
	Versions string          // what the servers are: "etcd 3.4.23, 3 members, TLS"

	// Fill makes the content a function of the seed alone: what was there before is gone.
	Fill func(t testing.TB, on plugins.Target, seed int64)
	// Clear leaves no user data.
	Clear func(t testing.TB, on plugins.Target)
	// Wreck changes, deletes and adds at every level, accounts included.
	Wreck func(t testing.TB, on plugins.Target, seed int64)
	// Fingerprint is all content and definitions as text, one line for each object; it shares no
	// code with the plugin. What the plugin declares as not exact must not be in it.
	Fingerprint func(t testing.TB, on plugins.Target) string

	// Position is the server's own counter of writes (revision, sequence number); nil when it moves without writes.
	Position func(t testing.TB, on plugins.Target) string
	// Writer writes without pause, ignoring maintenance, until stop is called; after that it
	// writes no more. What it writes breaks Invariant when seen half.
	Writer func(t testing.TB, on plugins.Target) (stop func())
	// Invariant fails the test when the data is torn: needed with Writer.
	Invariant func(t testing.TB, on plugins.Target)
	// Large fills in so much data that a plugin that holds it all exceeds MemoryLimit bytes of heap.
	Large       func(t testing.TB, on plugins.Target)
	MemoryLimit uint64 // default 192 MiB
	// TryWrite makes one ordinary write as a foreign client: needed when the session is a Fencer.
	TryWrite func(on plugins.Target) error

	Kills  int               // restores killed at artifact boundaries, and again at records; default 8
	Exempt map[string]string // name of a case the plugin cannot pass, and why; printed
}

// killsEnv overrides Kills; a number above that of the artifacts kills at every boundary.
const killsEnv = "PLUGINTEST_KILLS"

// epochs are shared by all suites of a test binary: they only grow.
var epochs atomic.Uint64

type suite struct {
	Harness
	seed    int64
	backup  *Memory // of Fill(seed)
	print   string  // fingerprint of Fill(seed)
	scratch string
}

// Main is TestMain's body for packages that call Run: it recognises the child
// process of the frozen-attempt case, which only needs the plugin.
func Main(m *testing.M, p plugins.Plugin) {
	if job := os.Getenv(childEnv); job != "" {
		os.Exit(child(p, job))
	}
	os.Exit(m.Run())
}

// Run runs the whole suite. The servers must be up; their content is overwritten.
func Run(t *testing.T, h Harness) {
	if h.Kills == 0 {
		h.Kills = 8
	}
	if n, err := strconv.Atoi(os.Getenv(killsEnv)); err == nil && n > 0 {
		h.Kills = n
	}
	if h.MemoryLimit == 0 {
		h.MemoryLimit = 192 << 20
	}
	s := &suite{Harness: h, seed: time.Now().UnixNano() % 1e6, scratch: t.TempDir()}
	epochs.CompareAndSwap(0, uint64(time.Now().Unix()))
	t.Logf("plugintest: %s on %s, seed %d", h.Plugin.Info().Component, h.Versions, s.seed)
	s.Fill(t, s.Target, s.seed)
	s.print = s.Fingerprint(t, s.Target)
	s.backup = s.mustBackup(t, s.Target)
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"describes itself", s.describes},
		{"backup is repeatable", s.repeatable},
		{"round trip", s.roundTrip},
		{"accounts apart", s.accountsApart},
		{"told of the live data", s.told},
		{"plan", s.plan},
		{"dirty target", s.dirty},
		{"second restore changes nothing", s.second},
		{"backup killed", s.backupKilled},
		{"restore killed at artifact boundaries", s.killedAtArtifacts},
		{"restore killed at records", s.killedAtRecords},
		{"corrupt piece refused", s.corrupt},
		{"cancelled context", s.cancelled},
		{"frozen attempt", s.frozen},
		{"frozen attempt, idle successor", s.frozenIdle},
		{"older epoch refused", s.olderEpoch},
		{"pin under a writer", s.pinUnderWriter},
		{"writer during restore", s.writerDuringRestore},
		{"fence", s.fence},
		{"switch", s.switches},
		{"two instances", s.twoInstances},
		{"empty", s.empty},
		{"memory", s.memory},
	} {
		if why, ok := h.Exempt[c.name]; ok {
			t.Logf("plugintest: NOT RUN %q: %s", c.name, why)
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			defer noLeak(t)()
			c.run(t)
		})
	}
}

// notRun says in the output that a case had nothing to test, and why.
func notRun(t testing.TB, why string) { t.Logf("plugintest: NOT RUN: %s", why) }

// run makes the Run of a new epoch.
func (s *suite) run(t testing.TB, op plugins.Operation) plugins.Run {
	t.Helper()
	return s.attempt(t, op, epochs.Add(1))
}

// attempt makes the Run of one more attempt of an epoch: same scratch, new name.
func (s *suite) attempt(t testing.TB, op plugins.Operation, epoch uint64) plugins.Run {
	t.Helper()
	dir := filepath.Join(s.scratch, fmt.Sprint(epoch))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return plugins.Run{Epoch: epoch, Operation: op, Backup: "TEST/2026-01-02T03-04-05Z", Attempt: fmt.Sprintf("%d-%d", epoch, rand.Uint32()),
		Parallel: 4, Scratch: dir, Log: slog.New(slog.DiscardHandler)}
}

// with opens a session, as every activity does anew, and closes it.
func (s *suite) with(t testing.TB, on plugins.Target, do func(plugins.Session) error) error {
	t.Helper()
	ses, err := s.Plugin.Open(context.Background(), on)
	if err != nil {
		t.Fatalf("open %s: %v", on, err)
	}
	err = do(ses)
	if cerr := ses.Close(); cerr != nil {
		t.Errorf("close %s: %v", on, cerr)
	}
	return err
}

func (s *suite) backUp(t testing.TB, ctx context.Context, on plugins.Target, w plugins.ArtifactWriter) (plugins.Report, error) {
	t.Helper()
	var rep plugins.Report
	run := s.run(t, plugins.OpBackup)
	err := s.with(t, on, func(ses plugins.Session) (err error) {
		rep, err = ses.Backup(ctx, run, w)
		return err
	})
	if left, _ := os.ReadDir(run.Scratch); len(left) > 0 {
		t.Errorf("backup left %d entries in its scratch directory, %s first", len(left), left[0].Name())
	}
	return rep, err
}

func (s *suite) mustBackup(t testing.TB, on plugins.Target) *Memory {
	t.Helper()
	m := NewMemory()
	if _, err := s.backUp(t, t.Context(), on, m); err != nil {
		t.Fatalf("backup: %v", err)
	}
	if u := m.Unfinished(); len(u) > 0 {
		t.Fatalf("backup left artifacts unfinished: %q", u)
	}
	return m
}

// restore is one attempt at data and accounts, in sessions of their own.
func (s *suite) restore(t testing.TB, ctx context.Context, on plugins.Target, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	t.Helper()
	var rep plugins.Report
	err := s.with(t, on, func(ses plugins.Session) (err error) {
		rep, err = ses.Restore(ctx, run, r)
		return err
	})
	if err != nil {
		return rep, err
	}
	err = s.with(t, on, func(ses plugins.Session) error {
		as, ok := ses.(plugins.AccountSwitcher)
		if !ok {
			return nil
		}
		more, err := as.RestoreAccounts(ctx, run, r)
		rep.Artifacts += more.Artifacts
		rep.Removed += more.Removed
		rep.Records += more.Records
		rep.Inexact = append(rep.Inexact, more.Inexact...)
		return err
	})
	return rep, err
}

// mustRestore restores and proves it: nothing differs, the oracle says equal.
func (s *suite) mustRestore(t testing.TB, on plugins.Target, run plugins.Run, m *Memory, want string) plugins.Report {
	t.Helper()
	rep, err := s.restore(t, t.Context(), on, run, m)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	s.mustEqual(t, on, run, m, want)
	return rep
}

func (s *suite) mustEqual(t testing.TB, on plugins.Target, run plugins.Run, m *Memory, want string) {
	t.Helper()
	if diff := s.compare(t, on, run, m); len(diff) > 0 {
		t.Fatalf("after the restore the data differs: %+v", diff)
	}
	sameText(t, "fingerprint", want, s.Fingerprint(t, on))
}

func (s *suite) compare(t testing.TB, on plugins.Target, run plugins.Run, m *Memory) []plugins.Difference {
	t.Helper()
	var diff []plugins.Difference
	err := s.with(t, on, func(ses plugins.Session) (err error) {
		diff, err = ses.Compare(t.Context(), run, m)
		return err
	})
	if err != nil {
		t.Fatalf("compare: %v", err)
	}
	return diff
}

// sameText fails with the first lines that differ.
func sameText(t testing.TB, what, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	count := map[string]int{}
	for _, l := range strings.Split(want, "\n") {
		count[l]++
	}
	for _, l := range strings.Split(got, "\n") {
		count[l]--
	}
	var lines []string
	for l, n := range count {
		if n != 0 && len(lines) < 12 {
			lines = append(lines, fmt.Sprintf("%s %.300q", map[bool]string{true: "missing", false: "extra  "}[n > 0], l))
		}
	}
	t.Fatalf("%s differs:\n%s", what, strings.Join(lines, "\n"))
}
