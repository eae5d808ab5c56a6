package mariadb

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// deltaTables have every kind of key that rows can be found by, and what
// could go wrong when rows are changed one by one.
const deltaTables = `
CREATE DATABASE delta; USE delta;
CREATE TABLE delta.auto (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, u VARCHAR(30) NOT NULL, v FLOAT, w DOUBLE, g VARCHAR(40) AS (CONCAT(u,1)) STORED, h INT INVISIBLE DEFAULT 7, UNIQUE KEY (u), KEY (v));
CREATE TABLE delta.child (id INT PRIMARY KEY, p BIGINT UNSIGNED, v INT, FOREIGN KEY (p) REFERENCES delta.auto (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE delta.word (k VARCHAR(40) COLLATE utf8mb4_general_ci, n DECIMAL(10,3), v VARCHAR(60), PRIMARY KEY (k,n));
CREATE TABLE delta.latin (k CHAR(10) CHARACTER SET latin1 COLLATE latin1_swedish_ci PRIMARY KEY, v BLOB, FULLTEXT KEY (k));
CREATE TABLE delta.bin (k VARBINARY(16) PRIMARY KEY, v GEOMETRY, w JSON);
CREATE TABLE delta.odd (e ENUM('b','a','','c') , s SET('x','y','z'), b BIT(17), y YEAR, v INT, PRIMARY KEY (e,s,b,y));
CREATE TABLE delta.times (d DATE, t DATETIME(3), z TIMESTAMP(6) DEFAULT '2000-01-01', v TIME(6), PRIMARY KEY (d,t,z));
CREATE TABLE delta.part (a INT, b INT, v VARCHAR(30), PRIMARY KEY (a,b)) PARTITION BY HASH (a) PARTITIONS 3;
CREATE TABLE delta.seldom (a INT NOT NULL, v VARCHAR(30), UNIQUE KEY (a));
CREATE TABLE delta.note (n INT); INSERT INTO delta.note VALUES (1),(2),(2);
INSERT INTO delta.auto (id,u,v,w) SELECT seq*3, CONCAT('u',seq), seq/7, IF(seq%5,seq/3,NULL) FROM seq_1_to_1500;
INSERT INTO delta.child SELECT seq, seq%700*3+3, seq FROM seq_1_to_1500;
INSERT INTO delta.word SELECT CONCAT(CHAR(65+seq%26),'é ',seq%300), (CAST(seq AS SIGNED)-700)/8, MD5(seq) FROM seq_1_to_1500;
INSERT INTO delta.latin SELECT CONCAT('k',seq,CONVERT(X'E9' USING latin1)), UNHEX(MD5(seq)) FROM seq_1_to_1500;
INSERT INTO delta.bin SELECT UNHEX(MD5(seq)), POINT(seq,seq/3), CONCAT('{"a": ',seq,'}') FROM seq_1_to_1500;
INSERT INTO delta.odd SELECT 1+seq%4, seq%8, seq, IF(seq%9,1901+seq%200,0), seq FROM seq_1_to_1500;
INSERT INTO delta.times SELECT '2020-01-01' + INTERVAL seq%400 DAY, '2020-01-01 10:00:00.5' + INTERVAL seq SECOND, '2021-03-28 00:30:00.000001' + INTERVAL seq MINUTE, SEC_TO_TIME(seq) FROM seq_1_to_1500;
INSERT INTO delta.part SELECT seq%50, seq, MD5(seq) FROM seq_1_to_1500;
INSERT INTO delta.seldom SELECT CAST(seq AS SIGNED)-700, MD5(seq) FROM seq_1_to_1500;
CREATE TRIGGER delta.noted AFTER INSERT ON delta.auto FOR EACH ROW INSERT INTO delta.note VALUES (NEW.id);
CREATE TRIGGER delta.gone AFTER DELETE ON delta.auto FOR EACH ROW INSERT INTO delta.note VALUES (-OLD.id);`

// deltaWrecks change about one row in a hundred of each table.
var deltaWrecks = []string{
	"UPDATE delta.auto SET v=v+1 WHERE id%297=0; DELETE FROM delta.auto WHERE id=600; INSERT INTO delta.auto (id,u) VALUES (1,'new'),(9000,'last')",
	"UPDATE delta.auto SET u='swap' WHERE id=30; UPDATE delta.auto SET u='u10' WHERE id=33; UPDATE delta.auto SET u='u11' WHERE id=30",
	"UPDATE delta.child SET v=-v WHERE id BETWEEN 300 AND 310",
	"UPDATE delta.word SET v='x' WHERE n=10; UPDATE delta.word SET k=UPPER(k) WHERE k LIKE 'b%' AND n<0 LIMIT 4; DELETE FROM delta.word ORDER BY k,n LIMIT 3; INSERT INTO delta.word VALUES ('zzz',1,'')",
	"UPDATE delta.latin SET v='' WHERE k LIKE 'k99%'; DELETE FROM delta.latin ORDER BY k DESC LIMIT 2; INSERT INTO delta.latin VALUES ('a','a'),('z','z')",
	"UPDATE delta.bin SET v=POINT(1,2) WHERE k LIKE 'a%' LIMIT 5; INSERT INTO delta.bin VALUES ('',NULL,NULL),(X'00FF00',NULL,NULL); DELETE FROM delta.bin ORDER BY k DESC LIMIT 3",
	"UPDATE delta.odd SET v=-1 WHERE y=2000; DELETE FROM delta.odd WHERE y=0 LIMIT 3; INSERT INTO delta.odd VALUES ('c','x,y,z',b'11111111111111111',0,1)",
	"UPDATE delta.times SET v='-800:00:00.000001' WHERE t < '2020-01-01 10:00:09'; INSERT INTO delta.times VALUES ('0000-00-00','2020-01-01 00:00:00.1','2038-01-19 03:14:07.999999','0:0:0')",
	"UPDATE delta.part SET v='' WHERE b%150=7; DELETE FROM delta.part WHERE b=9; INSERT INTO delta.part VALUES (-5,1,''),(99,1,'')",
	"DELETE FROM delta.seldom WHERE a BETWEEN -20 AND -15; INSERT INTO delta.seldom VALUES (900001,'')",
	"DELETE FROM delta.note",
}

