package mariadb

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Keys of every type that is read in order really ascend as bytes, in the
// order in which the real server sorts them: no table falls back.
func TestKeysAscendAsTheServerSorts(t *testing.T) {
	s := open(t)
	execSQL(t, s, "CREATE OR REPLACE DATABASE sorting CHARACTER SET utf8mb4", "SET sql_mode=''")
	defer execSQL(t, s, "DROP DATABASE sorting")
	types := []string{"TINYINT", "INT UNSIGNED", "BIGINT", "BIGINT UNSIGNED ZEROFILL", "DECIMAL(12,4)", "DECIMAL(9,0) UNSIGNED", "DATE", "DATETIME(3)", "TIMESTAMP(6)", "YEAR",
		"BINARY(5)", "VARBINARY(12)", "BIT(17)", "ENUM('z','a','m','')", "SET('q','b','x')"}
	for _, c := range []string{"utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci", "utf8mb4_bin", "utf8mb4_nopad_bin", "utf8mb4_general_nopad_ci", "utf8mb4_unicode_nopad_ci",
		"utf8mb3_general_ci", "utf8mb3_bin", "utf8mb3_unicode_ci", "latin1_swedish_ci", "latin1_general_ci", "latin1_general_cs", "latin1_bin", "latin1_nopad_bin", "ascii_general_ci", "ascii_bin", "ucs2_general_ci", "koi8r_bin"} {
		types = append(types, "VARCHAR(24) CHARACTER SET "+strings.SplitN(c, "_", 2)[0]+" COLLATE "+c)
	}
	r := rand.New(rand.NewPCG(4, 2))
	alphabet := []rune(" aAbBzZ09~\t\x01!äÄßéœŒ\u00a0ﬀ日😀\\'")
	for i, typ := range types {
		name := fmt.Sprintf("`sorting`.`t%d`", i)
		rows := make([]string, 400)
		for j := range rows {
			var b strings.Builder
			for range r.IntN(11) {
				b.WriteRune(alphabet[r.IntN(len(alphabet))])
			}
			v := lit(b.String())
			switch {
			case strings.Contains(typ, "DATE") || strings.Contains(typ, "TIMESTAMP"):
				v = fmt.Sprintf("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 1970+r.IntN(60), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e6))
			case strings.Contains(typ, "BINARY"):
				v = fmt.Sprintf("X'%x'", b.String())
			case strings.Contains(typ, "CHAR"):
			default:
				v = fmt.Sprintf("%d.%04d", r.Int64N(2_000_000)-1_000_000, r.IntN(10000))
				if r.IntN(3) == 0 {
					v = fmt.Sprint(r.IntN(300) - 150)
				}
			}
			rows[j] = "(" + v + "," + fmt.Sprint(r.IntN(3)-1) + ")"
		}
		execSQL(t, s, "CREATE TABLE "+name+" (k "+typ+" NOT NULL, n INT NOT NULL, PRIMARY KEY (k, n DESC))", "INSERT IGNORE INTO "+name+" VALUES "+strings.Join(rows, ","))
	}
	conns, release, err := s.readers(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	c, err := readCatalog(t.Context(), queriers(conns))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.details(t.Context(), conns[0], nil); err != nil {
		t.Fatal(err)
	}
	for i, typ := range types {
		p := c.tables[tableArtifact("sorting", fmt.Sprintf("t%d", i))].plan(false)
		if p.keyName != "PRIMARY" {
			t.Errorf("%s: not read by its key", typ)
			continue
		}
		n := 0
		var last []byte
		if err := readRows(t.Context(), conns[0], p, func(k, _ []byte) error { n++; last = slices.Clone(k); return nil }); err != nil {
			t.Errorf("%s: after %d rows, at key %x: %v", typ, n, last, err)
		}
		if n < 3 {
			t.Errorf("%s: only %d rows: nothing was tested", typ, n)
		}
	}
}

func TestDecimalKeysAscend(t *testing.T) {
	list := []string{"-999.99", "-100.00", "-10.01", "-10.00", "-0.50", "0.00", "0.01", "1.00", "9.99", "10.00", "999.99"}
	var last []byte
	for _, v := range list {
		k := appendDecimal(nil, []byte(v), 3)
		if last != nil && bytes.Compare(last, k) >= 0 {
			t.Errorf("%s does not sort above the one before it", v)
		}
		last = k
	}
}

func TestRowsSurviveTheirEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 400), 1, 9).Draw(t, "cells")
		null := rapid.IntRange(0, len(cells)).Draw(t, "null")
		if null < len(cells) {
			cells[null] = nil
		}
		for i := range cells {
			if cells[i] == nil && i != null {
				cells[i] = []byte{}
			}
		}
		row := appendRow(nil, cells)
		rest := row
		for i, want := range cells {
			cell, r, isNull, err := nextCell(rest)
			if err != nil || isNull != (want == nil) || !bytes.Equal(cell, want) {
				t.Fatalf("cell %d: %q, %v, %v: want %q", i, cell, isNull, err, want)
			}
			rest = r
		}
		line, err := appendTSV(nil, row, len(cells))
		if err != nil || bytes.Count(line, []byte("\n")) != 1 || bytes.Count(line, []byte("\t")) != len(cells)-1 {
			t.Fatalf("line %q, %v", line, err)
		}
	})
}

