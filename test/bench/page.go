package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// page is docs/benchmarks.md: a preface and one chapter per subject, each
// with its own date, so that a run of one chapter leaves the others alone.
type page struct {
	path     string
	chapters map[string]string
	current  string
	text     bytes.Buffer
}

const mark = "<!-- chapter "

func openPage(path string) (*page, error) {
	p := &page{path: path, chapters: map[string]string{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	for _, part := range strings.Split(string(b), mark)[min(1, len(b)):] {
		if name, text, ok := strings.Cut(part, " -->\n"); ok {
			p.chapters[name] = text
		}
	}
	return p, err
}

func (p *page) begin(chapter string) {
	p.current = chapter
	p.text.Reset()
}

// say writes Markdown into the chapter.
func (p *page) say(format string, args ...any) { fmt.Fprintf(&p.text, format, args...) }

// table writes one.
func (p *page) table(head string, rows ...string) {
	n := strings.Count(head, "|") - 1
	p.say("\n%s\n%s|\n", head, strings.Repeat("|---", n))
	for _, r := range rows {
		p.say("%s\n", r)
	}
}

// stamp says when and where the chapter was measured.
func (b *bench) stamp() string {
	commit, _ := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("Measured %s at commit %s, load before it %s, %d cores, %s, rounds: %d, memory warm.", time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		strings.TrimSpace(string(commit)), firstWords(string(load), 3), runtime.NumCPU(), cpuModel(), b.rounds)
}

func firstWords(s string, n int) string {
	f := strings.Fields(s)
	return strings.Join(f[:min(n, len(f))], " ")
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if name, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// save writes the page: the chapter that was just measured and all others as they are.
func (p *page) save() error {
	if p.text.Len() > 0 {
		p.chapters[p.current] = p.text.String()
	}
	var out bytes.Buffer
	out.WriteString(preface)
	for _, c := range chapters {
		if t, ok := p.chapters[c.name]; ok {
			fmt.Fprintf(&out, "\n%s%s -->\n%s\n", mark, c.name, strings.Trim(t, "\n"))
		}
	}
	return os.WriteFile(p.path, out.Bytes(), 0o644)
}

const preface = `# Benchmarks

Written by ` + "`make bench`" + ` (` + "`make bench ONLY=etcd`" + ` measures one chapter anew). Product and peers run on the same machine, on the same data, in
turn; the best of all rounds counts. Wall time is that of the whole command, CPU is that of the command, the worker, cso-temporald and the
database server together. What the product stores is compressed, hashed, encrypted and synced; peers sync their output, too.
Where "memory warm" is said, 4 GiB of free memory were touched before each run: in a virtual machine whose hypervisor takes back what is free,
whoever touches it first pays for all others, up to 2.7 s for each GiB written.
Ratios are peer ÷ product of wall time: above 1 the product is faster. A target that is missed says so, and what limits it.
`