// identities are the numbers InnoDB gives tables: a table made anew has another.
func identities(t *testing.T) map[string]string {
	t.Helper()
	db := admin(t, target())
	defer db.Close()
	rows, err := table(t.Context(), db, "SELECT NAME,TABLE_ID FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE 'delta/%'")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, r := range rows {
		m[r[0]] = r[1]
	}
	return m
}

// Tables of which few rows differ keep their other rows: only what differs is
// written, into the table that is there.
func TestFewRowsAreChangedInPlace(t *testing.T) {
	suiteClear(t, target())
	runSQL(t, target(), deltaTables)
	before := fingerprint(t)
	s := open(t)
	m := backup(t, s)
	for _, mode := range []string{"", "yes", "told"} {
		ids := identities(t)
		for _, w := range deltaWrecks {
			runSQL(t, target(), w)
		}
		if mode == "" {
			// A restore that dies among the rows has changed none.
			wrecked := fingerprint(t)
			run := newRun(t, plugins.OpRestore)
			if _, err := s.Restore(t.Context(), run, m.Clone().KillAtRecord(600)); err == nil {
				t.Error("the store died and the restore did not notice")
			}
			sameFingerprint(t, wrecked, withoutShadows(fingerprint(t)))
		}
		run := newRun(t, plugins.OpRestore)
		var rep plugins.Report
		if mode == "told" {
			run.Live = backup(t, s)
			seen := rowsRead(t)
			var err error
			if rep, err = s.Restore(t.Context(), run, m); err != nil {
				t.Fatal(err)
			}
			if n := rowsRead(t) - seen; n > 5000 {
				t.Errorf("the server read %d rows of 13500, want about those that were changed", n)
			}
			if _, err := s.RestoreAccounts(t.Context(), run, m); err != nil {
				t.Fatal(err)
			}
		} else {
			run.Options["in-place"] = mode
			rep = restore(t, open(t), m, run)
		}
		sameFingerprint(t, before, fingerprint(t))
		if rep.Records > 600 || rep.Artifacts < 10 {
			t.Errorf("%d rows of %d tables were written, want the changed ones of all", rep.Records, rep.Artifacts)
		}
		var anew []string
		for name, id := range identities(t) {
			if ids[name] != id {
				anew = append(anew, name)
			}
		}
		// The table without a key has no rows that could be found again.
		if len(anew) != 1 || !strings.Contains(anew[0], "note") {
			t.Errorf("tables made anew: %v", anew)
		}
	}
}

// rowsRead is how many rows of tables the server has read, temporary ones apart.
func rowsRead(t *testing.T) int {
	t.Helper()
	return atoi(ask(t, target(), "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='ROWS_READ'"))
}

// A restore that was told of the live data reads no table that is equal, and
// what somebody wrote meanwhile is found by the comparison that follows.
func TestToldOfEqualTables(t *testing.T) {
	suiteClear(t, target())
	runSQL(t, target(), "CREATE DATABASE delta; USE delta; CREATE TABLE delta.t (id INT PRIMARY KEY, v INT); INSERT INTO delta.t SELECT seq, seq FROM seq_1_to_3000;"+
		"CREATE TABLE delta.n (v INT); INSERT INTO delta.n SELECT seq FROM seq_1_to_3000")
	s := open(t)
	m := backup(t, s)
	run := newRun(t, plugins.OpRestore)
	run.Live = backup(t, s)
	var read [2]int
	for i := range read {
		seen := rowsRead(t)
		if rep, err := s.Restore(t.Context(), run, m); err != nil || rep.Artifacts != 0 || rep.Unchanged < 2 {
			t.Errorf("%v %+v", err, rep)
		}
		read[i] = rowsRead(t) - seen
		run.Live = nil
	}
	if read[0] > 500 || read[1] < 6000 {
		t.Errorf("the server read %d rows and, not told, %d: want none of the tables' 6000, and all", read[0], read[1])
	}
	runSQL(t, target(), "UPDATE delta.t SET v=0 WHERE id=100")
	run = newRun(t, plugins.OpRestore)
	run.Live = backup(t, s)
	runSQL(t, target(), "DELETE FROM delta.t WHERE id=100; DELETE FROM delta.t WHERE id=2000")
	if rep := restore(t, s, m, run); rep.Records < 3000 {
		t.Errorf("%d rows written, want the whole table", rep.Records)
	}
	if d, err := s.Compare(t.Context(), run, m); err != nil || len(d) > 0 {
		t.Errorf("%v %+v", err, d)
	}
	run = newRun(t, plugins.OpRestore)
	run.Live = backup(t, s)
	runSQL(t, target(), "DELETE FROM delta.t WHERE id=2000")
	if _, err := s.Restore(t.Context(), run, m); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Compare(t.Context(), run, m); err != nil || len(d) != 1 {
		t.Errorf("a row that was deleted after the safety backup is not noticed: %v %+v", err, d)
	}
}

