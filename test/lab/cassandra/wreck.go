package cassandra

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Wreck changes, deletes and adds keyspaces, tables, columns, indexes, views,
// types, functions, rows, cells, counters, roles and grants. What an earlier
// run has destroyed is passed over.
func (e *Engine) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	d, err := define(ctx, members[0])
	if err != nil {
		return err
	}
	defer d.c.Close()
	if err := AwaitRing(ctx, members); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0xbad))
	for _, s := range append(wreckRows(r), e.wreckObjects(seed)...) {
		if err := d.exec(ctx, s); err != nil && !goneAlready(err) {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return d.agreed(ctx)
}

// goneAlready says whether the server refused because an object is missing or there already.
func goneAlready(err error) bool {
	var known gocql.RequestError
	if !errors.As(err, &known) {
		return false
	}
	switch known.Code() {
	case gocql.ErrCodeInvalid, gocql.ErrCodeAlreadyExists, gocql.ErrCodeConfig:
		return true
	}
	return false
}

// wreckRows changes, deletes and adds rows; times of writing are the server's own.
func wreckRows(r *rand.Rand) []string {
	ss := []string{
		`UPDATE cso_inventory.types SET m = 'wrecked', g = 0.0 WHERE id = 1`,
		`DELETE c FROM cso_inventory.types WHERE id = 4`,
		`DELETE FROM cso_inventory.types WHERE id = -1`,
		`UPDATE cso_inventory.types USING TIMESTAMP 4102444800000001 SET m = 'later still' WHERE id = -3`,
		`UPDATE cso_inventory.collections SET l = l + [99], m['new'] = 1, s = s - {'a'} WHERE id = 1`,
		`UPDATE cso_inventory.collections SET u.zip = 1 WHERE id = 3`,
		`UPDATE cso_inventory.statics SET shared = 'changed' WHERE a = 'only static' AND b = 1`,
		`DELETE FROM cso_inventory.statics WHERE a = 'deletions' AND b = 1`,
		`INSERT INTO cso_inventory.statics (a, b, c, d, v) VALUES ('added', 1, 1, 'x', 'y')`,
		`UPDATE cso_inventory.expiring USING TTL 500000 SET a = 'sooner' WHERE k = -1`,
		`UPDATE cso_inventory.expiring USING TTL 0 SET a = 'never' WHERE k = 3`,
		`DELETE FROM cso_inventory.counters WHERE k = 'c1'`,
		`UPDATE cso_inventory.evolved SET y = 1 WHERE key = -1`,
		`INSERT INTO "Mixed_Case"."Table" ("Key") VALUES ('added')`,
		`TRUNCATE cso_inventory.plain`,
	}
	for range 60 {
		id := r.IntN(120)
		ss = append(ss,
			fmt.Sprintf(`UPDATE cso_inventory.devices SET site = 'wrecked', port = %d WHERE id = %d`, r.IntN(3000), id),
			fmt.Sprintf(`DELETE FROM cso_inventory.devices WHERE id = %d`, r.IntN(120)),
			fmt.Sprintf(`INSERT INTO cso_inventory.devices (id, site) VALUES (%d, 'added')`, 1000+r.IntN(1000)),
			fmt.Sprintf(`UPDATE cso_inventory.counters SET hits = hits + 5, total = total + 1 WHERE k = 'c%d' AND c = 0`, 2+r.IntN(50)),
			fmt.Sprintf(`DELETE FROM cso_inventory.events WHERE k = 'site-%05d' AND t = %d`, r.IntN(10), r.IntN(40)),
			fmt.Sprintf(`INSERT INTO cso_single.rows (k, v) VALUES (%d, 'wrecked')`, r.IntN(300)))
	}
	return ss
}

// wreckObjects changes definitions and accounts, after the rows.
func (e *Engine) wreckObjects(seed int64) []string {
	ss := []string{
		`DROP INDEX IF EXISTS cso_inventory.devices_tags`,
		`CREATE INDEX IF NOT EXISTS devices_port ON cso_inventory.devices (port)`,
		`DROP MATERIALIZED VIEW IF EXISTS cso_inventory.devices_west`,
		`ALTER MATERIALIZED VIEW cso_inventory.devices_by_site WITH comment = 'wrecked'`,
		`ALTER TABLE cso_inventory.options WITH gc_grace_seconds = 5 AND comment = 'wrecked' AND cdc = false`,
		`ALTER TABLE cso_inventory.evolved DROP w`,
		`ALTER TABLE cso_inventory.evolved ADD another text`,
		`ALTER TYPE cso_inventory.address ADD country text`,
		`DROP AGGREGATE IF EXISTS cso_inventory.total(int)`,
		`CREATE OR REPLACE FUNCTION cso_inventory.plus_one(n int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return 42; $$`,
		`CREATE FUNCTION IF NOT EXISTS cso_inventory.later(n int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return 1; $$`,
		`CREATE TYPE IF NOT EXISTS cso_inventory.later (a int)`,
		`DROP TABLE IF EXISTS cso_single.wide`,
		`CREATE TABLE IF NOT EXISTS cso_single.wide (k int PRIMARY KEY, other text)`, // the same name, another table
		`INSERT INTO cso_single.wide (k, other) VALUES (1, 'another table')`,
		`DROP KEYSPACE IF EXISTS "Mixed_Case"`,
		`ALTER KEYSPACE cso_volatile WITH durable_writes = true`,
		fmt.Sprintf(`CREATE KEYSPACE IF NOT EXISTS added_%d WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`, seed),
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS added_%d.t (k int PRIMARY KEY, v text)`, seed),
		fmt.Sprintf(`INSERT INTO added_%d.t (k, v) VALUES (1, 'x')`, seed),
		`CREATE TABLE IF NOT EXISTS cso_inventory.added (k int PRIMARY KEY)`,
		`INSERT INTO cso_inventory.added (k) VALUES (1)`,
		`DROP ROLE IF EXISTS barred`,
		fmt.Sprintf(`CREATE ROLE IF NOT EXISTS added_%d WITH LOGIN = true AND PASSWORD = 'added'`, seed),
		fmt.Sprintf(`GRANT writers TO added_%d`, seed),
		fmt.Sprintf(`UPDATE system_auth.roles SET salted_hash = '%s' WHERE role = 'app' IF EXISTS`, hashes[3]),
		`ALTER ROLE "Quoted Role" WITH LOGIN = false`, // not ops: only a superuser may change one, and the product's role is none
		`REVOKE writers FROM app`,
		`REVOKE SELECT ON KEYSPACE cso_inventory FROM readers`,
		`GRANT DROP ON ALL KEYSPACES TO app`,
	}
	if !strings.HasPrefix(e.version, "4.") {
		ss = append(ss, `ALTER TABLE cso_inventory.masked ALTER mail DROP MASKED`, `ALTER TABLE cso_inventory.masked ALTER open MASKED WITH DEFAULT`,
			`DROP INDEX IF EXISTS cso_inventory.documents_size`, `DELETE FROM cso_inventory.documents WHERE id = 3`)
	}
	return ss
}
