package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/fake"
)

// local is the reference plugin with servers at a known place of this host.
type local struct {
	*fake.Plugin
	dir string
}

// Discover finds the server while its directory is there.
func (l local) Discover(context.Context) ([]plugins.Target, error) {
	if _, err := os.Stat(filepath.Join(l.dir, "broken")); err == nil {
		return nil, fmt.Errorf("its configuration: %w", plugins.ErrConfig)
	}
	if _, err := os.Stat(l.dir); err != nil {
		return nil, nil
	}
	return []plugins.Target{{Component: l.Info().Component, Members: []plugins.Member{{Name: "one", Address: "here", Options: map[string]string{"dir": l.dir}}}}}, nil
}

type bench struct {
	*Worker
	dir string // of the server
	log *bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{dir: filepath.Join(t.TempDir(), "db"), log: &bytes.Buffer{}}
	r, err := plugins.NewRegistry(local{fake.New("etcd"), b.dir}, fake.New("zookeeper"))
	if err != nil {
		t.Fatal(err)
	}
	b.Worker = &Worker{
		Registry: r, Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Paths: config.Paths{Root: t.TempDir(), State: t.TempDir(), Estate: filepath.Join(t.TempDir(), "estate.yaml"), VM: "vm-1"},
	}
	return b
}

func (b *bench) serve(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// again is a worker started anew on the same host.
func (b *bench) again() *bench {
	return &bench{Worker: &Worker{Registry: b.Registry, Log: b.Log, Paths: b.Paths}, dir: b.dir, log: b.log}
}

func (b *bench) finds(t *testing.T) *config.Estate {
	t.Helper()
	e, err := b.estate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(e.Instances) != 1 || e.Switch == nil || *e.Switch != (config.Holder{Component: "etcd", Instance: plugins.DefaultInstance}) || e.Instances[0].Members[0].VM != "vm-1" {
		t.Fatalf("estate %+v, switch %+v", e, e.Switch)
	}
	return e
}

func TestEstate_discovered(t *testing.T) {
	b := newBench(t)
	if _, err := b.estate(t.Context()); !errors.Is(err, config.ErrNoFile) || !strings.Contains(err.Error(), "setup") {
		t.Fatalf("nothing there: %v", err)
	}
	b.serve(t)
	if _, err := b.estate(t.Context()); !errors.Is(err, config.ErrNoFile) {
		t.Fatalf("looked again at once: %v", err)
	}
	b.local.looked = time.Now().Add(-lookEvery)
	b.finds(t)
	b.local.looked = time.Now().Add(-lookEvery)
	b.finds(t)
	if n := strings.Count(b.log.String(), "servers found"); n != 1 || !strings.Contains(b.log.String(), "etcd here (maintenance switch)") {
		t.Errorf("the log says it %d times: %s", n, b.log)
	}

	// A server that stops stays in the estate, for this worker and the next.
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	b.local.looked = time.Now().Add(-lookEvery)
	b.finds(t)
	b.again().finds(t)

	// An estate file ends all that.
	if err := os.WriteFile(b.Paths.Estate, []byte("vms: [{name: vm-2}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := b.estate(t.Context()); err != nil || e.VMs[0].Name != "vm-2" || len(e.Instances) != 0 {
		t.Errorf("estate %+v, %v", e, err)
	}
}

// TestEstate_doubt: what cannot be known for sure is an error, never a smaller estate.
func TestEstate_doubt(t *testing.T) {
	b := newBench(t)
	b.serve(t)
	if err := os.WriteFile(filepath.Join(b.dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.estate(t.Context()); !errors.Is(err, config.ErrNoFile) || !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("a configuration that cannot be read: %v", err)
	}

	b = newBench(t) // a server that may hold the switch and does not open: its directory is a file
	if err := os.WriteFile(b.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := b.estate(t.Context()); err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("estate %+v, %v", e, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newBench(t).estate(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestEstate_maintenance: in maintenance nothing new is found, so that the switch that is put back is the one that was turned on.
func TestEstate_maintenance(t *testing.T) {
	b := newBench(t)
	b.serve(t)
	b.finds(t)
	j, err := journal.At(b.Paths.Root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := j.Claim(t.Context(), journal.Request{Run: "r", Cluster: "c", Workflow: "w", Operation: "backup", Backup: "A/2026-01-02T03-04-05Z"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Update(t.Context(), s.Claim, func(s *journal.State) error { s.Lease = &journal.Lease{Entered: true}; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := b.again()
	again.finds(t)
	if _, err := j.Update(t.Context(), s.Claim, func(s *journal.State) error { s.Lease.Entered = false; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := again.estate(t.Context()); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("after maintenance it is not looked again: %v", err)
	}
}
