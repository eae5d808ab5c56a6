package mariadb

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/go-sql-driver/mysql"
)

//go:embed wreck/objects.sql
var wreckScript string

// notPassedOver are answers that no state of the data explains: syntax, access,
// lock wait and deadlock. Other errors of a statement mean that its object is
// gone, there already or changed, because an earlier wreck came first.
var notPassedOver = []uint16{1044, 1045, 1064, 1142, 1205, 1213, 1227}

// Wreck damages what Fill made at every level, then picks random tables of
// what is left and changes, deletes and duplicates rows, truncates and drops.
// The root account is left alone. Not every statement applies to every state:
// what an earlier wreck did already is passed over.
func (server) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	m, db, err := first(members)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := session(ctx, db, "SET lock_wait_timeout=30")
	if err != nil {
		return fmt.Errorf("mariadb %s: wreck: %w", m.Name, err)
	}
	defer c.Close()
	if _, err := wreckObjects(ctx, c, seed); err != nil {
		return fmt.Errorf("mariadb %s: wreck: %w", m.Name, err)
	}
	if err := wreckRandom(ctx, c, seed); err != nil {
		return fmt.Errorf("mariadb %s: wreck: %w", m.Name, err)
	}
	return nil
}

// wreckObjects runs the fixed part and returns the statements it passed over;
// on what Fill made there are none.
func wreckObjects(ctx context.Context, c *sql.Conn, seed int64) (passed []string, err error) {
	for _, stmt := range wreckStatements(seed) {
		_, err := c.ExecContext(ctx, stmt)
		var answer *mysql.MySQLError
		switch {
		case err == nil:
		case errors.As(err, &answer) && !slices.Contains(notPassedOver, answer.Number):
			passed = append(passed, stmt+": "+answer.Message)
		default:
			return passed, fmt.Errorf("%s: %w", stmt, err)
		}
	}
	return passed, nil
}

func wreckStatements(seed int64) []string {
	var out []string
	var stmt strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(wreckScript, "{SEED}", fmt.Sprint(seed))) {
		if strings.HasPrefix(line, "--") {
			continue
		}
		text, end := strings.CutSuffix(strings.TrimRight(line, "\n"), ";;")
		stmt.WriteString(text)
		if !end {
			stmt.WriteString("\n")
			continue
		}
		out = append(out, stmt.String())
		stmt.Reset()
	}
	return out
}

// randomTables is how many tables the seeded part touches.
const randomTables = 40

func wreckRandom(ctx context.Context, c *sql.Conn, seed int64) error {
	tables, err := objects(ctx, c, `SELECT table_schema, table_name, engine FROM information_schema.tables WHERE table_type='BASE TABLE'
 AND engine IN ('InnoDB','MyISAM','Aria','MEMORY') AND `+userSchemas("table_schema")+" ORDER BY 1, 2")
	if err != nil {
		return err
	}
	r := rng(seed, 4)
	r.Shuffle(len(tables), func(i, j int) { tables[i], tables[j] = tables[j], tables[i] })
	for _, t := range tables[:min(randomTables, len(tables))] {
		if err := wreckTable(ctx, c, r, t); err != nil {
			return err
		}
	}
	return nil
}

// wreckTable damages one table in one of several ways. A row is found by its
// place in the table's own order, since not every table has a key.
func wreckTable(ctx context.Context, c *sql.Conn, r *rand.Rand, t object) error {
	cols, err := objects(ctx, c, fmt.Sprintf(`SELECT column_name, data_type, extra FROM information_schema.columns WHERE table_schema=%s AND table_name=%s
 AND is_generated='NEVER' ORDER BY ordinal_position`, literal(t.schema), literal(t.name)))
	if err != nil {
		return err
	}
	var stmt string
	switch r.IntN(6) {
	case 0:
		stmt = "DELETE FROM " + t.String() + " LIMIT 1"
	case 1:
		stmt = "TRUNCATE TABLE " + t.String()
	case 2:
		stmt = "DROP TABLE " + t.String()
	case 3:
		stmt = "ALTER TABLE " + t.String() + " ADD COLUMN " + ident(fmt.Sprintf("wreck %d", r.IntN(1000))) + " INT DEFAULT 3, COMMENT='wrecked'"
	case 4:
		stmt = "INSERT IGNORE INTO " + t.String() + " SELECT * FROM " + t.String() + " LIMIT 1"
	default:
		col := cols[r.IntN(len(cols))]
		stmt = fmt.Sprintf("UPDATE IGNORE %s SET %s=%s LIMIT %d", t, ident(col.schema), damaged(r, col), 1+r.IntN(3))
	}
	// A cycle of foreign keys, a period or a full key may forbid it: try the next table.
	if _, err := c.ExecContext(ctx, stmt); err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: %w", stmt, err)
	}
	return nil
}

// damaged is a new value for a column (its name in schema, its type in name).
// A numbered column gets one below its counter: of an UPDATE above it MariaDB
// 10.11 remembers the next number as the last, so that the counter is one
// higher after the server's death than before.
func damaged(r *rand.Rand, col object) string {
	if strings.Contains(col.extra, "auto_increment") {
		return fmt.Sprint(-r.IntN(100))
	}
	switch col.name {
	case "float", "double":
		return fmt.Sprintf("%s * (1 + %de-7) + 1e-40", ident(col.schema), 1+r.IntN(9))
	case "int", "bigint", "smallint", "tinyint", "mediumint", "decimal", "bit", "year":
		return fmt.Sprint(r.IntN(100))
	case "date", "datetime", "timestamp":
		return fmt.Sprintf("'20%02d-02-01'", 10+r.IntN(20))
	default:
		return literal(fmt.Sprintf("{\"wrecked\": %d}", r.IntN(1000)))
	}
}
