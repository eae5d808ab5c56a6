package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Kinds of objects, as they stand in the keys of the definitions artifact.
const (
	kindSchema   = "schema"
	kindTable    = "table"
	kindSequence = "sequence"
	kindView     = "view"
	kindTrigger  = "trigger"
	kindRoutine  = "routine"
	kindEvent    = "event"
	kindUDF      = "udf"
	kindPlugin   = "plugin"
)

// text is SQL as stored, which need not be UTF-8: routines keep the bytes of
// the client that made them. JSON shows it as a string when it is.
type text []byte

// MarshalJSON writes a string, or {"base64": …}.
func (t text) MarshalJSON() ([]byte, error) {
	if utf8.Valid(t) {
		return json.Marshal(string(t))
	}
	return json.Marshal(map[string][]byte{"base64": t})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *text) UnmarshalJSON(p []byte) error {
	var s string
	if json.Unmarshal(p, &s) == nil {
		*t = text(s)
		return nil
	}
	var m map[string][]byte
	err := json.Unmarshal(p, &m)
	*t = m["base64"]
	return err
}

// object is one definition.
type object struct {
	Kind   string `json:"-"`
	Schema string `json:"-"`
	Name   string `json:"-"`
	Type   string `json:"type,omitempty"`  // routine type, table engine
	Table  string `json:"table,omitempty"` // of a trigger
	Order  int    `json:"order,omitempty"` // of a trigger among those of its table
	DDL    text   `json:"ddl"`
	Auto   string `json:"autoIncrement,omitempty"`
	Next   string `json:"next,omitempty"`  // position of a sequence
	Round  string `json:"round,omitempty"` // how often a sequence has cycled

	// What the server keeps beside the text and applies when it runs.
	SQLMode    string `json:"sqlMode,omitempty"`
	Client     string `json:"characterSetClient,omitempty"`
	Connection string `json:"collationConnection,omitempty"`
	Database   string `json:"databaseCollation,omitempty"`
	TimeZone   string `json:"timeZone,omitempty"`
}

func (o *object) id() string {
	return strings.Join([]string{o.Kind, o.Schema, o.Name, o.sub()}, "\x00")
}

// sub tells apart what may share a name: a function and a procedure.
func (o *object) sub() string {
	if o.Kind == kindRoutine {
		return o.Type
	}
	return ""
}

// label names the object for people.
func (o *object) label() string {
	k := o.Kind
	if o.Kind == kindRoutine {
		k = strings.ToLower(o.Type)
	}
	if o.Kind == kindSchema || o.Kind == kindUDF || o.Kind == kindPlugin {
		return k + " " + o.Name
	}
	return k + " " + o.Schema + "." + o.Name
}

// catalog is every definition of a server, and what is needed to read its tables.
type catalog struct {
	objects map[string]*object
	tables  map[string]*tableInfo // by tableArtifact
	broken  []string              // tables the server cannot open, with its reason
	lost    []*object             // the same as objects without a text
}

func (c *catalog) sorted() []*object {
	out := make([]*object, 0, len(c.objects))
	for _, o := range c.objects {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *object) int { return strings.Compare(a.id(), b.id()) })
	return out
}

// transactionalEngines have snapshots that last as long as a transaction.
var transactionalEngines = map[string]bool{"INNODB": true, "ROCKSDB": true, "TOKUDB": true}

// rowlessEngines keep no rows of their own in this server: only the definition is copied.
var rowlessEngines = map[string]bool{"BLACKHOLE": true, "MRG_MYISAM": true, "FEDERATED": true, "CONNECT": true, "SPIDER": true, "SPHINX": true, "OQGRAPH": true, "SEQUENCE": true}

