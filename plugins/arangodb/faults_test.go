package arangodb_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/arangodb"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

var lastEpoch atomic.Uint64

func newRun(t testing.TB, op plugins.Operation) plugins.Run {
	lastEpoch.CompareAndSwap(0, uint64(time.Now().Unix())<<8)
	e := lastEpoch.Add(1)
	return plugins.Run{Epoch: e, Operation: op, Backup: "TEST/2026-01-02T03-04-05Z", Attempt: fmt.Sprintf("%d-%d", e, rand.Uint32()),
		Parallel: 4, Scratch: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

// in opens a session and closes it.
func in(t testing.TB, on plugins.Target, do func(plugins.Session) error) error {
	t.Helper()
	s, err := arangodb.New().Open(t.Context(), on)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

func backUp(t testing.TB, on plugins.Target, w plugins.ArtifactWriter) (rep plugins.Report, err error) {
	t.Helper()
	err = in(t, on, func(s plugins.Session) (err error) {
		rep, err = s.Backup(t.Context(), newRun(t, plugins.OpBackup), w)
		return err
	})
	return rep, err
}

func restore(t testing.TB, on plugins.Target, r plugins.ArtifactReader) error {
	t.Helper()
	run := newRun(t, plugins.OpRestore)
	return in(t, on, func(s plugins.Session) error {
		if _, err := s.Restore(t.Context(), run, r); err != nil {
			return err
		}
		_, err := s.(plugins.AccountSwitcher).RestoreAccounts(t.Context(), run, r)
		return err
	})
}

func digests(m *plugintest.Memory) map[string]string {
	out := map[string]string{}
	for _, a := range m.Artifacts() {
		if !a.Volatile {
			out[a.Name] = a.Digest.String()
		}
	}
	return out
}

// world is a filled simulator, its fingerprint and a backup of it.
type world struct {
	*simulator
	on    plugins.Target
	print string
	clean *plugintest.Memory
}

func newWorld(t testing.TB, cfg server.Config) *world {
	t.Helper()
	t.Logf("SIMULATED ArangoDB %s %s", cfg.Version, cfg.Mode)
	w := &world{simulator: start(t, cfg), clean: plugintest.NewMemory()}
	w.on = w.target(t, "central")
	fill(t, w.on, 5)
	w.print = fingerprint(t, w.on)
	_, err := backUp(t, w.on, w.clean)
	must(t, err)
	return w
}

type fault = map[string]any

// faults sets them; the function it returns fails the test when one was never met.
func (w *world) faults(t testing.TB, list ...fault) (met func()) {
	t.Helper()
	w.control(t, "PUT", "faults", list, nil)
	return func() {
		t.Helper()
		var now []struct {
			Path, Kind string
			Hits       int
		}
		w.control(t, "GET", "faults", obj{}, &now)
		for _, f := range now {
			if f.Hits == 0 {
				t.Errorf("fault %s on %s was never met: nothing was tested", f.Kind, f.Path)
			}
		}
		w.control(t, "PUT", "faults", []fault{}, nil)
	}
}

func (w *world) same(t testing.TB) {
	t.Helper()
	if d := cmp.Diff(strings.Split(w.print, "\n"), strings.Split(fingerprint(t, w.on), "\n")); d != "" {
		t.Errorf("the fingerprint differs: %.2000s", d)
	}
}

var modes = []server.Config{{Version: "3.12", Mode: "single"}, {Version: "3.12", Mode: "cluster", Coordinators: 2}}

func everyMode(t *testing.T, do func(t *testing.T, w *world)) {
	for _, cfg := range modes {
		t.Run("simulated "+cfg.Mode, func(t *testing.T) {
			w := newWorld(t, cfg)
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			do(t, w)
		})
	}
}

// TestSimulatedFaults: what passes by itself is outlived by both directions; the outcome is as without it.
func TestSimulatedFaults(t *testing.T) {
	for _, c := range []struct {
		name        string
		read, write []fault
	}{
		{name: "503", read: []fault{{"path": "/replication/dump", "kind": "status", "count": 3}, {"path": "/replication/batch", "kind": "status", "count": 2}, {"path": "nventory", "kind": "status", "count": 2}, {"path": "/_api/collection", "kind": "status", "count": 4}},
			write: []fault{{"path": "/_api/document", "method": "POST", "skip": 2, "kind": "status", "count": 3}, {"path": "/_api/collection", "method": "POST", "kind": "status", "count": 2}, {"path": "/_api/index", "method": "POST", "kind": "status", "count": 2},
				{"path": "/_api/view", "kind": "status", "count": 2}, {"path": "/_api/user", "kind": "status", "count": 2}, {"path": "/restore-data", "kind": "status", "count": 2}}},
		{name: "time-out", read: []fault{{"path": "/replication/dump", "kind": "hang", "count": 2}, {"path": "nventory", "kind": "hang"}},
			write: []fault{{"path": "/_api/document", "method": "POST", "skip": 2, "kind": "hang"}}},
		{name: "broken connections", read: []fault{{"path": "/replication/dump", "kind": "abort", "count": 3}, {"path": "/replication/batch", "method": "POST", "kind": "abort"}},
			write: []fault{{"path": "/_api/document", "method": "POST", "skip": 1, "kind": "abort", "count": 3}, {"path": "/_api/view", "method": "POST", "kind": "abort"}}},
		{name: "truncated dump", read: []fault{{"path": "/replication/dump", "kind": "truncate", "count": 3}}, write: []fault{{"path": "/replication/dump", "kind": "truncate", "count": 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			everyMode(t, func(t *testing.T, w *world) {
				for _, m := range w.on.Members {
					if c.name == "time-out" {
						m.Options["timeout"] = "1s"
					}
				}
				met := w.faults(t, c.read...)
				m := plugintest.NewMemory()
				_, err := backUp(t, w.on, m)
				must(t, err)
				met()
				if d := cmp.Diff(digests(w.clean), digests(m)); d != "" {
					t.Errorf("the backup differs: %s", d)
				}
				wreck(t, w.on, 6)
				a := foreign(t, w.on)
				a.do("DELETE", "shop", "/_api/view/search", nil, 200, 404)
				a.close()
				met = w.faults(t, c.write...)
				must(t, restore(t, w.on, w.clean))
				met()
				w.same(t)
			})
		})
	}
}

// TestSimulatedTruncatedForEver: a dump that always breaks off ends with an error and nothing half is committed.
func TestSimulatedTruncatedForEver(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		met := w.faults(t, fault{"path": "/replication/dump", "kind": "truncate", "count": -1})
		m := plugintest.NewMemory()
		if _, err := backUp(t, w.on, m); !errors.Is(err, plugins.ErrPinLost) && !errors.Is(err, plugins.ErrUnavailable) {
			t.Errorf("a dump that always breaks off: %v", err)
		}
		met()
		want := digests(w.clean)
		for n, d := range digests(m) {
			if want[n] != d {
				t.Errorf("artifact %s was committed with other content", n)
			}
		}
	})
}

// TestSimulatedBatchExpired: a view that the server has given up is a lost pin, never a mixture.
func TestSimulatedBatchExpired(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		must(t, in(t, w.on, func(s plugins.Session) error {
			run := newRun(t, plugins.OpBackup)
			pin, err := s.(plugins.Pinner).Pin(t.Context(), run)
			must(t, err)
			w.control(t, "POST", "expire-batches", obj{}, nil)
			if _, err := pin.Backup(t.Context(), run, plugintest.NewMemory()); !errors.Is(err, plugins.ErrPinLost) {
				t.Errorf("backup of an expired batch: %v, want ErrPinLost", err)
			}
			return pin.Release(t.Context())
		}))
	})
}

