package cassandra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// TestExact is what a restore must get right beside the suite, on one node: each case changes something in its own
// way, and the same backup puts it right.
func TestExact(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 41)
	r.do(`CREATE KEYSPACE plain WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}`,
		`CREATE TABLE plain.t (id int PRIMARY KEY, v text)`, `INSERT INTO plain.t (id, v) VALUES (1, 'one')`,
		`CREATE TABLE plain.short (id int PRIMARY KEY, v text)`, `INSERT INTO plain.short (id, v) VALUES (1, 'lasting')`,
		`CREATE ROLE steady WITH PASSWORD = 'steady-secret' AND LOGIN = true`, `CREATE ROLE boss WITH PASSWORD = 'boss-secret' AND LOGIN = true AND SUPERUSER = true`)
	want := r.print()
	r.do(`INSERT INTO plain.short (id, v) VALUES (2, 'lapses') USING TTL 5`)
	lapses := time.Now().Add(6 * time.Second)
	m := r.backup()
	// A fresh rig for each case: its failures are the case's.
	for _, c := range []struct {
		name     string
		restores bool // tables, by the last step
		do       func(r *rig)
	}{
		{"expiry is absolute", true, func(r *rig) {
			r.do(`TRUNCATE plain.short`)
			time.Sleep(time.Until(lapses))
		}},
		{"dropped keyspace and emptied table, then a power cut", false, func(r *rig) { powerCut(r, m) }},
		{"table of the same name with another id", true, func(r *rig) {
			r.do(`DROP TABLE zoo.changed`, `CREATE TABLE zoo.changed (id int PRIMARY KEY, x int, y text)`, `INSERT INTO zoo.changed (id, x) VALUES (1, 9)`)
		}},
		{"base table emptied, with its view", true, func(r *rig) { r.do(`TRUNCATE zoo.base`) }},
		{"counters", true, func(r *rig) {
			r.do(`UPDATE zoo.hits SET c = c + 1000 WHERE id = 1`, `DELETE FROM zoo.hits WHERE id = 2`)
		}},
		{"keyspace with other replication", true, func(r *rig) {
			r.do(`ALTER KEYSPACE plain WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND durable_writes = false`)
		}},
		{"column dropped, another added", true, func(r *rig) { r.do(`ALTER TABLE plain.t DROP v`, `ALTER TABLE plain.t ADD w int`) }},
		{"type with one more field", true, func(r *rig) { r.do(`ALTER TYPE zoo.addr ADD country text`) }},
		{"accounts", false, accountsChanged},
		{"superusers", false, superusersChanged},
		{"without Jolokia", true, func(r *rig) {
			r.on = without(r.on, "jolokia")
			r.do(`INSERT INTO plain.t (id, v) VALUES (2, 'two')`, `DROP MATERIALIZED VIEW zoo.by_cat`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, b, "central")
			c.do(r)
			rep := r.restore(m)
			r.same(want)
			if c.restores && rep.Artifacts == 0 {
				t.Errorf("nothing was restored: %+v", rep)
			}
			served(r)
		})
	}
}

// powerCut: what was written before the restore and stands in the commit log only does not come back, and what is
// written after it does.
func powerCut(r *rig, m plugins.ArtifactReader) {
	r.do(`INSERT INTO zoo.base (id, cat) VALUES (7001, 'unflushed')`, `INSERT INTO plain.t (id, v) VALUES (7001, 'unflushed')`, `DROP KEYSPACE zoo`)
	r.restore(m)
	before := r.print()
	r.do(`INSERT INTO plain.t (id, v) VALUES (2, 'after')`)
	time.Sleep(100 * time.Millisecond)
	// The commit log is written to disk within its period; a power cut may cost that, a restore never more.
	r.nodetool("flush", "system")
	r.crash(0)
	if r.count(0, `SELECT count(*) FROM plain.t WHERE id = 2`) != 1 {
		r.t.Error("a write after the restore is lost")
	}
	r.do(`DELETE FROM plain.t WHERE id = 2`)
	r.same(before)
}

