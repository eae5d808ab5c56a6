package zookeeper_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper"
)

func open(t testing.TB, on plugins.Target) plugins.Session {
	t.Helper()
	s, err := zookeeper.New().Open(context.Background(), on)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func run(t testing.TB, op plugins.Operation, epoch uint64) plugins.Run {
	return plugins.Run{Epoch: epoch, Operation: op, Attempt: t.Name() + time.Now().String(), Parallel: 2, Scratch: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

func backup(t testing.TB, s plugins.Session) (*plugintest.Memory, plugins.Report) {
	t.Helper()
	m := plugintest.NewMemory()
	rep, err := s.Backup(t.Context(), run(t, plugins.OpBackup, 1), m)
	must(t, err)
	return m, rep
}

func health(t testing.TB, s plugins.Session) plugins.Health {
	t.Helper()
	h, err := s.Health(t.Context())
	must(t, err)
	return h
}

// stats are the numbers no client can set.
func stats(t testing.TB, on plugins.Target, paths ...string) map[string]zk.Stat {
	t.Helper()
	c := client(t, on, 0)
	defer c.Close()
	out := map[string]zk.Stat{}
	for _, p := range paths {
		_, st, err := c.Get(p)
		must(t, err)
		out[p] = *st
	}
	return out
}

// TestEnsemble: three members, one of them dead during the restore, then all of them destroyed.
func TestEnsemble(t *testing.T) {
	l := servers(t, 3, "zookeeper")
	on := target(t, l, "central")
	ctx := t.Context()
	must(t, l.Fill(ctx, 3, "small", unit(on)))
	want := fingerprint(t, l, on)
	s := open(t, on)
	if h := health(t, s); h.Grade != plugins.Green || h.Members != 3 || h.Version != "3.8.0" {
		t.Errorf("health %+v", h)
	}
	m, rep := backup(t, s)
	if len(rep.Warnings) != 0 || !strings.Contains(rep.Consistency, "one moment") || len(rep.Inexact) != 1 || !strings.Contains(rep.Inexact[0].What, "2 ephemeral") {
		t.Errorf("report %+v", rep)
	}

	must(t, l.Wreck(ctx, 4, unit(on)))
	must(t, l.Kill(ctx, on.Members[0].Name))
	if h := health(t, s); h.Grade != plugins.Amber || len(h.Reasons) != 1 || !strings.Contains(h.Reasons[0], on.Members[0].Name) {
		t.Errorf("health with a dead member: %+v", h)
	}
	r := run(t, plugins.OpRestore, 10)
	_, err := s.Restore(ctx, r, m)
	must(t, err)
	d, err := s.Compare(ctx, r, m)
	must(t, err)
	if len(d) != 0 {
		t.Errorf("differences %+v", d)
	}
	must(t, l.StartMember(ctx, on.Members[0].Name))
	sameLines(t, want, fingerprint(t, l, on))

	// Disaster: every server stopped, two data directories damaged, one lost.
	m, _ = backup(t, s)
	paths := []string{"/", "/awkward/null", "/cso/queues/kept", "/acl/private", "/contrail/id/vn-000001"}
	before := stats(t, on, paths...)
	must(t, l.Wreck(ctx, 5, unit(on)))
	for i, mb := range on.Members {
		must(t, l.Kill(ctx, mb.Name))
		dir := filepath.Join(mb.Options["data_dir"], "version-2")
		if i == 0 {
			must(t, os.RemoveAll(dir))
			continue
		}
		snaps, err := filepath.Glob(filepath.Join(dir, "*"))
		must(t, err)
		for _, f := range snaps {
			must(t, os.WriteFile(f, []byte("damaged"), 0o600))
		}
	}
	dr := run(t, plugins.OpDisaster, 11)
	for range 2 { // the second round repeats it: nothing may be lost
		for _, mb := range on.Members {
			on.Member = mb.Name
			_, err := zookeeper.New().Bootstrap(ctx, on, dr, m)
			must(t, err)
		}
		on.Member = ""
		waitServing(t, on)
	}
	sameLines(t, want, fingerprint(t, l, on))
	after := stats(t, on, paths...)
	for p, st := range after {
		old := before[p]
		old.Cversion, old.NumChildren, st.Cversion, st.NumChildren = 0, 0, 0, 0 // ephemerals are gone
		if diff := cmp.Diff(old, st); diff != "" {
			t.Errorf("%s after disaster recovery: %s", p, diff)
		}
	}
	s = open(t, on)
	d, err = s.Compare(ctx, dr, m)
	must(t, err)
	if len(d) != 0 {
		t.Errorf("differences after disaster recovery %+v", d)
	}
	if h := health(t, s); h.Grade != plugins.Green {
		t.Errorf("health after disaster recovery %+v", h)
	}
	rep, err = s.Restore(ctx, dr, m)
	must(t, err)
	if rep.Artifacts != 0 || rep.Removed != 0 || rep.Records != 0 {
		t.Errorf("a restore after disaster recovery wrote: %+v", rep)
	}
	c := client(t, on, 1)
	defer c.Close()
	name, err := c.Create("/cso/queues/kept/job_", nil, zk.FlagSequence, zk.WorldACL(zk.PermAll))
	must(t, err)
	kept := before["/cso/queues/kept"]
	if next := fmt.Sprintf("/cso/queues/kept/job_%010d", (kept.Cversion+kept.NumChildren)/2); name != next {
		t.Errorf("the next sequential znode is %s, want %s", name, next)
	}
}

func waitServing(t testing.TB, on plugins.Target) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		s, err := zookeeper.New().Open(t.Context(), on)
		if err == nil {
			must(t, s.Close())
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func sameLines(t testing.TB, want, got string) {
	t.Helper()
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("fingerprint differs: %.2000s", d)
	}
}
