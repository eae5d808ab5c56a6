package mariadb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

const benchFill = `CREATE DATABASE bench; USE bench;
CREATE TABLE sample (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(120) CHARACTER SET latin1 NOT NULL, pad CHAR(60) CHARACTER SET latin1 NOT NULL, f FLOAT, KEY (k)) ENGINE=InnoDB;
INSERT INTO sample SELECT seq, seq*7919%1000003, CONCAT(SHA2(seq,256),LEFT(SHA2(seq+1,256),56)), LEFT(SHA2(seq+2,256),60), seq/7 FROM seq_1_to_1000000;
CREATE TABLE document (id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, body MEDIUMTEXT, raw BLOB);
INSERT INTO document SELECT MD5(seq), CONCAT('{"name": "', REPEAT(SHA2(seq,256),30), '"}'), UNHEX(REPEAT(SHA2(seq,512),6)) FROM seq_1_to_40000;`

// BenchmarkAgainstDump compares with the server's own tools on the same
// 300 MB, on the same server, one after the other. Nothing is compressed.
func BenchmarkAgainstDump(b *testing.B) {
	on := target()
	suiteClear(b, on)
	runSQL(b, on, benchFill)
	size := float64(atoi(ask(b, on, "SELECT 1000000*(4+4+120+60+4) + (SELECT SUM(LENGTH(body)+LENGTH(raw)+32) FROM bench.document)"))) / 1e6
	ses, err := New().Open(b.Context(), on)
	if err != nil {
		b.Fatal(err)
	}
	defer ses.Close()
	m, err := plugintest.NewMemory().OnDisk(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	run := plugins.Run{Epoch: 1 << 50, Operation: plugins.OpBackup, Parallel: 2, Log: discard}
	rate := func(what string, do func() error) {
		begin, client, served := time.Now(), clientCPU(), serverCPU(b, on)
		if err := do(); err != nil {
			b.Fatalf("%s: %v", what, err)
		}
		d := time.Since(begin)
		fmt.Printf("%-28s %6.2f s  %5.0f MB/s  CPU: client %5.2f s, server %5.2f s\n", what, d.Seconds(), size/d.Seconds(), clientCPU()-client, serverCPU(b, on)-served)
	}
	opt := on.Members[0].Options
	password, err := on.Members[0].Secret("password")
	if err != nil {
		b.Fatal(err)
	}
	client := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(name, append([]string{"--no-defaults", "-u" + opt["user"], "-S" + opt["socket"]}, args...)...)
		c.Env = append(os.Environ(), "MYSQL_PWD="+password)
		c.Stderr = os.Stderr
		return c
	}
	dump := filepath.Join(b.TempDir(), "dump.sql")
	for b.Loop() {
		rate("backup, digests only", func() error {
			_, err := ses.Backup(b.Context(), run, plugins.NewDigester())
			return err
		})
		rate("mariadb-dump to /dev/null", func() error {
			c := client("mariadb-dump", "--single-transaction", "--quick", "--hex-blob", "--databases", "bench")
			return c.Run()
		})
		rate("mariadb-dump to a file", func() error {
			c := client("mariadb-dump", "--single-transaction", "--quick", "--hex-blob", "--databases", "bench")
			f, err := os.Create(dump)
			if err != nil {
				return err
			}
			defer f.Close()
			c.Stdout = f
			return c.Run()
		})
	}
	if _, err := ses.Backup(b.Context(), run, m); err != nil {
		b.Fatal(err)
	}
	rate("restore, nothing changed", func() error { _, err := ses.Restore(b.Context(), run, m); return err })
	runSQL(b, on, "DROP DATABASE bench")
	rate("restore, all missing", func() error { run.Epoch++; _, err := ses.Restore(b.Context(), run, m); return err })
	runSQL(b, on, "DROP DATABASE bench")
	rate("mariadb < dump", func() error {
		f, err := os.Open(dump)
		if err != nil {
			return err
		}
		defer f.Close()
		c := client("mariadb")
		c.Stdin = f
		return c.Run()
	})
	suiteClear(b, on)
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

// BenchmarkManyTables: what a table costs.
func BenchmarkManyTables(b *testing.B) {
	on := target()
	suiteClear(b, on)
	const n = 10000
	script := "CREATE DATABASE many; USE many;"
	for i := range n {
		script += fmt.Sprintf("CREATE TABLE t%d (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), KEY (v)); INSERT INTO t%d (v) VALUES ('a'),('b');", i, i)
	}
	begin := time.Now()
	runSQL(b, on, script)
	fmt.Printf("making %d tables %v\n", n, time.Since(begin))
	ses, err := New().Open(b.Context(), on)
	if err != nil {
		b.Fatal(err)
	}
	defer ses.Close()
	run := plugins.Run{Epoch: 1 << 51, Operation: plugins.OpBackup, Parallel: 2, Log: discard}
	m := plugintest.NewMemory()
	for b.Loop() {
		m = plugintest.NewMemory()
		begin := time.Now()
		p, err := ses.(plugins.Pinner).Pin(b.Context(), run)
		if err != nil {
			b.Fatal(err)
		}
		pinned := time.Since(begin)
		if _, err := p.Backup(b.Context(), run, m); err != nil {
			b.Fatal(err)
		}
		p.Release(b.Context())
		fmt.Printf("%d tables: pin %v, backup %v\n", n, pinned, time.Since(begin))
	}
	begin = time.Now()
	if _, err := ses.Restore(b.Context(), run, m); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("%d tables: restore of nothing changed %v\n", n, time.Since(begin))
	runSQL(b, on, "DROP DATABASE many")
	run.Epoch++
	begin = time.Now()
	if _, err := ses.Restore(b.Context(), run, m); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("%d tables: restore of all %v\n", n, time.Since(begin))
	suiteClear(b, on)
}
