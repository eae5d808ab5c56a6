package ui

import (
	"fmt"
	"strings"
)

// Block is a group of lines at the bottom of a terminal that is redrawn in
// place. It needs nothing but cursor-up and erase-line.
type Block struct {
	p     *Printer
	lines int
}

// NewBlock makes an empty block.
func (p *Printer) NewBlock() *Block { return &Block{p: p} }

// Draw replaces the block by these lines, each cut to the width, and as many
// as the terminal is high: a line that wraps or scrolls could not be erased.
// Lines must hold no escapes; colour is added by paint, if not nil.
func (b *Block) Draw(lines []string, paint func(int, string) string) {
	b.p.Resize()
	if n := b.p.Height - 1; len(lines) > n {
		hidden := len(lines) - n + 1
		lines = append(append([]string{}, lines[:n-1]...), fmt.Sprintf("... %d more lines", hidden))
	}
	var s strings.Builder
	s.WriteString(b.up())
	for i, l := range lines {
		l = b.p.Cut(l, b.p.Width-1)
		if paint != nil {
			l = paint(i, l)
		}
		s.WriteString("\x1b[2K" + l + "\n")
	}
	// A shorter block than before leaves lines below: erase to the end of the screen.
	s.WriteString("\x1b[J")
	fmt.Fprint(b.p.Out, s.String())
	b.lines = len(lines)
}

// Print writes a lasting line above the block; the next Draw brings the block back.
func (b *Block) Print(line string) {
	fmt.Fprint(b.p.Out, b.up()+"\x1b[J"+line+"\n")
	b.lines = 0
}

// Clear removes the block.
func (b *Block) Clear() {
	fmt.Fprint(b.p.Out, b.up()+"\x1b[J")
	b.lines = 0
}

func (b *Block) up() string {
	if b.lines == 0 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", b.lines)
}
