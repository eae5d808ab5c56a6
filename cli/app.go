package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
)

// app is one run of the command.
type app struct {
	p       Process
	paths   config.Paths
	out     *ui.Printer
	stdout  *answer
	log     *slog.Logger // the SDK's, silent: a problem is told once, in our words
	command string       // as shown in the JSON document
	notes   []string     // shown at once in text mode, and part of the document
	now     func() time.Time
}

func newApp(p Process) *app {
	a := &app{
		p: p, paths: config.FromEnv(p.Getenv), out: ui.New(p.Stdout, p.Stderr, p.Getenv),
		log: slog.New(slog.DiscardHandler), now: time.Now,
	}
	a.stdout = &answer{w: p.Stdout}
	a.out.Out, a.p.Stdout = a.stdout, a.stdout
	a.out.JSON = wantsJSON(p.Args)
	if a.out.JSON {
		a.out.Live = false
	}
	return a
}

// answer is standard output; it remembers that something could not be written.
type answer struct {
	w   io.Writer
	err error
}

func (a *answer) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	a.err = errors.Join(a.err, err)
	return n, err
}

// Fd is the terminal, if it is one; no file otherwise.
func (a *answer) Fd() uintptr {
	if f, ok := a.w.(*os.File); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}

// wantsJSON looks for the output format before anything is parsed, so that
// even a usage error is a JSON document.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false
		case arg == "-o=json", arg == "-ojson", arg == "--output=json":
			return true
		case (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return false
}

// outcome is what a command that did not fail leaves behind.
type outcome struct {
	Result  any          // of the JSON document
	Code    problem.Code // "" for success, or Warnings, Unhealthy …
	Message string       // the verdict in words, after OK, WARNINGS or FAILED; empty: none is printed
	Next    []string     // commands that make sense now
	Text    func()       // prints the result before the verdict; may be nil
}

// document is the JSON form of every command's end.
type document struct {
	Command string           `json:"command"`
	Verdict string           `json:"verdict"` // OK, WARNINGS or FAILED
	Exit    int              `json:"exit"`
	Message string           `json:"message,omitempty"`
	Result  any              `json:"result,omitempty"`
	Error   *problem.Problem `json:"error,omitempty"`
	Notes   []string         `json:"notes,omitempty"`
}

// note tells something beside the result.
func (a *app) note(format string, args ...any) {
	s := ui.Clean(fmt.Sprintf(format, args...))
	a.notes = append(a.notes, s)
	a.out.Note("note: %s", s)
}

func verdict(c problem.Code) string {
	switch c {
	case "":
		return "OK"
	case problem.Warnings:
		return "WARNINGS"
	case problem.Detached:
		return "DETACHED"
	}
	return "FAILED"
}

// finish prints outcome or error and returns the exit status.
func (a *app) finish(o *outcome, err error) int {
	if err != nil {
		return a.fail(o, problem.As(err))
	}
	code := 0
	if o.Code != "" {
		code = o.Code.Exit()
	}
	if a.out.JSON {
		d := document{Command: a.command, Verdict: verdict(o.Code), Exit: code, Message: o.Message, Result: o.Result, Notes: a.notes}
		return a.emit(d, code)
	}
	if o.Text != nil {
		o.Text()
	}
	if o.Message != "" {
		tone := map[problem.Code]ui.Tone{"": ui.Good, problem.Warnings: ui.Warn}[o.Code]
		if o.Code != "" && o.Code != problem.Warnings {
			tone = ui.Bad
		}
		w := verdict(o.Code)
		for i, l := range ui.Wrap(ui.Clean(o.Message), max(a.out.Width-len(w)-2, 20)) {
			if i > 0 {
				w = strings.Repeat(" ", len(w))
				tone = ui.Plain
			}
			a.out.Line("%s  %s", a.out.Tone(tone, w), l)
		}
	}
	a.next(o.Next)
	return code
}

func (a *app) next(cmds []string) {
	for i, n := range cmds {
		label := "next: "
		if i > 0 {
			label = "      "
		}
		a.out.Line("%s%s", a.out.Tone(ui.Dim, label), n)
	}
}

// fail prints a problem: what happened, and what to do.
func (a *app) fail(o *outcome, p *problem.Problem) int {
	if hint := systemHint(p); hint != "" {
		p.Hint = hint
		if p.Code == problem.Key {
			p.Code = problem.Failed // the keys are there, this user or this disk is the trouble
		}
	}
	code := p.Code.Exit()
	shown := *p
	shown.Message, shown.Hint = ui.Clean(oneLine(p.Message)), ui.Clean(oneLine(p.Hint))
	if a.out.JSON {
		d := document{Command: a.command, Verdict: verdict(p.Code), Exit: code, Error: &shown, Notes: a.notes}
		if o != nil {
			d.Result = o.Result
		}
		return a.emit(d, code)
	}
	if o != nil && o.Text != nil {
		o.Text()
	}
	switch p.Code {
	case problem.Detached:
		a.out.Error("%s", shown.Message)
	case problem.Usage:
		a.out.Error("%s %s", a.out.Tone(ui.Bad, "usage error:"), shown.Message)
	default:
		a.out.Error("%s  %s", a.out.Tone(ui.Bad, "FAILED"), shown.Message)
	}
	if shown.Hint != "" {
		a.out.Error("  hint: %s", shown.Hint)
	}
	if p.Code != problem.Detached {
		a.out.Error("  (%s, exit %d)", p.Code, code)
	}
	return code
}

func (a *app) emit(d document, code int) int {
	if err := a.out.Document(d); err != nil {
		a.out.Error("%v", err)
		return problem.Failed.Exit()
	}
	return code
}

// systemHint says what to do about the failures of this host that every
// command can meet; "" for all others.
func systemHint(err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the file system is mounted read-only: mount it writable"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on that file system, then type this again"
	case errors.Is(err, fs.ErrPermission):
		return "run this as root on the installer-vm"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		return "the disk or volume fails: look at the kernel's log (dmesg)"
	}
	return ""
}

func orHint(err error, hint string) string {
	if s := systemHint(err); s != "" {
		return s
	}
	return hint
}

// oneLine joins the lines of a message: errors.Join writes one a line.
func oneLine(s string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return l == "" }), "; ")
}

func usage(hint, format string, args ...any) error {
	return problem.New(problem.Usage, hint, format, args...)
}

// interactive says whether a person can be asked.
func (a *app) interactive() bool {
	f, ok := a.p.Stdin.(*os.File)
	return ok && a.out.Live && term.IsTerminal(int(f.Fd()))
}

// confirmed asks once; only the word yes is a yes.
func (a *app) confirmed(question string) (bool, error) {
	fmt.Fprintf(a.p.Stdout, "%s Type yes to go on: ", question)
	line, err := bufio.NewReader(io.LimitReader(a.p.Stdin, 256)).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	return strings.TrimSpace(line) == "yes", nil
}
