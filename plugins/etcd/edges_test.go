package etcd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// TestEdges: a lease that runs out, the largest value the server takes,
// authentication switched off, and users whose passwords cannot come back.
func TestEdges(t *testing.T) {
	ctx := t.Context()
	b := start(t, lab.Options{})
	on := b.target(t, "central")
	b.fill(t, on, 3)
	c := b.client(t, on)
	defer c.Close()
	if err := grant(ctx, c, 77, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "/short", "v", clientv3.WithLease(77)); err != nil {
		t.Fatal(err)
	}
	size := 1<<20 + 1<<19
	for {
		if _, err := c.Put(ctx, "/largest", strings.Repeat("v", size)); err == nil {
			break
		} else if !errors.Is(err, rpctypes.ErrRequestTooLarge) {
			t.Fatal(err)
		}
		size -= 16
	}
	ses, err := New().Open(ctx, on)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	m := plugintest.NewMemory()
	if _, err := ses.Backup(ctx, newRun(t, 1, plugins.OpBackup), m); err != nil {
		t.Fatal(err)
	}

	for _, k := range []string{"/largest", "/short"} {
		if _, err := c.Delete(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.UserDelete(ctx, "cspadmin"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UserChangePassword(ctx, "cso-admin", "another"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AuthDisable(ctx); err != nil {
		t.Fatal(err)
	}
	run := newRun(t, 2, plugins.OpRestore)
	if _, err := ses.Restore(ctx, run, m); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get(ctx, "/largest"); err != nil || len(r.Kvs) != 1 || len(r.Kvs[0].Value) != size {
		t.Errorf("the largest value is not back: %v", err)
	}
	rep, err := ses.(plugins.AccountSwitcher).RestoreAccounts(ctx, run, m)
	if err != nil {
		t.Fatal(err)
	}
	named := ""
	for _, i := range rep.Inexact {
		named += i.What + ";"
	}
	for _, u := range []string{`"cspadmin"`, `"cso-admin"`} {
		if !strings.Contains(named, u) {
			t.Errorf("user %s is not named as inexact: %s", u, named)
		}
	}
	if strings.Contains(named, `"root"`) || strings.Contains(named, `"idle"`) {
		t.Errorf("users whose passwords are right are named: %s", named)
	}
	// The lease runs out, lawfully: no difference. Before that, or after it, all else is equal.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		d, err := ses.Compare(ctx, run, m)
		if err != nil || len(d) > 0 {
			t.Fatalf("compare: %+v, %v", d, err)
		}
		r, err := c.Get(ctx, "/short")
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Kvs) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lease does not run out")
		}
	}
	if d, err := ses.Compare(ctx, run, m); err != nil || len(d) > 0 {
		t.Errorf("after a lease has run out: %+v, %v", d, err)
	}
	// A key that is missing though its lease has time left is somebody's doing.
	if _, err := c.Delete(ctx, "/awkward/empty"); err != nil {
		t.Fatal(err)
	}
	d, err := ses.Compare(ctx, run, m)
	if err != nil || len(d) != 1 || d[0].Kind != "missing" || !d[0].Foreign {
		t.Errorf("after a foreign delete: %+v, %v", d, err)
	}
}

// TestToldOfEqualData: a restore that knows from a safety backup that nothing
// differs takes no snapshot, unless something was written since.
func TestToldOfEqualData(t *testing.T) {
	ctx := t.Context()
	b := start(t, lab.Options{})
	on := b.target(t, "central")
	b.fill(t, on, 5)
	c := b.client(t, on)
	defer c.Close()
	ses, err := New().Open(ctx, on)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	m := plugintest.NewMemory()
	if _, err := ses.Backup(ctx, newRun(t, 1, plugins.OpBackup), m); err != nil {
		t.Fatal(err)
	}
	for i, change := range []func() error{
		nil,
		func() error { _, err := c.Put(ctx, "/later", "v"); return err },
		func() error { return grant(ctx, c, 4711, 900) },
	} {
		run := newRun(t, uint64(10+i), plugins.OpRestore)
		live := plugintest.NewMemory()
		if _, err := ses.Backup(ctx, newRun(t, 1, plugins.OpSafety), live); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			if err := change(); err != nil {
				t.Fatal(err)
			}
		}
		snapshots := 0
		run.Live = live
		run.Progress = func(s plugins.Status) {
			if s.Phase == "snapshot" {
				snapshots++
			}
		}
		rep, err := ses.Restore(ctx, run, m)
		if err != nil {
			t.Fatal(err)
		}
		if none := snapshots == 0; none != (change == nil) {
			t.Errorf("case %d: looked at the live data: %v, %+v", i, !none, rep)
		}
		run.Live, run.Progress = nil, nil
		if d, err := ses.Compare(ctx, run, m); err != nil || len(d) > 0 {
			t.Errorf("case %d: %v %+v", i, err, d)
		}
	}
}
