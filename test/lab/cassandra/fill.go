package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// writers is how many statements are under way at once.
const writers = 16

// writtenAt is the write time of a fill's first cell, in microseconds: every
// cell is written with a time of its own, so that equal seeds give equal content.
const writtenAt = 1_700_000_000_000_000 // 2023-11-14

// expiresAt is when a fill's cells with a time to live expire, in seconds: in
// the middle of the ten seconds that the fingerprint counts in, see there.
const expiresAt = 2_082_758_405 // 2036-01-01

// Fill replaces all keyspaces, roles and grants that are not the server's, the
// lab's or the product's own.
func (e *Engine) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	c, err := Client(ctx, members[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if err := AwaitRing(ctx, members); err != nil { // TRUNCATE needs every node
		return err
	}
	d, err := define(ctx, members[0])
	if err != nil {
		return err
	}
	defer d.c.Close()
	if err := e.define(ctx, d, members); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0xca55))
	// One after the other: the order of a list's elements is that of their arrival, and
	// a vector's index takes no more writers than the machine has cores.
	// The server loses increments of a static counter that come through two rows at once.
	rows, counts := generated(r)
	if err := execAll(ctx, c, 1, slices.Concat(awkward(), e.awkward5(), counts)); err != nil {
		return err
	}
	if err := execAll(ctx, c, writers, rows); err != nil {
		return err
	}
	if err := bulk(ctx, c, r, size); err != nil {
		return err
	}
	if err := e.accounts(ctx, c, r); err != nil {
		return err
	}
	return tidy(members)
}

// define brings every keyspace to its definition. Making one takes seconds, so
// one whose definition is still that of the last fill is emptied instead.
func (e *Engine) define(ctx context.Context, d *definer, members []engine.Member) error {
	now, err := definitions(ctx, d.c)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, k := range e.keyspaces(len(members)) {
		wanted[k.name] = true
		file := filepath.Join(members[0].Dir, "fill."+k.name)
		last, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the last fill's definitions: %w", err)
		}
		if len(now[k.name]) > 0 && strings.Join(now[k.name], "\n") == string(last) {
			if err := d.agreed(ctx); err != nil {
				return err
			}
			if err := truncate(ctx, d.c, k.name); err != nil {
				return err
			}
			continue
		}
		if err := drop(ctx, d, k.name); err != nil {
			return err
		}
		for _, s := range k.statements {
			if err := d.exec(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		made, err := definitions(ctx, d.c)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(strings.Join(made[k.name], "\n")), 0o600); err != nil {
			return fmt.Errorf("remember the definitions: %w", err)
		}
	}
	for name := range now {
		if !wanted[name] {
			if err := drop(ctx, d, name); err != nil {
				return err
			}
		}
	}
	return d.agreed(ctx)
}

func drop(ctx context.Context, d *definer, keyspace string) error {
	if err := d.exec(ctx, `DROP KEYSPACE IF EXISTS `+name(keyspace)); err != nil {
		return fmt.Errorf("drop the keyspace %s: %w", keyspace, err)
	}
	return nil
}

