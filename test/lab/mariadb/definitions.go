package mariadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/go-sql-driver/mysql"
)

// userSchemas is the condition that leaves the server's own schemas out, and
// the one in which the product keeps which run wrote last: it is not content.
func userSchemas(column string) string {
	return column + " NOT IN ('information_schema','mysql','performance_schema','sys','_cso_backup')"
}

// object is a schema and a name in it, with what else a query gave.
type object struct{ schema, name, extra string }

func (o object) String() string { return ident(o.schema) + "." + ident(o.name) }

func objects(ctx context.Context, c *sql.Conn, query string) ([]object, error) {
	var out []object
	err := records(ctx, c, query, func(v []sql.RawBytes) error {
		o := object{schema: string(v[0]), name: string(v[1])}
		if len(v) > 2 {
			o.extra = string(v[2])
		}
		out = append(out, o)
		return nil
	})
	return out, err
}

// show adds one line with the hash of a SHOW statement's only record,
// of which at most the first n columns count (0: all). What the server itself
// cannot show (a MRG_MyISAM table without the tables below) has its error
// number for a value.
func show(ctx context.Context, c *sql.Conn, out *lines, kind, name, stmt string, n int) error {
	err := records(ctx, c, stmt, func(v []sql.RawBytes) error {
		if n > 0 {
			v = v[:n]
		}
		out.add(kind, name, hash(v))
		return nil
	})
	return unreadable(out, kind, name, err)
}

// unreadable turns an error of the object into a line; an error of the
// connection or of this program stays one.
func unreadable(out *lines, kind, name string, err error) error {
	var e *mysql.MySQLError
	if !errors.As(err, &e) || !slices.Contains(objectErrors, e.Number) {
		return err
	}
	out.add(kind, name, fmt.Sprintf("unreadable: error %d", e.Number))
	return nil
}

// objectErrors: no such table below a merge table or a view, differently
// defined table below, crashed table, wrong file, unknown column or function;
// an account the server did not load (a host name under skip-name-resolve).
var objectErrors = []uint16{126, 144, 145, 1017, 1030, 1033, 1034, 1054, 1133, 1141, 1146, 1168, 1194, 1195, 1305, 1356, 1932}

func databases(ctx context.Context, c *sql.Conn, out *lines) error {
	names, err := column(ctx, c, "SELECT schema_name FROM information_schema.schemata WHERE "+userSchemas("schema_name"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := show(ctx, c, out, "database", ident(n), "SHOW CREATE DATABASE "+ident(n), 0); err != nil {
			return err
		}
	}
	return nil
}

// definitions covers all that lives in the table namespace. Tables somebody
// made in the mysql schema are content as well.
func definitions(ctx context.Context, c *sql.Conn, out *lines) error {
	all, err := objects(ctx, c, "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE "+userSchemas("table_schema"))
	if err != nil {
		return err
	}
	for _, o := range all {
		switch o.extra {
		case "VIEW", "SYSTEM VIEW":
			err = show(ctx, c, out, "view", o.String(), "SHOW CREATE VIEW "+o.String(), 0)
		case "SEQUENCE":
			if err = show(ctx, c, out, "sequence", o.String(), "SHOW CREATE TABLE "+o.String(), 0); err == nil {
				err = position(ctx, c, out, o)
			}
		default:
			err = show(ctx, c, out, "table", o.String(), "SHOW CREATE TABLE "+o.String(), 0)
		}
		if err != nil {
			return err
		}
	}
	return records(ctx, c, "SELECT table_schema, table_name, auto_increment FROM information_schema.tables WHERE auto_increment IS NOT NULL AND "+userSchemas("table_schema"),
		func(v []sql.RawBytes) error {
			out.add("auto_increment", ident(string(v[0]))+"."+ident(string(v[1])), string(v[2]))
			return nil
		})
}

// position is the stored record of a sequence: what the server would go on
// with after a restart.
func position(ctx context.Context, c *sql.Conn, out *lines, o object) error {
	return records(ctx, c, "SELECT next_not_cached_value, minimum_value, maximum_value, start_value, increment, cache_size, cycle_option, cycle_count FROM "+o.String(),
		func(v []sql.RawBytes) error {
			out.add("position", o.String(), fmt.Sprintf("next %s min %s max %s start %s by %s cache %s cycle %s round %s", v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]))
			return nil
		})
}

// programLines covers triggers, routines and events by the tables the server
// executes them from, so that bodies count byte for byte.
func programLines(ctx context.Context, c *sql.Conn, out *lines) error {
	triggers, err := objects(ctx, c, "SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE "+userSchemas("trigger_schema"))
	if err != nil {
		return err
	}
	for _, t := range triggers {
		// name, sql_mode, statement, client character set, collation, schema collation; the seventh is the creation time
		if err := show(ctx, c, out, "trigger", t.String(), "SHOW CREATE TRIGGER "+t.String(), 6); err != nil {
			return err
		}
	}
	queries := []struct{ kind, query string }{
		{"trigger_order", "SELECT trigger_schema, trigger_name, event_object_schema, event_object_table, action_timing, event_manipulation, action_order FROM information_schema.triggers WHERE " + userSchemas("trigger_schema")},
		{"routine", "SELECT db, CONCAT(type,' ',name), specific_name, language, sql_data_access, is_deterministic, security_type, param_list, returns, body, definer, sql_mode, comment, character_set_client, collation_connection, db_collation, body_utf8, aggregate FROM mysql.proc WHERE " + userSchemas("db")},
		{"event", "SELECT db, name, body, definer, execute_at, interval_value, interval_field, starts, ends, on_completion, sql_mode, comment, time_zone, character_set_client, collation_connection, db_collation, body_utf8 FROM mysql.event WHERE " + userSchemas("db")},
	}
	for _, q := range queries {
		err := records(ctx, c, q.query, func(v []sql.RawBytes) error {
			out.add(q.kind, ident(string(v[0]))+"."+ident(string(v[1])), hash(v))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return records(ctx, c, "SELECT db, name, status FROM mysql.event WHERE "+userSchemas("db"), func(v []sql.RawBytes) error {
		out.add("event_status", ident(string(v[0]))+"."+ident(string(v[1])), string(v[2]))
		return nil
	})
}
