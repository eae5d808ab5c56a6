package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// rng gives the same numbers for the same seed on every machine and Go version.
func rng(seed int64, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(seed), stream))
}

const wideColumns = 300

// fillWide makes a table of many columns of alternating types.
func fillWide(ctx context.Context, db *sql.DB, seed int64, _ amounts) error {
	kinds := []string{"INT", "VARCHAR(10)", "DOUBLE", "TINYBLOB", "DATETIME(3)", "FLOAT", "BIT(3)", "DECIMAL(8,2)"}
	var def strings.Builder
	def.WriteString("CREATE TABLE torture.v_wide (id INT PRIMARY KEY")
	for i := range wideColumns {
		fmt.Fprintf(&def, ", c%03d %s", i, kinds[i%len(kinds)])
	}
	def.WriteString(")")
	if _, err := db.ExecContext(ctx, def.String()); err != nil {
		return fmt.Errorf("wide table: %w", err)
	}
	r := rng(seed, 1)
	for id := range 25 {
		args := []any{id}
		for i := range wideColumns {
			args = append(args, wideValue(r, i%len(kinds)))
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO torture.v_wide VALUES (?"+strings.Repeat(",?", wideColumns)+")", args...); err != nil {
			return fmt.Errorf("wide row: %w", err)
		}
	}
	return nil
}

func wideValue(r *rand.Rand, kind int) any {
	if r.IntN(9) == 0 {
		return nil
	}
	switch kind {
	case 0:
		return int32(r.Uint32())
	case 1:
		return fmt.Sprintf("%x", r.Uint32())
	case 2:
		return randomDouble(r)
	case 3:
		return randomBytes(r, r.IntN(20))
	case 4:
		return fmt.Sprintf("%04d-%02d-%02d 00:00:00.%03d", 1000+r.IntN(9000), 1+r.IntN(12), 1+r.IntN(28), r.IntN(1000))
	case 5:
		return float64(randomFloat(r))
	case 6:
		return []byte{byte(r.IntN(8))}
	default:
		return fmt.Sprintf("%d.%02d", r.IntN(1_000_000)-500_000, r.IntN(100))
	}
}

// fillRandom adds random bit patterns, over the binary protocol, so that no
// text conversion rounds them on their way in.
func fillRandom(ctx context.Context, db *sql.DB, seed int64, _ amounts) error {
	ddl := `CREATE TABLE torture.v_random (k VARBINARY(40) PRIMARY KEY, f FLOAT, d DOUBLE, b BLOB, u CHAR(8) CHARACTER SET utf8mb4, n BIGINT UNSIGNED, t DATETIME(6))`
	if _, err := db.ExecContext(ctx, ddl); err != nil {
		return fmt.Errorf("random table: %w", err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("random rows: %w", err)
	}
	defer tx.Rollback()
	ins, err := tx.PrepareContext(ctx, "INSERT IGNORE INTO torture.v_random VALUES (?,?,?,?,?,?,?)")
	if err != nil {
		return fmt.Errorf("random rows: %w", err)
	}
	defer ins.Close()
	r := rng(seed, 2)
	for range 3000 {
		u := string([]rune{rune(0x1F600 + r.IntN(60)), rune(0x4E00 + r.IntN(20000)), rune('a' + r.IntN(26))})
		at := fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%02d.%06d", 1+r.IntN(9999), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1_000_000))
		if _, err := ins.ExecContext(ctx, randomBytes(r, r.IntN(41)), float64(randomFloat(r)), randomDouble(r), randomBytes(r, r.IntN(300)), u, r.Uint64(), at); err != nil {
			return fmt.Errorf("random rows: %w", err)
		}
	}
	return tx.Commit()
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomFloat is any finite float32, denormals included.
func randomFloat(r *rand.Rand) float32 {
	for {
		f := math.Float32frombits(r.Uint32())
		if f == f && !math.IsInf(float64(f), 0) {
			return f
		}
	}
}

func randomDouble(r *rand.Rand) float64 {
	for {
		f := math.Float64frombits(r.Uint64())
		if f == f && !math.IsInf(f, 0) {
			return f
		}
	}
}

// fillMany makes many tiny tables: the cost of a backup per table shows here.
func fillMany(ctx context.Context, db *sql.DB, seed int64, n amounts) error {
	c, err := session(ctx, db, "CREATE DATABASE many")
	if err != nil {
		return err
	}
	defer c.Close()
	r := rng(seed, 3)
	for i := range n.tables {
		for _, s := range []string{
			fmt.Sprintf("CREATE TABLE many.t%04d (id INT AUTO_INCREMENT PRIMARY KEY, v BIGINT, KEY (v))", i),
			fmt.Sprintf("INSERT INTO many.t%04d (v) VALUES (%d),(%d)", i, r.Int64(), r.Int64()),
		} {
			if _, err := c.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	return nil
}
