package cassandra

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Kinds of definitions, as DESCRIBE names them, in the order in which they are made.
const (
	kindKeyspace  = "keyspace"
	kindType      = "type"
	kindFunction  = "function"
	kindAggregate = "aggregate"
	kindTable     = "table"
	kindIndex     = "index"
	kindView      = "materialized_view"
)

// element is one definition. Statement makes it again, ids of tables and dropped columns included.
type element struct {
	Keyspace  string `json:"-"`
	Kind      string `json:"kind"`
	Name      string `json:"name"` // as a CQL identifier, quoted where needed; of functions with the types
	Statement string `json:"statement"`
	Table     string `json:"table,omitempty"` // of an index or view: the table it belongs to, unquoted
}

// plain is the name as it stands in directories and system tables.
func (e element) plain() string { return unquote(e.Name) }

func (e element) holdsData() bool { return e.Kind == kindTable || e.Kind == kindView }

func unquote(name string) string {
	if len(name) > 1 && name[0] == '"' {
		return strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
	}
	return name
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// schema is all definitions of user keyspaces, in the server's order.
type schema map[string][]element

func (s schema) keyspaces() []string {
	out := make([]string, 0, len(s))
	for k := range s {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// tables lists all that holds data, sorted.
func (s schema) tables() []tableName {
	var out []tableName
	for ks, list := range s {
		for _, e := range list {
			if e.holdsData() {
				out = append(out, tableName{ks, e.plain()})
			}
		}
	}
	slices.SortFunc(out, tableName.compare)
	return out
}

// find looks for a definition; nil when there is none.
func (s schema) find(keyspace, kind, name string) *element {
	list := s[keyspace]
	for i := range list {
		if list[i].Kind == kind && list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// table finds a table or view by its plain name.
func (s schema) table(t tableName) *element {
	list := s[t.keyspace]
	for i := range list {
		if list[i].holdsData() && list[i].plain() == t.table {
			return &list[i]
		}
	}
	return nil
}

// group is the base table and all its views: they are emptied and filled together.
func (s schema) group(t tableName) []tableName {
	base := t
	if e := s.table(t); e != nil && e.Kind == kindView {
		base.table = e.Table
	}
	out := []tableName{base}
	for _, e := range s[t.keyspace] {
		if e.Kind == kindView && e.Table == base.table {
			out = append(out, tableName{t.keyspace, e.plain()})
		}
	}
	return out
}

// tableName is a keyspace and a table or view, unquoted.
type tableName struct{ keyspace, table string }

func (t tableName) String() string { return t.keyspace + "/" + t.table }
func (t tableName) cql() string    { return quote(t.keyspace) + "." + quote(t.table) }
func (t tableName) compare(o tableName) int {
	return strings.Compare(t.String(), o.String())
}

func parseTable(s string) (tableName, error) {
	ks, t, ok := strings.Cut(s, "/")
	if !ok || ks == "" || t == "" || strings.ContainsAny(t, "/\x00") || ks == ".." || t == ".." || t == "." || ks == "." {
		return tableName{}, fmt.Errorf("%q names no table: %w: this backup was made by another version", s, plugins.ErrData)
	}
	return tableName{ks, t}, nil
}

// system says whether a keyspace is the server's or the product's own.
func system(keyspace string) bool {
	return keyspace == "system" || strings.HasPrefix(keyspace, "system_") || keyspace == ownKeyspace
}

// readSchema asks the server to describe everything. A change in the middle of
// the answer is noticed by the server, and asked again.
func (s *session) readSchema(ctx context.Context) (schema, error) {
	var err error
	for range 3 {
		var out schema
		if out, err = s.describe(ctx); err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, s.cfg.wrap(ctx, "describe the schema", err)
}

func (s *session) describe(ctx context.Context) (schema, error) {
	out := schema{}
	it := s.c.Query("DESCRIBE SCHEMA WITH INTERNALS").WithContext(ctx).Iter()
	var ks, kind, name, text string
	table := ""
	for it.Scan(&ks, &kind, &name, &text) {
		if ks = unquote(ks); system(ks) {
			continue
		}
		e := element{Keyspace: ks, Kind: kind, Name: name, Statement: text}
		switch kind {
		case kindTable:
			table = e.plain()
			e.Statement = inMilliseconds(text)
		case kindIndex, kindView: // they follow their table
			e.Table = table
		}
		out[ks] = append(out[ks], e)
	}
	return out, it.Close()
}

var dropped = regexp.MustCompile(`(?m)^(ALTER TABLE .* DROP .* USING TIMESTAMP -?\d+)\d{3};$`)

// inMilliseconds rounds down when columns were dropped. The server keeps these times in milliseconds: told in microseconds
// (DROP … USING TIMESTAMP), it describes them so until it is started anew, which is no change of the table.
func inMilliseconds(statement string) string { return dropped.ReplaceAllString(statement, "${1}000;") }

// schemaArtifact holds the definitions of one keyspace.
func schemaArtifact(keyspace string) string { return "schema/" + keyspace }

// writeSchema stores the definitions: keys are positions, because the order is the one to make them in.
func writeSchema(ctx context.Context, w plugins.ArtifactWriter, sc schema, pin string) (int, error) {
	for _, ks := range sc.keyspaces() {
		rows := make([]record, 0, len(sc[ks]))
		for i, e := range sc[ks] {
			v, err := json.Marshal(e)
			if err != nil {
				return 0, err
			}
			rows = append(rows, record{fmt.Appendf(nil, "%08d", i), v})
		}
		if err := writeRecords(ctx, w, plugins.Artifact{Name: schemaArtifact(ks), Form: plugins.Ordered, Pin: pin}, rows); err != nil {
			return 0, err
		}
	}
	return len(sc), nil
}

func loadSchema(ctx context.Context, r plugins.ArtifactReader) (schema, error) {
	out := schema{}
	for _, a := range r.Artifacts() {
		ks, ok := strings.CutPrefix(a.Name, "schema/")
		if !ok {
			continue
		}
		rows, err := readRecords(ctx, r, a.Name)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			e := element{Keyspace: ks}
			if err := json.Unmarshal(row.value, &e); err != nil {
				return nil, fmt.Errorf("artifact %q: %w: %w: this backup was made by another version", a.Name, plugins.ErrData, err)
			}
			out[ks] = append(out[ks], e)
		}
		if len(out[ks]) == 0 || out[ks][0].Kind != kindKeyspace || system(ks) {
			return nil, fmt.Errorf("artifact %q describes no user keyspace: %w", a.Name, plugins.ErrData)
		}
	}
	return out, nil
}
