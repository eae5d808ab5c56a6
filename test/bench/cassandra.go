package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	labcassandra "github.com/csobackup/cso_backupnrestore/test/lab/cassandra"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

const cassandraTable = "cso_bench.sample"

// cassandraChapter is one node with the default compiler and collector, and Jolokia as on many installations.
func cassandraChapter(ctx context.Context, b *bench) error { return b.cassandra(ctx, 1) }

// cassandraRingChapter is a ring of three on the same machine; each row lies on one of them.
func cassandraRingChapter(ctx context.Context, b *bench) error { return b.cassandra(ctx, 3) }

// onEach runs a command for every node at once: $NT is its nodetool, $DATA its data directory, $N its number.
func onEach(command string) string {
	return `while IFS='|' read -r N NT DATA; do ( ` + command + ` ) & all="$all $!"; done <<<"$NODES"; for p in $all; do wait $p; done; all=; `
}

func (b *bench) cassandra(ctx context.Context, members int) error {
	e, err := b.startRing(ctx, fmt.Sprintf("cassandra-%d", members), members, map[string]string{"cassandra": "+bench+jolokia"}, "cassandra", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	rows := 140_000 // of 8 KB
	if b.small {
		rows = 4_000
	}
	c, err := e.cassandraFill(ctx, rows)
	if err != nil {
		return err
	}
	defer c.Close()
	var names, nodes []string
	for n := 1; n <= members; n++ {
		name := fmt.Sprintf("cassandra-%d", n)
		_, options, err := e.Target(name)
		if err != nil {
			return err
		}
		names = append(names, name)
		nodes = append(nodes, fmt.Sprintf("%d|%s -p %s|%s", n, options["nodetool"], jmxPort(options["jmx"]), options["data_dir"]))
	}
	watched, err := e.pids(names...)
	if err != nil {
		return err
	}
	env := []string{"NODES=" + strings.Join(nodes, "\n")}
	// Until compaction rests, the files are not the same from one run to the next.
	settled, err := b.sh(ctx, env, onEach(`$NT flush; while $NT compactionstats | grep -qE "^pending tasks:? +[1-9]|[0-9a-f]{8}-[0-9a-f]{4}-"; do sleep 1; done`)+
		`dirs=; while IFS='|' read -r N NT DATA; do dirs="$dirs $(echo $DATA/cso_bench/*/)"; done <<<"$NODES"; du -shc $dirs --exclude=snapshots --exclude=backups | tail -1 | cut -f1`)
	if err != nil {
		return err
	}
	title := map[int]string{1: "Cassandra 5.0, one node", 3: "Cassandra 5.0, three nodes"}[members]
	b.page.say("## %s\n\n%s\nA table of %d rows of 8 KB, of which a third compresses: %s of files in all.\n\n### Backup\n", title, b.stamp(), rows, settled)
	peer := func(name, script string) contender {
		return contender{name: name, run: func() (string, error) { return b.sh(ctx, env, script) }}
	}
	var last workflows.Result
	all := []contender{e.backup(ctx, "B", &last),
		peer("`nodetool snapshot`, `cp` of its files, `sync`", `rm -rf $OUT/cp; mkdir $OUT/cp; `+
			onEach(`$NT snapshot -t bench >/dev/null; cp -r $DATA/cso_bench/sample-*/snapshots/bench $OUT/cp/$N`)+`sync -f $OUT/cp; `+
			onEach(`$NT clearsnapshot -t bench >/dev/null`)+`du -sh $OUT/cp | cut -f1`),
		peer("`cp` of the same files, `sync`", `rm -rf $OUT/cp; mkdir $OUT/cp; `+
			onEach(`mkdir $OUT/cp/$N; for f in $DATA/cso_bench/sample-*/*.*; do cp $f $OUT/cp/$N; done`)+`sync -f $OUT/cp; du -sh $OUT/cp | cut -f1`)}
	if medusa, err := exec.LookPath("medusa"); err == nil && members == 1 {
		menv, err := e.medusa(ctx, env, medusa)
		if err != nil {
			return err
		}
		all = append(all, contender{name: "`medusa backup-node`, full, local storage", run: func() (string, error) {
			return b.sh(ctx, menv, `rm -rf $OUT/medusa/store/*; $MEDUSA backup-node --backup-name b --mode full >$OUT/medusa/log 2>&1 || { tail -20 $OUT/medusa/log >&2; exit 1; }
				sync -f $OUT/medusa; du -sh $OUT/medusa/store | cut -f1`)
		}})
	} else if members == 1 {
		b.page.say("Medusa is not in PATH (`pip install cassandra-medusa`): not measured.\n")
	}
	written, memory := b.floor(ctx, env, onEach(`ls $DATA/cso_bench/sample-*/*.*`))
	all = append(all, written, memory)
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.report(f, all...)
	b.goals(goal{"the copy beside `cp` of the same files", 0.8, 0, times(f[all[2].name], slowest(last)), floorLimit(f[all[2].name], f[written.name], f[memory.name])})
	if err := e.cassandraBack(ctx, c, env, watched); err != nil {
		return err
	}
	return e.memory()
}

// cassandraBack: the second backup, and restores beside an import alone.
func (e *estate) cassandraBack(ctx context.Context, c *gocql.Session, env []string, watched []int) error {
	var res workflows.Result
	err := e.b.list(ctx, "Nothing has changed", watched,
		contender{name: "second backup", run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "backup", "-s", "B")
			return fmt.Sprintf("%s read, %s new", size(res.Bytes), size(res.New)), err
		}},
		contender{name: "restore", run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "cassandra")
			return fmt.Sprintf("restore alone %s", res.Units[0].Took.Round(10*time.Millisecond)), err
		}})
	if err != nil {
		return err
	}
	empty := func() error { return c.Query("TRUNCATE " + cassandraTable).WithContext(ctx).Exec() }
	all := []contender{
		{name: "cso_backupnrestore -b restore, the table is empty", prepare: empty, run: func() (string, error) {
			err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "cassandra")
			return fmt.Sprintf("restore alone %s, digest %s", res.Units[0].Took.Round(10*time.Millisecond), res.Units[0].Digest), err
		}},
		{name: "`cp` to a staging directory, `nodetool import`", prepare: empty, run: func() (string, error) {
			return e.b.sh(ctx, env, `rm -rf $OUT/stage; `+onEach(`mkdir -p $OUT/stage/$N/cso_bench; cp -r $OUT/cp/$N $OUT/stage/$N/cso_bench/sample; $NT import cso_bench sample $OUT/stage/$N/cso_bench/sample >/dev/null`)+
				`if ls $OUT/stage/*/cso_bench/sample/*-Data.db >/dev/null 2>&1; then echo "nothing was imported" >&2; exit 1; fi`)
		}},
	}
	f, err := e.b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	e.b.page.say("\n### Restore\n")
	e.b.report(f, all...)
	return nil
}

// cassandraFill writes rows of 8 KB, two thirds of it random.
func (e *estate) cassandraFill(ctx context.Context, rows int) (*gocql.Session, error) {
	members, err := e.Members("cassandra", "")
	if err != nil {
		return nil, err
	}
	c, err := labcassandra.Client(ctx, members[0])
	if err != nil {
		return nil, err
	}
	for _, q := range []string{`CREATE KEYSPACE cso_bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`,
		`CREATE TABLE ` + cassandraTable + ` (k int PRIMARY KEY, body text, raw blob)`} {
		if err := c.Query(q).WithContext(ctx).Exec(); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", q, err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	const writers = 16
	for w := range writers {
		g.Go(func() error {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			body, raw := make([]byte, 2700), make([]byte, 5300)
			for k := w; k < rows; k += writers {
				for i := range body {
					body[i] = "abcdefgh "[r.IntN(9)]
				}
				for i := range raw {
					raw[i] = byte(r.Uint32())
				}
				if err := c.Query("INSERT INTO "+cassandraTable+" (k, body, raw) VALUES (?, ?, ?)", k, string(body), raw).WithContext(gctx).Exec(); err != nil {
					return fmt.Errorf("fill the table: %w", err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
