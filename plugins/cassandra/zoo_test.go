package cassandra

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// still keeps the number of files as it is, so that a store can be told to die at the last one.
const still = ` compaction = {'class': 'SizeTieredCompactionStrategy', 'enabled': 'false'}`

// zoo is one keyspace with every kind of definition.
func zoo(rf int) []string {
	index, masked := "'org.apache.cassandra.index.sasi.SASIIndex'", ""
	var newer []string
	if five() {
		index, masked = "'sai'", " MASKED WITH DEFAULT"
		newer = []string{
			`CREATE TABLE zoo.vectors (id int PRIMARY KEY, v vector<float, 3>) WITH compaction = {'class': 'UnifiedCompactionStrategy', 'enabled': 'false'} AND compression = {'class': 'ZstdCompressor'}`,
			`CREATE CUSTOM INDEX vectors_v ON zoo.vectors (v) USING 'sai'`,
		}
	}
	return identified(append([]string{
		fmt.Sprintf(`CREATE KEYSPACE zoo WITH replication = {'class': 'SimpleStrategy', 'replication_factor': %d}`, rf),
		`CREATE TYPE zoo.addr (street text, zip int)`,
		`CREATE TYPE zoo."Home" (a frozen<addr>, tags set<text>)`,
		`CREATE FUNCTION zoo.avgstate (state tuple<int,bigint>, val int) CALLED ON NULL INPUT RETURNS tuple<int,bigint> LANGUAGE java AS $$ if (val != null) { state.setInt(0, state.getInt(0)+1); state.setLong(1, state.getLong(1)+val.intValue()); } return state; $$`,
		`CREATE FUNCTION zoo.avgfinal (state tuple<int,bigint>) CALLED ON NULL INPUT RETURNS double LANGUAGE java AS $$ return Double.valueOf(state.getLong(1)); $$`,
		`CREATE AGGREGATE zoo.average (int) SFUNC avgstate STYPE tuple<int,bigint> FINALFUNC avgfinal INITCOND (0,0)`,
		`CREATE TABLE zoo.base (id int PRIMARY KEY, cat text, email text, m map<text,int>, l list<int>, s set<text>, t tuple<int,text>, a addr, h frozen<"Home">, d duration) WITH` + still,
		`CREATE INDEX base_cat ON zoo.base (cat)`,
		`CREATE CUSTOM INDEX base_email ON zoo.base (email) USING ` + index,
		`CREATE MATERIALIZED VIEW zoo.by_cat AS SELECT id, cat, email FROM zoo.base WHERE cat IS NOT NULL AND id IS NOT NULL PRIMARY KEY (cat, id) WITH` + still,
		`CREATE TABLE zoo."Rows" (id int, "Ck" text, st text static, v text, secret text` + masked + `, PRIMARY KEY (id, "Ck")) WITH CLUSTERING ORDER BY ("Ck" DESC) AND comment = 'it''s; odd' AND` + still,
		`CREATE TABLE zoo.hits (id int PRIMARY KEY, c counter) WITH` + still,
		`CREATE TABLE zoo.changed (id int PRIMARY KEY, x int, y text) WITH` + still,
		`INSERT INTO zoo.changed (id, x, y) VALUES (1, 1, 'old') USING TIMESTAMP 1600000000000000`,
		`ALTER TABLE zoo.changed DROP y USING TIMESTAMP 1600000000001000`,
		`ALTER TABLE zoo.changed ADD y text`,
		`ALTER TABLE zoo.changed DROP x USING TIMESTAMP 1600000000002000`,
		`CREATE TABLE zoo.empty (id int PRIMARY KEY) WITH cdc = true`,
	}, newer...))
}

// identified gives every table and view an id that is the same on every cluster: what a test has to bring back to its
// definition then is only what it has changed.
func identified(list []string) []string {
	for i, q := range list {
		if strings.HasPrefix(q, "CREATE TABLE ") || strings.HasPrefix(q, "CREATE MATERIALIZED VIEW ") {
			word := " AND "
			if !strings.Contains(q, " WITH ") {
				word = " WITH "
			}
			list[i] = q + fmt.Sprintf("%sID = 5a3c0000-1f2e-11ee-8c99-0242ac1200%02x", word, i)
		}
	}
	return list
}

func roles() []string {
	return []string{
		`CREATE ROLE "App Role" WITH PASSWORD = 'app-secret' AND LOGIN = true`,
		`CREATE ROLE readers WITH LOGIN = false`,
		`GRANT readers TO "App Role"`,
		`GRANT SELECT ON KEYSPACE zoo TO readers`,
		`GRANT MODIFY ON TABLE zoo.base TO "App Role"`,
		`GRANT EXECUTE ON FUNCTION zoo.avgstate(tuple<int,bigint>, int) TO readers`,
	}
}