// readCatalog reads all definitions, over several connections at once.
func readCatalog(ctx context.Context, conns []querier) (*catalog, error) {
	c := &catalog{objects: map[string]*object{}, tables: map[string]*tableInfo{}}
	db := conns[0]
	var list []*object
	add := func(o object) { list = append(list, &o) }
	rows, err := table(ctx, db, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE "+skipSchemas("SCHEMA_NAME"))
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		add(object{Kind: kindSchema, Name: r[0]})
	}
	rows, err = table(ctx, db, "SELECT TABLE_SCHEMA,TABLE_NAME,TABLE_TYPE,ENGINE,COALESCE(DATA_LENGTH,0),COALESCE(TABLE_COMMENT,'') FROM information_schema.TABLES WHERE "+tableFilter(""))
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		o := object{Schema: r[0], Name: r[1], Type: r[3]}
		switch r[2] {
		case "VIEW":
			o.Kind, o.Type = kindView, ""
		case "SEQUENCE":
			o.Kind = kindSequence
		default:
			o.Kind = kindTable
			if r[3] == "" {
				c.broken = append(c.broken, r[0]+"."+r[1]+": "+r[5])
				c.lost = append(c.lost, &o)
				continue
			}
			e := strings.ToUpper(r[3])
			size, _ := strconv.ParseInt(r[4], 10, 64)
			c.tables[tableArtifact(r[0], r[1])] = &tableInfo{schema: r[0], name: r[1], engine: e, bytes: size,
				versioned: r[2] == "SYSTEM VERSIONED", transactional: transactionalEngines[e], rows: !rowlessEngines[e]}
		}
		add(o)
	}
	more := []struct{ kind, query string }{
		{kindTrigger, "SELECT TRIGGER_SCHEMA,TRIGGER_NAME,'',EVENT_OBJECT_TABLE,ACTION_ORDER FROM information_schema.TRIGGERS WHERE " + skipSchemas("TRIGGER_SCHEMA")},
		{kindRoutine, "SELECT ROUTINE_SCHEMA,ROUTINE_NAME,ROUTINE_TYPE,'',0 FROM information_schema.ROUTINES WHERE " + skipSchemas("ROUTINE_SCHEMA")},
		{kindEvent, "SELECT EVENT_SCHEMA,EVENT_NAME,'','',0 FROM information_schema.EVENTS WHERE " + skipSchemas("EVENT_SCHEMA")},
	}
	for _, m := range more {
		if rows, err = table(ctx, db, m.query); err != nil {
			return nil, err
		}
		for _, r := range rows {
			n, _ := strconv.Atoi(r[4])
			add(object{Kind: m.kind, Schema: r[0], Name: r[1], Type: r[2], Table: r[3], Order: n})
		}
	}
	if rows, err = table(ctx, db, "SELECT name,ret,dl,type FROM mysql.func"); err != nil {
		return nil, err
	}
	for _, r := range rows {
		add(udf(r[0], r[1], r[2], r[3]))
	}
	if rows, err = table(ctx, db, "SELECT name,dl FROM mysql.plugin"); err != nil {
		return nil, err
	}
	for _, r := range rows {
		add(object{Kind: kindPlugin, Name: r[0], DDL: text("INSTALL PLUGIN IF NOT EXISTS " + q(r[0]) + " SONAME " + lit(r[1]))})
	}
	if err := define(ctx, conns, list); err != nil {
		return nil, err
	}
	for _, o := range list {
		if o.DDL != nil {
			c.objects[o.id()] = o
		}
	}
	return c, nil
}

func udf(name, ret, dl, kind string) object {
	returns := map[string]string{"0": "STRING", "1": "REAL", "2": "INTEGER", "4": "DECIMAL"}[ret]
	aggregate := ""
	if kind == "aggregate" {
		aggregate = "AGGREGATE "
	}
	return object{Kind: kindUDF, Name: name, DDL: text("CREATE OR REPLACE " + aggregate + "FUNCTION " + q(name) + " RETURNS " + returns + " SONAME " + lit(dl))}
}

