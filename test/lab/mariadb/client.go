package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/go-sql-driver/mysql"
)

// baseConfig connects as root without a password, by "tcp" or "unix".
func baseConfig(m engine.Member, network string) *mysql.Config {
	cfg := mysql.NewConfig()
	cfg.User = adminUser
	cfg.Net = network
	cfg.Addr = address(m)
	if network == "unix" {
		cfg.Addr = socketPath(m)
	}
	cfg.Timeout = 5 * time.Second
	cfg.Logger = quiet{}
	return cfg
}

// quiet keeps the driver's broken-connection notes off stderr; the errors
// themselves are returned.
type quiet struct{}

func (quiet) Print(...any) {}

func openConfig(cfg *mysql.Config) (*sql.DB, error) {
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("mariadb: connector: %w", err)
	}
	return sql.OpenDB(c), nil
}

// open gives a pool of connections as root on the member.
func open(m engine.Member, network, schema string) (*sql.DB, error) {
	password, err := readPassword(m)
	if err != nil {
		return nil, err
	}
	cfg := baseConfig(m, network)
	cfg.Passwd = password
	cfg.DBName = schema
	return openConfig(cfg)
}

// runScript feeds a script to the server's own client, which knows DELIMITER.
// The client stops at the first error and names its line.
func runScript(ctx context.Context, m engine.Member, name, script string) error {
	prog, err := program("mariadb")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, prog, "--defaults-file="+clientConfig(m), "--binary-mode", "--batch", "--silent")
	cmd.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mariadb %s: script %s: %w: %s", m.Name, name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// ident quotes a name for SQL.
func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// literal quotes a string for SQL as hexadecimal, which no sql_mode and no
// character set changes.
func literal(s string) string {
	if s == "" {
		return "''"
	}
	return fmt.Sprintf("_utf8mb4 X'%X'", s)
}