// wipe drops user keyspaces and roles.
func (b *bench) wipe(t testing.TB, on plugins.Target) {
	t.Helper()
	c := b.client(t, on, 0)
	defer c.Close()
	it := c.Query("SELECT keyspace_name FROM system_schema.keyspaces").Iter()
	var n string
	var drop []string
	for it.Scan(&n) {
		if !strings.HasPrefix(n, "system") && n != "cso_backup" {
			drop = append(drop, fmt.Sprintf("DROP KEYSPACE %q", n))
		}
	}
	must(t, it.Close())
	it = c.Query("SELECT role FROM system_auth.roles").Iter()
	for it.Scan(&n) {
		if n != "cso_backup" && n != "lab_admin" {
			drop = append(drop, fmt.Sprintf("DROP ROLE %q", n))
		}
	}
	must(t, it.Close())
	for _, q := range drop {
		if err := c.Query(q).Exec(); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func (b *bench) fill(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	c := b.client(t, on, 0)
	defer c.Close()
	if b.filled == nil {
		b.filled = map[string]string{}
	}
	if now := definitions(seenBy(t, c, 0)); now == b.filled[on.Instance] { // what takes long is as it should be
		for _, q := range zoo(1) {
			if name, ok := strings.CutPrefix(q, "CREATE TABLE "); ok {
				must(t, c.Query("TRUNCATE "+strings.Fields(name)[0]).Exec())
			}
		}
		must(t, c.Query(`INSERT INTO zoo.changed (id) VALUES (1)`).Exec())
	} else {
		b.wipe(t, on)
		b.cql(t, on, append(zoo(len(on.Members)), roles()...)...)
		b.filled[on.Instance] = definitions(seenBy(t, c, 0))
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 7))
	for i := range 60 {
		at := 1_700_000_000_000_000 + int64(i)*1000 + seed
		for _, q := range rowOf(rng, i, at) {
			if err := c.Query(q).Consistency(gocql.All).Exec(); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	b.settle(t, on)
}

// definitions are the lines of a fingerprint that tell of schema and accounts.
func definitions(lines []string) string {
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "row ") || strings.HasPrefix(l, "time ") })
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// rowOf are statements about one row, in every kind of cell.
func rowOf(rng *rand.Rand, i int, at int64) []string {
	n := rng.IntN(1000)
	out := []string{
		fmt.Sprintf(`INSERT INTO zoo.base (id, cat, email, m, l, s, t, a, h, d) VALUES (%d, 'c%d', 'e%d@x', {'a': %d, 'b': 2}, [%d, 2, 3], {'x', 'y%d'}, (%d, 'tup'), {street: 's%d', zip: %d}, {a: {street: 'h', zip: 1}, tags: {'t'}}, 1h%dm) USING TIMESTAMP %d`, i, n%5, n, n, n, n, n, n, n, n%60, at),
		fmt.Sprintf(`INSERT INTO zoo."Rows" (id, "Ck", st, v, secret) VALUES (%d, 'k%d', 'static %d', 'v%d', 'hidden') USING TIMESTAMP %d`, i%7, i, n, n, at),
		fmt.Sprintf(`UPDATE zoo.hits SET c = c + %d WHERE id = %d`, n, i%9),
		fmt.Sprintf(`INSERT INTO zoo.changed (id, y) VALUES (%d, 'y%d') USING TIMESTAMP %d`, i, n, at),
	}
	if five() {
		out = append(out, fmt.Sprintf(`INSERT INTO zoo.vectors (id, v) VALUES (%d, [%d, 1, 0.5]) USING TIMESTAMP %d`, i, n, at))
	}
	switch i % 6 {
	case 0:
		out = append(out, fmt.Sprintf(`UPDATE zoo.base USING TIMESTAMP %d AND TTL 86400 SET m = m + {'ttl': 1}, l = l + [9], email = 'short@x' WHERE id = %d`, at+1, i))
	case 1:
		out = append(out, fmt.Sprintf(`DELETE m['a'], s FROM zoo.base USING TIMESTAMP %d WHERE id = %d`, at+1, i))
	case 2:
		out = append(out, fmt.Sprintf(`DELETE FROM zoo."Rows" USING TIMESTAMP %d WHERE id = %d AND "Ck" < 'k1'`, at+1, i%7))
	case 3:
		out = append(out, fmt.Sprintf(`DELETE FROM zoo.base USING TIMESTAMP %d WHERE id = %d`, at+1, i))
	case 4:
		out = append(out, fmt.Sprintf(`UPDATE zoo.base USING TIMESTAMP %d SET cat = 'moved', a.zip = null WHERE id = %d`, at+1, i))
	}
	return out
}

// wreck changes data in every table, and definitions in a way that the seed chooses.
func (b *bench) wreck(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	c := b.client(t, on, 0)
	defer c.Close()
	rng := rand.New(rand.NewPCG(uint64(seed), 8))
	list := []string{
		fmt.Sprintf(`INSERT INTO zoo.base (id, cat) VALUES (%d, 'wrecked')`, 1000+rng.IntN(1000)),
		fmt.Sprintf(`DELETE FROM zoo.base WHERE id = %d`, rng.IntN(60)),
		`UPDATE zoo."Rows" SET v = 'wrecked' WHERE id = 1 AND "Ck" = 'k1'`,
		fmt.Sprintf(`UPDATE zoo.hits SET c = c + 1 WHERE id = %d`, rng.IntN(9)),
		`INSERT INTO zoo.empty (id) VALUES (1)`,
		fmt.Sprintf(`CREATE ROLE IF NOT EXISTS "late%d" WITH PASSWORD = 'x' AND LOGIN = true`, seed%3),
		`REVOKE SELECT ON KEYSPACE zoo FROM readers`,
	}
	if seed%4 == 1 {
		list = append(list, `DROP ROLE IF EXISTS "App Role"`)
	}
	switch seed % 6 {
	case 0:
		list = append(list, `DROP TABLE IF EXISTS zoo.changed`)
	case 1:
		list = append(list, `CREATE KEYSPACE IF NOT EXISTS late WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`,
			`CREATE TABLE IF NOT EXISTS late.t (id int PRIMARY KEY)`, `GRANT SELECT ON KEYSPACE late TO readers`)
	case 2:
		list = append(list, `CREATE TABLE IF NOT EXISTS zoo.late (id int PRIMARY KEY)`, `CREATE TYPE IF NOT EXISTS zoo.late_type (a int)`)
	case 3:
		list = append(list, `DROP MATERIALIZED VIEW IF EXISTS zoo.by_cat`, `DROP INDEX IF EXISTS zoo.base_cat`)
	case 4:
		list = append(list, `DROP AGGREGATE IF EXISTS zoo.average`, `ALTER TABLE zoo."Rows" WITH comment = 'changed'`)
	}
	for _, q := range list {
		if err := c.Query(q).Exec(); err != nil && !strings.Contains(err.Error(), "doesn't exist") && !strings.Contains(err.Error(), "does not exist") {
			t.Fatalf("%s: %v", q, err)
		}
	}
	b.settle(t, on)
}

// settle waits until nothing is on its way between the nodes: the rows of a view follow those of its table by
// themselves, in batches that are kept until they have arrived.
func (b *bench) settle(t testing.TB, on plugins.Target) {
	t.Helper()
	for n := range on.Members {
		c := b.client(t, on, n)
		for quiet, deadline := 0, time.Now().Add(time.Minute); quiet < 2; {
			var batches, busy, active, pending int
			must(t, c.Query("SELECT count(*) FROM system.batches").Scan(&batches))
			it := c.Query("SELECT active_tasks, pending_tasks FROM system_views.thread_pools WHERE name IN ('MutationStage', 'ViewMutationStage', 'CounterMutationStage')").Iter()
			for it.Scan(&active, &pending) {
				busy += active + pending
			}
			must(t, it.Close())
			if quiet++; batches+busy > 0 {
				quiet = 0
				time.Sleep(20 * time.Millisecond)
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d batches and %d writes are still on their way", on.Members[n].Name, batches, busy)
			}
		}
		c.Close()
	}
}

// fingerprint is everything a client can see, of all nodes, as lines.
func (b *bench) fingerprint(t testing.TB, on plugins.Target) string {
	t.Helper()
	var lines []string
	for n := range on.Members {
		c := b.client(t, on, n)
		lines = append(lines, seenBy(t, c, n)...)
		c.Close()
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func seenBy(t testing.TB, c *gocql.Session, n int) []string {
	t.Helper()
	var lines []string
	rows := func(q string) (out []map[string]any) {
		it := c.Query(q).Consistency(gocql.One).Iter()
		m := map[string]any{}
		for it.MapScan(m) {
			out = append(out, m)
			m = map[string]any{}
		}
		if err := it.Close(); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		return out
	}
	var tables [][2]string
	for _, r := range rows("DESCRIBE SCHEMA WITH INTERNALS") {
		ks, kind, name := r["keyspace_name"].(string), r["type"].(string), r["name"].(string)
		if ks == "cso_backup" {
			continue
		}
		lines = append(lines, fmt.Sprintf("schema %s %s %s", ks, name, r["create_statement"]))
		if kind == "table" || kind == "materialized_view" {
			tables = append(tables, [2]string{ks, name})
		}
	}
	for _, tb := range tables {
		times := ""
		for _, r := range rows(fmt.Sprintf("SELECT column_name, kind, type FROM system_schema.columns WHERE keyspace_name = '%s' AND table_name = '%s'", tb[0], strings.Trim(tb[1], `"`))) {
			k, typ := r["kind"].(string), r["type"].(string)
			cells := typ == "addr" || strings.HasPrefix(typ, "map<") || strings.HasPrefix(typ, "set<") || strings.HasPrefix(typ, "list<") // before 5.0 they do not tell their times
			if (k == "regular" || k == "static") && typ != "counter" && (five() || !cells) {
				times += fmt.Sprintf(", WRITETIME(%q)", r["column_name"])
			}
		}
		for _, r := range rows(fmt.Sprintf("SELECT JSON * FROM %s.%s", tb[0], tb[1])) {
			lines = append(lines, fmt.Sprintf("row %d %s %v", n, tb, r["[json]"]))
		}
		key := "id"
		if times != "" {
			for _, r := range rows(fmt.Sprintf("SELECT %s%s FROM %s.%s", key, times, tb[0], tb[1])) {
				lines = append(lines, fmt.Sprintf("time %d %s %v", n, tb, r))
			}
		}
	}
	for _, r := range rows("SELECT role, can_login, is_superuser, member_of, salted_hash FROM system_auth.roles") {
		lines = append(lines, fmt.Sprintf("role %v", r))
	}
	for _, r := range rows("SELECT role, resource, permissions FROM system_auth.role_permissions") {
		if res := r["resource"].(string); !strings.HasPrefix(res, "data/cso_backup") && !strings.HasPrefix(res, "functions/cso_backup") {
			lines = append(lines, fmt.Sprintf("permissions %v", r))
		}
	}
	return lines
}

// position counts the writes to user tables on the first node.
func (b *bench) position(t testing.TB, on plugins.Target) string {
	c := b.client(t, on, 0)
	defer c.Close()
	it := c.Query("SELECT keyspace_name, table_name, count FROM system_views.local_write_latency").Iter()
	var ks, tb string
	var n int64
	var lines []string
	for it.Scan(&ks, &tb, &n) {
		if ks == "zoo" || ks == "system_auth" || ks == "late" {
			lines = append(lines, fmt.Sprint(ks, tb, n))
		}
	}
	must(t, it.Close())
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// writer counts up in two tables; what it has written to the first it writes to the second.
func (b *bench) writer(t testing.TB, on plugins.Target) func() {
	c := b.client(t, on, 0)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for n := 1; ctx.Err() == nil; n++ {
			_ = c.Query(fmt.Sprintf(`BEGIN BATCH INSERT INTO zoo.base (id, email) VALUES (5001, '%d') INSERT INTO zoo.base (id, email) VALUES (5001, '%d') APPLY BATCH`, n, n)).WithContext(ctx).Exec()
			_ = c.Query(`INSERT INTO zoo.changed (id, y) VALUES (?, 'w')`, 5000+n%100).WithContext(ctx).Exec()
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return func() {
		cancel()
		wg.Wait()
		c.Close()
	}
}

// invariant: what the writer writes in one batch to one partition is seen whole.
func (b *bench) invariant(t testing.TB, on plugins.Target) {
	c := b.client(t, on, 0)
	defer c.Close()
	var n int
	must(t, c.Query("SELECT count(*) FROM zoo.base WHERE id = 5001").Scan(&n))
	if n != 1 {
		t.Errorf("%d rows of the writer, want 1", n)
	}
}

// tryWrite writes as an ordinary role would.
func (b *bench) tryWrite(t testing.TB) func(on plugins.Target) error {
	return func(on plugins.Target) error {
		ctx := context.Background()
		cfg, err := newConfig(on)
		if err != nil {
			return err
		}
		c, err := cfg.connect(ctx, on.Members[len(on.Members)-1])
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Query(`INSERT INTO zoo.empty (id) VALUES (77)`).Consistency(gocql.One).Exec()
	}
}
