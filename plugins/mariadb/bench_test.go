package mariadb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	lab "github.com/csobackup/cso_backupnrestore/test/lab/mariadb"
)

// The benchmarks measure against the server's own tools and mydumper
// (Debian package mydumper) on the lab's large content, 1.2 GiB, in the same
// run, alternating; every figure is printed with wall and CPU seconds of
// client and server. Outputs of all are synced. CSO_BENCH_ROUNDS (default 3)
// says how often.
//
//	TMPDIR=/dev/shm go test -run '^$' -bench 'Copy|Load|Repair' -benchtime 1x -timeout 2h ./plugins/mariadb

// vault is a real store with its keys.
type vault struct {
	b     *testing.B
	s     *store.Store
	w     keys.Writer
	r     keys.Reader
	clock time.Time
}

var unit = store.UnitID{Component: "mariadb", Instance: "central", Member: "cluster"}

func newVault(b *testing.B) *vault {
	b.Helper()
	dir := b.TempDir()
	v := &vault{b: b, clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	_, err := keys.Ensure(filepath.Join(dir, "keys"))
	v.ok(err)
	v.w, err = keys.LoadWriter(filepath.Join(dir, "keys"))
	v.ok(err)
	v.r, err = keys.LoadReader(filepath.Join(dir, "keys"))
	v.ok(err)
	v.s, err = store.Open(filepath.Join(dir, "root"))
	v.ok(err)
	b.Cleanup(func() { v.s.Close() })
	return v
}

func (v *vault) ok(err error) {
	v.b.Helper()
	if err != nil {
		v.b.Fatal(err)
	}
}

// copy is what the product's copy activity does: pin, write all artifacts, make them durable.
func (v *vault) copy(ses plugins.Session, run plugins.Run, name string) (store.Ref, store.UnitSummary) {
	v.b.Helper()
	v.clock = v.clock.Add(time.Hour)
	ref := store.Ref{Name: name, Timestamp: manifest.Timestamp(v.clock)}
	ctx := v.b.Context()
	p, err := ses.(plugins.Pinner).Pin(ctx, run)
	v.ok(err)
	defer p.Release(ctx)
	u, err := v.s.BeginUnit(ctx, ref, unit, v.w, store.UnitOptions{Pin: p.Info().ID, Log: discard})
	v.ok(err)
	defer u.Abort()
	rep, err := p.Backup(ctx, run, u)
	v.ok(err)
	sum, err := u.Finish(ctx, store.UnitMeta{Scope: plugins.ScopeCluster, VM: "vm", Pin: p.Info().ID, PinnedAt: p.Info().At, Consistency: rep.Consistency})
	v.ok(err)
	return ref, sum
}

// seal completes a backup of one unit, so that it can be read.
func (v *vault) seal(ref store.Ref) *store.UnitReader {
	v.b.Helper()
	_, err := v.s.Seal(v.b.Context(), ref, manifest.Manifest{ID: "run-" + ref.Timestamp, Tool: "bench", Operation: plugins.OpBackup, Trigger: manifest.TriggerCLI,
		Started: v.clock, Pinned: v.clock, Ended: v.clock, Consistency: manifest.NoConsistencyPoint}, store.SealOptions{Writer: v.w, ManifestKey: *v.r.ManifestKey})
	v.ok(err)
	u, err := v.s.OpenUnit(v.b.Context(), ref, unit, v.r)
	v.ok(err)
	v.b.Cleanup(func() { u.Close() })
	return u
}

// bench is a server with the large content, and a place for outputs.
type bench struct {
	b    *testing.B
	on   plugins.Target
	dir  string
	best map[string]float64 // wall seconds by what was measured
	run  plugins.Run
	env  []string
}

func newBench(b *testing.B) *bench {
	b.Helper()
	x := &bench{b: b, on: target(), dir: b.TempDir(), best: map[string]float64{}}
	size := "large"
	if s := os.Getenv("CSO_BENCH_SIZE"); s != "" {
		size = s
	}
	if err := lab.New().Fill(b.Context(), server, 1, size); err != nil {
		b.Fatal(err)
	}
	password, err := x.on.Members[0].Secret("password")
	if err != nil {
		b.Fatal(err)
	}
	x.env = append(os.Environ(), "MYSQL_PWD="+password)
	x.run = plugins.Run{Epoch: 1 << 50, Operation: plugins.OpBackup, Backup: "BENCH/2026-01-02T03-04-05Z", Attempt: "1", Parallel: 2, Scratch: b.TempDir(), Log: discard, Options: map[string]string{}}
	return x
}

func (x *bench) rounds() int {
	if n := atoi(os.Getenv("CSO_BENCH_ROUNDS")); n > 0 {
		return n
	}
	return 3
}

func (x *bench) session() plugins.Session {
	x.b.Helper()
	s, err := New().Open(x.b.Context(), x.on)
	if err != nil {
		x.b.Fatal(err)
	}
	x.b.Cleanup(func() { s.Close() })
	return s
}

// shell runs one line of bash, in which $MY stands for a client's options.
func (x *bench) shell(line string) error {
	opt := x.on.Members[0].Options
	c := exec.Command("bash", "-c", "set -euo pipefail; "+strings.ReplaceAll(line, "$MY", "-u "+opt["user"]+" -S "+opt["socket"]))
	var errs bytes.Buffer
	c.Dir, c.Env, c.Stderr = x.dir, x.env, &errs
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, errs.String())
	}
	return nil
}

