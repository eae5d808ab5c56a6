package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// isCompletion says whether a shell asks for completions of the documented
// form, which cobra does not know: __complete [words…] WORD-BEGUN.
func isCompletion(args []string) bool {
	if len(args) < 2 || (args[0] != cobra.ShellCompRequestCmd && args[0] != cobra.ShellCompNoDescRequestCmd) {
		return false
	}
	return isDocumented(args[1:]) || (len(args) == 2 && strings.HasPrefix(args[1], "-"))
}

// complete answers in cobra's protocol: one candidate a line, then a directive.
func (a *app) complete(words []string) *outcome {
	begun := words[len(words)-1]
	candidates, after := a.candidates(words[:len(words)-1], begun)
	return &outcome{Text: func() {
		for _, c := range candidates {
			if strings.HasPrefix(c, begun) {
				fmt.Fprintln(a.p.Stdout, c)
			}
		}
		fmt.Fprintf(a.p.Stdout, ":%d\n", after)
	}}
}

// candidates are the words that may follow, whatever of the last one is typed already.
func (a *app) candidates(words []string, begun string) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	op := ""
	for i, w := range words {
		if o, ok := findOption(w); ok && o.long == "operation" && i+1 < len(words) {
			op = words[i+1]
		}
	}
	if len(words) > 0 {
		last := words[len(words)-1]
		if last == "-o" || last == "--output" {
			return []string{"json", "text"}, none
		}
		if o, ok := findOption(last); ok {
			return a.values(o, op, begun)
		}
	}
	var out []string
	for _, o := range options {
		used := slices.ContainsFunc(words, func(w string) bool { f, ok := findOption(w); return ok && f.long == o.long })
		if !used && (op == "" || slices.Contains(o.ops, op)) {
			out = append(out, "-"+o.letter)
		}
	}
	for long, x := range extras {
		if op != "" && slices.Contains(x.ops, op) && !slices.Contains(words, "--"+long) {
			out = append(out, "--"+long)
		}
	}
	slices.Sort(out)
	return out, none
}

// values are what may follow an option of an operation.
func (a *app) values(o option, op, begun string) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	switch o.long {
	case "operation":
		return operations, none
	case "snapshot":
		if slices.Contains([]string{opRestore, opDetails, opList}, op) {
			return a.completeBackup(nil, nil, "")
		}
	case "maintenance", "disaster-recovery":
		return []string{"yes", "no"}, none
	case "databases":
		before := begun[:strings.LastIndexByte(begun, ',')+1]
		out := []string{"*"}
		if before != "" {
			out = nil
		}
		for _, n := range databaseNames() {
			if !slices.Contains(strings.Split(before, ","), n) {
				out = append(out, before+n)
			}
		}
		return out, none | cobra.ShellCompDirectiveNoSpace
	}
	return nil, none
}