// TestSimulatedRestart: a server that was killed and started anew has forgotten the view.
func TestSimulatedRestart(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		must(t, in(t, w.on, func(s plugins.Session) error {
			run := newRun(t, plugins.OpBackup)
			pin, err := s.(plugins.Pinner).Pin(t.Context(), run)
			must(t, err)
			w.kill()
			w.run(t)
			if _, err := pin.Backup(t.Context(), run, plugintest.NewMemory()); !errors.Is(err, plugins.ErrPinLost) {
				t.Errorf("backup after a restart: %v, want ErrPinLost", err)
			}
			return pin.Release(t.Context())
		}))
		m := plugintest.NewMemory()
		_, err := backUp(t, w.on, m)
		must(t, err)
		if d := cmp.Diff(digests(w.clean), digests(m)); d != "" {
			t.Errorf("the backup differs: %s", d)
		}
	})
}

// hook is a store that does something before the n-th artifact.
type hook struct {
	*plugintest.Memory
	n    atomic.Int64
	then func()
}

func (h *hook) Create(ctx context.Context, a plugins.Artifact) (plugins.RecordWriter, error) {
	if h.n.Add(-1) == 0 {
		h.then()
	}
	return h.Memory.Create(ctx, a)
}

// opening is a backup that something happens to before the n-th artifact is read.
type opening struct {
	*plugintest.Memory
	n    atomic.Int64
	then func()
}

