package ui

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func printer(width int) (*Printer, *bytes.Buffer) {
	var b bytes.Buffer
	p := New(&b, &b, func(string) string { return "" })
	p.Width = width
	return p, &b
}

func TestNew_environment(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	for _, x := range []struct {
		env   []string
		width int
		ascii bool
	}{
		{nil, 80, false},
		{[]string{"COLUMNS", "120"}, 120, false},
		{[]string{"COLUMNS", "3"}, 80, false},
		{[]string{"COLUMNS", "-7"}, 80, false},
		{[]string{"COLUMNS", "99999999"}, 80, false},
		{[]string{"LANG", "C"}, 80, true},
		{[]string{"LANG", "de_DE.utf8"}, 80, false},
		{[]string{"LC_ALL", "POSIX", "LANG", "de_DE.UTF-8"}, 80, true},
	} {
		p := New(&bytes.Buffer{}, &bytes.Buffer{}, env(x.env...))
		if p.Width != x.width || p.ASCII != x.ascii || p.Live || p.Colour {
			t.Errorf("%v: width %d, ascii %v, live %v, colour %v", x.env, p.Width, p.ASCII, p.Live, p.Colour)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                        "plain",
		"Käse 🧀 日本":                    "Käse 🧀 日本",
		"\x1b[2J\x1b[31mred":           `\x1b[2J\x1b[31mred`,
		"two\nlines\r\ttab":            `two\x0alines\x0d\x09tab`,
		"bad \xff\xfe bytes":           `bad \xff\xfe bytes`,
		"right\u202eto left":           `right\u202eto left`,
		"c1 \u009b31m":                 `c1 \u009b31m`,
		"line\u2028separator":          `line\u2028separator`,
		"isolate \u2066x\u2069 \ufeff": `isolate \u2066x\u2069 \ufeff`,
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\x07")
	f.Add("\xc3")
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s)
		if !utf8.ValidString(c) || strings.ContainsAny(c, "\x1b\n\r\x07\u202e\u009b") {
			t.Fatalf("Clean(%q) = %q", s, c)
		}
		if Clean(c) != c {
			t.Fatalf("Clean twice differs: %q", c)
		}
	})
}

func TestUnits(t *testing.T) {
	for _, x := range [][2]string{
		{Bytes(0), "0 B"}, {Bytes(-1), "-"}, {Bytes(1536), "1.5 KiB"}, {Bytes(3 << 30), "3.0 GiB"},
		{Share(1<<30, 3<<30), "1.0/3.0 GiB"}, {Share(0, 512), "0/512 B"}, {Share(5, 20<<30), "0.0/20 GiB"}, {Share(1<<62, 1<<62), "4.0/4.0 EiB"},
		{Rate(0), ""}, {Rate(84 << 20), "84 MiB/s"},
		{Took(0), "0.0s"}, {Took(time.Microsecond), "1ms"}, {Took(42 * time.Millisecond), "42ms"}, {Ago(time.Second), "just now"}, {Ago(72 * time.Hour), "3d ago"}, {Took(400 * time.Millisecond), "0.4s"}, {Took(36 * time.Second), "36s"}, {Took(151 * time.Second), "2m31s"},
		{Took(3*time.Hour + 5*time.Minute), "3h05m"}, {Took(50 * time.Hour), "2d02h"}, {Took(-1), "-"},
		{Clock(15 * time.Second), "0:15"}, {Clock(3723 * time.Second), "1:02:03"},
		{Age(time.Second), "now"}, {Age(5 * time.Minute), "5m"}, {Age(26 * time.Hour), "26h"}, {Age(72 * time.Hour), "3d"}, {Age(3 * 366 * 24 * time.Hour), "3y"}, {Age(-time.Hour), "future"},
		{Plural(1, "unit"), "1 unit"}, {Plural(1200, "unit"), "1,200 units"}, {Plural(2, "entry"), "2 entries"},
	} {
		if x[0] != x[1] {
			t.Errorf("got %q, want %q", x[0], x[1])
		}
	}
}

func table() Table {
	tb := Table{Columns: []Column{{Head: "NAME", Min: 8}, {Head: "AGE", Right: true}, {Head: "STATUS"}, {Head: "SIZE", Right: true, Drop: 1}, {Head: "NOTE", Min: 6, Drop: 2}}}
	tb.Add("MAR09/2019-03-09T04-00-07Z", "12d", "ok", "16 GiB", "first of the month")
	tb.Add("日本/x\x1b[2J", "1h", "damaged", "1.2 GiB", "")
	return tb
}

