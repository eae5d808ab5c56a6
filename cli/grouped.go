package cli

import (
	"slices"
	"strings"
)

// grouped collects texts that are true of several units, so that each is
// told once.
type grouped struct {
	texts []string
	units map[string][]string
}

func (g *grouped) add(unit, text string) {
	if g.units == nil {
		g.units = map[string][]string{}
	}
	if !slices.Contains(g.texts, text) {
		g.texts = append(g.texts, text)
	}
	if unit != "" && !slices.Contains(g.units[text], unit) {
		g.units[text] = append(g.units[text], unit)
	}
}

// split adds texts that begin with one of the units and a colon.
func (g *grouped) split(units, texts []string) {
	for _, t := range texts {
		unit, text, ok := strings.Cut(t, ": ")
		if ok && slices.Contains(units, unit) {
			g.add(unit, text)
			continue
		}
		g.add("", t)
	}
}

// showGroups prints "label: units: text", texts of the same units together.
func (a *app) showGroups(label string, g grouped) {
	for _, t := range g.texts {
		if us := g.units[t]; len(us) > 0 {
			t = strings.Join(us, ", ") + ": " + t
		}
		a.out.Paragraph(label+": ", t)
	}
}
