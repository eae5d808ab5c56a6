package cassandra

import (
	"fmt"
	"strings"
)

// The keyspaces of a fill.
const (
	inventory = "cso_inventory" // replicated to every node
	single    = "cso_single"    // one replica of each row
	camel     = "\"Mixed_Case\""
	volatile  = "cso_volatile" // without commit log; holds no rows, because a crash may lose them
)

// keyspace is a keyspace's statements in order: first its own, then what is in it.
type keyspace struct {
	name       string // as system_schema names it
	statements []string
}

// A column that was dropped keeps the time of its drop. It is given, so that
// equal fills have equal schemas; what was written before it is hidden for ever.
const droppedAt = 1_600_000_000_000_000 // 2020-09-13, in microseconds

// keyspaces are the definitions of a fill for this release and number of nodes.
func (e *Engine) keyspaces(nodes int) []keyspace {
	modern := !strings.HasPrefix(e.version, "4.")
	in := []string{
		fmt.Sprintf("CREATE KEYSPACE cso_inventory WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': %d}", nodes),
		`CREATE TYPE cso_inventory.address (street text, zip int, tags frozen<set<text>>)`,
		`CREATE TYPE cso_inventory.person (name text, home frozen<address>, phones frozen<map<text, text>>)`,
		`CREATE TYPE cso_inventory."Quoted Type" ("a field" int, other text)`,
		`CREATE FUNCTION cso_inventory.plus_one(n int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ if (n == null) return null; return n + 1; $$`,
		`CREATE FUNCTION cso_inventory.plus_one(n bigint) RETURNS NULL ON NULL INPUT RETURNS bigint LANGUAGE java AS 'return n + 1; /* a '' quote; and a semicolon */'`,
		`CREATE FUNCTION cso_inventory.sum_state(state bigint, val int) CALLED ON NULL INPUT RETURNS bigint LANGUAGE java AS $$ return val == null ? state : state + val; $$`,
		`CREATE FUNCTION cso_inventory.sum_final(state bigint) CALLED ON NULL INPUT RETURNS text LANGUAGE java AS $$ return "sum; " + state; $$`,
		`CREATE AGGREGATE cso_inventory.total(int) SFUNC sum_state STYPE bigint FINALFUNC sum_final INITCOND 0`,
		// Every native type.
		`CREATE TABLE cso_inventory.types (id int PRIMARY KEY, a ascii, b bigint, c blob, d boolean, e date, f decimal, g double, h duration, i float, j inet, k int, l smallint, m text, n time, o timestamp, p timeuuid, q tinyint, r uuid, s varint)`,
		`CREATE TABLE cso_inventory.collections (id int PRIMARY KEY, l list<int>, s set<text>, m map<text, int>, fl frozen<list<text>>, fm frozen<map<int, frozen<set<int>>>>, t tuple<int, text, frozen<list<int>>>, u address, fu frozen<person>, q frozen<"Quoted Type">, lu list<frozen<address>>)`,
		`CREATE TABLE cso_inventory.statics (a text, b int, c int, d text, shared text static, "Shared List" list<int> static, v text, "select" int, PRIMARY KEY ((a, b), c, d)) WITH CLUSTERING ORDER BY (c DESC, d ASC)`,
		`CREATE TABLE cso_inventory.counters (k text, c int, hits counter, bytes counter, total counter static, PRIMARY KEY (k, c))`,
		`CREATE TABLE cso_inventory.expiring (k int PRIMARY KEY, a text, b text, m map<text, text>) WITH default_time_to_live = 300000000`,
		`CREATE TABLE cso_inventory.devices (id int PRIMARY KEY, site text, email text, port int, labels map<text, text>, tags set<text>, frozen_tags frozen<list<text>>, note text)`,
		`CREATE INDEX devices_site ON cso_inventory.devices (site)`,
		`CREATE INDEX devices_label_keys ON cso_inventory.devices (keys(labels))`,
		`CREATE INDEX devices_label_entries ON cso_inventory.devices (entries(labels))`,
		`CREATE INDEX devices_tags ON cso_inventory.devices (values(tags))`,
		`CREATE INDEX devices_frozen ON cso_inventory.devices (full(frozen_tags))`,
		`CREATE CUSTOM INDEX devices_note ON cso_inventory.devices (note) USING 'org.apache.cassandra.index.sasi.SASIIndex' WITH OPTIONS = {'mode': 'CONTAINS', 'analyzer_class': 'org.apache.cassandra.index.sasi.analyzer.StandardAnalyzer', 'case_sensitive': 'false'}`,
		`CREATE MATERIALIZED VIEW cso_inventory.devices_by_site AS SELECT * FROM cso_inventory.devices WHERE site IS NOT NULL AND id IS NOT NULL PRIMARY KEY (site, id) WITH CLUSTERING ORDER BY (id DESC) AND comment = 'view; with '' quote'`,
		`CREATE MATERIALIZED VIEW cso_inventory.devices_west AS SELECT id, port, email FROM cso_inventory.devices WHERE port IS NOT NULL AND id >= 10 PRIMARY KEY (port, id)`,
		`CREATE TABLE cso_inventory.evolved (k int PRIMARY KEY, a text, y int, z text, w int)`,
		fmt.Sprintf(`ALTER TABLE cso_inventory.evolved DROP y USING TIMESTAMP %d`, droppedAt),
		fmt.Sprintf(`ALTER TABLE cso_inventory.evolved DROP z USING TIMESTAMP %d`, droppedAt+1),
		`ALTER TABLE cso_inventory.evolved ADD y int`, // came back: what was written before the drop stays hidden
		`ALTER TABLE cso_inventory.evolved RENAME k TO key`,
		`CREATE TABLE cso_inventory.options (k int PRIMARY KEY, v text) WITH comment = 'it''s; a "comment"' AND compaction = {'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': '20'} AND compression = {'class': 'ZstdCompressor', 'compression_level': '4', 'chunk_length_in_kb': '32'} AND gc_grace_seconds = 4711 AND bloom_filter_fp_chance = 0.2 AND caching = {'keys': 'NONE', 'rows_per_partition': '10'} AND cdc = true AND crc_check_chance = 0.5 AND max_index_interval = 512 AND memtable_flush_period_in_ms = 3600000 AND speculative_retry = '50p'`,
		`CREATE TABLE cso_inventory.events (k text, t bigint, body text, raw blob, PRIMARY KEY (k, t)) WITH CLUSTERING ORDER BY (t DESC) AND compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', 'compaction_window_size': '1'} AND compression = {'class': 'LZ4Compressor'}`,
		`CREATE TABLE cso_inventory.plain (k uuid PRIMARY KEY, v blob) WITH compression = {'enabled': 'false'}`,
		`CREATE TABLE cso_inventory.empty (k text PRIMARY KEY, v text)`,
	}
	if modern {
		in = append(in,
			`CREATE TABLE cso_inventory.documents (id int PRIMARY KEY, title text, size int, meta map<text, text>, v vector<float, 3>) WITH compaction = {'class': 'UnifiedCompactionStrategy', 'scaling_parameters': 'T4'}`,
			`CREATE INDEX documents_title ON cso_inventory.documents (title) USING 'sai' WITH OPTIONS = {'case_sensitive': 'false', 'normalize': 'true', 'ascii': 'true'}`,
			`CREATE CUSTOM INDEX documents_size ON cso_inventory.documents (size) USING 'StorageAttachedIndex'`,
			`CREATE CUSTOM INDEX documents_meta ON cso_inventory.documents (entries(meta)) USING 'StorageAttachedIndex'`,
			`CREATE CUSTOM INDEX documents_v ON cso_inventory.documents (v) USING 'StorageAttachedIndex' WITH OPTIONS = {'similarity_function': 'cosine'}`,
			`CREATE FUNCTION cso_inventory.hide(a text, prefix text) CALLED ON NULL INPUT RETURNS text LANGUAGE java AS $$ return prefix + "***"; $$`,
			`CREATE TABLE cso_inventory.masked (id int PRIMARY KEY, mail text MASKED WITH mask_inner(1, 2), pin int MASKED WITH DEFAULT, nick text MASKED WITH cso_inventory.hide('x;'), open text)`)
	}
	return []keyspace{
		{inventory, in},
		{single, []string{
			`CREATE KEYSPACE cso_single WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`,
			`CREATE TABLE cso_single.rows (k int PRIMARY KEY, v text)`,
			`CREATE TABLE cso_single.wide (k int, c int, v blob, PRIMARY KEY (k, c))`,
		}},
		{strings.Trim(camel, `"`), []string{
			fmt.Sprintf(`CREATE KEYSPACE "Mixed_Case" WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': %d}`, nodes),
			`CREATE TYPE "Mixed_Case"."Type" (a int)`,
			`CREATE TABLE "Mixed_Case"."Table" ("Key" text PRIMARY KEY, "Ünï ""cödé""" text, "from" frozen<"Type">)`,
			`CREATE INDEX "Index" ON "Mixed_Case"."Table" ("Ünï ""cödé""")`,
		}},
		{volatile, []string{
			`CREATE KEYSPACE cso_volatile WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND durable_writes = false`,
			`CREATE TABLE cso_volatile.cache (k text PRIMARY KEY, v text)`,
		}},
	}
}
