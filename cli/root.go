package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

const rootHelp = `Back up and restore the databases of an estate, its passwords and certificates,
as one backup at one consistency point.

Examples:
  cso_backupnrestore -b backup -s MAR09                     back up everything
  cso_backupnrestore -b backup -s MAR09 -m yes              with maintenance
  cso_backupnrestore -b listbackups                         what there is
  cso_backupnrestore -b backupdetails -s MAR09              what is in it
  cso_backupnrestore -b restore -s MAR09                    put it all back
  cso_backupnrestore -b restore -s MAR09 -t %-15s two databases only
  cso_backupnrestore -b restore -s MAR09 -r yes             onto new servers
  cso_backupnrestore -b scheduledbackup -s DAILY -c '30-2-*-*-*' -m yes
  cso_backupnrestore -b healthcheck
  cso_backupnrestore restore MAR09 --plan                   plan only

Options of the documented form:
  -b OPERATION   backup restore healthcheck reindex backupdetails listbackups
                 scheduledbackup
  -s NAME        backup name, NAME/TIMESTAMP, or the directory's path
  -m yes|no      maintenance mode (backup, scheduledbackup); default no
  -t LIST        '*' or a comma list of
                 %s
                 (restore; %s for one instance); default '*'
  -r yes|no      disaster recovery (restore); default no
  -c TIME        minute-hour-day-month-weekday, Sunday is 0 (scheduledbackup)
  -o json        one JSON document instead of text, errors too (every command)
  restore also takes --plan, --in-place, --confirm NAME
`

const exitHelp = `
Exit status:
  0 ok                       10 no such backup           15 failed, and still in
  1 failed                   11 another operation runs      maintenance mode
  3 warnings, or AMBER       12 wrong or missing key     64 wrong usage
  4 Temporal or a worker     13 damaged backup          130 detached, it goes on
    does not answer          14 confirmation missing
  5 unhealthy, refused

cso_backupnrestore COMMAND --help tells more about a command; man prints the
manual page, completion bash (or zsh, fish) makes the shell complete names.
`

const commandTemplate = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}{{end}}

{{if .HasExample}}Examples:
{{.Example}}

