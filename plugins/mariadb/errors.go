package mariadb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/go-sql-driver/mysql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Server error numbers (mariadb.com/kb/en/mariadb-error-code-reference).
const (
	erAccessDB          = 1044
	erAccess            = 1045
	erBadField          = 1054
	erHostBlocked       = 1129
	erTooManyConns      = 1040
	erNoSuchTable       = 1146
	erLockWait          = 1205
	erQueryInterrupted  = 1317
	erTableDefChanged   = 1412
	erAccessSpecific    = 1227
	erDiskFull          = 1021
	erRecordFull        = 1114
	erConnectionKilled  = 1927
	erUnknownTable      = 1109
	erNeedTrust         = 1418
	erNeedTrustTrigger  = 1419
	erTablespaceMissing = 1812
)

// number is the server's error number, 0 for other errors.
func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// lost says whether the connection, and what it held, is gone.
func lost(err error) bool {
	var op *net.OpError
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &op) || number(err) == erQueryInterrupted || number(err) == erConnectionKilled
}

// classify gives an error of the server the product's kind.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", cause, err) // the driver says "bad connection" when it is interrupted
	}
	switch n := number(err); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case n == erAccess, n == erAccessDB, n == erAccessSpecific, n == 1142, n == 1698:
		return fmt.Errorf("%w: %w: check the user, its password and its rights (README.md of the plugin lists them)", plugins.ErrAuth, err)
	case n == erDiskFull, n == erRecordFull:
		return fmt.Errorf("%w: %w: free space on the database's disk, or restore with the option in-place", plugins.ErrSpace, err)
	case lost(err), n == erTooManyConns, n == erHostBlocked:
		return fmt.Errorf("%w: %w: check that the server runs and its log", plugins.ErrUnavailable, err)
	}
	return err
}

// pinned turns what an error means for a held snapshot into ErrPinLost.
func pinned(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return classify(ctx, err)
	}
	switch number(err) {
	case erTableDefChanged, erNoSuchTable, erBadField, erTablespaceMissing, erUnknownTable:
		return fmt.Errorf("%w: a table's definition changed during the copy: %w: the backup starts again by itself", plugins.ErrPinLost, err)
	}
	if lost(err) {
		return fmt.Errorf("%w: %w: the backup starts again by itself", plugins.ErrPinLost, err)
	}
	return err
}
