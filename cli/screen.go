package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// screen shows the moments of a run: a block that is redrawn on a terminal,
// one line per change anywhere else.
type screen struct {
	a      *app
	block  *ui.Block
	rates  map[string]*rate
	said   map[string]string // plain: what was last said of the run and of each unit
	open   bool
	phases int // plain: how many phases were said
}

func (a *app) newScreen() *screen {
	s := &screen{a: a, rates: map[string]*rate{}, said: map[string]string{}, open: true}
	if a.out.Live {
		s.block = a.out.NewBlock()
	}
	return s
}

func (s *screen) close() {
	if s.open && s.block != nil {
		s.block.Clear()
	}
	s.open = false
}

func (s *screen) show(m moment) {
	if s.block != nil {
		s.block.Draw(s.lines(m), s.a.paint)
		return
	}
	s.plain(m)
}

// paint colours the head line and lines that tell of trouble.
func (a *app) paint(i int, l string) string {
	switch {
	case i == 0:
		return a.out.Tone(ui.Strong, l)
	case strings.HasPrefix(l, "! "):
		return a.out.Tone(ui.Warn, l)
	}
	return l
}

// head is "backup MAR09/… · copy 0:12 · maintenance on · 2:31".
func (a *app) head(m moment) string {
	p := m.progress
	if p.Operation == "" {
		return "starting"
	}
	parts := []string{strings.TrimSpace(p.Operation + " " + p.Backup)}
	if p.Phase != "" {
		parts = append(parts, p.Phase+" "+ui.Clock(m.at.Sub(p.Since)))
	}
	if p.Maintenance != "" {
		parts = append(parts, "maintenance "+p.Maintenance)
	}
	parts = append(parts, ui.Clock(m.at.Sub(p.Started)))
	sep := " · "
	if a.out.ASCII {
		sep = " | "
	}
	return ui.Clean(strings.Join(parts, sep))
}

// lines lays out a moment: the head, one line per unit, the total, notes.
func (s *screen) lines(m moment) []string {
	out := []string{s.a.head(m)}
	name := 0
	for _, u := range m.progress.Units {
		name = max(name, min(ui.Columns(u.Unit), min(nameMost, s.a.out.Width/3)))
	}
	var sum flow
	for _, u := range m.progress.Units {
		f := s.flow(u, m)
		sum.add(f, u)
		if u.State == "done" && len(m.progress.Units) > s.a.out.Height-4 {
			continue // many units: those that are done give way
		}
		out = append(out, "  "+ui.Pad(s.a.out.Cut(ui.Clean(u.Unit), name), name, false)+"  "+s.unit(u, f))
	}
	if len(m.progress.Units) > 1 && sum.done+sum.total > 0 {
		out = append(out, "  "+ui.Pad("total", name, false)+"  "+s.total(sum))
	}
	for _, w := range last(m.progress.Warnings, 3) {
		out = append(out, "! "+ui.Clean(w))
	}
	if m.note != "" {
		out = append(out, "! "+ui.Clean(m.note))
	}
	if !m.asked.IsZero() && m.at.Sub(m.asked) > staleAfter && m.note == "" {
		out = append(out, fmt.Sprintf("! stale: no progress answered for %s", ui.Took(m.at.Sub(m.asked))))
	}
	return append(out, "  Ctrl-C detaches; the operation goes on")
}

func last(s []string, n int) []string { return s[max(0, len(s)-n):] }

// flow is how far bytes are: done of total (0: unknown), and how fast.
type flow struct {
	phase, item string
	done, total int64
	rate        float64
	stale       bool
	attempt     int32
	finished    int
	units       int
	allKnown    bool
}

func (f *flow) add(o flow, u workflows.UnitProgress) {
	if f.units == 0 {
		f.allKnown = true
	}
	f.units++
	if u.State == "done" {
		f.finished++
		o.total = max(o.total, o.done)
	}
	f.done += o.done
	f.total += o.total
	f.rate += o.rate
	f.allKnown = f.allKnown && o.total > 0
}

// flow joins what the workflow says of a unit with the heartbeat of its activity.
func (s *screen) flow(u workflows.UnitProgress, m moment) flow {
	f := flow{phase: u.Phase, done: u.Bytes, total: u.Estimate}
	if u.State != "running" {
		delete(s.rates, u.Unit)
		return f
	}
	f.attempt = m.attempts[u.ActivityID]
	b, ok := m.beats[u.ActivityID]
	if !ok {
		return f
	}
	f.item, f.done = b.Item, b.Bytes
	if b.Phase != "" {
		f.phase = b.Phase
	}
	if b.Total > 0 {
		f.total = b.Total
	}
	f.stale = !b.At.IsZero() && m.at.Sub(b.At) > staleAfter
	r := s.rates[u.Unit]
	if r == nil || r.phase != f.phase || b.Bytes < r.bytes() {
		r = &rate{phase: f.phase}
		s.rates[u.Unit] = r
	}
	at := b.At
	if at.IsZero() {
		at = m.at
	}
	r.add(at, b.Bytes)
	f.rate = r.perSecond()
	return f
}