func TestTable_widths(t *testing.T) {
	for width, want := range map[int]string{
		80: `NAME                        AGE  STATUS      SIZE  NOTE
MAR09/2019-03-09T04-00-07Z  12d  ok        16 GiB  first of the month
日本/x\x1b[2J                1h  damaged  1.2 GiB`,
		62: `NAME                 AGE  STATUS      SIZE  NOTE
MAR09/2019-03-09T0…  12d  ok        16 GiB  first of the month
日本/x\x1b[2J         1h  damaged  1.2 GiB`,
		30: `NAME              AGE  STATUS
MAR09/2019-03-0…  12d  ok
日本/x\x1b[2J      1h  damaged`,
		10: `NAME
MAR09/2…
日本/x\…`,
	} {
		p, b := printer(width)
		p.Print(table())
		got := strings.TrimRight(b.String(), "\n")
		for _, l := range strings.Split(got, "\n") {
			if Columns(l) > width {
				t.Errorf("width %d: %d columns in %q", width, Columns(l), l)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("width %d:\n%s", width, d)
		}
	}
}

func TestTable_neverWiderThanTheTerminal(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		width := rapid.IntRange(MinWidth, 120).Draw(r, "width")
		p, b := printer(width)
		var tb Table
		for i := range rapid.IntRange(1, 8).Draw(r, "columns") {
			tb.Columns = append(tb.Columns, Column{Head: strings.Repeat("H", i), Right: i%2 == 1, Min: rapid.IntRange(0, 6).Draw(r, "min"), Drop: rapid.IntRange(0, 3).Draw(r, "drop")})
		}
		for range rapid.IntRange(0, 4).Draw(r, "rows") {
			cells := make([]string, len(tb.Columns))
			for i := range cells {
				cells[i] = rapid.String().Draw(r, "cell")
			}
			tb.Add(cells...)
		}
		p.Print(tb)
		for _, l := range strings.Split(b.String(), "\n") {
			if Columns(l) > width {
				r.Fatalf("%d columns of %d: %q", Columns(l), width, l)
			}
		}
	})
}

func TestBar(t *testing.T) {
	p, _ := printer(80)
	for share, want := range map[float64]string{-1: "    ", 0: "    ", 0.5: "██  ", 0.54: "██▏ ", 1: "████", 2: "████"} {
		if got := p.Bar(share, 4); got != want {
			t.Errorf("Bar(%v) = %q, want %q", share, got, want)
		}
	}
	p.ASCII = true
	if got := p.Bar(0.5, 4); got != "##.." {
		t.Errorf("ASCII: %q", got)
	}
}

// The block must erase what it drew, whatever the number of lines does.
func TestBlock_redraws(t *testing.T) {
	p, b := printer(20)
	p.Height = 5
	k := p.NewBlock()
	k.Draw([]string{"one", "two", "three"}, nil)
	k.Draw([]string{"one"}, nil)
	k.Print("kept")
	k.Draw([]string{"a", "b", "c", "d", "e", "f", strings.Repeat("x", 99)}, nil)
	k.Clear()
	got := screenOf(t, b.String(), 20)
	if d := cmp.Diff([]string{"kept"}, got); d != "" {
		t.Error(d)
	}
}

// screenOf plays the few escapes that a Block uses.
func screenOf(t *testing.T, s string, width int) []string {
	t.Helper()
	lines, row := []string{""}, 0
	for s != "" {
		switch {
		case strings.HasPrefix(s, "\x1b[2K"):
			lines[row], s = "", s[4:]
		case strings.HasPrefix(s, "\x1b[J"):
			lines[row], lines, s = "", lines[:row+1], s[3:]
		case strings.HasPrefix(s, "\x1b["):
			n := int(s[2] - '0')
			if s[3] != 'A' || n > row {
				t.Fatalf("escape %q in row %d", s[:4], row)
			}
			row, s = row-n, s[4:]
		case s[0] == '\n':
			if row++; row == len(lines) {
				lines = append(lines, "")
			}
			s = s[1:]
		case s[0] == '\r':
			s = s[1:]
		default:
			lines[row] += s[:1]
			s = s[1:]
			if Columns(strings.ToValidUTF8(lines[row], "?")) >= width {
				t.Fatalf("a line of %d columns wraps", width)
			}
		}
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func TestDocument_isOneLineOfTruth(t *testing.T) {
	p, b := printer(80)
	p.JSON = true
	p.Line("text that must not appear")
	p.Print(table())
	if err := p.Document(map[string]string{"a": "<b> & \x1b"}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("{\n  \"a\": \"<b> & \\u001b\"\n}\n", b.String()); d != "" {
		t.Error(d)
	}
}

func TestParagraph_wraps(t *testing.T) {
	p, b := printer(30)
	p.Paragraph("warning: ", "a text that does not fit into one line")
	want := "warning: a text that does not\n         fit into one line\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}
