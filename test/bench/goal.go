package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// goal is a target of the project: how many times as fast as a peer something
// has to be, and what limits it where it is not.
type goal struct {
	what  string
	want  float64
	whole float64 // reached by the whole command; 0: not asked for
	alone float64 // by the unit's own work, without the run around it; 0: not measured
	limit string
}

// times is how often the product's time goes into the peer's.
func times(peer figure, product time.Duration) float64 {
	return peer.wall.Seconds() / max(product, time.Millisecond).Seconds()
}

func (g goal) String() string {
	var reached []string
	if g.whole > 0 {
		reached = append(reached, fmt.Sprintf("%.2f by the whole command", g.whole))
	}
	if g.alone > 0 {
		reached = append(reached, fmt.Sprintf("%.2f by the unit alone", g.alone))
	}
	line := fmt.Sprintf("* Target: %s, at least %g ×: %s. ", g.what, g.want, strings.Join(reached, ", "))
	switch {
	case g.whole >= g.want:
		return line + "Reached."
	case g.alone >= g.want:
		return line + "Reached by the unit alone: " + g.limit
	}
	return line + "**Missed:** " + g.limit
}

// atLeast says what parts that nobody can leave out take together, beside what a target allows for all.
func atLeast(allowed time.Duration, parts ...figure) string {
	var cpu time.Duration
	for _, p := range parts {
		cpu += p.cpu
	}
	all := cpu / time.Duration(runtime.NumCPU())
	word := "which the target leaves room for"
	if all > allowed {
		word = "more than the target allows: out of reach on this machine"
	}
	return fmt.Sprintf("By programs that do nothing else these take %.1f CPU seconds, %.1f s on all cores beside %.1f s: %s.",
		cpu.Seconds(), all.Seconds(), allowed.Seconds(), word)
}

// goals writes targets below the table that they are about.
func (b *bench) goals(list ...goal) {
	b.page.say("\n")
	for _, g := range list {
		b.page.say("%s\n", g)
	}
}
