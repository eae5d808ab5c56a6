package mariadb

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// differing are the lines that only one of two fingerprints has.
func differing(before, after string) []string {
	var out []string
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, side := range [][2][]string{{a, b}, {b, a}} {
		for _, l := range side[0] {
			if !slices.Contains(side[1], l) {
				out = append(out, l)
			}
		}
	}
	return out
}

// kinds counts the differing lines of two fingerprints by kind.
func kinds(before, after string) map[string]int {
	out := map[string]int{}
	for _, l := range differing(before, after) {
		kind, _, _ := strings.Cut(l, "\t")
		out[kind]++
	}
	return out
}

func TestWreckFitsFill(t *testing.T) {
	fill(t, 1)
	_, db, err := first(lab)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	passed, err := wreckObjects(t.Context(), c, 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range passed {
		t.Errorf("on freshly filled content this statement has no effect: %s", p)
	}
}

func TestWreckReachesEveryKind(t *testing.T) {
	fill(t, 1)
	before := fingerprint(t)
	if err := New().Wreck(t.Context(), lab, 7); err != nil {
		t.Fatal(err)
	}
	after := fingerprint(t)
	changed := kinds(before, after)
	t.Log(changed)
	for line := range strings.Lines(before) {
		kind, _, _ := strings.Cut(line, "\t")
		if changed[kind] == 0 {
			t.Errorf("no line of kind %s changed", kind)
			changed[kind] = 1
		}
	}
	if err := New().Wreck(t.Context(), lab, 8); err != nil {
		t.Errorf("second wreck: %v", err)
	}
	if again := fingerprint(t); again == after {
		t.Error("a second wreck with another seed changed nothing")
	}
	if !strings.Contains(after, "database\t`wreck_7`") {
		t.Error("wreck added no schema")
	}
	fill(t, 1)
	if again := fingerprint(t); again != before {
		t.Errorf("filling a wrecked server did not give the content of a fresh one:\n%s", cmp.Diff(before, again))
	}
}