// What a line of the block shows beside name and phase, by width: the bar
// gives way first, then the rate, then the phase.
const (
	barWidth   = 78
	rateWidth  = 64
	phaseWidth = 50
	nameMost   = 20
)

// unit is the part of a unit's line behind its name.
func (s *screen) unit(u workflows.UnitProgress, f flow) string {
	switch u.State {
	case "done":
		t := ""
		if u.Bytes > 0 {
			t = ui.Bytes(u.Bytes)
		}
		if u.Stored > 0 {
			t += " -> " + ui.Bytes(u.Stored)
		}
		return ui.Pad("done", 7, false) + "  " + ui.Pad(t, 22, false) + "  " + ui.Took(u.Took)
	case "waiting":
		return "waiting"
	case "failed":
		return "FAILED   " + ui.Clean(u.Phase)
	}
	line := s.phase(ui.Clean(f.phase))
	if f.done == 0 && f.total == 0 {
		return strings.TrimRight(line+" "+ui.Clean(f.item), " ")
	}
	line += s.numbers(f, f.total > 0)
	if f.stale {
		line += "  stale"
	}
	if f.attempt > 1 {
		line += fmt.Sprintf("  attempt %d", f.attempt)
	}
	return strings.TrimRight(line, " ")
}

func (s *screen) phase(name string) string {
	if s.a.out.Width < phaseWidth {
		return ""
	}
	return ui.Pad(s.a.out.Cut(name, 7), 7, false) + " "
}

// numbers is percent, bar, bytes, rate and remaining time. Percent stays
// below 100 until the unit is done: estimates are estimates.
func (s *screen) numbers(f flow, known bool) string {
	bar, pct, bytes := "", "    ", ui.Bytes(f.done)
	if known {
		q := min(float64(f.done)/float64(f.total), 0.99)
		pct, bytes = fmt.Sprintf("%3d%%", int(q*100)), ui.Share(f.done, max(f.total, f.done))
		bar = s.a.out.Bar(q, 8)
	}
	line := pct + " "
	if s.a.out.Width >= barWidth {
		line += ui.Pad(bar, 8, false) + " "
	}
	line += ui.Pad(bytes, 12, true)
	if s.a.out.Width >= rateWidth {
		rate := ui.Rate(f.rate)
		if f.stale {
			rate = ""
		}
		line += "  " + ui.Pad(rate, 10, true)
	}
	if known && !f.stale {
		line += "  " + ui.Pad(eta(f), 6, true)
	}
	return line
}

func eta(f flow) string {
	if f.rate <= 0 || f.total <= f.done {
		return ""
	}
	return ui.Clock(time.Duration(float64(f.total-f.done) / f.rate * float64(time.Second)))
}

func (s *screen) total(f flow) string {
	line := s.phase(fmt.Sprintf("%d/%d", f.finished, f.units)) + s.numbers(f, f.allKnown)
	return strings.TrimRight(line, " ")
}

// plain says what changed: phases, states of units, maintenance, trouble.
func (s *screen) plain(m moment) {
	p := m.progress
	for _, ph := range p.Phases[min(s.phases, len(p.Phases)):] {
		s.a.out.Note("%s  %s", ph.At.Local().Format(time.TimeOnly), ui.Clean(ph.Name))
	}
	s.phases = len(p.Phases)
	for _, u := range p.Units {
		t := u.State
		switch {
		case u.State == "running" && u.Phase != "":
			t = u.Phase
		case u.State == "done" && u.Bytes == 0:
			t = "done in " + ui.Took(u.Took)
		case u.State == "done":
			t = fmt.Sprintf("done, %s in %s", ui.Bytes(u.Bytes), ui.Took(u.Took))
		case u.State == "waiting":
			continue
		}
		s.say(u.Unit, u.Unit+": "+t)
	}
	for _, w := range p.Warnings {
		s.say("warning "+w, "warning: "+w)
	}
	// Numbers in the note grow by the second; its beginning tells whether it is new.
	if kind, _, _ := strings.Cut(m.note, " for "); kind != s.said["note"] {
		s.said["note"] = kind
		if m.note != "" {
			s.a.out.Note("%s  %s", s.a.now().Format(time.TimeOnly), ui.Clean(m.note))
		}
	}
}

func (s *screen) say(key, text string) {
	if s.said["_"+key] == text {
		return
	}
	s.said["_"+key] = text
	s.a.out.Note("%s  %s", s.a.now().Format(time.TimeOnly), ui.Clean(text))
}
