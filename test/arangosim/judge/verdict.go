package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

//go:embed tests.txt
var list string

// test is one line of tests.txt.
type test struct {
	name  string
	modes []string // "single", "cluster"
	slow  bool
	only  string // the version that it is asked of, empty for all
	miss  string // why it does not pass
}

func (t test) in(mode string) bool { return slices.Contains(t.modes, mode) }

// listed reads tests.txt.
func listed() ([]test, error) {
	var out []test
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 2 || !slices.Contains([]string{"single", "cluster", "both"}, f[1]) {
			return nil, fmt.Errorf("tests.txt: malformed line %q", line)
		}
		t := test{name: f[0], modes: []string{f[1]}}
		if f[1] == "both" {
			t.modes = []string{"single", "cluster"}
		}
		if t.slow = len(f) > 2 && f[2] == "slow"; t.slow {
			f = slices.Delete(f, 2, 3)
		}
		if len(f) > 2 && strings.HasPrefix(f[2], "only:") {
			t.only = strings.TrimPrefix(f[2], "only:")
		}
		if len(f) > 3 && f[2] == "miss:" {
			t.miss = strings.Join(f[3:], " ")
		}
		out = append(out, t)
	}
	return out, nil
}

// resultLine is how go test -v ends a test or subtest.
var resultLine = regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\S+) \([0-9.]+s\)`)

// leaves reads the suite's output: the result of every test or subtest that has no subtest.
func leaves(output string) map[string]string {
	out := map[string]string{}
	parents := map[string]bool{}
	for _, m := range resultLine.FindAllStringSubmatch(output, -1) {
		out[m[2]] = m[1]
		for name := m[2]; strings.Contains(name, "/"); {
			name = name[:strings.LastIndex(name, "/")]
			parents[name] = true
		}
	}
	for p := range parents {
		// A parent may fail by itself although its subtests passed.
		if out[p] != "FAIL" {
			delete(out, p)
		}
	}
	return out
}

type verdict int

const (
	passed verdict = iota
	skipped
	failed
)

// verdictOf judges a test by its leaves in the modes that it runs in, and says what was wrong.
func verdictOf(t test, results map[string]map[string]string) (verdict, string) {
	worst, why := passed, ""
	fault := func(v verdict, format string, args ...any) {
		if v > worst {
			worst, why = v, fmt.Sprintf(format, args...)
		}
	}
	for _, mode := range t.modes {
		ran, gated, gaps := 0, 0, []string{}
		for _, leaf := range slices.Backward(slices.Sorted(maps.Keys(results[mode]))) { // the inner ones first
			result := results[mode][leaf]
			if leaf != t.name && !strings.HasPrefix(leaf, t.name+"/") {
				continue
			}
			switch result {
			case "PASS":
				ran++
			case "FAIL":
				fault(failed, "%s: %s failed", mode, leaf)
			case "SKIP":
				// Below the transport's level a skip may be the suite's own choice for this mode.
				if strings.Count(leaf, "/") > 1 && t.in(otherMode(mode)) && results[otherMode(mode)][leaf] == "PASS" {
					gated++
				} else {
					gaps = append(gaps, leaf)
				}
			}
		}
		switch {
		case ran == 0 && len(gaps) > 0:
			fault(skipped, "%s: all of it skipped", mode)
		case ran+gated == 0:
			fault(failed, "%s: no result", mode)
		case len(gaps) > 0:
			fault(failed, "%s: %d parts skipped, %s among them", mode, len(gaps), gaps[0])
		}
	}
	return worst, why
}

func otherMode(mode string) string {
	if mode == "single" {
		return "cluster"
	}
	return "single"
}

// report writes all verdicts and fails when they are not as tests.txt says.
func report(out io.Writer, tests []test, results map[string]map[string]string, whole bool) error {
	var wrong []string
	var n [3]int
	names := [3]string{"passed", "skipped", "failed"}
	for v := passed; v <= failed; v++ {
		for _, t := range tests {
			got, why := verdictOf(t, results)
			if got != v {
				continue
			}
			n[v]++
			line := fmt.Sprintf("%-7s %s (%s)", names[v], t.name, strings.Join(t.modes, ", "))
			switch {
			case v != passed && t.miss != "":
				line += " " + why + "; known: " + t.miss
			case v != passed:
				line += " " + why
				wrong = append(wrong, t.name+" ("+why+")")
			case t.miss != "":
				wrong = append(wrong, t.name+" (passes: take its miss off tests.txt)")
			}
			fmt.Fprintln(out, line)
		}
	}
	for _, w := range wrong {
		fmt.Fprintln(out, "not as expected:", w)
	}
	fmt.Fprintf(out, "simulated ArangoDB, judged by github.com/arangodb/go-driver/v2/tests v2.4.1\n%d passed, %d failed, %d skipped\n",
		n[passed], n[failed], n[skipped])
	switch {
	case len(tests) == 0:
		return errors.New("no test chosen: see tests.txt for the names")
	case len(wrong) > 0:
		return errUnexpected
	case whole && n[passed] < goal:
		return fmt.Errorf("%d of %d tests passed, %d must", n[passed], len(tests), goal)
	}
	return nil
}

// errUnexpected says that a report names what is not as tests.txt says.
var errUnexpected = errors.New("not as expected: the report names the tests; -log DIR keeps the suite's output")
