package etcd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
	labetcd "github.com/csobackup/cso_backupnrestore/test/lab/etcd"
)

func newRun(t *testing.T, epoch uint64, op plugins.Operation) plugins.Run {
	return plugins.Run{Epoch: epoch, Operation: op, Attempt: "1", Parallel: 2, Scratch: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

// TestDisasterRecovery destroys every server's data and brings all back,
// passwords included, as a new cluster.
func TestDisasterRecovery(t *testing.T) {
	for _, c := range []struct {
		name    string
		members int
		version string
	}{{"one member of 3.4", 1, "3.4"}, {"three members of 3.4", 3, "3.4"}, {"one member of 3.7", 1, "3.7"}} {
		t.Run(c.name, func(t *testing.T) {
			b := start(t, lab.Options{Members: c.members, Versions: map[string]string{"etcd": c.version}})
			b.disaster(t)
		})
	}
}

func (b *bench) disaster(t *testing.T) {
	ctx := t.Context()
	on := b.target(t, "central")
	p := New()
	b.fill(t, on, 5)
	ses, err := p.Open(ctx, on)
	if err != nil {
		t.Fatal(err)
	}
	// The backup is taken in maintenance, after an earlier restore: neither may come back.
	if err := ses.(plugins.Switch).WriteSwitch(ctx, plugins.SwitchOn); err != nil {
		t.Fatal(err)
	}
	m := plugintest.NewMemory()
	if _, err := ses.Backup(ctx, newRun(t, 7, plugins.OpBackup), m); err != nil {
		t.Fatal(err)
	}
	if _, err := ses.Restore(ctx, newRun(t, 8, plugins.OpRestore), m); err != nil {
		t.Fatal(err)
	}
	b.wreck(t, on, 6)
	if _, err := ses.Restore(ctx, newRun(t, 9, plugins.OpRestore), m); err != nil {
		t.Fatal(err)
	}
	m = plugintest.NewMemory()
	rep, err := ses.Backup(ctx, newRun(t, 10, plugins.OpBackup), m)
	if err != nil {
		t.Fatal(err)
	}
	// The oracle sees the switch as any other key: note the estate without it.
	if err := ses.(plugins.Switch).WriteSwitch(ctx, plugins.SwitchState{}); err != nil {
		t.Fatal(err)
	}
	want := b.fingerprint(t, on)
	refused, err := labetcd.CheckLogins(ctx, b.members(t, "central")[0], 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := ses.Close(); err != nil {
		t.Fatal(err)
	}

	b.fill(t, on, 99)
	run := newRun(t, 11, plugins.OpDisaster)
	began := time.Now()
	for _, member := range on.Members {
		to := on
		to.Member = member.Name
		if _, err := p.Bootstrap(ctx, to, run, m); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(member.Options["data_dir"] + ".before-11"); err != nil {
			t.Errorf("the old data directory was not kept: %v", err)
		}
	}
	t.Logf("%d member(s) recovered in %.1f s", len(on.Members), time.Since(began).Seconds())

	ses = b.await(t, on)
	if st, err := ses.(plugins.Switch).ReadSwitch(ctx); err != nil || st.Present {
		t.Errorf("the maintenance switch of the past is back: %+v, %v", st, err)
	}
	got := b.fingerprint(t, on)
	if want != got {
		t.Errorf("after disaster recovery the fingerprint differs: %d bytes, want %d", len(got), len(want))
	}
	if d, err := ses.Compare(ctx, run, m); err != nil || len(d) > 0 {
		t.Errorf("Compare: %+v, %v", d, err)
	}
	again, err := labetcd.CheckLogins(ctx, b.members(t, "central")[0], 5)
	if err != nil || len(again) != len(refused) {
		t.Errorf("log-ins refused: %q, before the disaster %q, %v", again, refused, err)
	}
	c := b.client(t, on)
	defer c.Close()
	r, err := c.Get(ctx, ownPrefix, clientv3.WithPrefix())
	if err != nil || len(r.Kvs) > 0 || r.Header.Revision < revisionBump {
		t.Errorf("product's keys %v, revision %d, %v: want none, above the bump; backup was at %s", r.Kvs, r.Header.Revision, err, rep.Position)
	}
	// An old watch must end, not hang.
	if w, ok := <-c.Watch(ctx, "x", clientv3.WithRev(5)); !ok || w.CompactRevision == 0 {
		t.Errorf("a watch of the past: %+v: want compacted", w)
	}
	h, err := ses.Health(ctx)
	if err != nil || h.Grade == plugins.Red || h.Members != len(on.Members) {
		t.Errorf("health: %+v, %v", h, err)
	}
	// Repeating it changes nothing.
	to := on
	to.Member = on.Members[0].Name
	if _, err := p.Bootstrap(ctx, to, run, m); err != nil {
		t.Errorf("bootstrap again: %v", err)
	}
	// And the cluster takes a restore of a later epoch.
	b.wreck(t, on, 7)
	if _, err := ses.Restore(ctx, newRun(t, 12, plugins.OpRestore), m); err != nil {
		t.Error(err)
	}
	if err := ses.Close(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(on.Members[0].Options["data_dir"] + ".new-*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// await opens a session once the cluster answers.
func (b *bench) await(t *testing.T, on plugins.Target) plugins.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		ses, err := New().Open(ctx, on)
		if err == nil {
			return ses
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
