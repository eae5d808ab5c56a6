package mariadb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// readerSetup makes a session in which stored bytes come back as stored: no
// conversion of character sets or time zones, no sql_mode that changes text.
const readerSetup = "SET SESSION sql_mode='', time_zone='+00:00', character_set_results=NULL, sql_quote_show_create=1," +
	" tx_isolation='REPEATABLE-READ', autocommit=1, net_write_timeout=3600, net_read_timeout=3600, wait_timeout=28800," +
	" lock_wait_timeout=60, max_statement_time=0, sql_select_limit=DEFAULT, sql_big_selects=1, max_sort_length=4096, sql_safe_updates=0"

// writerSetup makes a session that stores exactly what it is given.
const writerSetup = readerSetup + ", sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', unique_checks=0, foreign_key_checks=0, check_constraint_checks=0," +
	" innodb_strict_mode=0, explicit_defaults_for_timestamp=1, innodb_lock_wait_timeout=60, system_versioning_alter_history=KEEP" +
	"/*M!101100 , system_versioning_insert_history=1*/"

// connector opens prepared connections: every one of a pool, also one that
// replaces a broken one, has run setup and passed guard before it is used.
type connector struct {
	driver.Connector
	setup  string
	guard  func(ctx context.Context, c driver.Conn) error
	sealed bool // the network connection carries TLS
}

func newPool(c *mysql.Config, setup string, guard func(ctx context.Context, c driver.Conn) error) (*sql.DB, error) {
	c = c.Clone()
	c.DialFunc = dial
	base, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: check the member's options", plugins.ErrConfig, err)
	}
	db := sql.OpenDB(&connector{base, setup, guard, c.TLS != nil})
	db.SetMaxIdleConns(32)
	return db, nil
}

// Connect opens one connection.
func (k *connector) Connect(ctx context.Context) (driver.Conn, error) {
	var wire net.Conn
	base, err := k.Connector.Connect(context.WithValue(ctx, wireKey{}, &wire))
	if err != nil {
		return nil, err
	}
	full, ok := base.(driverConn)
	if !ok {
		base.Close()
		return nil, fmt.Errorf("the driver's connection is %T: %w", base, plugins.ErrUnsupported)
	}
	if k.sealed {
		wire = nil
	}
	c := &link{driverConn: full, wire: wire}
	if err = rawExec(ctx, c, k.setup); err == nil && k.guard != nil {
		err = k.guard(ctx, c)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func rawExec(ctx context.Context, c driver.Conn, stmt string) error {
	_, err := c.(driver.ExecerContext).ExecContext(ctx, stmt, nil)
	return err
}

// rawRow runs a query and returns its first row as text; nil for NULL, no row: nil slice.
func rawRow(ctx context.Context, c driver.Conn, query string) ([]*string, error) {
	rows, err := c.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	dest := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(dest); err != nil {
		return nil, err
	}
	out := make([]*string, len(dest))
	for i, v := range dest {
		if v != nil {
			s := string(appendCell(nil, v))
			out[i] = &s
		}
	}
	return out, nil
}

// slots is how many connections of one kind the product opens at most on a server.
const slots = 64

// slotName names the server-wide user lock that marks connection i of a
// kind: "w" writes, "p" holds a pin. A lock ends with its connection, so
// whoever holds one is alive, and nobody else's connection is ever killed.
func slotName(kind string, i int) string { return fmt.Sprintf("cso_backup/%s/%d", kind, i) }

// takeSlot marks the connection.
func takeSlot(ctx context.Context, c driver.Conn, kind string) error {
	for i := range slots {
		row, err := rawRow(ctx, c, "SELECT GET_LOCK("+lit(slotName(kind, i))+",0)")
		if err != nil {
			return err
		}
		if row[0] != nil && *row[0] == "1" {
			return nil
		}
	}
	return fmt.Errorf("%d connections of this product are open on the server: %w: wait for the other operation to end", slots, plugins.ErrUnavailable)
}

// killSlots ends every connection of a kind but those of the pool asking,
// which has none yet, and waits until the server has cleaned up after them.
func killSlots(ctx context.Context, db *sql.DB, kinds ...string) error {
	var names []string
	for _, k := range kinds {
		for i := range slots {
			names = append(names, lit(slotName(k, i)))
		}
	}
	query := "SELECT id FROM (SELECT IS_USED_LOCK(" + strings.Join(names, ") AS id UNION SELECT IS_USED_LOCK(") + ")) AS held WHERE id IS NOT NULL AND id <> CONNECTION_ID()"
	for tries := 0; ; tries++ {
		ids, err := column(ctx, db, query)
		if err != nil || len(ids) == 0 {
			return err
		}
		if tries == 1200 {
			return fmt.Errorf("connections %s of an earlier attempt do not end: %w: look at SHOW PROCESSLIST", strings.Join(ids, ", "), plugins.ErrUnavailable)
		}
		for _, id := range ids {
			if _, err := db.ExecContext(ctx, "KILL CONNECTION "+id); err != nil && number(err) != 1094 {
				return fmt.Errorf("end connection %s of an earlier attempt: %w", id, err)
			}
		}
		if err := plugins.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// querier is a pool or one connection of it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// table reads a small result as strings; NULL becomes "".
func table(ctx context.Context, db querier, query string) ([][]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	raw := make([]sql.RawBytes, len(cols))
	ptr := make([]any, len(cols))
	for i := range raw {
		ptr[i] = &raw[i]
	}
	var out [][]string
	for rows.Next() {
		if err := rows.Scan(ptr...); err != nil {
			return nil, err
		}
		line := make([]string, len(cols))
		for i := range raw {
			line[i] = string(raw[i])
		}
		out = append(out, line)
	}
	return out, rows.Err()
}

// named reads the first row of a result by column name; NULL becomes "".
func named(ctx context.Context, db querier, query string) (map[string]string, error) {
	rows, err := rowsByName(ctx, db, query)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, sql.ErrNoRows
	}
	out := make(map[string]string, len(rows[0]))
	for c, v := range rows[0] {
		if out[c] = ""; v != nil {
			out[c] = *v
		}
	}
	return out, nil
}

func column(ctx context.Context, db querier, query string) ([]string, error) {
	rows, err := table(ctx, db, query)
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, r[0])
	}
	return out, err
}

// value reads one value; no row: "".
func value(ctx context.Context, db querier, query string) (string, error) {
	rows, err := column(ctx, db, query)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0], nil
}
