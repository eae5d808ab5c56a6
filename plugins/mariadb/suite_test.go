package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	lab "github.com/csobackup/cso_backupnrestore/test/lab/mariadb"
)

// The conformance suite restores dozens of times, so it has its own small
// content with one object of each kind; the torture data has its own tests.

func membersOf(on plugins.Target) []engine.Member {
	if on.Instance == "east" {
		return second
	}
	return server
}

// admin opens the server without the plugin's own code.
func admin(t testing.TB, on plugins.Target) *sql.DB {
	t.Helper()
	m, err := on.Self()
	if err != nil {
		t.Fatal(err)
	}
	c, err := config(m)
	if err != nil {
		t.Fatal(err)
	}
	c.MultiStatements = true
	db, err := newPool(c, "SET sql_mode='', foreign_key_checks=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// ask opens, asks and closes.
func ask(t testing.TB, on plugins.Target, query string) string {
	t.Helper()
	db := admin(t, on)
	defer db.Close()
	v, err := value(context.Background(), db, query)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func runSQL(t testing.TB, on plugins.Target, script string) {
	t.Helper()
	db := admin(t, on)
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), script); err != nil {
		t.Fatalf("%v in %.300s", err, script)
	}
}

const suiteSchema = `
CREATE DATABASE one COMMENT 'first'; CREATE DATABASE two CHARACTER SET latin1; CREATE DATABASE ledger;
CREATE TABLE one.num (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100), f FLOAT, KEY (v));
CREATE TABLE one.word (k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY, v BLOB);
CREATE TABLE one.nokey (a INT, b VARCHAR(10));
CREATE TABLE one.isam (a INT PRIMARY KEY, t TEXT, FULLTEXT (t)) ENGINE=MyISAM;
CREATE TABLE one.aria (a INT, b INT) ENGINE=Aria;
CREATE TABLE one.part (a INT PRIMARY KEY, b INT) PARTITION BY HASH (a) PARTITIONS 3;
CREATE TABLE one.ver (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING;
CREATE TABLE one.parent (id INT PRIMARY KEY, c INT, KEY (c));
CREATE TABLE two.child (id INT PRIMARY KEY, p INT, CONSTRAINT cp FOREIGN KEY (p) REFERENCES one.parent (id));
ALTER TABLE one.parent ADD CONSTRAINT pc FOREIGN KEY (c) REFERENCES two.child (id);
CREATE TABLE ledger.a (id INT PRIMARY KEY, n BIGINT); CREATE TABLE ledger.b LIKE ledger.a;
CREATE SEQUENCE one.seq START WITH 10 CACHE 5;
CREATE TABLE two.seqd (id BIGINT DEFAULT NEXTVAL(one.seq) PRIMARY KEY, v INT);
CREATE VIEW one.v1 AS SELECT id, v FROM one.num; CREATE VIEW two.v2 AS SELECT COUNT(*) AS n FROM one.v1;
CREATE TABLE two.gone (x INT); CREATE VIEW two.vbroken AS SELECT x FROM two.gone; DROP TABLE two.gone;
CREATE TRIGGER one.tb BEFORE INSERT ON one.num FOR EACH ROW SET NEW.f = NEW.f + 1;
CREATE TRIGGER one.ta BEFORE INSERT ON one.num FOR EACH ROW SET NEW.f = NEW.f * 2;
CREATE PROCEDURE one.p() SELECT 1; CREATE FUNCTION two.f(a INT) RETURNS INT RETURN a + 1;
CREATE EVENT one.e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SET @x = 1;
CREATE ROLE reader; CREATE USER app@'%' IDENTIFIED BY 'secret', ops@localhost IDENTIFIED BY 'other';
GRANT SELECT ON one.* TO reader; GRANT reader TO app@'%'; SET DEFAULT ROLE reader FOR app@'%';
GRANT SELECT (id) ON one.num TO ops@localhost; GRANT EXECUTE ON PROCEDURE one.p TO app@'%';
GRANT PROXY ON app@'%' TO ops@localhost;`

func suiteFill(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	suiteClear(t, on)
	r := rand.New(rand.NewPCG(uint64(seed), 7))
	var b strings.Builder
	b.WriteString(suiteSchema)
	insert := func(into string, n int, row func(i int) string) {
		rows := make([]string, n)
		for i := range rows {
			rows[i] = "(" + row(i) + ")"
		}
		fmt.Fprintf(&b, "INSERT INTO %s VALUES %s;", into, strings.Join(rows, ","))
	}
	insert("one.num (id,v,f)", 300, func(i int) string { return fmt.Sprintf("%d,'value %d',%g", i*3+1, r.IntN(1e6), r.Float32()) })
	insert("one.word", 200, func(i int) string { return fmt.Sprintf("'w%x %d',X'%08x'", r.Uint32(), i, r.Uint32()) })
	insert("one.nokey", 90, func(i int) string { return fmt.Sprintf("%d,'x%d'", i%7, r.IntN(3)) })
	insert("one.isam", 40, func(i int) string { return fmt.Sprintf("%d,'text number %d'", i, r.IntN(1e6)) })
	insert("one.aria", 40, func(i int) string { return fmt.Sprintf("%d,%d", i%5, r.IntN(9)) })
	insert("one.part", 60, func(i int) string { return fmt.Sprintf("%d,%d", i, r.IntN(1e6)) })
	insert("one.ver", 30, func(i int) string { return fmt.Sprintf("%d,%d", i, r.IntN(1e6)) })
	b.WriteString("UPDATE one.ver SET b=b+1 WHERE a%2; DELETE FROM one.ver WHERE a=4;")
	insert("one.parent", 20, func(i int) string { return fmt.Sprintf("%d,%d", i, (i+r.IntN(20))%20) })
	insert("two.child", 20, func(i int) string { return fmt.Sprintf("%d,%d", i, (i+r.IntN(20))%20) })
	insert("ledger.a", 20, func(i int) string { return fmt.Sprintf("%d,100", i) })
	insert("ledger.b", 20, func(i int) string { return fmt.Sprintf("%d,100", i) })
	insert("two.seqd (v)", 5, func(i int) string { return fmt.Sprint(r.IntN(1e6)) })
	runSQL(t, on, b.String())
}

func suiteClear(t testing.TB, on plugins.Target) {
	t.Helper()
	// The product's claim stays, as it does when an operator empties a server by hand.
	db := admin(t, on)
	defer db.Close()
	names, err := column(context.Background(), db, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ('mysql','information_schema','performance_schema','sys','_cso_backup')")
	if err != nil {
		t.Fatal(err)
	}
	stmt := "DROP USER IF EXISTS app@'%', ops@localhost, ops@'%'; DROP ROLE IF EXISTS reader, intruder; DELETE FROM mysql.db WHERE User='reader'; FLUSH PRIVILEGES;"
	for _, n := range names {
		stmt += "DROP DATABASE " + q(n) + ";"
	}
	if _, err := db.ExecContext(context.Background(), stmt); err != nil {
		t.Fatal(err)
	}
}

// wrecks are changes at every level; each seed makes some of them.
var wrecks = []string{
	"UPDATE one.num SET f=f+1 WHERE id%5=1", "DELETE FROM one.word LIMIT 3", "INSERT INTO one.nokey SELECT * FROM one.nokey LIMIT 1",
	"DROP TABLE IF EXISTS one.isam", "TRUNCATE one.aria", "ALTER TABLE one.part ADD COLUMN extra INT DEFAULT 5", "DELETE FROM one.ver WHERE a<3",
	"DELETE FROM two.child WHERE id>15", "UPDATE one.parent SET c=NULL", "ALTER TABLE two.child DROP FOREIGN KEY cp", "DROP TABLE IF EXISTS one.parent",
	"SELECT NEXTVAL(one.seq) FROM one.num LIMIT 30", "DROP SEQUENCE IF EXISTS one.seq", "CREATE OR REPLACE VIEW one.v1 AS SELECT 1 AS id, 2 AS v",
	"DROP VIEW IF EXISTS two.vbroken", "DROP TRIGGER IF EXISTS one.tb", "DROP PROCEDURE IF EXISTS one.p", "CREATE OR REPLACE FUNCTION two.f(a INT) RETURNS INT RETURN a",
	"DROP EVENT IF EXISTS one.e", "CREATE DATABASE IF NOT EXISTS three; CREATE TABLE IF NOT EXISTS three.t (a INT REFERENCES one.num (id)); INSERT INTO three.t VALUES (1)",
	"CREATE TABLE IF NOT EXISTS one.later (a INT)", "DROP DATABASE IF EXISTS two", "ALTER DATABASE one COMMENT 'other'", "ALTER TABLE one.num AUTO_INCREMENT=5000",
	"CREATE ROLE IF NOT EXISTS intruder", "ALTER USER IF EXISTS app@'%' IDENTIFIED BY 'changed'", "DROP USER IF EXISTS ops@localhost", "GRANT ALL ON *.* TO app@'%' IDENTIFIED BY 'x'",
	"DROP ROLE IF EXISTS reader", "DROP TABLE IF EXISTS one.word; CREATE VIEW one.word AS SELECT 1 AS k", "DROP VIEW IF EXISTS one.v1; CREATE TABLE IF NOT EXISTS one.v1 (a INT)",
}

func suiteWreck(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	db := admin(t, on)
	defer db.Close()
	r := rand.New(rand.NewPCG(uint64(seed), 9))
	hit := 0
	for _, i := range append(r.Perm(len(wrecks))[:12], 0) {
		// One that finds its object gone, because another came first, is no wreck.
		if _, err := db.ExecContext(context.Background(), wrecks[i]); err == nil {
			hit++
		}
	}
	if hit < 4 {
		t.Fatalf("only %d of the wrecks worked", hit)
	}
}

func suiteFingerprint(t testing.TB, on plugins.Target) string {
	t.Helper()
	var b bytes.Buffer
	if err := lab.New().Fingerprint(context.Background(), membersOf(on), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func suiteWriter(t testing.TB, on plugins.Target) func() {
	db := admin(t, on)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer db.Close()
		for i := 0; ctx.Err() == nil; i++ {
			// A failure is a table being replaced: the writer just goes on.
			_, _ = db.ExecContext(ctx, fmt.Sprintf("BEGIN; UPDATE ledger.a SET n=n-1 WHERE id=%d; UPDATE ledger.b SET n=n+1 WHERE id=%d; COMMIT", i%20, (i*7)%20))
		}
	})
	return func() { cancel(); wg.Wait() }
}

func suiteInvariant(t testing.TB, on plugins.Target) {
	t.Helper()
	if sum := ask(t, on, "SELECT (SELECT SUM(n) FROM ledger.a)+(SELECT SUM(n) FROM ledger.b)"); sum != "4000" {
		t.Errorf("the ledger adds up to %s, want 4000", sum)
	}
}

func TestConformance(t *testing.T) {
	for _, members := range [][]engine.Member{server, second} {
		if err := lab.Reset(t.Context(), members); err != nil {
			t.Fatal(err)
		}
	}
	east := targetOf(second)
	plugintest.Run(t, plugintest.Harness{
		Plugin: New(), Target: target(), Second: &east, Versions: open(t).version + ", two servers",
		Fill: suiteFill, Clear: suiteClear, Wreck: suiteWreck, Fingerprint: suiteFingerprint,
		Writer: suiteWriter, Invariant: suiteInvariant, Kills: 4,
		Position: func(t testing.TB, on plugins.Target) string {
			return ask(t, on, "SELECT @@GLOBAL.gtid_binlog_pos")
		},
		Large: func(t testing.TB, on plugins.Target) {
			runSQL(t, on, "CREATE DATABASE big; USE big; CREATE TABLE big.t (id INT PRIMARY KEY, a INT, v VARBINARY(2000), KEY (a));"+
				"INSERT INTO big.t SELECT seq, seq%1000, REPEAT(UNHEX(SHA2(seq,512)),28) FROM seq_1_to_120000")
		},
	})
}