func FuzzRow(f *testing.F) {
	f.Add(appendRow(nil, [][]byte{[]byte("a\tb"), nil, bytes.Repeat([]byte("x"), 300)}), 3)
	f.Add([]byte{0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, 1)
	f.Fuzz(func(t *testing.T, row []byte, columns int) {
		if columns < 0 || columns > 1000 {
			return
		}
		line, err := appendTSV(nil, row, columns)
		if err == nil && (len(line) == 0 || line[len(line)-1] != '\n') {
			t.Errorf("line %q has no end", line)
		}
	})
}

func FuzzSplitTable(f *testing.F) {
	f.Add("CREATE TABLE `a,b` (\n  `x` int(11) DEFAULT '),(',\n  KEY `k` (`x`),\n  CONSTRAINT `f``k` FOREIGN KEY (`x`) REFERENCES `p` (`id`)\n) ENGINE=InnoDB AUTO_INCREMENT=7 COMMENT='a)'")
	f.Add("CREATE TABLE `t")
	f.Fuzz(func(t *testing.T, ddl string) {
		c, ok := splitTable(ddl)
		if !ok {
			return
		}
		again, ok := splitTable(c.String())
		if !ok || cmp.Diff(c.elements, again.elements) != "" {
			t.Errorf("%q: taken apart again it differs: %q, %q", ddl, c.elements, again.elements)
		}
		c.cutForeignKeys()
		c.cutKeys()
		c.cutAuto()
		references(ddl, &object{})
	})
}

func TestTableParts(t *testing.T) {
	c, ok := splitTable("CREATE TABLE `a,b` (\n  `x` int(11) NOT NULL AUTO_INCREMENT,\n  `y` int DEFAULT '),(',\n  UNIQUE KEY `u` (`x`),\n  KEY `k` (`y`),\n  KEY `ka` (`x`),\n" +
		"  CONSTRAINT `f``k` FOREIGN KEY (`y`) REFERENCES `p` (`id`),\n  CONSTRAINT `c` CHECK (`y` > 0)\n) ENGINE=InnoDB AUTO_INCREMENT=7 COMMENT='a) AUTO_INCREMENT=9'")
	if !ok || len(c.elements) != 7 {
		t.Fatalf("%v, %q", ok, c.elements)
	}
	c, counter := c.cutAuto()
	c, fks := c.cutForeignKeys()
	c, keys := c.cutKeys()
	if counter != "7" || len(fks) != 1 || len(keys) != 1 || len(c.elements) != 5 {
		t.Errorf("counter %q, foreign keys %q, keys %q, left %q", counter, fks, keys, c.elements)
	}
	if got := constraintName(fks[0]); got != "f`k" {
		t.Errorf("name of the foreign key: %q", got)
	}
	if got, want := qualifyReference(fks[0], "s"), "CONSTRAINT `f``k` FOREIGN KEY (`y`) REFERENCES `s`.`p` (`id`)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := qualifyReference("CONSTRAINT `a` FOREIGN KEY (`y`) REFERENCES `d`.`p` (`id`)", "s"); !strings.Contains(got, "`d`.`p`") {
		t.Errorf("a qualified reference became %s", got)
	}
	if got := withAuto(c.String(), "8"); !strings.Contains(got, ") ENGINE=InnoDB AUTO_INCREMENT=8 COMMENT") {
		t.Errorf("counter not put back: %s", got)
	}
}

func TestArtifactNames(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range [][2]string{{"a", "b/c"}, {"a/b", "c"}, {"a%2Fb", "c"}, {"", "x"}, {"ü ☃", "%"}} {
		n := tableArtifact(p[0], p[1])
		if seen[n] {
			t.Errorf("%q names two tables", n)
		}
		seen[n] = true
		s, tab, ok := splitArtifact(n)
		if ok != (p[0] != "") || (ok && (s != p[0] || tab != p[1])) {
			t.Errorf("%q: %q, %q, %v", n, s, tab, ok)
		}
	}
}

// appendRow writes cells as a text-protocol row; nil is NULL.
func appendRow(dst []byte, cells [][]byte) []byte {
	for _, c := range cells {
		if c == nil {
			dst = append(dst, 0xFB)
			continue
		}
		dst = appendCellOf(dst, c)
	}
	return dst
}
