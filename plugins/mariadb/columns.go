package mariadb

import (
	"slices"
	"strings"
)

// columnInfo is a column as information_schema.COLUMNS describes it.
type columnInfo struct {
	name, dataType, columnType string
	charset, collation         string
	generated                  string // generation expression; "ROW START" and "ROW END" are the system period
	precision, scale           int
}

// innodb says whether the table's engine is InnoDB.
func (t *tableInfo) innodb() bool { return strings.EqualFold(t.engine, "InnoDB") }

func (c columnInfo) period() bool { return c.generated == "ROW START" || c.generated == "ROW END" }

func (c columnInfo) zerofill() bool { return strings.Contains(c.columnType, "zerofill") }

// readExpr is the SELECT expression whose text carries the stored value
// exactly. FLOAT text has six digits only, so it is widened to DOUBLE, whose
// text is exact; a negative zero would lose its sign in text; BIT, ENUM and
// SET are read as numbers because their text can be ambiguous or binary;
// UUID, INET6 and INET4 do not survive a binary character set.
func (c columnInfo) readExpr() string {
	n := q(c.name)
	switch c.dataType {
	case "float", "double":
		return "CAST(" + n + "*1e0 AS CHAR)"
	case "bit", "enum", "set":
		return "CAST(" + n + " AS UNSIGNED)"
	case "year":
		return n + "+0"
	case "uuid", "inet6", "inet4":
		return "CAST(" + n + " AS CHAR)"
	case "tinyint", "smallint", "mediumint", "int", "bigint":
		if c.zerofill() {
			return n + "+0"
		}
	}
	return n
}

// loadExpr is what LOAD DATA assigns to the column from variable v; "": the
// field goes into the column directly.
func (c columnInfo) loadExpr(v string) string {
	switch c.dataType {
	case "bit", "enum", "set", "year":
		return "CAST(" + v + " AS UNSIGNED)"
	case "uuid", "inet6", "inet4":
		return "CONVERT(" + v + " USING ascii)"
	}
	return ""
}

// tableInfo is what is needed to read a table's rows.
type tableInfo struct {
	schema, name  string
	engine        string
	versioned     bool // WITH SYSTEM VERSIONING
	transactional bool // has snapshots
	rows          bool // the rows are stored in this server and table
	bytes         int64
	columns       []columnInfo
	indexes       []indexInfo
	points        bool // numbers can be read as coordinates, see float.go
}

type indexInfo struct {
	name    string
	columns []string
	usable  bool // unique, whole columns, an order of its own
}

// stored lists the columns whose values must be copied: all but generated
// ones, and with the system period of a versioned table.
func (t *tableInfo) stored() []columnInfo {
	var out []columnInfo
	period := 0
	for _, c := range t.columns {
		if c.generated == "" || (c.period() && t.history()) {
			out = append(out, c)
		}
		if c.period() {
			period++
		}
	}
	if t.versioned && period == 0 { // implicit period columns are in no catalogue
		out = append(out, columnInfo{name: "row_start", dataType: "timestamp", columnType: "timestamp(6)", generated: "ROW START"},
			columnInfo{name: "row_end", dataType: "timestamp", columnType: "timestamp(6)", generated: "ROW END"})
	}
	return out
}

// history says whether the table's history can be read and written back: a
// period of transaction numbers (BIGINT) means nothing elsewhere.
func (t *tableInfo) history() bool {
	return t.versioned && !slices.ContainsFunc(t.columns, func(c columnInfo) bool { return c.period() && c.dataType == "bigint" })
}

// rowPlan is how one table is read: the statement, how many of its columns
// are values, and how the record's key is made.
type rowPlan struct {
	table   *tableInfo
	columns []columnInfo
	query   string
	points  []int     // columns selected as POINT(x,0)
	cells   int       // columns of the query: the stored ones, then those selected for the key
	key     []keyPart // empty: unordered
	keyName string
	// skipPeriod: loadStatement leaves the system period to the server.
	skipPeriod bool
}

// plan chooses the statement. unordered forces a plan without a key.
func (t *tableInfo) plan(unordered bool) rowPlan { return t.planAs(qq(t.schema, t.name), unordered) }

// planAs is plan for the same table under another name.
func (t *tableInfo) planAs(from string, unordered bool) rowPlan {
	p := rowPlan{table: t, columns: t.stored()}
	exprs := make([]string, 0, len(p.columns)+2)
	for i, c := range p.columns {
		if t.points && (c.dataType == "float" || c.dataType == "double") {
			p.points = append(p.points, i)
			exprs = append(exprs, "POINT("+q(c.name)+",0e0)")
			continue
		}
		exprs = append(exprs, c.readExpr())
	}
	var order []string
	if !unordered {
		for _, ix := range t.indexes {
			if parts, ok := t.keyParts(ix, p.columns); ok {
				p.key, p.keyName = parts, ix.name
				break
			}
		}
	}
	for i := range p.key {
		k := &p.key[i]
		order = append(order, q(k.column.name))
		if k.index < 0 {
			k.index = len(exprs)
			exprs = append(exprs, k.expr())
		}
	}
	if len(exprs) == 0 {
		exprs = append(exprs, "1")
	}
	p.cells = len(exprs)
	p.query = "SELECT " + strings.Join(exprs, ",") + " FROM " + from
	if t.history() {
		p.query += " FOR SYSTEM_TIME ALL"
	}
	if len(order) > 0 {
		p.query += " ORDER BY " + strings.Join(order, ",")
	}
	return p
}

// loadStatement is the LOAD DATA that stores what query gave.
func (p rowPlan) loadStatement(reader, into string) string {
	var fields, sets []string
	for i, c := range p.columns {
		v := "@c" + itoa(i)
		if p.skipPeriod && c.period() {
			fields = append(fields, v)
		} else if e := c.loadExpr(v); e != "" {
			fields = append(fields, v)
			sets = append(sets, q(c.name)+"="+e)
		} else {
			fields = append(fields, q(c.name))
		}
	}
	if len(fields) == 0 {
		fields = append(fields, "@none")
	}
	s := "LOAD DATA LOCAL INFILE " + lit("Reader::"+reader) + " INTO TABLE " + into +
		` CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' (` + strings.Join(fields, ",") + ")"
	if len(sets) > 0 {
		s += " SET " + strings.Join(sets, ",")
	}
	return s
}
