package mariadb

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// A restore of unchanged data reads the tables once: plan, safety backup,
// restore and proof know them from each other, as long as nobody writes.
func TestNothingIsReadTwice(t *testing.T) {
	suiteClear(t, target())
	// The server's own recalculation of statistics is a write, too.
	runSQL(t, target(), "CREATE DATABASE known; USE known; CREATE TABLE known.a (id INT PRIMARY KEY, v INT) STATS_AUTO_RECALC=0; INSERT INTO known.a SELECT seq, seq FROM seq_1_to_20000;"+
		"CREATE TABLE known.b (v INT) STATS_AUTO_RECALC=0; INSERT INTO known.b SELECT seq FROM seq_1_to_20000; CREATE TABLE known.m (id INT PRIMARY KEY, v INT) ENGINE=MyISAM; INSERT INTO known.m VALUES (1,1)")
	s := open(t)
	m := backup(t, s)
	run := newRun(t, plugins.OpRestore)
	reads := func(what string, most int, do func()) {
		t.Helper()
		seen := rowsRead(t)
		do()
		if n := rowsRead(t) - seen; n > most {
			t.Errorf("%s: the server read %d rows, want at most %d", what, n, most)
		}
	}
	plan := func(changed ...string) func() {
		return func() {
			t.Helper()
			p, err := s.Plan(t.Context(), run, m)
			slices.Sort(p.Change)
			if err != nil || !slices.Equal(p.Change, changed) {
				t.Errorf("plan: %v, changes %v, want %v", err, p.Change, changed)
			}
		}
	}
	safety := func() *plugintest.Memory {
		t.Helper()
		now := run
		now.Operation = plugins.OpSafety
		held, err := s.Pin(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Release(t.Context())
		live := plugintest.NewMemory().After(m)
		if _, err := held.Backup(t.Context(), now, live); err != nil {
			t.Fatal(err)
		}
		return live
	}
	db := admin(t, target())
	defer db.Close()
	db.SetMaxOpenConns(1)
	exec := func(stmt string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	exec("SET GLOBAL event_scheduler=ON")
	defer exec("SET GLOBAL event_scheduler=OFF")
	restored := func(live *plugintest.Memory) {
		t.Helper()
		if err := s.PreHook(t.Context(), run); err != nil { // notes that it stops the event scheduler
			t.Error(err)
		}
		run.Live = live
		if rep, err := s.Restore(t.Context(), run, m); err != nil || rep.Artifacts != 0 {
			t.Errorf("%v %+v", err, rep)
		}
		run.Live = nil
		if diff, err := s.Compare(t.Context(), run, m); err != nil || len(diff) > 0 {
			t.Errorf("%v %+v", err, diff)
		}
		if err := s.PostHook(t.Context(), run); err != nil {
			t.Error(err)
		}
	}
	exec("DROP DATABASE IF EXISTS _cso_backup")
	var live *plugintest.Memory
	reads("plan and safety backup of a server without the product's schema", 95_000, func() {
		plan()()
		live = safety()
	})
	reads("restore and proof there", 9000, func() { restored(live) })
	run = newRun(t, plugins.OpRestore)
	reads("plan", 5000, plan())
	reads("safety backup, restore, proof", 9000, func() {
		live := safety()
		if got := live.Reused(); !slices.Contains(got, "table/known/a") || !slices.Contains(got, "table/known/b") || slices.Contains(got, "table/known/m") {
			t.Errorf("taken over from the backup: %v", got)
		}
		restored(live)
	})
	// A write that comes with one of the product's own is no less noticed.
	run = newRun(t, plugins.OpRestore)
	other := admin(t, target())
	defer other.Close()
	err := s.own(t.Context(), nil, func() (int64, error) {
		exec("UPDATE known.a SET v=-1 WHERE id=7")
		return affected(other.ExecContext(t.Context(), "UPDATE _cso_backup.claim SET token=CONCAT(token,'x')"))
	})
	if err != nil {
		t.Fatal(err)
	}
	plan("table/known/a")()
	exec("UPDATE known.a SET v=7 WHERE id=7")
	plan()()

	// A restore of few rows is proven by what it has read of them, as long as nobody else writes.
	for _, foreign := range []bool{false, true} {
		exec("UPDATE known.a SET v=-1 WHERE id IN (8,9000,20000)")
		exec("DELETE FROM known.a WHERE id=500")
		run = newRun(t, plugins.OpRestore)
		plan("table/known/a")()
		reads("safety backup of few changed rows", 4000, func() {
			live := safety()
			if n := live.SharedPieces("table/known/a"); n < 100 {
				t.Errorf("%d pieces taken over", n)
			}
			sum := plugins.Digest{}
			if r, err := live.Open(t.Context(), "table/known/a"); err != nil {
				t.Error(err)
			} else {
				for k, v, err := r.Next(); err == nil; k, v, err = r.Next() {
					sum.Add(k, v)
				}
				_ = r.Close()
			}
			if is, err := s.Digest(t.Context(), newRun(t, plugins.OpBackup)); err != nil || is["table/known/a"] != sum {
				t.Errorf("the safety backup holds %v, the server %v: %v", sum, is["table/known/a"], err)
			}
			run.Live = live
		})
		most := 9000
		if foreign {
			most = 65_000
		}
		reads("restore of few rows, and its proof", most, func() {
			if rep, err := s.Restore(t.Context(), run, m); err != nil || rep.Artifacts != 1 || rep.Records > 10 {
				t.Errorf("%v %+v", err, rep)
			}
			run.Live = nil
			if foreign {
				exec("UPDATE known.a SET v=-2 WHERE id=9")
				exec("UPDATE known.b SET v=-2 WHERE v=9")
			}
			want := 0
			if foreign {
				want = 2
			}
			if diff, err := s.Compare(t.Context(), run, m); err != nil || len(diff) != want {
				t.Errorf("%v %+v", err, diff)
			}
		})
		if !foreign {
			if left, err := s.leftovers(t.Context()); err != nil || len(left) > 0 {
				t.Errorf("%v %v", left, err)
			}
			if got := ask(t, target(), "SELECT SUM(v=id) FROM known.a"); got != "20000" {
				t.Errorf("%s rows are right", got)
			}
		}
	}
	exec("UPDATE known.a SET v=9 WHERE id=9")
	exec("UPDATE known.b SET v=9 WHERE v=-2")
	plan()()

	// A table that was to be read in ranges, and that an earlier backup turns out to hold.
	exec("UPDATE known.a SET v=-v WHERE id%5=0")
	plan("table/known/a")()
	earlier := safety()
	if n := earlier.SharedPieces("table/known/a"); n > 0 {
		t.Errorf("%d pieces taken over of a table that differs everywhere", n)
	}
	now := run
	now.Operation = plugins.OpSafety
	held, err := s.Pin(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	held.(*pin).catalog.tables["table/known/a"].bytes = 2 * splitFrom
	last := plugintest.NewMemory().After(earlier)
	if _, err := held.Backup(t.Context(), now, last); err != nil || !slices.Contains(last.Reused(), "table/known/a") {
		t.Errorf("%v, taken over: %v", err, last.Reused())
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	exec("UPDATE known.a SET v=-v WHERE id%5=0")
	plan()()

	// Whoever writes, and however, is noticed; a transaction when it commits.
	exec("SET sql_log_bin=0")
	exec("START TRANSACTION")
	exec("UPDATE known.a SET v=-1 WHERE id=7")
	plan()()
	plan()()
	exec("COMMIT")
	plan("table/known/a")()
	plan("table/known/a")()
	exec("UPDATE known.m SET v=-1")
	plan("table/known/a", "table/known/m")()
	exec("UPDATE known.a SET v=7 WHERE id=7")
	plan("table/known/m")()
	exec("TRUNCATE known.b")
	exec("UPDATE known.m SET v=1")
	plan("table/known/b")()
	live = safety()
	if got := live.Reused(); !slices.Contains(got, "table/known/a") || slices.Contains(got, "table/known/b") {
		t.Errorf("taken over from the backup: %v", got)
	}
	exec("UPDATE known.a SET v=9 WHERE id=7")
	if got := safety().Reused(); len(got) > 0 {
		t.Errorf("taken over from the backup although somebody wrote: %v", got)
	}
	diff, err := s.Compare(t.Context(), run, m)
	if err != nil || len(diff) != 2 {
		t.Errorf("%v %+v", err, diff)
	}
}

// Sums of ranges tell the same stretches, whatever the ranges are.
func TestDiffer(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 2))
	for round := range 300 {
		want, have := map[string]string{}, map[string]string{}
		for i := range r.IntN(200) {
			k := string([]byte{byte(r.IntN(256)), byte(i)})
			want[k], have[k] = "v", "v"
		}
		for k := range want {
			switch r.IntN(25) {
			case 0:
				delete(have, k)
			case 1:
				have[k] = "other"
			case 2:
				delete(want, k)
			}
		}
		pieces := cutRows(want)
		if len(pieces) == 0 {
			pieces = []plugins.PieceInfo{{}}
		}
		var keys []string
		for k := range have {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		s := &split{}
		for len(keys) > 0 {
			n := 1 + r.IntN(len(keys))
			var x rangeSum
			for _, k := range keys[:n] {
				x.place(&recordMaker{}, &rowPlan{}, pieces, []byte(k))
				x.at[len(x.at)-1].live.Add([]byte(k), []byte(have[k]))
				x.digest.Add([]byte(k), []byte(have[k]))
			}
			x.first, x.last = []byte(keys[0]), []byte(keys[n-1])
			s.sums, keys = append(s.sums, x), keys[n:]
			if r.IntN(4) == 0 {
				s.sums = append(s.sums, rangeSum{})
			}
		}
		sum, err := s.total()
		if err != nil {
			t.Fatal(err)
		}
		d := differ(pieces, sum)
		differs := func(from, to int) bool { // pieces from and to, the latter excluded
			var a, b plugins.Digest
			in := func(k string) bool {
				return (from == 0 || strings.Compare(k, string(pieces[from].First)) >= 0) && (to == len(pieces) || strings.Compare(k, string(pieces[to].First)) < 0)
			}
			for k, v := range want {
				if in(k) {
					a.Add([]byte(k), []byte(v))
				}
			}
			for k, v := range have {
				if in(k) {
					b.Add([]byte(k), []byte(v))
				}
			}
			return a != b
		}
		at := 0
		for _, sp := range d.spans {
			for ; at < sp.from; at++ {
				if differs(at, at+1) {
					t.Fatalf("round %d: piece %d differs and is in no stretch", round, at)
				}
			}
			for ; at < sp.to; at++ {
				if !differs(at, at+1) {
					t.Fatalf("round %d: piece %d does not differ", round, at)
				}
			}
		}
		for ; at < len(pieces); at++ {
			if differs(at, at+1) {
				t.Fatalf("round %d: piece %d differs and is in no stretch", round, at)
			}
		}
	}
}