// time measures one run of something.
func (x *bench) time(what string, do func() error) {
	x.b.Helper()
	begin, client, served := time.Now(), clientCPU(), serverCPU(x.b, x.on)
	if err := do(); err != nil {
		x.b.Fatalf("%s: %v", what, err)
	}
	wall := time.Since(begin).Seconds()
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%-44s %6.2f s  CPU: client %6.2f s, server %6.2f s  load %.4s\n", what, wall, clientCPU()-client, serverCPU(x.b, x.on)-served, load)
	if best, ok := x.best[what]; !ok || wall < best {
		x.best[what] = wall
	}
}

// against prints how many times faster than a peer one of ours was, best of all rounds.
func (x *bench) against(ours string, peers ...string) {
	for _, p := range peers {
		if x.best[p] > 0 {
			fmt.Printf("  %s: %.2f times as fast as %s (best of %d)\n", ours, x.best[p]/x.best[ours], p, x.rounds())
		}
	}
}

const (
	dumpLine = "mariadb-dump --no-defaults $MY --single-transaction --quick --hex-blob --databases "
	syncLine = "; sync -f ."
)

// schemas are those that dumps can take: of the torture schemas several break mariadb-dump or mydumper.
const bulkSchemas = "cso_metrics cso_documents"

// BenchmarkCopy: one backup, compressed, hashed, encrypted, durable.
func BenchmarkCopy(b *testing.B) {
	x := newBench(b)
	x.onlyBulk()
	ses := x.session()
	for range x.rounds() {
		v := newVault(b)
		var sum store.UnitSummary
		x.time("backup", func() error { _, sum = v.copy(ses, x.run, "BENCH"); return nil })
		fmt.Printf("  %d records, %d MiB, stored %d MiB\n", sum.Records, sum.Bytes>>20, sum.Stored>>20)
		x.time("second backup", func() error { _, sum = v.copy(ses, x.run, "BENCH"); return nil })
		fmt.Printf("  stored anew %.4f %%\n", 100*float64(sum.StoredNew)/float64(max(sum.Stored, 1)))
		x.time("digest", func() error { _, err := ses.Digest(b.Context(), x.run); return err })
		x.time("mariadb-dump | zstd -1", func() error { return x.shell(dumpLine + bulkSchemas + " | zstd -q -1 -f -o dump.zst" + syncLine) })
		x.time("mydumper -t 2, not compressed", func() error {
			return x.shell("rm -rf my; mydumper $MY -t 2 -x '^cso_(metrics|documents)\\.' -o my >/dev/null" + syncLine)
		})
		x.time("mydumper -t 2 -c", func() error {
			return x.shell("rm -rf myc; mydumper $MY -t 2 -c -x '^cso_(metrics|documents)\\.' -o myc >/dev/null" + syncLine)
		})
		_ = os.RemoveAll(v.s.Path())
	}
	x.against("backup", "mariadb-dump | zstd -1", "mydumper -t 2, not compressed", "mydumper -t 2 -c")
}

