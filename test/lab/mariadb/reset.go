package mariadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Reset brings the first member back to what Prepare made: no schemas,
// accounts, foreign servers, time zones or installed plugins but the server's
// own. The root account and its password stay.
func Reset(ctx context.Context, members []engine.Member) error {
	m, db, err := first(members)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := session(ctx, db, "SET foreign_key_checks=0, lock_wait_timeout=30, sql_mode=''")
	if err != nil {
		return fmt.Errorf("mariadb %s: reset: %w", m.Name, err)
	}
	defer c.Close()
	var stmts []string
	lists := []struct{ query, drop string }{
		{"SELECT CONCAT('`',REPLACE(schema_name,'`','``'),'`') FROM information_schema.schemata WHERE " + userSchemas("schema_name"), "DROP DATABASE IF EXISTS %s"},
		{"SELECT CONCAT(QUOTE(User),'@',QUOTE(Host)) FROM mysql.global_priv WHERE JSON_VALUE(Priv,'$.is_role') IS NULL AND NOT (User='root' AND Host IN ('localhost','127.0.0.1')) AND User<>'mariadb.sys'", "DROP USER IF EXISTS %s"},
		{"SELECT CONCAT('`',REPLACE(User,'`','``'),'`') FROM mysql.global_priv WHERE JSON_VALUE(Priv,'$.is_role')=1 AND User<>'PUBLIC'", "DROP ROLE IF EXISTS %s"},
		{"SELECT CONCAT('`',REPLACE(Server_name,'`','``'),'`') FROM mysql.servers", "DROP SERVER IF EXISTS %s"},
		{"SELECT DISTINCT QUOTE(dl) FROM mysql.plugin", "UNINSTALL SONAME IF EXISTS %s"},
		{"SELECT CONCAT('`',REPLACE(name,'`','``'),'`') FROM mysql.func", "DROP FUNCTION IF EXISTS %s"},
	}
	for _, l := range lists {
		names, err := column(ctx, c, l.query)
		if err != nil {
			return fmt.Errorf("mariadb %s: reset: %w", m.Name, err)
		}
		for _, n := range names {
			stmts = append(stmts, fmt.Sprintf(l.drop, n))
		}
	}
	for _, t := range []string{"time_zone", "time_zone_leap_second", "time_zone_name", "time_zone_transition", "time_zone_transition_type"} {
		stmts = append(stmts, "DELETE FROM mysql."+t)
	}
	// What a grant to PUBLIC or a dropped account leaves behind has no statement of its own.
	stmts = append(stmts,
		"DELETE FROM mysql.global_priv WHERE User='PUBLIC'",
		"DELETE FROM mysql.roles_mapping",
		"DELETE FROM mysql.db WHERE User<>'mariadb.sys'",
		"DELETE FROM mysql.tables_priv WHERE User<>'mariadb.sys'",
		"DELETE FROM mysql.columns_priv WHERE User<>'mariadb.sys'",
		"DELETE FROM mysql.procs_priv WHERE User<>'mariadb.sys'",
		"DELETE FROM mysql.proxies_priv WHERE User<>'root'",
		"FLUSH PRIVILEGES")
	for _, s := range stmts {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("mariadb %s: reset: %s: %w", m.Name, s, err)
		}
	}
	return nil
}

// first opens the member all reading and writing goes to; members of one
// instance replicate from it.
func first(members []engine.Member) (engine.Member, *sql.DB, error) {
	if len(members) == 0 {
		return engine.Member{}, nil, errors.New("mariadb: no members given")
	}
	db, err := open(members[0], "unix", "")
	return members[0], db, err
}

// session gives one connection after running a statement on it.
func session(ctx context.Context, db *sql.DB, setup string) (*sql.Conn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.ExecContext(ctx, setup); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", setup, err)
	}
	return c, nil
}

// column reads the first column of a query.
func column(ctx context.Context, c *sql.Conn, query string) ([]string, error) {
	rows, err := c.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