// truncate empties every table of a keyspace; views go with their tables.
func truncate(ctx context.Context, c *gocql.Session, keyspace string) error {
	tables, err := column(ctx, c, "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", keyspace)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, t := range tables {
		g.Go(func() error {
			if err := c.Query(`TRUNCATE ` + name(keyspace) + "." + name(t)).WithContext(ctx).Exec(); err != nil {
				return fmt.Errorf("empty the table %s.%s: %w", keyspace, t, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// column collects one text column.
func column(ctx context.Context, c *gocql.Session, query string, args ...any) ([]string, error) {
	iter := c.Query(query, args...).WithContext(ctx).Iter()
	var all []string
	for s := ""; iter.Scan(&s); {
		all = append(all, s)
	}
	if err := iter.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return all, nil
}

// tidy removes the snapshots that the server takes of what is truncated or
// dropped: one fill after the other would fill the disk with them. Those of
// anybody else stay.
func tidy(members []engine.Member) error {
	for _, m := range members {
		for _, word := range []string{"truncated-*", "dropped-*"} {
			found, err := filepath.Glob(filepath.Join(m.Options["data_dir"], "*", "*", "snapshots", word))
			if err != nil {
				return err
			}
			for _, d := range found {
				if err := os.RemoveAll(d); err != nil {
					return fmt.Errorf("remove the snapshots of an earlier fill: %w", err)
				}
			}
		}
	}
	return nil
}

// name quotes an identifier.
func name(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// execAll runs statements, at most limit at once.
func execAll(ctx context.Context, c *gocql.Session, limit int, statements []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for _, s := range statements {
		g.Go(func() error {
			if err := c.Query(dated(s)).Consistency(gocql.All).WithContext(ctx).Exec(); err != nil {
				return fmt.Errorf("%.300s: %w", s, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// until stands in a statement for the time to live of a cell that expires at an absolute second.
func until(at int64) string { return fmt.Sprintf("{until %d}", at) }

var untils = regexp.MustCompile(`\{until (\d+)\}`)

// dated puts in the times to live, in seconds from now: a statement may have waited long for its turn.
func dated(statement string) string {
	return untils.ReplaceAllStringFunc(statement, func(s string) string {
		at, err := strconv.ParseInt(untils.FindStringSubmatch(s)[1], 10, 64)
		if err != nil {
			return s // the server refuses it
		}
		return strconv.FormatInt(at-time.Now().Unix(), 10)
	})
}

// generated are rows and increments of counters that differ from seed to seed.
func generated(r *rand.Rand) (ss, counts []string) {
	at := int64(writtenAt + 1_000_000)
	add := func(format string, args ...any) {
		at += 1 + r.Int64N(1000)
		ss = append(ss, fmt.Sprintf(format, args...)+fmt.Sprintf(" USING TIMESTAMP %d", at))
	}
	sites := []string{"east", "west", "north", "münchen"}
	for i := range 120 {
		site := sites[r.IntN(len(sites))]
		add(`INSERT INTO cso_inventory.devices (id, site, email, port, labels, tags, frozen_tags, note) VALUES (%d, '%s', 'd%d@%s.example', %d, {'rack': 'r%d', 'role': '%s'}, {'t%d', 't%d'}, ['f%d'], 'note number %d about %s')`,
			i, site, i, site, r.IntN(3000), r.IntN(9), []string{"spine", "leaf"}[r.IntN(2)], r.IntN(5), r.IntN(5), r.IntN(4), i, site)
		add(`INSERT INTO cso_inventory.evolved (key, a, y, w) VALUES (%d, 'a%d', %d, %d)`, i, r.IntN(100), r.IntN(100), r.IntN(100))
		add(`INSERT INTO cso_inventory.options (k, v) VALUES (%d, '%x')`, i, r.Uint64())
		add(`INSERT INTO cso_single.rows (k, v) VALUES (%d, 'value %d')`, i, r.Uint32())
		add(`INSERT INTO cso_inventory.statics (a, b, c, d, v, "select") VALUES ('p%d', %d, %d, 'row', 'v%d', %d)`, i%7, i%3, i, r.IntN(1000), r.IntN(10))
	}
	for i := range 40 {
		add(`INSERT INTO cso_inventory.collections (id, l, s, m, fl, t) VALUES (%d, [%d, %d], {'x', 'y%d'}, {'a': %d, 'b': %d}, ['p', 'q'], (%d, 'tuple', [1, 2]))`, 100+i, r.IntN(9), r.IntN(9), i, r.IntN(99), r.IntN(99), i)
		// Expiry differs row by row, and cell by cell below.
		ss = append(ss, fmt.Sprintf(`INSERT INTO cso_inventory.expiring (k, a, b) VALUES (%d, 'a%d', 'b') USING TTL %s AND TIMESTAMP %d`, i, r.IntN(99), until(expiresAt+int64(i)*3600), at+int64(i)))
		for c := range 3 {
			// A counter's value is what was counted; it has no write time.
			for range 1 + r.IntN(2) {
				counts = append(counts, fmt.Sprintf(`UPDATE cso_inventory.counters SET hits = hits + %d, bytes = bytes - %d, total = total + 1 WHERE k = 'c%d' AND c = %d`, r.IntN(100), r.Int64N(1<<40), i, c))
			}
		}
	}
	return ss, counts
}

// bulk writes the rows that make the size: about 1.2 KB each.
func bulk(ctx context.Context, c *gocql.Session, r *rand.Rand, size string) error {
	partitions, rows := 10, 40
	if size == "large" {
		partitions, rows = 1000, 150
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for p := range partitions {
		seed := r.Uint64()
		g.Go(func() error {
			r := rand.New(rand.NewPCG(seed, 1)) // a partition's own, because partitions are written side by side
			raw, text := make([]byte, 600), make([]byte, 500)
			batch := c.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
			for i := range rows {
				for k := range raw {
					raw[k] = byte(r.Uint32())
				}
				for k := range text {
					text[k] = "abcdefgh "[r.IntN(9)]
				}
				batch.Query(`INSERT INTO cso_inventory.events (k, t, body, raw) VALUES (?, ?, ?, ?) USING TIMESTAMP ?`,
					fmt.Sprintf("site-%05d", p), int64(i), string(text), slices.Clone(raw), int64(writtenAt)+int64(p*rows+i))
				if batch.Size() == 30 || i == rows-1 {
					if err := c.ExecuteBatch(batch); err != nil {
						return fmt.Errorf("write events: %w", err)
					}
					batch = c.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
				}
			}
			id := gocql.UUID{byte(p), byte(p >> 8), 6: 0x40, 8: 0x80}
			if err := c.Query(`INSERT INTO cso_inventory.plain (k, v) VALUES (?, ?) USING TIMESTAMP ?`, id, raw, int64(writtenAt)+int64(p)).WithContext(ctx).Exec(); err != nil {
				return fmt.Errorf("write plain rows: %w", err)
			}
			for i := range 5 {
				if err := c.Query(`INSERT INTO cso_single.wide (k, c, v) VALUES (?, ?, ?) USING TIMESTAMP ?`, p, i, raw[:i], int64(writtenAt)+int64(p)).WithContext(ctx).Exec(); err != nil {
					return fmt.Errorf("write wide rows: %w", err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}
