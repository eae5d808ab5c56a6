package cassandra

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Fingerprint lists every keyspace, table, column, index, view, type, function,
// aggregate, mask and dropped column as the server's own tables define them;
// every row with its cells' bytes, write times and expiry; what the indexes
// find; roles with their hashes, memberships and grants.
//
// Expiry counts in steps of ten seconds, because the server keeps seconds and
// a time to live is relative. Not compared: identifiers of tables and the
// accounts of lab and product. A release before 5.0 shows no write times of
// collections. Every node must give the same rows, or there is no fingerprint.
func (e *Engine) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) error {
	if err := AwaitRing(ctx, members); err != nil { // one that has just come back is not yet known to the others
		return err
	}
	var lines []string
	for i, m := range members {
		own, err := nodeLines(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		if i > 0 && !slices.Equal(own, lines) {
			return fmt.Errorf("%s shows other content than %s (%s): the ring has diverged, or somebody writes", m.Name, members[0].Name, firstDifference(lines, own))
		}
		lines = own
	}
	for _, l := range lines {
		if _, err := io.WriteString(w, l+"\n"); err != nil {
			return fmt.Errorf("write the fingerprint: %w", err)
		}
	}
	return nil
}

func firstDifference(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%.200q, %.200q", a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, %d lines", len(a), len(b))
}