{{end}}Usage:
{{if .Runnable}}  {{.UseLine}}
{{end}}{{if .HasAvailableSubCommands}}  {{.CommandPath}} COMMAND

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name 12}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Options:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}
{{end}}`

// command is a cobra command with what runs behind it.
type runner func(ctx context.Context, args []string) (*outcome, error)

// tree builds the subcommands. What a command returns is kept in *out.
func (a *app) tree(out **outcome, started *bool) *cobra.Command {
	root := &cobra.Command{
		Use: "cso_backupnrestore", SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args:              cobra.ArbitraryArgs,
	}
	root.SetOut(a.p.Stdout)
	root.SetErr(a.p.Stderr)
	root.PersistentFlags().VarP(&format{}, "output", "o", "text or json")
	root.SetHelpTemplate(commandTemplate)
	root.SetUsageTemplate(commandTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("see "+cmd.CommandPath()+" --help", "%s", err)
	})
	// wire binds a command to its function and keeps usage errors apart from failures.
	wire := func(cmd *cobra.Command, run runner) *cobra.Command {
		cmd.DisableFlagsInUseLine = true
		cmd.RunE = func(c *cobra.Command, args []string) error {
			*started = true
			a.command = strings.TrimPrefix(c.CommandPath(), "cso_backupnrestore ")
			o, err := run(c.Context(), args)
			*out = o
			return err
		}
		return cmd
	}
	for _, c := range []*cobra.Command{
		a.backupCommand(wire), a.restoreCommand(wire), a.listCommand(wire), a.infoCommand(wire), a.verifyCommand(wire),
		a.importCommand(wire), a.scheduleCommand(wire), a.statusCommand(wire), a.attachCommand(wire), a.cancelCommand(wire),
		a.resolveCommand(wire), a.healthCommand(wire), a.reindexCommand(wire), a.doctorCommand(wire), a.setupCommand(wire),
		a.versionCommand(wire), a.manCommand(wire),
	} {
		root.AddCommand(c)
	}
	for _, c := range a.laterCommands(wire) {
		root.AddCommand(c)
	}
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		*started = true
		if a.out.JSON {
			return
		}
		if cmd != root {
			help(cmd, args)
			return
		}
		a.rootHelp(root)
	})
	return root
}

type wireFunc func(cmd *cobra.Command, run runner) *cobra.Command

// introduction is the help of the documented form.
func (a *app) introduction() string {
	names := databaseNames()
	half := (len(names) + 1) / 2
	list := strings.Join(names[:half], ",") + ",\n                 " + strings.Join(names[half:], ",")
	return fmt.Sprintf(rootHelp, exampleList(), list, exampleInstance())
}

func (a *app) rootHelp(root *cobra.Command) {
	w := a.p.Stdout
	fmt.Fprint(w, a.introduction())
	fmt.Fprint(w, "\nCommands (the same operations, and more):\n")
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			fmt.Fprintf(w, "  %-12s %s\n", c.Name(), c.Short)
		}
	}
	fmt.Fprint(w, exitHelp)
}

// dispatch runs the documented form or a subcommand.
func (a *app) dispatch(ctx context.Context, args []string) (*outcome, error) {
	if isCompletion(args) {
		return a.complete(args[1:]), nil
	}
	if isDocumented(args) && !slices.Contains(args, "-h") && !slices.Contains(args, "--help") {
		return a.runDocumented(ctx, args)
	}
	first := firstWord(args)
	switch {
	case first == "" && slices.Contains(args, ""):
		return nil, usage("see cso_backupnrestore --help", "the command is empty")
	case isDocumented(args): // with a cry for help in it
		args = []string{"--help"}
	case strings.HasPrefix(first, "-") && first != "-h" && first != "--help":
		return nil, usage("add -b OPERATION, or use a command; see cso_backupnrestore --help", "option %s does not say what to do", first)
	}
	var out *outcome
	var started bool
	root := a.tree(&out, &started)
	root.SetArgs(args)
	a.command = firstWord(args)
	if word := a.command; word != "" && !strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "__") {
		if _, _, err := root.Find([]string{word}); err != nil || !known(root, word) {
			return nil, a.unknownCommand(root, word)
		}
		if i := slices.Index(args, "help"); word == "help" && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && !known(root, args[i+1]) {
			return nil, a.unknownCommand(root, args[i+1])
		}
	}
	err := root.ExecuteContext(ctx)
	var p *problem.Problem
	if err != nil && !started && !errors.As(err, &p) {
		err = usage("see cso_backupnrestore --help", "%s", err)
	}
	if out == nil && err == nil {
		out = &outcome{} // help, which is text
	}
	return out, err
}

// firstWord is the first argument that is not the output format.
func firstWord(args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-o" || arg == "--output":
			i++
		case strings.HasPrefix(arg, "-o") || strings.HasPrefix(arg, "--output="):
		default:
			return arg
		}
	}
	return ""
}

func known(root *cobra.Command, word string) bool {
	if word == "help" || word == "completion" {
		return true
	}
	for _, c := range root.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return true
		}
	}
	return false
}

func (a *app) unknownCommand(root *cobra.Command, word string) error {
	hint := "see cso_backupnrestore --help"
	root.SuggestionsMinimumDistance = 2
	if s := root.SuggestionsFor(word); len(s) > 0 {
		hint = "did you mean: cso_backupnrestore " + s[0]
	}
	for _, op := range append(operations, "schedulebackup") {
		if op == word && !known(root, word) {
			hint = "type: cso_backupnrestore -b " + word
		}
	}
	return usage(hint, "%q is not a command", word)
}

// format is the value of -o.
type format struct{ v string }

func (f *format) String() string { return f.v }
func (f *format) Type() string   { return "FORMAT" }
func (f *format) Set(s string) error {
	f.v = s
	return checkFormat(s)
}

func checkFormat(s string) error {
	if s != "json" && s != "text" {
		return usage("type -o json or -o text", "%q is not an output format", s)
	}
	return nil
}

// exactly is a cobra argument check that says what is missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			return usage("type: "+cmd.CommandPath()+" "+what, "%s is missing", what)
		case len(args) > n:
			return usage("if the shell expanded a *, quote it: '*'", "%q is too much: type %s", args[n], strings.TrimSpace(cmd.CommandPath()+" "+what))
		}
		return nil
	}
}

// atMost allows fewer.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return exactly(n, what)(cmd, args)
		}
		return nil
	}
}

func duration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, usage("write it like 15m or 90s", "%q is not a duration", s)
	}
	return d, nil
}
