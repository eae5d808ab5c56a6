package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// A table of many short rows and one of few long ones, about 1.1 GB.
// mariadbFill inserts in the order of keys: the lab's server has a small buffer pool, and random ones make it read and write each page many times.
const mariadbFill = `CREATE OR REPLACE DATABASE bench; USE bench;
CREATE TABLE sample (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(120) CHARACTER SET latin1 NOT NULL, pad CHAR(60) CHARACTER SET latin1 NOT NULL, f FLOAT, KEY (k)) ENGINE=InnoDB;
INSERT INTO sample SELECT seq, seq*7919%%1000003, CONCAT(SHA2(seq,256),LEFT(SHA2(seq+1,256),56)), LEFT(SHA2(seq+2,256),60), seq/7 FROM seq_1_to_%[1]d;
CREATE TABLE document (id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, body MEDIUMTEXT, raw BLOB);
INSERT INTO document SELECT id, CONCAT('{"name": "', REPEAT(SHA2(seq,256),30), '"}'), UNHEX(REPEAT(SHA2(seq,512),6)) FROM (SELECT MD5(seq) id, seq FROM seq_1_to_%[2]d ORDER BY id LIMIT %[2]d) s;
ANALYZE TABLE sample, document;`

func mariadbChapter(ctx context.Context, b *bench) error {
	e, err := b.start(ctx, "mariadb", "mariadb", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	env := []string{"MYSQL_PWD=" + e.value("LAB_MARIADB_1_PASSWORD"), "M=--no-defaults -u" + e.value("LAB_MARIADB_1_USER") + " -S" + e.value("LAB_MARIADB_1_SOCKET"),
		"DUMPER=--host=localhost --user=" + e.value("LAB_MARIADB_1_USER") + " --socket=" + e.value("LAB_MARIADB_1_SOCKET") + " --password=" + e.value("LAB_MARIADB_1_PASSWORD")}
	rows, docs := 4_000_000, 130_000
	if b.small {
		rows, docs = 100_000, 5_000
	}
	if _, err := b.sh(ctx, append(env, "SQL="+fmt.Sprintf(mariadbFill, rows, docs)), `mariadb $M -e "$SQL"`); err != nil {
		return err
	}
	watched, err := e.pids("mariadb-1")
	if err != nil {
		return err
	}
	b.page.say("## MariaDB 10.11\n\n%s\nOne schema: %d short rows (index beside the primary key), %d documents of 2 KB.\n\n### Backup\n", b.stamp(), rows, docs)
	peer := func(name, script string) contender {
		return contender{name: name, run: func() (string, error) { return b.sh(ctx, env, script) }}
	}
	var last workflows.Result
	all := []contender{e.backup(ctx, "B", &last),
		peer("`mariadb-dump --single-transaction --quick --hex-blob \\| zstd -1`", `mariadb-dump $M --single-transaction --quick --hex-blob --databases bench | zstd -q -1 -f -o $OUT/dump.zst; sync $OUT/dump.zst; du -h $OUT/dump.zst | cut -f1`),
		peer("`mydumper --compress --threads 2`", `rm -rf $OUT/my; mydumper $DUMPER --database bench --threads 2 --compress --outputdir $OUT/my; sync -f $OUT/my; du -sh $OUT/my | cut -f1`)}
	// The least that any program needs: to get the rows, and to compress them.
	halves := func(first, second string) string {
		const half = `mariadb $M --quick -N -B --raw bench -e "SELECT * FROM sample WHERE id %s %d; SELECT * FROM document WHERE id %s '8'" >%s & `
		return fmt.Sprintf(half+half+"wait -n; wait -n", "<=", rows/2, "<", first, ">", rows/2, ">=", second)
	}
	read := peer("the rows read through two connections, thrown away", halves("/dev/null", "/dev/null"))
	pack := peer("`zstd -1 -T2` of them, thrown away", `cat $OUT/rows1 $OUT/rows2 | zstd -q -1 -T2 -c | wc -c | numfmt --to=iec`)
	pack.prepare = func() error {
		_, err := b.sh(ctx, env, halves("$OUT/rows1", "$OUT/rows2")+"; sync $OUT/rows1 $OUT/rows2") // nothing is to be written while others are measured
		return err
	}
	all = append(all, read, pack)
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.report(f, all...)
	mine, dump, mydumper := f[all[0].name].wall, f[all[1].name], f[all[2].name]
	busy := "both cores are busy: of 8 CPU seconds of the copy zstd takes 2.8, SHA-256 1.6, the server's reading 2.2; reading back what was stored comes on top. " +
		"For 2.5 × mariadb-dump the rows must be read and compressed at least. " + atLeast(dump.wall*2/5, f[read.name], f[pack.name])
	b.goals(goal{"the backup beside mariadb-dump", 2.5, times(dump, mine), times(dump, slowest(last)), busy},
		goal{"the backup beside mydumper", 1, times(mydumper, mine), times(mydumper, slowest(last)), busy})
	if err := mariadbUnchanged(ctx, e, watched); err != nil {
		return err
	}
	if err := mariadbRestores(ctx, e, env, watched, rows); err != nil {
		return err
	}
	return e.memory()
}

// mariadbUnchanged: a second backup of the same data, and a restore with nothing to do.
func mariadbUnchanged(ctx context.Context, e *estate, watched []int) error {
	var res workflows.Result
	f, err := e.b.race(ctx, watched,
		contender{name: "again", run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "backup", "-s", "B")
			return fmt.Sprintf("%s read, %s new (%.4f %%)", size(res.Bytes), size(res.New), 100*float64(res.New)/float64(res.Bytes)), err
		}},
		contender{name: "restore", run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "mariadb")
			return fmt.Sprintf("%d changed, %d untouched", res.Units[0].Artifacts, res.Units[0].Unchanged), err
		}})
	if err != nil {
		return err
	}
	e.b.page.say("\n### Nothing has changed\n")
	e.b.page.table("| command | wall s | CPU s | |",
		fmt.Sprintf("| second backup | %.2f | %.2f | %s |", f["again"].wall.Seconds(), f["again"].cpu.Seconds(), f["again"].extra),
		fmt.Sprintf("| restore | %.2f | %.2f | %s |", f["restore"].wall.Seconds(), f["restore"].cpu.Seconds(), f["restore"].extra))
	return nil
}

