package arangodb_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/arangodb"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// workerEnv makes this test binary a worker that is killed while the servers are read-only.
const workerEnv = "CSO_TEST_ARANGODB_WORKER"

type workerJob struct {
	Target plugins.Target
	Epoch  uint64
	Fence  bool
}

// work makes the servers read-only and never lets writes in again.
func work(job string) {
	err := func() error {
		var j workerJob
		if err := json.Unmarshal([]byte(job), &j); err != nil {
			return err
		}
		s, err := arangodb.New().Open(context.Background(), j.Target)
		if err != nil {
			return err
		}
		run := plugins.Run{Epoch: j.Epoch, Operation: plugins.OpRestore, Attempt: "worker", Parallel: 2, Scratch: os.TempDir(), Log: slog.New(slog.DiscardHandler)}
		if j.Fence {
			err = s.(plugins.Fencer).Fence(context.Background(), run)
		} else {
			_, err = s.(plugins.Pinner).Pin(context.Background(), run)
		}
		fmt.Println("done", err)
		select {}
	}()
	fmt.Fprintln(os.Stderr, "worker:", err)
}

// TestSimulatedReadOnlyLeftOn: a worker is killed while it holds the servers read-only. Health says so, and the
// next run lets writes in again, whichever of its parts comes first.
func TestSimulatedReadOnlyLeftOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		fence bool
		cfg   server.Config
	}{{"pin, cluster", false, modes[1]}, {"fence, cluster", true, modes[1]}, {"fence, single", true, modes[0]}} {
		t.Run("simulated "+c.name, func(t *testing.T) {
			w := newWorld(t, c.cfg)
			on := w.on
			if c.fence {
				on = w.superTarget(t, "central")
			} else { // the pin never gets beyond waiting for transactions to end
				w.faults(t, fault{"path": "/_api/transaction", "kind": "hang", "count": -1})
			}
			for _, cure := range []string{"post-hook", "pre-hook", "backup"} {
				killWorker(t, on, c.fence)
				if tryWrite(on) == nil {
					t.Fatal("the servers take writes: nothing is tested")
				}
				w.control(t, "PUT", "faults", []fault{}, nil)
				must(t, in(t, on, func(s plugins.Session) error {
					h, err := s.Health(t.Context())
					if h.Grade != plugins.Amber || !strings.Contains(strings.Join(h.Reasons, " "), "read-only") {
						t.Errorf("health: %+v", h)
					}
					if err != nil {
						return err
					}
					run := newRun(t, plugins.OpBackup)
					switch {
					case cure == "post-hook":
						return s.PostHook(t.Context(), run)
					case cure == "pre-hook" || c.cfg.Mode == "single": // its pin needs no read-only mode and looks at none
						return s.PreHook(t.Context(), run)
					}
					_, err = s.Backup(t.Context(), run, plugintest.NewMemory())
					return err
				}))
				if err := tryWrite(on); err != nil {
					t.Errorf("after the next run's %s: %v", cure, err)
				}
				if !c.fence {
					w.faults(t, fault{"path": "/_api/transaction", "kind": "hang", "count": -1})
				}
			}
		})
	}
}

// killWorker starts a worker, waits until the servers are read-only, and kills it.
func killWorker(t *testing.T, on plugins.Target, fence bool) {
	t.Helper()
	b, err := json.Marshal(workerJob{on, newRun(t, plugins.OpBackup).Epoch, fence})
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerEnv+"="+string(b))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	for deadline := time.Now().Add(20 * time.Second); tryWrite(on) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("the worker never made the servers read-only")
			break
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if t.Failed() {
		t.Fatal(out.String())
	}
}

// TestSimulatedReadOnlyByOthers: what an administrator made read-only is backed up, and stays so; a restore is refused.
func TestSimulatedReadOnlyByOthers(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		// The product's own collection is there, as it is after any first run.
		must(t, restore(t, w.on, w.clean))
		a.do("PUT", "_system", "/_admin/server/mode", obj{"mode": "readonly"})
		m := plugintest.NewMemory()
		_, err := backUp(t, w.on, m)
		must(t, err)
		if tryWrite(w.on) == nil {
			t.Error("the backup ended somebody else's read-only mode")
		}
		if err := restore(t, w.on, w.clean); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("restore: %v", err)
		}
		a.do("PUT", "_system", "/_admin/server/mode", obj{"mode": "default"})
		must(t, restore(t, w.on, m))
		w.same(t)
	})
}