// define fills in the texts.
func define(ctx context.Context, conns []querier, list []*object) error {
	work := make(chan *object)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for _, o := range list {
			select {
			case work <- o:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for _, conn := range conns {
		g.Go(func() error {
			for o := range work {
				if err := o.define(ctx, conn); err != nil {
					return fmt.Errorf("read the definition of %s: %w", o.label(), err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (o *object) define(ctx context.Context, db querier) error {
	if o.DDL != nil {
		return nil
	}
	kind := map[string]string{kindSchema: "DATABASE", kindTable: "TABLE", kindSequence: "SEQUENCE", kindView: "VIEW",
		kindTrigger: "TRIGGER", kindRoutine: o.Type, kindEvent: "EVENT"}[o.Kind]
	name := q(o.Name)
	if o.Schema != "" {
		name = qq(o.Schema, o.Name)
	}
	m, err := named(ctx, db, "SHOW CREATE "+kind+" "+name)
	if err != nil {
		return err
	}
	for k, v := range m {
		if k == "SQL Original Statement" || strings.HasPrefix(k, "Create ") {
			o.DDL = text(v)
		}
	}
	if len(o.DDL) == 0 {
		return fmt.Errorf("the server does not show its text: %w: the account needs the rights the plugin's README.md lists", plugins.ErrAuth)
	}
	o.SQLMode, o.Client, o.Connection = m["sql_mode"], m["character_set_client"], m["collation_connection"]
	o.Database, o.TimeZone = m["Database Collation"], m["time_zone"]
	switch o.Kind {
	case kindTable:
		if t, ok := splitTable(string(o.DDL)); ok {
			t, o.Auto = t.cutAuto()
			o.DDL = text(t.String())
		}
	case kindSequence:
		if m, err = named(ctx, db, "SELECT next_not_cached_value, cycle_count FROM "+name); err == nil {
			o.Next, o.Round = m["next_not_cached_value"], m["cycle_count"]
		}
	}
	return err
}

// details reads columns and keys of the tables given, or of all.
func (c *catalog) details(ctx context.Context, db querier, only []*tableInfo) error {
	where := func(prefix string) string {
		if only == nil {
			return tableFilter(prefix)
		}
		in := make([]string, len(only))
		for i, t := range only {
			in[i] = "(" + prefix + "TABLE_SCHEMA=" + lit(t.schema) + " AND " + prefix + "TABLE_NAME=" + lit(t.name) + ")"
		}
		return strings.Join(in, " OR ")
	}
	rows, err := table(ctx, db, "SELECT TABLE_SCHEMA,TABLE_NAME,COLUMN_NAME,DATA_TYPE,COLUMN_TYPE,COALESCE(CHARACTER_SET_NAME,''),COALESCE(COLLATION_NAME,''),IS_NULLABLE,"+
		"COALESCE(GENERATION_EXPRESSION,''),COALESCE(NUMERIC_PRECISION,0),COALESCE(NUMERIC_SCALE,0) FROM information_schema.COLUMNS WHERE "+where("")+" ORDER BY TABLE_SCHEMA,TABLE_NAME,ORDINAL_POSITION")
	if err != nil {
		return err
	}
	probe, err := value(ctx, db, pointProbe)
	if err != nil && number(err) == 0 {
		return err
	}
	nullable := map[string]bool{}
	for _, r := range rows {
		t := c.tables[tableArtifact(r[0], r[1])]
		if t == nil {
			continue
		}
		t.points = probe == pointAnswer
		p, _ := strconv.Atoi(r[9])
		s, _ := strconv.Atoi(r[10])
		t.columns = append(t.columns, columnInfo{name: r[2], dataType: r[3], columnType: r[4], charset: r[5], collation: r[6],
			generated: r[8], precision: p, scale: s})
		if r[7] == "YES" {
			nullable[r[0]+"\x00"+r[1]+"\x00"+r[2]] = true
		}
	}
	rows, err = table(ctx, db, "SELECT TABLE_SCHEMA,TABLE_NAME,INDEX_NAME,COLUMN_NAME,COALESCE(SUB_PART,''),INDEX_TYPE FROM information_schema.STATISTICS WHERE NON_UNIQUE=0 AND ("+
		where("")+") ORDER BY TABLE_SCHEMA,TABLE_NAME,INDEX_NAME<>'PRIMARY',INDEX_NAME,SEQ_IN_INDEX")
	if err != nil {
		return err
	}
	for _, r := range rows {
		t := c.tables[tableArtifact(r[0], r[1])]
		if t == nil {
			continue
		}
		if n := len(t.indexes); n == 0 || t.indexes[n-1].name != r[2] {
			t.indexes = append(t.indexes, indexInfo{name: r[2], usable: true})
		}
		ix := &t.indexes[len(t.indexes)-1]
		ix.columns = append(ix.columns, r[3])
		if r[4] != "" || nullable[r[0]+"\x00"+r[1]+"\x00"+r[3]] || (r[5] != "BTREE" && r[5] != "HASH") {
			ix.usable = false
		}
	}
	return nil
}

// sameDefinitions says whether no definition changed between two readings;
// positions of sequences and counters move with the data and do not count.
func sameDefinitions(a, b *catalog) bool {
	if len(a.objects) != len(b.objects) {
		return false
	}
	for id, x := range a.objects {
		y := b.objects[id]
		if y == nil || !bytes.Equal(x.DDL, y.DDL) || x.SQLMode != y.SQLMode || x.Order != y.Order || x.Table != y.Table {
			return false
		}
	}
	return true
}

// record is the definition as a record of the definitions artifact.
func (o *object) record() (key, value []byte, err error) {
	value, err = json.Marshal(o)
	return []byte(o.id()), value, err
}

// parseObject undoes record.
func parseObject(key, value []byte) (*object, error) {
	p := strings.Split(string(key), "\x00")
	o := &object{}
	if len(p) != 4 || json.Unmarshal(value, o) != nil {
		return nil, fmt.Errorf("definition %q cannot be read: %w", key, plugins.ErrCorrupt)
	}
	o.Kind, o.Schema, o.Name = p[0], p[1], p[2]
	return o, nil
}

// queriers gives connections as queriers.
func queriers(conns []*sql.Conn) []querier {
	out := make([]querier, len(conns))
	for i, c := range conns {
		out[i] = c
	}
	return out
}
