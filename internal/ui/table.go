package ui

import "strings"

// Column describes one column of a table.
type Column struct {
	Head  string
	Right bool              // numbers
	Min   int               // may shrink to this many columns; 0: never
	Drop  int               // left out when the table is too wide, highest first; 0: never
	Tone  func(string) Tone // colour by the cell's text; nil: none
}

// Table lays out rows below heads.
type Table struct {
	Columns []Column
	Rows    [][]string
	Indent  int
}

// Add appends a row; cells are cleaned.
func (t *Table) Add(cells ...string) {
	row := make([]string, len(t.Columns))
	for i := range row {
		if i < len(cells) {
			row[i] = Clean(cells[i])
		}
	}
	t.Rows = append(t.Rows, row)
}

// Print writes the table within the printer's width: first the shrinkable
// columns give way, then whole columns are left out. A table that still does
// not fit is cut at the right.
func (p *Printer) Print(t Table) {
	if p.JSON {
		return
	}
	for _, l := range p.layout(t) {
		p.Line("%s", l)
	}
}

func (p *Printer) layout(t Table) []string {
	width := make([]int, len(t.Columns))
	show := make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		width[i] = Columns(c.Head)
		for _, r := range t.Rows {
			width[i] = max(width[i], Columns(r[i]))
		}
		show[i] = true
	}
	over := func() int {
		n := t.Indent - 2
		for i := range width {
			if show[i] {
				n += width[i] + 2
			}
		}
		return n - p.Width
	}
	shrink := func() {
		for i, c := range t.Columns {
			if o := over(); o > 0 && show[i] && c.Min > 0 && width[i] > c.Min {
				width[i] = max(c.Min, width[i]-o)
			}
		}
	}
	full := append([]int(nil), width...)
	for shrink(); over() > 0; shrink() {
		last := -1
		for i, c := range t.Columns {
			if show[i] && c.Drop > 0 && (last < 0 || c.Drop > t.Columns[last].Drop) {
				last = i
			}
		}
		if last < 0 {
			break
		}
		show[last] = false
		copy(width, full)
	}
	heads := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		heads[i] = c.Head
	}
	out := make([]string, 0, len(t.Rows)+1)
	if strings.Join(heads, "") != "" {
		out = append(out, p.Tone(Strong, p.row(t, heads, width, show, false)))
	}
	for _, r := range t.Rows {
		out = append(out, p.row(t, r, width, show, true))
	}
	return out
}

func (p *Printer) row(t Table, cells []string, width []int, show []bool, tone bool) string {
	last := -1
	for i := range cells {
		if show[i] {
			last = i
		}
	}
	left := p.Width - t.Indent
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", t.Indent))
	for i, c := range t.Columns {
		if !show[i] || left <= 0 {
			continue
		}
		n := min(width[i], left)
		cell := p.Cut(cells[i], n)
		s := Pad(cell, n, c.Right)
		if i == last && !c.Right {
			s = cell
		}
		if tone && c.Tone != nil {
			s = strings.Replace(s, cell, p.Tone(c.Tone(cells[i]), cell), 1)
		}
		b.WriteString(s)
		if left -= n + 2; i != last && left > 0 {
			b.WriteString("  ")
		}
	}
	return strings.TrimRight(b.String(), " ")
}