func nodeLines(ctx context.Context, m engine.Member) ([]string, error) {
	c, err := Client(ctx, m)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	byKeyspace, err := definitions(ctx, c)
	if err != nil {
		return nil, err
	}
	tables, err := describeTables(ctx, c)
	if err != nil {
		return nil, err
	}
	results := make([][]string, len(tables))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, t := range tables {
		g.Go(func() (err error) {
			results[i], err = rowLines(gctx, c, t)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	accounts, err := accountLines(ctx, c)
	if err != nil {
		return nil, err
	}
	found, err := probe(ctx, c, byKeyspace)
	if err != nil {
		return nil, err
	}
	lines := slices.Concat(accounts, found)
	for _, own := range byKeyspace {
		lines = append(lines, own...)
	}
	for _, own := range results {
		lines = append(lines, own...)
	}
	slices.Sort(lines)
	return lines, nil
}

// bookkeeping is the product's own keyspace: neither filled, wrecked nor compared.
const bookkeeping = "cso_backup"

// servers says whether a keyspace is the server's own, or the product's.
func servers(keyspace string) bool {
	return keyspace == "system" || strings.HasPrefix(keyspace, "system_") || keyspace == bookkeeping
}

// definitions gives the lines of every keyspace that is not the server's own.
func definitions(ctx context.Context, c *gocql.Session) (map[string][]string, error) {
	keyspaces, err := column(ctx, c, "SELECT keyspace_name FROM system_schema.keyspaces")
	if err != nil {
		return nil, err
	}
	masks, err := column(ctx, c, "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system_schema'")
	if err != nil {
		return nil, err
	}
	byKeyspace := map[string][]string{}
	for _, k := range keyspaces {
		if servers(k) {
			continue
		}
		for _, kind := range []string{"keyspaces", "tables", "columns", "dropped_columns", "indexes", "views", "types", "functions", "aggregates", "triggers", "column_masks"} {
			if !slices.Contains(masks, kind) {
				continue
			}
			rows, err := column(ctx, c, "SELECT JSON * FROM system_schema."+kind+" WHERE keyspace_name = ?", k)
			if err != nil {
				return nil, err
			}
			for _, row := range rows {
				line, err := definition(k, kind, row)
				if err != nil {
					return nil, err
				}
				byKeyspace[k] = append(byKeyspace[k], line)
			}
		}
		slices.Sort(byKeyspace[k])
	}
	return byKeyspace, nil
}

// definition makes a line of one row of the schema.
func definition(keyspace, kind, row string) (string, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(row), &fields); err != nil {
		return "", fmt.Errorf("decode a definition in system_schema.%s: %w", kind, err)
	}
	object := keyspace
	for _, key := range []string{"table_name", "view_name", "type_name", "function_name", "aggregate_name", "argument_types", "index_name", "trigger_name", "column_name"} {
		if v, ok := fields[key]; ok {
			object += "." + string(v)
		}
	}
	for _, own := range []string{"keyspace_name", "id", "base_table_id"} {
		delete(fields, own)
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&text, "%s=%s ", key, fields[key])
	}
	return strings.TrimSuffix(kind, "s") + "\t" + strconv.QuoteToASCII(object) + "\t" + strconv.QuoteToASCII(strings.TrimSpace(text.String())), nil
}

// table is what is needed to read all of one table or view.
type table struct {
	keyspace, name string
	columns        []tableColumn
}

type tableColumn struct {
	name, kind, typ string
	aged            bool // it has a write time and an expiry that can be asked for
}

// describeTables reads the columns of every table and view that is not the server's.
func describeTables(ctx context.Context, c *gocql.Session) ([]table, error) {
	modern, err := column(ctx, c, "SELECT release_version FROM system.local")
	if err != nil {
		return nil, err
	}
	collections := len(modern) == 1 && !strings.HasPrefix(modern[0], "4.")
	byName := map[[2]string]*table{}
	iter := c.Query("SELECT keyspace_name, table_name, column_name, kind, type FROM system_schema.columns").WithContext(ctx).Iter()
	var k, t string
	var col tableColumn
	for iter.Scan(&k, &t, &col.name, &col.kind, &col.typ) {
		if servers(k) {
			continue
		}
		key := [2]string{k, t}
		if byName[key] == nil {
			byName[key] = &table{keyspace: k, name: t}
		}
		isKey := col.kind == "partition_key" || col.kind == "clustering"
		simple := strings.HasPrefix(col.typ, "frozen<") || strings.HasPrefix(col.typ, "vector<") || !strings.ContainsAny(col.typ, "<") && native[col.typ]
		if strings.HasPrefix(col.typ, "tuple<") {
			simple = true // tuples are always frozen
		}
		col.aged = !isKey && col.typ != "counter" && (simple || collections)
		byName[key].columns = append(byName[key].columns, col)
	}
	if err := iter.Close(); err != nil {
		return nil, fmt.Errorf("read the tables' columns: %w", err)
	}
	var all []table
	for _, t := range byName {
		slices.SortFunc(t.columns, func(a, b tableColumn) int { return strings.Compare(a.name, b.name) })
		all = append(all, *t)
	}
	return all, nil
}

// native are the types without parts; any other name is a user's type.
var native = func() map[string]bool {
	m := map[string]bool{}
	for _, t := range strings.Fields("ascii bigint blob boolean date decimal double duration float inet int smallint text time timestamp timeuuid tinyint uuid varchar varint") {
		m[t] = true
	}
	return m
}()

// raw takes a value as it comes over the wire; nil is null.
type raw struct {
	bytes []byte
	null  bool
}

func (r *raw) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	r.null, r.bytes = data == nil, append(r.bytes[:0], data...)
	return nil
}

// cell is a value with its write time and its time to live; only a tuple has several parts.
type cell struct {
	parts        []raw
	written, ttl raw
}

func (c cell) null() bool {
	return !slices.ContainsFunc(c.parts, func(p raw) bool { return !p.null }) && c.written.null
}

// width is how many values the driver makes of one column.
func width(typ string) int {
	if !strings.HasPrefix(typ, "frozen<tuple<") && !strings.HasPrefix(typ, "tuple<") {
		return 1
	}
	depth, n := 0, 1
	outer := strings.Count(typ[:strings.Index(typ, "tuple<")], "<") + 1
	for _, r := range typ {
		switch {
		case r == '<':
			depth++
		case r == '>':
			depth--
		case r == ',' && depth == outer:
			n++
		}
	}
	return n
}

