package ui

import (
	"strings"
	"unicode"

	"github.com/fatih/color"
)

// wide are the ranges of characters that take two columns of a terminal
// (Unicode Standard Annex 11, W and F, without the rare blocks).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0x303e, Stride: 1}, {Lo: 0x3041, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1}, {Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}},
}

func runeWidth(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r), unicode.Is(unicode.Me, r), unicode.Is(unicode.Cf, r):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// Columns is the number of terminal columns of a text without escapes.
func Columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// Cut shortens a text to at most n columns, with an ellipsis where something is missing.
func (p *Printer) Cut(s string, n int) string {
	if Columns(s) <= n {
		return s
	}
	dots := "…"
	if p.ASCII {
		dots = "~"
	}
	if n <= 1 {
		return strings.Repeat(dots, max(n, 0))
	}
	w := 0
	for i, r := range s {
		if w+runeWidth(r) > n-1 {
			return s[:i] + dots
		}
		w += runeWidth(r)
	}
	return s
}

// Pad fills a text with blanks to n columns, on the left if right is true.
func Pad(s string, n int, right bool) string {
	fill := strings.Repeat(" ", max(0, n-Columns(s)))
	if right {
		return fill + s
	}
	return s + fill
}

// Bar draws a share between 0 and 1 in n columns.
func (p *Printer) Bar(share float64, n int) string {
	share = min(max(share, 0), 1)
	if p.ASCII {
		full := int(share * float64(n))
		return strings.Repeat("#", full) + strings.Repeat(".", n-full)
	}
	eighths := int(share * float64(n) * 8)
	s := strings.Repeat("█", eighths/8)
	if r := eighths % 8; r > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[r-1])
	}
	return Pad(s, n, false)
}

// Mark is a tick or a cross.
func (p *Printer) Mark(ok bool) string {
	switch {
	case ok && p.ASCII:
		return p.Tone(Good, "ok")
	case ok:
		return p.Tone(Good, "✓")
	case p.ASCII:
		return p.Tone(Bad, "!!")
	}
	return p.Tone(Bad, "✗")
}

// Tone is what a word means; it decides the colour, if there is any.
type Tone int

// The tones. Words carry the meaning, colour only repeats it.
const (
	Plain Tone = iota
	Good
	Warn
	Bad
	Dim
	Strong
)

// Tone colours a text.
func (p *Printer) Tone(t Tone, s string) string {
	a, ok := map[Tone]color.Attribute{Good: color.FgGreen, Warn: color.FgYellow, Bad: color.FgRed, Dim: color.Faint, Strong: color.Bold}[t]
	if !ok || !p.Colour || s == "" {
		return s
	}
	c := color.New(a)
	c.EnableColor()
	return c.Sprint(s)
}

// Wrap breaks a text at blanks into lines of at most n columns; a longer word stays whole.
func Wrap(s string, n int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(s) {
		switch {
		case line == "":
			line = w
		case Columns(line)+1+Columns(w) <= n:
			line += " " + w
		default:
			out = append(out, line)
			line = w
		}
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}

// Paragraph writes a text under a label, wrapped and indented below the label's end.
func (p *Printer) Paragraph(label, text string) {
	n := Columns(label)
	for i, l := range Wrap(Clean(text), max(p.Width-n, MinWidth)) {
		if i == 0 {
			p.Line("%s%s", label, l)
			continue
		}
		p.Line("%s%s", strings.Repeat(" ", n), l)
	}
}
