package mariadb

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"golang.org/x/sync/errgroup"
)

// fingerprintSession makes the server hand out what is stored: no character
// set conversion of values, no time zone, no mode that changes quoting.
const fingerprintSession = "SET character_set_results=NULL, time_zone='+00:00', sql_mode='', sql_quote_show_create=1"

// lines collects the fingerprint; safe for concurrent use.
type lines struct {
	mu  sync.Mutex
	all []string
}

var nameEscape = strings.NewReplacer("\\", "\\\\", "\t", "\\t", "\n", "\\n", "\r", "\\r")

func (l *lines) add(kind, object, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, kind+"\t"+nameEscape.Replace(object)+"\t"+nameEscape.Replace(value))
}

// Fingerprint describes the first member's whole content. Kinds of lines:
//
//	database, table, auto_increment, rows   definitions, counters, and per table "count sum-of-row-hashes"
//	sequence, position                      definition and the stored position (all eight columns)
//	view, trigger, routine, event           definition with mode, character sets, definer; a trigger's order, an event's status
//	account, create_user, grant             mysql.global_priv as JSON, SHOW CREATE USER, each line of SHOW GRANTS
//	default_role, and the mysql tables      roles_mapping db tables_priv columns_priv procs_priv proxies_priv servers plugin func
//
// Left out, because no restore can or should bring it back: creation and
// modification times of routines, triggers and events, an event's last
// execution and originating server id, who granted a privilege and when, the
// server version noted in an account, optimizer statistics, logs, help texts,
// replication positions. password_last_changed is compared: creating an
// account under SET timestamp sets it. Rows of MEMORY tables count (they are
// gone after a restart of the server); rows of BLACKHOLE tables do not exist;
// rows of MRG_MyISAM tables are those of the tables below.
func (server) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) error {
	m, db, err := first(members)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := session(ctx, db, fingerprintSession)
	if err != nil {
		return fmt.Errorf("mariadb %s: fingerprint: %w", m.Name, err)
	}
	defer c.Close()
	out := &lines{}
	for _, part := range []func(context.Context, *sql.Conn, *lines) error{databases, definitions, programLines, accounts, systemTables} {
		if err := part(ctx, c, out); err != nil {
			return fmt.Errorf("mariadb %s: fingerprint: %w", m.Name, err)
		}
	}
	if err := contents(ctx, db, c, out); err != nil {
		return fmt.Errorf("mariadb %s: fingerprint: %w", m.Name, err)
	}
	slices.Sort(out.all)
	buf := bufio.NewWriter(w)
	for _, l := range out.all {
		fmt.Fprintln(buf, l)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("mariadb %s: write fingerprint: %w", m.Name, err)
	}
	return nil
}

// records reads a whole result with the binary protocol, which carries FLOAT
// and DOUBLE as their bits.
func records(ctx context.Context, c *sql.Conn, query string, each func([]sql.RawBytes) error) error {
	stmt, err := c.PrepareContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer stmt.Close()
	rows, err := stmt.QueryContext(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	values := make([]sql.RawBytes, len(cols))
	dest := make([]any, len(cols))
	for i := range values {
		dest[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		if err := each(values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}

// encode makes one byte string of a record: no two different records share it.
func encode(dst []byte, values []sql.RawBytes) []byte {
	for _, v := range values {
		if v == nil {
			dst = append(dst, 0)
			continue
		}
		dst = append(dst, 1)
		dst = binary.AppendUvarint(dst, uint64(len(v)))
		dst = append(dst, v...)
	}
	return dst
}

func hash(values []sql.RawBytes) string {
	sum := sha256.Sum256(encode(nil, values))
	return hex.EncodeToString(sum[:])
}

// content is a table whose rows are compared.
type content struct{ schema, name string }

// elsewhere are engines whose rows belong to other tables or other servers.
var elsewhere = []string{"MRG_MyISAM", "FEDERATED", "CONNECT", "SPIDER", "SPHINX"}

// contents hashes the rows of all tables, two at a time.
func contents(ctx context.Context, db *sql.DB, c *sql.Conn, out *lines) error {
	var tables []content
	err := records(ctx, c, "SELECT table_schema, table_name, engine FROM information_schema.tables WHERE table_type IN ('BASE TABLE','SYSTEM VERSIONED') AND table_schema NOT IN ('information_schema','performance_schema','sys','_cso_backup')",
		func(v []sql.RawBytes) error {
			t := content{string(v[0]), string(v[1])}
			if slices.Contains(elsewhere, string(v[2])) || (t.schema == "mysql" && slices.Contains(handledTables, t.name)) {
				return nil
			}
			tables = append(tables, t)
			return nil
		})
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, t := range tables {
		g.Go(func() error {
			rc, err := session(gctx, db, fingerprintSession)
			if err != nil {
				return err
			}
			defer rc.Close()
			return tableRows(gctx, rc, t, out)
		})
	}
	return g.Wait()
}

// tableRows adds the count and the sum of the hashes of all rows, history
// included: equal whatever the order, different when a duplicate is missing.
func tableRows(ctx context.Context, c *sql.Conn, t content, out *lines) error {
	query, err := selectAll(ctx, c, t)
	if err != nil {
		return err
	}
	var (
		count int64
		total sum256
		buf   []byte
	)
	err = records(ctx, c, query, func(v []sql.RawBytes) error {
		buf = encode(buf[:0], v)
		total.add(sha256.Sum256(buf))
		count++
		return nil
	})
	name := ident(t.schema) + "." + ident(t.name)
	if err != nil {
		return unreadable(out, "rows", name, err)
	}
	out.add("rows", name, fmt.Sprintf("%d %s", count, total))
	return nil
}

// selectAll names every column, hidden ones too, because * leaves those out.
func selectAll(ctx context.Context, c *sql.Conn, t content) (string, error) {
	where := fmt.Sprintf("table_schema=%s AND table_name=%s", literal(t.schema), literal(t.name))
	var (
		cols      []string
		versioned = false
		hasPeriod = false
	)
	err := records(ctx, c, "SELECT column_name, data_type, generation_expression FROM information_schema.columns WHERE "+where+" ORDER BY ordinal_position",
		func(v []sql.RawBytes) error {
			name := ident(string(v[0]))
			cols = append(cols, name)
			// Two members of an ENUM may look alike (the empty string and the error value).
			if k := string(v[1]); k == "enum" || k == "set" {
				cols = append(cols, "CAST("+name+" AS UNSIGNED)")
			}
			if bytes.Equal(v[2], []byte("ROW START")) {
				hasPeriod = true
			}
			return nil
		})
	if err != nil {
		return "", err
	}
	err = records(ctx, c, "SELECT table_type FROM information_schema.tables WHERE "+where, func(v []sql.RawBytes) error {
		versioned = string(v[0]) == "SYSTEM VERSIONED"
		return nil
	})
	if err != nil {
		return "", err
	}
	from := " FROM " + ident(t.schema) + "." + ident(t.name)
	if versioned {
		from += " FOR SYSTEM_TIME ALL"
		if !hasPeriod {
			cols = append(cols, "row_start", "row_end")
		}
	}
	return "SELECT " + strings.Join(cols, ", ") + from, nil
}