// served: views and indexes answer with the restored rows, and follow new ones.
func served(r *rig) {
	r.t.Helper()
	base := r.count(0, `SELECT count(*) FROM zoo.base WHERE cat = 'moved'`)
	if v := r.count(0, `SELECT count(*) FROM zoo.by_cat WHERE cat = 'moved'`); base == 0 || v != base {
		r.t.Errorf("%d rows by the index, %d in the view", base, v)
	}
	if n := r.count(0, `SELECT count(*) FROM zoo.base WHERE email = 'short@x'`); n == 0 {
		r.t.Error("the index on email finds nothing")
	}
	if five() {
		c := r.client(r.t, r.on, 0)
		defer c.Close()
		if n := c.Query(`SELECT id FROM zoo.vectors ORDER BY v ANN OF [1, 1, 0.5] LIMIT 3`).Iter().NumRows(); n != 3 {
			r.t.Errorf("the nearest neighbours are %d rows, want 3", n)
		}
	}
	r.do(`INSERT INTO zoo.base (id, cat) VALUES (8001, 'fresh')`)
	if n := r.count(0, `SELECT count(*) FROM zoo.by_cat WHERE cat = 'fresh'`); n != 1 {
		r.t.Errorf("the view has %d of one new row", n)
	}
}

// accountsChanged changes roles, and checks the way back for somebody whom it does not concern.
func accountsChanged(r *rig) {
	r.do(`ALTER ROLE "App Role" WITH PASSWORD = 'other'`, `DROP ROLE readers`, `CREATE ROLE late WITH PASSWORD = 'x' AND LOGIN = true`,
		`GRANT SELECT ON KEYSPACE zoo TO steady`)
	login := func(user, password string) error {
		c, err := r.dial(user, password)
		if err == nil {
			c.Close()
		}
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			err = login("steady", "steady-secret")
		}
		done <- err
	}()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("somebody was locked out on the way: %v", err)
		}
		if err := login("App Role", "app-secret"); err != nil {
			r.t.Errorf("the restored password: %v", err)
		}
		if login("late", "x") == nil || login("App Role", "other") == nil {
			r.t.Error("a role or password of later still logs in")
		}
	})
}

// superusersChanged: superusers are restored as the superuser that the estate file names; without one, it is refused.
func superusersChanged(r *rig) {
	m := r.backup()
	r.on = without(r.on, "superuser", "superuser_password_file")
	r.do(`DROP ROLE boss`, `CREATE ROLE rogue WITH PASSWORD = 'x' AND LOGIN = true AND SUPERUSER = true`, `GRANT readers TO rogue`, `GRANT SELECT ON KEYSPACE zoo TO rogue`)
	if _, err := r.tryRestore(m); !errors.Is(err, plugins.ErrAuth) || !strings.Contains(err.Error(), "only a superuser may") {
		r.t.Errorf("superusers restored by an ordinary role: %v, want ErrAuth", err)
	}
	must(r.t, r.with(func(s plugins.Session) error {
		p, err := s.(plugins.Planner).Plan(r.t.Context(), newRun(r.t, plugins.OpInspect), m)
		if err == nil && !strings.Contains(fmt.Sprint(p.Refusals), "only a superuser may") {
			r.t.Errorf("plan: %+v", p)
		}
		return err
	}))
	r.on = r.withSuperuser()
}

// TestAcknowledged: every write that was acknowledged before the pin is in the backup.
func TestAcknowledged(t *testing.T) {
	for _, c := range []struct {
		name    string
		servers func() (*bench, error)
	}{{"one node", oneNode}, {"three nodes", threeNodes}} {
		t.Run(c.name, func(t *testing.T) { acknowledged(t, newRig(t, on(t, c.servers), "central")) })
	}
}