// onlyBulk leaves the two schemas with the bulk of the rows.
func (x *bench) onlyBulk() {
	x.b.Helper()
	db := admin(x.b, x.on)
	defer db.Close()
	names, err := column(context.Background(), db, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ('mysql','information_schema','performance_schema','sys','cso_metrics','cso_documents')")
	for _, n := range names {
		_, e := db.ExecContext(context.Background(), "DROP DATABASE "+q(n))
		err = errors.Join(err, e)
	}
	if err != nil {
		x.b.Fatal(err)
	}
}

func (x *bench) sql(script string) { x.b.Helper(); runSQL(x.b, x.on, script) }

// drop removes the content.
func (x *bench) drop() {
	x.sql("DROP DATABASE IF EXISTS cso_metrics; DROP DATABASE IF EXISTS cso_documents; FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
}

// restore makes the server equal to the backup and returns the report.
func (x *bench) restore(ses plugins.Session, r plugins.ArtifactReader, rep *plugins.Report) func() error {
	return func() (err error) {
		x.run.Epoch++
		x.run.Operation = plugins.OpRestore
		*rep, err = ses.Restore(x.b.Context(), x.run, r)
		return err
	}
}

// BenchmarkLoad: a restore of everything onto a server that has lost it.
func BenchmarkLoad(b *testing.B) {
	x := newBench(b)
	x.onlyBulk()
	ses := x.session()
	v := newVault(b)
	ref, _ := v.copy(ses, x.run, "BENCH")
	r := v.seal(ref)
	if err := errors.Join(x.shell(dumpLine+bulkSchemas+" > dump.sql"), x.shell("mydumper $MY -t 2 -r 200000 -x '^cso_(metrics|documents)\\.' -o my >/dev/null")); err != nil {
		b.Fatal(err)
	}
	var rep plugins.Report
	for range x.rounds() {
		x.drop()
		x.time("mariadb < dump", func() error { return x.shell("mariadb --no-defaults $MY < dump.sql") })
		x.drop()
		x.time("restore, all missing", x.restore(ses, r, &rep))
		x.compare(ses, r)
		x.drop()
		x.time("myloader -t 2", func() error { return x.shell("myloader $MY -t 2 -o -e -d my") })
	}
	x.against("restore, all missing", "mariadb < dump", "myloader -t 2")
}

// compare proves that the server is equal to the backup.
func (x *bench) compare(ses plugins.Session, r plugins.ArtifactReader) {
	x.b.Helper()
	diff, err := ses.Compare(x.b.Context(), x.run, r)
	diff = slices.DeleteFunc(diff, func(d plugins.Difference) bool { return d.Artifact == accountsArtifact })
	if err != nil || len(diff) > 0 {
		x.b.Fatalf("after the restore: %v, %+v", err, diff)
	}
}

// BenchmarkRepair: restores of a server that is equal, or differs by 1 %, as
// the product makes them: after a safety backup of what is there.
func BenchmarkRepair(b *testing.B) {
	x := newBench(b)
	x.onlyBulk()
	ses := x.session()
	v := newVault(b)
	ref, sum := v.copy(ses, x.run, "BENCH")
	r := v.seal(ref)
	read := func() int {
		return atoi(ask(b, x.on, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='ROWS_READ'"))
	}
	for range x.rounds() {
		for _, c := range []struct{ what, sql string }{
			{"nothing changed", "DO 1"},
			{"one row changed", "UPDATE cso_metrics.sample SET value=value+1 WHERE id=1000000"},
			{"1 % changed, in one place", "UPDATE cso_metrics.sample SET value=value+1 WHERE id BETWEEN 1000000 AND 1031999; UPDATE cso_documents.document SET title=CONCAT(title,'x') WHERE id BETWEEN 50000 AND 51999"},
			{"1 % changed, spread", "UPDATE cso_metrics.sample SET value=value+1 WHERE id MOD 100=7; UPDATE cso_documents.document SET title=CONCAT(title,'x') WHERE id MOD 100=7"},
			{"1 % deleted, in one place", "DELETE FROM cso_metrics.sample WHERE id BETWEEN 1000000 AND 1031999"},
		} {
			x.sql(c.sql)
			var safety store.Ref
			x.time("safety backup, "+c.what, func() error { safety, _ = v.copy(ses, x.run, "SAFETY"); return nil })
			x.run.Live = v.seal(safety)
			var rep plugins.Report
			seen := read()
			x.time("restore, "+c.what, x.restore(ses, r, &rep))
			fmt.Printf("  of %d rows the server read %d, and %d were written (%.2f %% of the bytes)\n", sum.Records, read()-seen, rep.Records, 100*float64(rep.Bytes)/float64(sum.Bytes))
			x.run.Live = nil
			x.time("compare", func() error { x.compare(ses, r); return nil })
		}
	}
}

// clientCPU is the CPU time of this process and of the programs it ran, in seconds.
func clientCPU() float64 {
	var sum float64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
		}
	}
	return sum
}

// serverCPU is the CPU time of the server, in seconds (proc(5), 100 ticks a second).
func serverCPU(b *testing.B, on plugins.Target) float64 {
	pid, err := os.ReadFile(ask(b, on, "SELECT @@pid_file"))
	if err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return float64(atoi(f[11])+atoi(f[12])) / 100
}