func (o *opening) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	if o.n.Add(-1) == 0 {
		o.then()
	}
	return o.Memory.Open(ctx, name)
}

type node struct{ ID, Name, Role, URL string }

func (w *world) nodes(t testing.TB, role string) (out []node) {
	t.Helper()
	var st struct{ Nodes []node }
	w.control(t, "GET", "state", obj{}, &st)
	for _, n := range st.Nodes {
		if strings.EqualFold(n.Role, role) {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		t.Fatalf("the simulator has no %s: %+v", role, st.Nodes)
	}
	return out
}

// TestSimulatedLeaderMoved: shards change their leader in the middle of a backup, once by resignation and once
// because the server dies: what was pinned is still read, from the followers.
func TestSimulatedLeaderMoved(t *testing.T) {
	for _, how := range []string{"resign", "kill"} {
		t.Run("simulated "+how, func(t *testing.T) {
			w := newWorld(t, modes[1])
			h := &hook{Memory: plugintest.NewMemory()}
			h.n.Store(4)
			done := false
			h.then = func() {
				w.control(t, "POST", how, map[string]string{"server": w.nodes(t, "primary")[0].ID}, nil)
				done = true
			}
			run := newRun(t, plugins.OpBackup)
			run.Parallel = 1
			err := in(t, w.on, func(s plugins.Session) error {
				_, err := s.Backup(t.Context(), run, h)
				return err
			})
			if !done {
				t.Fatal("no leader moved: nothing was tested")
			}
			if err != nil { // a shard without another server that has the view: then all is pinned again, never mixed
				if !errors.Is(err, plugins.ErrPinLost) {
					t.Fatal(err)
				}
				t.Logf("the pin was given up: %v", err)
				h.Memory = plugintest.NewMemory()
				_, err = backUp(t, w.on, h.Memory)
				must(t, err)
			}
			if d := cmp.Diff(digests(w.clean), digests(h.Memory)); d != "" {
				t.Errorf("the backup differs: %s", d)
			}
		})
	}
}

// TestSimulatedCoordinatorDown: one of two coordinators is dead: health says so, backup and restore work.
func TestSimulatedCoordinatorDown(t *testing.T) {
	w := newWorld(t, modes[1])
	first := w.nodes(t, "coordinator")
	for _, n := range first {
		if strings.HasSuffix(n.URL, strings.TrimPrefix(w.urls[0], "http://")) {
			w.control(t, "POST", "kill", map[string]string{"server": n.ID}, nil)
		}
	}
	if code, _, err := foreign(t, w.on).try("GET", "_system", "/_api/version", nil); err == nil {
		t.Fatalf("the first coordinator answers %d: nothing is tested", code)
	}
	must(t, in(t, w.on, func(s plugins.Session) error {
		h, err := s.Health(t.Context())
		if h.Grade != plugins.Amber || len(h.Reasons) == 0 {
			t.Errorf("health with a dead coordinator: %+v", h)
		}
		return err
	}))
	m := plugintest.NewMemory()
	rep, err := backUp(t, w.on, m)
	must(t, err)
	if d := cmp.Diff(digests(w.clean), digests(m)); d != "" {
		t.Errorf("the backup differs: %s", d)
	}
	if !strings.Contains(rep.Consistency, "one moment") {
		t.Errorf("consistency: %s", rep.Consistency)
	}
	living := w.on
	living.Members = w.on.Members[1:]
	wreck(t, living, 8)
	must(t, restore(t, w.on, w.clean))
	if got := fingerprint(t, living); got != w.print {
		t.Errorf("the fingerprint differs: %.2000s", cmp.Diff(strings.Split(w.print, "\n"), strings.Split(got, "\n")))
	}
}

// TestSimulatedWrongPassword: told at once, with what to do, and without the password.
func TestSimulatedWrongPassword(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		bad := w.target(t, "central")
		must(t, os.WriteFile(bad.Members[0].Options["password_file"], []byte("s3cret-wrong"), 0o600))
		begin := time.Now()
		_, err := arangodb.New().Open(t.Context(), bad)
		if !errors.Is(err, plugins.ErrAuth) || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "root") {
			t.Errorf("wrong password: %v", err)
		}
		if d := time.Since(begin); d > 3*time.Second { // repeating it would take longer
			t.Errorf("told after %s", d)
		}
	})
}
