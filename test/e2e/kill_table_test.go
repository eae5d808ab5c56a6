package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// killTable collects the results of many runs in a file, so that the whole
// matrix may be run in parts and by several processes, and writes them into the
// docs: of each cell the newest result, with the commits they were found at.
type killTable struct {
	path, commit string
	began, until time.Time
	rows         map[string]killRow
}

type killRow struct {
	Commit string    `json:"commit"`
	Case   string    `json:"case"`
	Word   string    `json:"word"` // "failed" when an assertion did not hold
	Tries  int       `json:"tries"`
	Took   float64   `json:"took"` // seconds
	At     time.Time `json:"at"`
}

// openKillTable reads CSO_KILL_RESULTS; CSO_KILL_FOR limits the time of one run.
func openKillTable(t *testing.T) *killTable {
	t.Helper()
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		t.Fatal(err)
	}
	k := &killTable{path: os.Getenv("CSO_KILL_RESULTS"), commit: strings.TrimSpace(string(out)), began: time.Now(), rows: map[string]killRow{}}
	if k.path == "" {
		k.path = filepath.Join(t.TempDir(), "kill.jsonl")
	}
	if s := os.Getenv("CSO_KILL_FOR"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		k.until = time.Now().Add(d)
	}
	k.read(t)
	return k
}

// read learns what this and other processes have found.
func (k *killTable) read(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(k.path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r killRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", k.path, err)
		}
		k.rows[r.Case] = r
	}
}

func (k *killTable) late() bool { return k != nil && !k.until.IsZero() && time.Now().After(k.until) }

// has says whether a cell has its result at this commit. One that failed is run
// again by the next test run, not by another process of this one.
func (k *killTable) has(t *testing.T, c killCase) bool {
	t.Helper()
	if k == nil {
		return false
	}
	k.read(t)
	r, ok := k.rows[c.String()]
	return ok && r.Commit == k.commit && (r.Word != "failed" || r.At.After(k.began))
}

func (k *killTable) add(t *testing.T, c killCase, o outcome, ok bool, took time.Duration) {
	t.Helper()
	if k == nil {
		return
	}
	if !ok {
		o.word = "failed"
	}
	r := killRow{k.commit, c.String(), o.word, o.tries, took.Seconds(), time.Now().UTC().Truncate(time.Second)}
	k.rows[r.Case] = r
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(k.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

const (
	tableBegin = "<!-- kill matrix: written by make test-kill -->\n"
	tableEnd   = "<!-- end of the kill matrix -->\n"
)

// write puts the table into CSO_KILL_DOC, between its two marks.
func (k *killTable) write(t *testing.T) {
	t.Helper()
	doc := os.Getenv("CSO_KILL_DOC")
	if k == nil || doc == "" || len(k.rows) == 0 {
		return
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), tableBegin)
	_, after, found2 := strings.Cut(rest, tableEnd)
	if !found || !found2 {
		t.Fatalf("%s has no place for the table", doc)
	}
	if err := os.WriteFile(doc, []byte(before+tableBegin+k.text()+tableEnd+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cellCount is the number of cells of the whole matrix.
func cellCount() (n int) {
	for _, lab := range killLabs {
		n += len((&matrix{lab: lab}).all())
	}
	return n
}

// text is two tables, the first lab's and the other labs': a line for each
// phase, a column for each blow.
func (k *killTable) text() string {
	words, commits := map[string]int{}, map[string]int{}
	var last time.Time
	misses := 0
	for _, r := range k.rows {
		words[r.Word]++
		commits[r.Commit]++
		misses += max(0, r.Tries-1)
		if r.At.After(last) {
			last = r.At
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\n%s: %d of %d cells were run, %d blows that missed were repeated. Cells by commit:",
		last.Format("2006-01-02 15:04 MST"), len(k.rows), cellCount(), misses)
	for _, c := range slices.Sorted(maps.Keys(commits)) {
		fmt.Fprintf(&out, " %s: %d.", c, commits[c])
	}
	out.WriteString(" Cells by outcome:")
	for _, w := range []string{finished, anew, done, ended1, back, heldWord, "failed"} {
		if words[w] > 0 {
			fmt.Fprintf(&out, " %s: %d.", w, words[w])
		}
	}
	out.WriteString("\n")
	for _, labs := range [][]*shared{killLabs[:1], killLabs[1:]} {
		k.grid(&out, labs)
	}
	return out.String() + "\n"
}

// grid writes the cells of some labs.
func (k *killTable) grid(out *strings.Builder, labs []*shared) {
	var columns []string
	for _, lab := range labs {
		for _, x := range lab.blows() {
			columns = append(columns, x.name)
		}
	}
	fmt.Fprintf(out, "\n| phase | %s |\n|---%s|\n", strings.Join(columns, " | "), strings.Repeat("|---", len(columns)))
	for _, p := range phases {
		fmt.Fprintf(out, "| %s: %s |", p.op, p.name)
		for _, c := range columns {
			word := "–"
			if r, ok := k.rows[p.op+"/"+p.name+"/"+c]; ok {
				word = r.Word
			}
			fmt.Fprintf(out, " %s |", word)
		}
		out.WriteString("\n")
	}
}