func acknowledged(t *testing.T, r *rig) {
	defer func() { r.do(`DROP KEYSPACE acked`) }()
	r.do(fmt.Sprintf(`CREATE KEYSPACE acked WITH replication = {'class': 'SimpleStrategy', 'replication_factor': %d}`, len(r.on.Members)),
		`CREATE TABLE acked.t (id int PRIMARY KEY, v text)`)
	c := r.client(t, r.on, 0)
	defer c.Close()
	written := make(chan int)
	ask, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		for n := 1; ; n++ {
			if err := c.Query(`INSERT INTO acked.t (id, v) VALUES (?, ?)`, n, strings.Repeat("x", 500)).Consistency(gocql.All).Exec(); err != nil {
				t.Errorf("write %d: %v", n, err)
				return
			}
			select {
			case <-stop:
				return
			case <-ask:
				written <- n
			default:
			}
		}
	}()
	s, err := clustered{New()}.Open(t.Context(), r.on)
	must(t, err)
	run := newRun(t, plugins.OpBackup)
	time.Sleep(300 * time.Millisecond)
	ask <- struct{}{}
	n := <-written
	pin, err := s.(plugins.Pinner).Pin(t.Context(), run)
	must(t, err)
	m := newMemory()
	_, err = pin.Backup(t.Context(), run, m)
	must(t, err)
	close(stop)
	<-written
	var first, last time.Time
	for i, p := range pin.(*clusterPin).pins {
		at := p.Info().At
		if i == 0 || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	must(t, pin.Release(t.Context()))
	must(t, s.Close())
	r.do(`TRUNCATE acked.t`)
	r.restore(m)
	if got := r.count(0, fmt.Sprintf(`SELECT count(*) FROM acked.t WHERE id <= %d ALLOW FILTERING`, n)); n == 0 || got != n {
		t.Errorf("%d of the %d rows that were acknowledged before the pin are in the backup", got, n)
	}
	t.Logf("%d rows acknowledged before the pin; %s from the first node's snapshot to the last's", n, last.Sub(first).Round(time.Millisecond))
	if skew := last.Sub(first); len(r.on.Members) > 1 && (skew == 0 || skew > 5*time.Second) {
		t.Errorf("the nodes' snapshots are %s apart", skew)
	}
	// Nothing of the pin is left on the disk.
	for _, mem := range r.on.Members {
		if left, _ := filepath.Glob(filepath.Join(mem.Options["data_dir"], "*", "*", "snapshots", tagPin+"*")); len(left) > 0 {
			t.Errorf("snapshots left behind: %q", left)
		}
		if left, _ := os.ReadDir(filepath.Join(filepath.Dir(mem.Options["data_dir"]), stagingName)); len(left) > 0 {
			t.Errorf("staging left behind: %q", left)
		}
	}
}

// TestPinOutlivesServer: the server dies after the snapshot and comes back; the copy goes on from the same pin.
func TestPinOutlivesServer(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 77)
	want := r.print()
	s, err := clustered{New()}.Open(t.Context(), r.on)
	must(t, err)
	run := newRun(t, plugins.OpBackup)
	pin, err := s.(plugins.Pinner).Pin(t.Context(), run)
	must(t, err)
	must(t, b.lab.Kill(context.Background(), r.on.Members[0].Name))
	if _, err := pin.Backup(t.Context(), run, newMemory()); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("copy while the server is dead: %v, want ErrUnavailable", err)
	}
	must(t, b.lab.StartMember(context.Background(), r.on.Members[0].Name))
	m := newMemory()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if _, err = pin.Backup(t.Context(), run, m); err == nil || time.Now().After(deadline) {
			break
		}
		m = newMemory()
	}
	must(t, err)
	must(t, pin.Release(t.Context()))
	must(t, s.Close())
	b.wreck(t, r.on, 3)
	r.restore(m)
	r.same(want)
}
