// Package ui writes what an operator reads: text in columns, human units, one
// colour policy, a live block on a terminal, or one JSON document. Colour
// never carries a meaning of its own, and nothing that came from a database or
// a store reaches a terminal without [Clean].
package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Printer is where a command writes. Its zero value without writers is of no use.
type Printer struct {
	Out    io.Writer // results
	Err    io.Writer // errors, and notes when Out carries JSON
	JSON   bool      // Out receives exactly one JSON document
	Live   bool      // Out is a terminal that can be redrawn
	Colour bool
	ASCII  bool // the terminal may not know UTF-8
	Width  int  // columns, at least MinWidth
	Height int  // lines
}

// MinWidth is the least number of columns that is laid out for; anything
// narrower is cut by the terminal.
const MinWidth = 10

// New looks at the writers and the environment. NO_COLOR and TERM=dumb turn
// colour off (no-color.org); a pipe gets 80 columns, or COLUMNS.
func New(out, err io.Writer, getenv func(string) string) *Printer {
	p := &Printer{Out: out, Err: err, Width: 80, Height: 24}
	dumb := getenv("TERM") == "dumb"
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.Live = !dumb
		p.resize(f.Fd())
	} else if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n >= MinWidth && n <= 1000 {
		p.Width = n
	}
	p.Colour = p.Live && getenv("NO_COLOR") == ""
	p.ASCII = !utf8Locale(getenv)
	return p
}

// Resize asks the terminal for its size again; a pipe keeps its own.
func (p *Printer) Resize() {
	if f, ok := p.Out.(interface{ Fd() uintptr }); ok && p.Live {
		p.resize(f.Fd())
	}
}

func (p *Printer) resize(fd uintptr) {
	w, h, err := term.GetSize(int(fd))
	if err != nil || w <= 0 || h <= 0 {
		return
	}
	p.Width, p.Height = max(w, MinWidth), max(h, 2)
}

// utf8Locale follows the rule of setlocale(3): the first of LC_ALL, LC_CTYPE
// and LANG that is set decides. Without any, UTF-8 is assumed, as pipes and
// service managers rarely set one.
func utf8Locale(getenv func(string) string) bool {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(getenv(k)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return true
}

// Line writes one line of the result; nothing in JSON mode.
func (p *Printer) Line(format string, args ...any) {
	if !p.JSON {
		fmt.Fprintf(p.Out, format+"\n", args...)
	}
}

// Note writes one line beside the result: to Out in text mode, to Err beside a JSON document.
func (p *Printer) Note(format string, args ...any) {
	w := p.Out
	if p.JSON {
		w = p.Err
	}
	fmt.Fprintf(w, format+"\n", args...)
}

// Error writes one line to Err.
func (p *Printer) Error(format string, args ...any) {
	fmt.Fprintf(p.Err, format+"\n", args...)
}

// Document writes the JSON document.
func (p *Printer) Document(v any) error {
	e := json.NewEncoder(p.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// Clean makes a text from outside safe to show: control characters, invalid
// UTF-8 and marks that turn the direction of writing become visible escapes,
// so that a key's name can neither move the cursor nor forge a line.
func Clean(s string) string {
	ok := true
	for _, r := range s {
		if bad(r) {
			ok = false
			break
		}
	}
	if ok && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case bad(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case bad(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

func bad(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == '\ufeff'
}
