package mariadb

import (
	"fmt"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

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
