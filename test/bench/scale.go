package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// tablesChapter: neither memory nor history grows with the number of tables.
func tablesChapter(ctx context.Context, b *bench) error {
	e, env, err := b.grown(ctx, "tables")
	if err != nil {
		return err
	}
	defer e.stop()
	tables := 10_000
	if b.small {
		tables = 500
	}
	b.page.say("## Many tables\n\n%s\n", b.stamp())
	script := `for i in $(seq $TABLES); do echo "CREATE TABLE t$i (id INT PRIMARY KEY, v INT); INSERT INTO t$i VALUES (1,$i),(2,$i);"; done | mariadb $M many`
	if _, err := b.sh(ctx, append(env, fmt.Sprintf("TABLES=%d", tables)), `mariadb $M -e "CREATE OR REPLACE DATABASE many"; `+script); err != nil {
		return err
	}
	return e.scale(ctx, fmt.Sprintf("%d tables, none of them changed", tables), nil)
}

// scaleChapter: nor do they grow with the data.
func scaleChapter(ctx context.Context, b *bench) error {
	e, env, err := b.grown(ctx, "scale")
	if err != nil {
		return err
	}
	defer e.stop()
	rows, docs := 6_000_000, 1_600_000
	if b.small {
		rows, docs = 100_000, 5_000
	}
	b.page.say("## Much data\n\n%s\n", b.stamp())
	// Without the binary log, which would be as large again and is never read.
	sql := "SET sql_log_bin=0; " + fmt.Sprintf(mariadbFill, rows, docs)
	if _, err := b.sh(ctx, append(env, "SQL="+sql), `mariadb $M -e "$SQL"`); err != nil {
		return err
	}
	return e.scale(ctx, "Two tables of 5 GB, the larger one lost before the restore", func() error {
		_, err := b.sh(ctx, env, `mariadb $M -e "SET sql_log_bin=0; DROP TABLE bench.document"`)
		return err
	})
}

// grown starts a lab for a database that is to grow.
func (b *bench) grown(ctx context.Context, name string) (*estate, []string, error) {
	e, err := b.start(ctx, name, "mariadb", "secrets")
	if err != nil {
		return nil, nil, err
	}
	return e, []string{"MYSQL_PWD=" + e.value("LAB_MARIADB_1_PASSWORD"), "M=--no-defaults -u" + e.value("LAB_MARIADB_1_USER") + " -S" + e.value("LAB_MARIADB_1_SOCKET")}, nil
}

// scale backs up, wrecks, restores, and tells memory and history.
func (e *estate) scale(ctx context.Context, what string, wreck func() error) error {
	pid, err := e.Pid("worker")
	if err != nil {
		return err
	}
	watched, err := e.pids("mariadb-1")
	if err != nil {
		return err
	}
	var rows []string
	for i, op := range [][]string{{"-b", "backup", "-s", "S"}, {"-b", "restore", "-s", "S", "-t", "mariadb"}} {
		if i == 1 && wreck != nil {
			if err := wreck(); err != nil {
				return err
			}
		}
		if err := errors.Join(forgetPeak(pid), e.b.warm()); err != nil {
			return err
		}
		var res workflows.Result
		f, err := measure(watched, func() (string, error) { return "", e.cso(ctx, &res, op...) })
		if err != nil {
			return err
		}
		mem, err := peak(pid)
		if err != nil {
			return err
		}
		events, bytes, err := e.history(ctx)
		if err != nil {
			return err
		}
		rows = append(rows, fmt.Sprintf("| %s %s | %s | %d | %.1f | %.1f | %d MiB | %d | %s |", op[0], op[1], size(res.Units[0].Bytes), res.Units[0].Artifacts,
			f.wall.Seconds(), f.cpu.Seconds(), mem, events, size(bytes)))
	}
	e.b.page.say("\n### %s\n", what)
	e.b.page.table("| operation | read or loaded | artifacts | wall s | CPU s | worker's peak memory | history events | history size |", rows...)
	return nil
}

// history is the length of the last run's history in Temporal, in events and bytes.
func (e *estate) history(ctx context.Context) (events, bytes int64, err error) {
	conf, err := pki.ClientTLS(e.path("state", "pki"), pki.Operator)
	if err != nil {
		return 0, 0, err
	}
	c, err := client.Dial(client.Options{HostPort: e.value("LAB_TEMPORAL_ADDR"), Namespace: "cso", ConnectionOptions: client.ConnectionOptions{TLS: conf}, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	d, err := c.DescribeWorkflowExecution(ctx, workflows.ExclusiveID, "")
	if err != nil {
		return 0, 0, err
	}
	return d.WorkflowExecutionInfo.HistoryLength, d.WorkflowExecutionInfo.HistorySizeBytes, nil
}
