package mariadb

import (
	"regexp"
	"strings"
)

// createTable is the text of SHOW CREATE TABLE (sql_quote_show_create=1,
// sql_mode empty), taken apart: `CREATE TABLE name (` elements `) options`.
type createTable struct {
	head     string
	elements []string
	tail     string
}

// splitTable takes a CREATE TABLE apart; ok is false for a text of another
// shape (a sequence, CREATE TABLE … SELECT), which is then used whole.
func splitTable(ddl string) (createTable, bool) {
	open := -1
	depth, start := 0, 0
	var t createTable
	for i := 0; i < len(ddl); i++ {
		switch c := ddl[i]; c {
		case '`', '\'', '"':
			i = skipQuoted(ddl, i)
		case '(':
			if depth++; depth == 1 {
				open, start = i, i+1
				t.head = ddl[:i+1]
			}
		case ',':
			if depth == 1 {
				t.elements = append(t.elements, strings.TrimSpace(ddl[start:i]))
				start = i + 1
			}
		case ')':
			if depth--; depth == 0 && open >= 0 {
				t.elements = append(t.elements, strings.TrimSpace(ddl[start:i]))
				t.tail = ddl[i:]
				return t, true
			}
		}
	}
	return t, false
}

// skipQuoted returns the index of the quote that closes the one at i.
func skipQuoted(s string, i int) int {
	quote := s[i]
	for i++; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote != '`':
			i++
		case s[i] == quote:
			if i+1 < len(s) && s[i+1] == quote {
				i++
				continue
			}
			return i
		}
	}
	return len(s)
}

func (t createTable) String() string {
	return t.head + "\n  " + strings.Join(t.elements, ",\n  ") + "\n" + t.tail
}

func isForeignKey(element string) bool {
	rest := element
	if r, ok := strings.CutPrefix(rest, "CONSTRAINT "); ok {
		rest = r
		if strings.HasPrefix(rest, "`") {
			rest = strings.TrimPrefix(rest[min(skipQuoted(rest, 0)+1, len(rest)):], " ")
		}
	}
	return strings.HasPrefix(rest, "FOREIGN KEY ")
}

// constraintName is the name of a CONSTRAINT element.
func constraintName(element string) string {
	r, ok := strings.CutPrefix(element, "CONSTRAINT ")
	if !ok || !strings.HasPrefix(r, "`") {
		return ""
	}
	return strings.ReplaceAll(r[1:skipQuoted(r, 0)], "``", "`")
}

var autoIncrement = regexp.MustCompile(`^(\) ENGINE=\w+) AUTO_INCREMENT=(\d+)`)

// cutAuto removes the AUTO_INCREMENT counter from the table options.
func (t createTable) cutAuto() (createTable, string) {
	m := autoIncrement.FindStringSubmatch(t.tail)
	if m == nil {
		return t, ""
	}
	t.tail = m[1] + t.tail[len(m[0]):]
	return t, m[2]
}

// uniqueKeys counts the primary key and the unique keys.
func (t createTable) uniqueKeys() (n int) {
	for _, e := range t.elements {
		if strings.HasPrefix(e, "PRIMARY KEY ") || strings.HasPrefix(e, "UNIQUE KEY ") {
			n++
		}
	}
	return n
}

// cutForeignKeys removes the foreign keys and returns them.
func (t createTable) cutForeignKeys() (createTable, []string) {
	var keep, fks []string
	for _, e := range t.elements {
		if isForeignKey(e) {
			fks = append(fks, e)
		} else {
			keep = append(keep, e)
		}
	}
	t.elements = keep
	return t, fks
}

// cutKeys removes the plain secondary keys, to be added after loading. Keys
// of other kinds stay, and so does a key that starts with the
// AUTO_INCREMENT column, which the server demands.
func (t createTable) cutKeys() (createTable, []string) {
	auto := ""
	for _, e := range t.elements {
		if strings.HasPrefix(e, "`") && strings.Contains(e[skipQuoted(e, 0):], " AUTO_INCREMENT") {
			auto = e[:skipQuoted(e, 0)+1]
		}
	}
	var keep, keys []string
	for _, e := range t.elements {
		if strings.HasPrefix(e, "KEY ") && (auto == "" || !strings.Contains(e, "("+auto)) {
			keys = append(keys, e)
		} else {
			keep = append(keep, e)
		}
	}
	t.elements = keep
	return t, keys
}

// qualifyReference names the schema in a foreign key's REFERENCES clause, so
// that it means the same wherever it is added.
func qualifyReference(fk, schema string) string {
	const word = " REFERENCES "
	for i := 0; i < len(fk); i++ {
		if fk[i] == '`' {
			i = skipQuoted(fk, i)
			continue
		}
		if strings.HasPrefix(fk[i:], word) {
			ref := fk[i+len(word):]
			end := skipQuoted(ref, 0)
			if end+1 < len(ref) && ref[end+1] == '.' {
				return fk
			}
			return fk[:i+len(word)] + q(schema) + "." + ref
		}
	}
	return fk
}

// rename puts another qualified name into a CREATE TABLE or CREATE SEQUENCE.
func rename(ddl, schema, table string) string { return renameTo(ddl, qq(schema, table)) }

// renameTo is rename to a name that is quoted already.
func renameTo(ddl, name string) string {
	i := strings.IndexByte(ddl, '`')
	if i < 0 {
		return ddl
	}
	return ddl[:i] + name + ddl[min(skipQuoted(ddl, i)+1, len(ddl)):]
}

// withAuto puts an AUTO_INCREMENT counter back into a CREATE TABLE.
func withAuto(ddl, counter string) string {
	t, ok := splitTable(ddl)
	if !ok {
		return ddl
	}
	t.tail = engineOption.ReplaceAllString(t.tail, "${1} AUTO_INCREMENT="+counter)
	return t.String()
}

var engineOption = regexp.MustCompile(`^(\) ENGINE=\w+)`)