// rowLines reads a whole table: one line for each row.
func rowLines(ctx context.Context, c *gocql.Session, t table) ([]string, error) {
	query := "SELECT CAST(toUnixTimestamp(now()) AS text)"
	var columns []tableColumn // of the answer
	for _, col := range t.columns {
		query += ", " + name(col.name)
		columns = append(columns, col)
		if col.aged {
			query += ", WRITETIME(" + name(col.name) + "), TTL(" + name(col.name) + ")"
		}
	}
	// The driver takes tuples apart, and wants a place for each element.
	iter := c.Query(query + " FROM " + name(t.keyspace) + "." + name(t.name)).WithContext(ctx).Iter()
	var now string
	dest := []any{&now}
	values := make([]cell, len(columns))
	for i, col := range columns {
		values[i].parts = make([]raw, width(col.typ))
		for k := range values[i].parts {
			dest = append(dest, &values[i].parts[k])
		}
		if col.aged {
			dest = append(dest, &values[i].written, &values[i].ttl)
		}
	}
	var lines []string
	for iter.Scan(dest...) {
		ms, err := strconv.ParseInt(now, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the server's time: %w", err)
		}
		var key, body bytes.Buffer
		for i, col := range columns {
			v := values[i]
			if col.kind == "partition_key" || col.kind == "clustering" {
				for _, p := range v.parts {
					key.WriteString(shown(p) + " ")
				}
				continue
			}
			if v.null() {
				continue
			}
			fmt.Fprintf(&body, "%s=", col.name)
			for _, p := range v.parts {
				fmt.Fprintf(&body, "%t%x ", p.null, p.bytes)
			}
			if col.aged {
				fmt.Fprintf(&body, "at %x until %s", v.written.bytes, expiry(v.ttl, ms))
			}
			body.WriteString("\n")
		}
		sum := sha256.Sum256(body.Bytes())
		lines = append(lines, fmt.Sprintf("row\t%s.%s %s\t%s", strconv.QuoteToASCII(t.keyspace), strconv.QuoteToASCII(t.name), strings.TrimSpace(key.String()), hex.EncodeToString(sum[:16])))
	}
	if err := iter.Close(); err != nil {
		return nil, fmt.Errorf("read %s.%s: %w", t.keyspace, t.name, err)
	}
	return lines, nil
}

// shown is a key's part: text where it is readable.
func shown(r raw) string {
	if r.null {
		return "null"
	}
	if len(r.bytes) > 64 {
		sum := sha256.Sum256(r.bytes)
		return hex.EncodeToString(sum[:])
	}
	for _, b := range r.bytes {
		if b <= ' ' || b > '~' || b == '\\' {
			return "0x" + hex.EncodeToString(r.bytes)
		}
	}
	return strconv.Quote(string(r.bytes))
}

// expiry turns times to live, one or a list of them, into absolute steps of ten seconds.
func expiry(ttl raw, nowMillis int64) string {
	at := func(b []byte) string {
		if len(b) != 4 {
			return "never"
		}
		left := int64(int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])))
		return fmt.Sprint((nowMillis/1000 + left) / 10)
	}
	if len(ttl.bytes) <= 4 {
		return at(ttl.bytes)
	}
	// A list as protocol 4 writes it: the number of elements, then each behind its length, -1 for null.
	var all []string
	for b := ttl.bytes[4:]; len(b) >= 4; {
		n := int(int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])))
		b = b[4:]
		if n < 0 {
			all = append(all, "never")
			continue
		}
		if n > len(b) {
			return "broken"
		}
		all = append(all, at(b[:n]))
		b = b[n:]
	}
	return strings.Join(all, ",")
}