// withoutShadows leaves out what a killed restore keeps for the next attempt.
func withoutShadows(print string) string {
	var b strings.Builder
	for l := range strings.Lines(print) {
		if !strings.Contains(l, "`_cso_") {
			b.WriteString(l)
		}
	}
	return b.String()
}

// staleReader gives other rows than its index says, as a table does into
// which somebody writes while it is restored.
type staleReader struct {
	plugins.ArtifactReader
	before func()
}

func (r *staleReader) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	if r.before != nil {
		r.before()
		r.before = nil
	}
	return r.ArtifactReader.OpenPieces(ctx, name, from, to)
}

// A table that changes between comparison and repair is loaded as a whole.
func TestTableThatMovesIsLoadedWhole(t *testing.T) {
	suiteClear(t, target())
	runSQL(t, target(), "CREATE DATABASE delta; USE delta; CREATE TABLE delta.t (id INT PRIMARY KEY, v INT, KEY (v)); INSERT INTO delta.t SELECT seq, seq FROM seq_1_to_3000")
	before := fingerprint(t)
	s := open(t)
	m := backup(t, s)
	for _, stmt := range []string{"UPDATE delta.t SET v=5 WHERE id=101", "INSERT INTO delta.t VALUES (-1,1)", "DELETE FROM delta.t WHERE id=2000"} {
		runSQL(t, target(), "UPDATE delta.t SET v=0 WHERE id=100")
		r := &staleReader{m, func() { runSQL(t, target(), stmt) }}
		run := newRun(t, plugins.OpRestore)
		if _, err := s.Restore(t.Context(), run, r); err != nil {
			t.Fatal(err)
		}
		if r.before != nil {
			t.Error("rows were not compared one by one: this proves nothing")
		}
		// What was written beside the compared stretch is the next restore's.
		if rep := restore(t, s, m, newRun(t, plugins.OpRestore)); rep.Artifacts > 1 {
			t.Errorf("%+v", rep)
		}
		sameFingerprint(t, before, fingerprint(t))
	}
}

// Rows that the server does not take as they are lead to the whole table.
func TestRowsThatDoNotFit(t *testing.T) {
	suiteClear(t, target())
	runSQL(t, target(), "CREATE DATABASE delta; USE delta; CREATE TABLE delta.t (id INT PRIMARY KEY, v INT, UNIQUE KEY (v)); INSERT INTO delta.t SELECT seq, seq FROM seq_1_to_3000")
	before := fingerprint(t)
	s := open(t)
	m := backup(t, s)
	runSQL(t, target(), "UPDATE delta.t SET v=-100 WHERE id=100")
	// Between the comparison and the change somebody takes the value that is to come back.
	r := &staleReader{m, func() { runSQL(t, target(), "INSERT INTO delta.t VALUES (900000,100)") }}
	rep, err := s.Restore(t.Context(), newRun(t, plugins.OpRestore), r)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Records < 3000 {
		t.Errorf("%d rows written, want all", rep.Records)
	}
	sameFingerprint(t, before, fingerprint(t))
}

// The text of every kind of key finds its row again.
func TestKeyLiterals(t *testing.T) {
	suiteClear(t, target())
	runSQL(t, target(), deltaTables)
	s := open(t)
	conn, err := s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := readCatalog(t.Context(), []querier{conn})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.details(t.Context(), conn, nil); err != nil {
		t.Fatal(err)
	}
	for name, ti := range c.tables {
		p := ti.plan(false)
		if ti.schema != "delta" || len(p.key) == 0 {
			continue
		}
		var conds []string
		n := 0
		err := readRecordsOf(t.Context(), conn, p, func(m *recordMaker, _, _ []byte) error {
			if n%100 == 0 {
				conds = append(conds, m.keyLiterals(&p))
			}
			n++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, cond := range conds {
			if got := ask(t, target(), "SET time_zone='+00:00'; SELECT COUNT(*) FROM "+qq(ti.schema, ti.name)+" WHERE "+cond); got != fmt.Sprint(n-i*100) {
				t.Errorf("%s: %s rows from %s on, want %d", name, got, cond, n-i*100)
			}
		}
	}
}