// mariadbRestores: everything is gone; and one row in a hundred differs, spread and in one place.
func mariadbRestores(ctx context.Context, e *estate, env []string, watched []int, rows int) error {
	b := e.b
	sql := func(q string) func() error {
		return func() error { _, err := b.sh(ctx, append(env, "Q="+q), `mariadb $M -e "$Q"`); return err }
	}
	var res workflows.Result
	restore := func(name, wreck string) contender {
		return contender{name: name, prepare: sql(wreck), run: func() (string, error) {
			was, err := b.sh(ctx, env, handled)
			if err != nil {
				return "", err
			}
			if err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "mariadb"); err != nil {
				return "", err
			}
			is, err := b.sh(ctx, env, handled)
			if err != nil {
				return "", err
			}
			u := res.Units[0]
			return fmt.Sprintf("restore alone %s, %s loaded; rows %s", u.Took.Round(10*time.Millisecond), size(u.Bytes), changes(was, is)), nil
		}}
	}
	gone, alone := "DROP DATABASE bench", time.Duration(0)
	peer := func(name, script string) contender {
		return contender{name: name, prepare: sql(gone), run: func() (string, error) { return b.sh(ctx, env, script) }}
	}
	all := []contender{restore("cso_backupnrestore -b restore, everything gone", gone).noting(&alone, &res),
		peer("`zstd -dc \\| mariadb`", `zstd -dc $OUT/dump.zst | mariadb $M`),
		peer("`myloader --threads 2`", `myloader $DUMPER --directory $OUT/my --threads 2 --overwrite-tables`)}
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.page.say("\n### Restore\n")
	b.report(f, all...)
	mine, client, myloader := f[all[0].name].wall, f[all[1].name], f[all[2].name]
	const server = "the server's own work, inserting and sorting keys, is nearly all of the restore; verifying the backup first and proving the result come on top."
	b.goals(goal{"the restore beside the client", 2, times(client, mine), times(client, alone), server},
		goal{"the restore beside myloader", 1, times(myloader, mine), times(myloader, alone), server})
	if err := e.cso(ctx, nil, "-b", "restore", "-s", "B", "-t", "mariadb"); err != nil { // what a loader left
		return err
	}
	few := []contender{
		restore("1 % of the rows, spread", "UPDATE bench.sample SET k=k+1 WHERE id%100=7"),
		restore("1 % of the rows, in one place", fmt.Sprintf("UPDATE bench.sample SET k=k+1 WHERE id BETWEEN %d AND %d", rows/2, rows/2+rows/100)),
		restore("one row", "DELETE FROM bench.document LIMIT 1"),
	}
	f, err = b.race(ctx, watched, few...)
	if err != nil {
		return err
	}
	var lines []string
	for _, c := range few {
		lines = append(lines, fmt.Sprintf("| %s | %.2f | %.2f | %s |", c.name, f[c.name].wall.Seconds(), f[c.name].cpu.Seconds(), f[c.name].extra))
	}
	b.page.say("\n### Restore of an estate that differs a little\n")
	b.page.table("| what differs | wall s | CPU s | |", lines...)
	b.page.say("\nRows that differ have to be found: the server's rows are read once to plan, and those of stretches that differ once more to save them, and again to\n" +
		"prove the result unless InnoDB's counter tells that nothing else wrote meanwhile. A stretch is a piece of the backup, 8 MiB on average: rows spread evenly lie in all of them.\n")
	return nil
}

// handled counts what the server did to rows since it was started.
const handled = `mariadb $M -Ne "SHOW GLOBAL STATUS WHERE Variable_name IN ('Handler_write','Handler_update','Handler_delete','Handler_read_next','Handler_read_rnd_next')"`

// changes is the difference of two such counts.
func changes(was, is string) string {
	count := func(s string) map[string]int {
		m := map[string]int{}
		for l := range strings.Lines(s) {
			var k string
			var v int
			if _, err := fmt.Sscan(l, &k, &v); err == nil {
				m[strings.TrimPrefix(k, "Handler_")] = v
			}
		}
		return m
	}
	a, z := count(was), count(is)
	read := z["read_next"] + z["read_rnd_next"] - a["read_next"] - a["read_rnd_next"]
	return fmt.Sprintf("inserted %d, updated %d, deleted %d, read %d", z["write"]-a["write"], z["update"]-a["update"], z["delete"]-a["delete"], read)
}