// accountLines are roles, memberships, grants and what else the server keeps about who may do what.
func accountLines(ctx context.Context, c *gocql.Session) ([]string, error) {
	tables, err := column(ctx, c, "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system_auth'")
	if err != nil {
		return nil, err
	}
	roles, err := column(ctx, c, "SELECT role FROM system_auth.roles")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, t := range []string{"roles", "role_members", "role_permissions", "network_permissions", "cidr_permissions", "cidr_groups", "identity_to_role"} {
		if !slices.Contains(tables, t) {
			continue
		}
		rows, err := column(ctx, c, "SELECT JSON * FROM system_auth."+t)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			fields := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(row), &fields); err != nil {
				return nil, fmt.Errorf("decode system_auth.%s: %w", t, err)
			}
			role := string(fields["role"])
			if role == strconv.Quote(Admin) || role == strconv.Quote(Backup) || string(fields["member"]) == strconv.Quote(Backup) {
				continue
			}
			// DROP ROLE leaves memberships of the dropped role behind; no statement shows them, and nothing grants by them.
			if member, ok := fields["member"]; ok && !slices.ContainsFunc(roles, func(r string) bool { return strconv.Quote(r) == string(member) }) {
				continue
			}
			object := role
			for _, key := range []string{"member", "resource", "cidr_group", "identity"} {
				if v, ok := fields[key]; ok {
					object += " " + string(v)
				}
			}
			lines = append(lines, strings.TrimSuffix(t, "s")+"\t"+strconv.QuoteToASCII(object)+"\t"+strconv.QuoteToASCII(row))
		}
	}
	return lines, nil
}

// probes ask through one index each, so that an index that is there but empty shows.
var probes = map[string]string{
	"devices_site":          `SELECT id FROM cso_inventory.devices WHERE site = 'west'`,
	"devices_label_keys":    `SELECT id FROM cso_inventory.devices WHERE labels CONTAINS KEY 'role'`,
	"devices_label_entries": `SELECT id FROM cso_inventory.devices WHERE labels['rack'] = 'r1'`,
	"devices_tags":          `SELECT id FROM cso_inventory.devices WHERE tags CONTAINS 't1'`,
	"devices_frozen":        `SELECT id FROM cso_inventory.devices WHERE frozen_tags = ['f1']`,
	"devices_note":          `SELECT id FROM cso_inventory.devices WHERE note LIKE '%west%'`,
	"documents_title":       `SELECT id FROM cso_inventory.documents WHERE title = 'titulo 3'`,
	"documents_size":        `SELECT id FROM cso_inventory.documents WHERE size > 2000 AND size < 4000`,
	"documents_meta":        `SELECT id FROM cso_inventory.documents WHERE meta['lang'] = 'de'`,
	nearest:                 `SELECT id FROM cso_inventory.documents ORDER BY v ANN OF [1.0, 0.2, -1.0] LIMIT 1000`,
}

// nearest is the index that finds neighbours approximately: of two nodes with equal rows one may not reach some of them.
// After a kill, when 5.0.9 fills the index again from its commit log with two writers, 7 of 60 were out of reach in one
// of 8 tries. What must be equal is that it finds most.
const nearest = "documents_v"

// probe runs the probes of those indexes that exist.
func probe(ctx context.Context, c *gocql.Session, byKeyspace map[string][]string) ([]string, error) {
	var lines []string
	for index, query := range probes {
		if !slices.ContainsFunc(byKeyspace[inventory], func(l string) bool {
			return strings.HasPrefix(l, "indexe\t") && strings.Contains(l, `\"`+index+`\"`)
		}) {
			continue
		}
		iter := c.Query(query).WithContext(ctx).Iter()
		var ids []int
		for id := 0; iter.Scan(&id); {
			ids = append(ids, id)
		}
		if err := iter.Close(); err != nil {
			return nil, fmt.Errorf("ask through the index %s: %w", index, err)
		}
		slices.Sort(ids)
		found := fmt.Sprint(ids)
		if index == nearest {
			var rows int
			if err := c.Query("SELECT count(v) FROM cso_inventory.documents").WithContext(ctx).Scan(&rows); err != nil {
				return nil, fmt.Errorf("count the rows of the index %s: %w", index, err)
			}
			if 2*len(ids) > rows {
				found = "most"
			}
		}
		lines = append(lines, fmt.Sprintf("found\t%s\t%s", index, found))
	}
	return lines, nil
}
