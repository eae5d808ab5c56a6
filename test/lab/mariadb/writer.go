package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// The ledger: the balances of both tables add up to LedgerTotal in every
// consistent view.
const (
	LedgerAccounts = 100                       // per table
	LedgerTotal    = 2 * LedgerAccounts * 1000 // Fill gives each account 1000
)

// Counts is what a Writer did.
type Counts struct {
	Transfers int64         // committed
	Failed    int64         // statements or commits that failed: the server was away, or a table was being replaced
	Slowest   time.Duration // the longest transfer from begin to committed
}

// Writer moves random amounts between cso_ledger.account_a and account_b on
// the first member, one transaction after the other, until ctx ends; then it
// returns what it did. A failed transfer is counted and tried again after a
// moment, so that the writer outlives a restart of the server. Fill makes the
// tables. The error is only ever about the members themselves.
func Writer(ctx context.Context, members []engine.Member) (Counts, error) {
	var n Counts
	_, db, err := first(members)
	if err != nil {
		return n, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	r := rng(time.Now().UnixNano(), 5)
	for ctx.Err() == nil {
		begin := time.Now()
		err := transfer(ctx, db, 1+r.IntN(LedgerAccounts), 1+r.IntN(LedgerAccounts), r.IntN(19)-9)
		if err == nil {
			n.Transfers++
			n.Slowest = max(n.Slowest, time.Since(begin))
			continue
		}
		if ctx.Err() != nil {
			break // interrupted by the end, not failed
		}
		n.Failed++
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return n, nil
}

// transfer reads nothing it writes: both updates are relative, so no
// interleaving of writers can break the sum. Begun with its context detached,
// a transfer is never cut between its two halves.
func transfer(ctx context.Context, db *sql.DB, from, to, amount int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transfer: %w", err)
	}
	defer tx.Rollback()
	for _, s := range []struct {
		stmt       string
		amount, id int
	}{
		{"UPDATE cso_ledger.account_a SET balance = balance - ? WHERE id = ?", amount, from},
		{"UPDATE cso_ledger.account_b SET balance = balance + ? WHERE id = ?", amount, to},
	} {
		res, err := tx.ExecContext(ctx, s.stmt, s.amount, s.id)
		if err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		// A transfer of nothing changes no row; any other changes exactly one.
		if changed, err := res.RowsAffected(); err != nil || (changed != 1 && s.amount != 0) {
			return fmt.Errorf("transfer: account %d changed %d rows (%w): fill the server first", s.id, changed, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit transfer: %w", err)
	}
	return nil
}

// LedgerSum adds up both tables in one consistent view of the first member.
func LedgerSum(ctx context.Context, members []engine.Member) (int64, error) {
	m, db, err := first(members)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("mariadb %s: ledger: %w", m.Name, err)
	}
	defer tx.Rollback()
	var total int64
	for _, table := range []string{"account_a", "account_b"} {
		var part int64
		if err := tx.QueryRowContext(ctx, "SELECT COALESCE(SUM(balance),0) FROM cso_ledger."+table).Scan(&part); err != nil {
			return 0, fmt.Errorf("mariadb %s: ledger: %s: %w", m.Name, table, err)
		}
		total += part
	}
	return total, nil
}
