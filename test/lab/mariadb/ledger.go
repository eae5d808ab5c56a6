package mariadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = server{}

// page is the linked ledger's only row.
type page struct{ db *sql.DB }

// OpenLedger makes the schema, the table and its row on the first member.
func (server) OpenLedger(ctx context.Context, members []engine.Member) (engine.Page, error) {
	_, db, err := first(members)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(2)
	for _, stmt := range []string{
		"CREATE DATABASE IF NOT EXISTS " + engine.LedgerName,
		"CREATE TABLE IF NOT EXISTS " + engine.LedgerName + ".txn (id INT PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB",
		"INSERT IGNORE INTO " + engine.LedgerName + ".txn VALUES (1, 0)",
	} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return nil, errors.Join(fmt.Errorf("make the ledger: %w", err), db.Close())
		}
	}
	return &page{db}, nil
}

func (p *page) Record(ctx context.Context, n int64) error {
	_, err := p.db.ExecContext(ctx, "UPDATE "+engine.LedgerName+".txn SET n = ? WHERE id = 1", n)
	return err
}

func (p *page) Recorded(ctx context.Context) (n int64, err error) {
	err = p.db.QueryRowContext(ctx, "SELECT n FROM "+engine.LedgerName+".txn WHERE id = 1").Scan(&n)
	return n, err
}

func (p *page) Close() error { return p.db.Close() }
