package mariadb

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"golang.org/x/sync/errgroup"
)

// scripts hold every statement that needs no computing; they run in order of
// their names. {SEED} stands for the seed.
//
//go:embed sql/*.sql
var scripts embed.FS

// amounts of rows that depend on the size asked for.
type amounts struct {
	samples, documents, tables int
}

// sizes: small is about 15 MB of rows, large above 1 GB.
var sizes = map[string]amounts{
	"small": {samples: 20_000, documents: 400, tables: 40},
	"large": {samples: 3_200_000, documents: 200_000, tables: 1000},
}

// chunkRows is the size of one insert of generated rows; a transaction of it
// stays below 30 MB, which Galera accepts.
const (
	sampleChunk   = 50_000
	documentChunk = 8_000
)

// Fill first resets the server, so that equal seeds and sizes give equal
// content whatever was there before. It writes to the first member.
//
// Left out on purpose, because the server lets no client write it: history
// kept by transaction number, history rows that ended in the microsecond they
// began in, and -0 in FLOAT and DOUBLE (the server stores 0). Accounts, roles
// and history carry fixed times (SET timestamp).
func (server) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	n, ok := sizes[size]
	if !ok {
		return fmt.Errorf("mariadb: no size %q: say small or large", size)
	}
	if err := Reset(ctx, members); err != nil {
		return err
	}
	m, db, err := first(members)
	if err != nil {
		return err
	}
	defer db.Close()
	names, err := fs.Glob(scripts, "sql/*.sql")
	if err != nil {
		return fmt.Errorf("mariadb: list scripts: %w", err)
	}
	for _, name := range names {
		text, err := scripts.ReadFile(name)
		if err != nil {
			return fmt.Errorf("mariadb: read script %s: %w", name, err)
		}
		if err := runScript(ctx, m, name, strings.ReplaceAll(string(text), "{SEED}", fmt.Sprint(seed))); err != nil {
			return err
		}
	}
	if err := fillGenerated(ctx, db, seed, n); err != nil {
		return fmt.Errorf("mariadb %s: fill: %w", m.Name, err)
	}
	// Closed tables survive a kill of the server: ARCHIVE writes its counter
	// only then, and MyISAM would have to be repaired.
	if _, err := db.ExecContext(ctx, "FLUSH TABLES"); err != nil {
		return fmt.Errorf("mariadb %s: fill: close the tables: %w", m.Name, err)
	}
	return nil
}

// fillGenerated adds what Go computes or what is too much for one statement.
func fillGenerated(ctx context.Context, db *sql.DB, seed int64, n amounts) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2) // two cores in the machines this runs on
	for from := 1; from <= n.samples; from += sampleChunk {
		to := min(from+sampleChunk-1, n.samples)
		g.Go(func() error { return bulk(gctx, db, sampleSQL(seed, from, to)) })
	}
	for from := 1; from <= n.documents; from += documentChunk {
		to := min(from+documentChunk-1, n.documents)
		g.Go(func() error { return bulk(gctx, db, documentSQL(seed, from, to)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, f := range []func(context.Context, *sql.DB, int64, amounts) error{fillWide, fillRandom, fillMany} {
		if err := f(ctx, db, seed, n); err != nil {
			return err
		}
	}
	return nil
}

// bulk runs one insert outside the binary log: the log would double the disk
// a large fill takes and no replica reads it.
func bulk(ctx context.Context, db *sql.DB, stmt string) error {
	c, err := session(ctx, db, "SET sql_log_bin=0, time_zone='+00:00', sql_mode='STRICT_TRANS_TABLES'")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, stmt); err != nil {
		return fmt.Errorf("%.60s…: %w", stmt, err)
	}
	_, err = c.ExecContext(ctx, "SET sql_log_bin=1")
	return err
}

func sampleSQL(seed int64, from, to int) string {
	return fmt.Sprintf(`INSERT INTO cso_metrics.sample (id, device, at, value, total, series, pad)
SELECT seq, CRC32(CONCAT('%[1]d',seq))%%3000, FROM_UNIXTIME(1500000000+seq*3.217), CRC32(CONCAT('v%[1]d',seq))/4096, CRC32(CONCAT('w%[1]d',seq))/7,
 LEFT(SHA2(CONCAT('%[1]d',seq),512),120), REPEAT(CHAR(97+seq%%26 USING latin1), 20+seq%%40) FROM cso_metrics.seq_%[2]d_to_%[3]d`, seed, from, to)
}

func documentSQL(seed int64, from, to int) string {
	return fmt.Sprintf(`INSERT INTO cso_documents.document SELECT seq, CONCAT('Policy №',seq),
 CONCAT(REPEAT(CONCAT('rule ',seq,' permit any; '),60), SHA2(CONCAT('a%[1]d',seq),512), REPEAT('é☃ ',30), SHA2(CONCAT('b%[1]d',seq),512)),
 CONCAT('{"id" : ',seq,',"tags":["',MD5(CONCAT('%[1]d',seq)),'",  "x"]}'),
 UNHEX(CONCAT(SHA2(CONCAT('c%[1]d',seq),512),SHA2(CONCAT('d%[1]d',seq),512),REPEAT('00095C0A',200))) FROM cso_metrics.seq_%[2]d_to_%[3]d`, seed, from, to)
}
