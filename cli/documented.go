package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// option is one row of the documented option table. The letters stand here
// and nowhere else.
type option struct {
	letter, alias, long string
	values              string // for error texts
	ops                 []string
	required            []string
}

// Operations of -b, as documented.
const (
	opBackup    = "backup"
	opRestore   = "restore"
	opHealth    = "healthcheck"
	opReindex   = "reindex"
	opDetails   = "backupdetails"
	opList      = "listbackups"
	opScheduled = "scheduledbackup"
)

var operations = []string{opBackup, opRestore, opHealth, opReindex, opDetails, opList, opScheduled}

var options = []option{
	{letter: "b", long: "operation", values: "OPERATION", ops: operations},
	{letter: "s", long: "snapshot", values: "NAME", ops: []string{opBackup, opRestore, opScheduled, opDetails, opList},
		required: []string{opBackup, opRestore, opScheduled, opDetails}},
	{letter: "m", long: "maintenance", values: "yes", ops: []string{opBackup, opScheduled}},
	{letter: "t", alias: "d", long: "databases", values: "'*'", ops: []string{opBackup, opScheduled, opRestore}},
	{letter: "r", long: "disaster-recovery", values: "yes", ops: []string{opRestore}},
	{letter: "c", long: "cron", values: "'0-13-*-*-0'", ops: []string{opScheduled}, required: []string{opScheduled}},
}

// extras are the long options that the documented form takes along: those
// without which a script could not use it, and the output format.
var extras = map[string]struct {
	takes bool
	ops   []string
}{
	"output":          {true, operations},
	"confirm":         {true, []string{opRestore}},
	"plan":            {false, []string{opRestore}},
	"in-place":        {false, []string{opRestore}},
	"detach":          {false, []string{opBackup, opRestore, opReindex}},
	"index":           {true, []string{opReindex}},
	"max-maintenance": {true, []string{opBackup}},
}

// documented are the options of one command line, as typed, checked for form
// and for what fits together, but not yet for values.
type documented struct {
	op    string
	value map[string]string // by long name; flags without value are "yes"
	seen  map[string]string // long name → as typed
	notes []string
}

func findOption(name string) (option, bool) {
	i := slices.IndexFunc(options, func(o option) bool {
		return name == "-"+o.letter || (o.alias != "" && name == "-"+o.alias) || name == "--"+o.long
	})
	if i < 0 {
		return option{}, false
	}
	return options[i], true
}

// isDocumented says whether the arguments are the documented form: they begin
// with one of its options.
func isDocumented(args []string) bool {
	for i := 0; i < len(args); i++ {
		a, _, _ := strings.Cut(args[i], "=")
		switch {
		case a == "-o" || a == "--output":
			if a == args[i] {
				i++
			}
		case a == "-ojson" || a == "-otext":
		case a == "-h" || a == "--help":
			return false
		default:
			if _, ok := findOption(a); ok {
				return true
			}
			// -dr, -bbackup: one of the letters, run together with something
			return len(a) > 2 && a[0] == '-' && a[1] != '-' && strings.Contains("bsmtdrc", a[1:2])
		}
	}
	return false
}

// parseDocumented reads the documented form. Every option takes exactly one
// value and appears once; whatever else is typed is refused with what to type.
func parseDocumented(args []string) (*documented, error) {
	d := &documented{value: map[string]string{}, seen: map[string]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" || arg == "--" {
			return nil, d.stray(args, i)
		}
		name, val, has := strings.Cut(arg, "=")
		long, takes, err := d.resolve(name, args, i)
		if err != nil {
			return nil, err
		}
		if old, twice := d.seen[long]; twice {
			if old == name {
				return nil, usage("give it once", "option %s appears twice (%q and %q)", name, d.value[long], next(args, i))
			}
			return nil, usage("give one of them", "options %s and %s mean the same", old, name)
		}
		d.seen[long] = name
		switch {
		case !takes && has:
			return nil, usage("type "+name+" alone", "option %s takes no value", name)
		case !takes:
			val = "yes"
		case !has && i+1 >= len(args):
			return nil, usage("type "+name+" "+example(long), "option %s needs a value", name)
		case !has:
			i++
			if val = args[i]; strings.HasPrefix(val, "-") {
				return nil, usage(fmt.Sprintf("type %s %s before %s", name, example(long), val), "option %s needs a value, but %s follows", name, val)
			}
		}
		if val == "" {
			return nil, usage("type "+name+" "+example(long), "the value of option %s is empty", name)
		}
		d.value[long] = val
	}
	return d, d.fits()
}

// resolve finds the option that an argument names.
func (d *documented) resolve(name string, args []string, i int) (long string, takes bool, err error) {
	if o, ok := findOption(name); ok {
		return o.long, true, nil
	}
	if name == "-o" {
		return "output", true, nil
	}
	if x, ok := extras[strings.TrimPrefix(name, "--")]; ok && strings.HasPrefix(name, "--") {
		return strings.TrimPrefix(name, "--"), x.takes, nil
	}
	if strings.HasPrefix(name, "--") || len(name) < 2 {
		return "", false, usage("see cso_backupnrestore --help", "there is no option %s", name)
	}
	// Several letters behind one dash: the classic slip is -dr yes for -r yes.
	first, _ := findOption(name[:2])
	last, isLast := findOption("-" + name[len(name)-1:])
	switch {
	case first.letter == "" && name[:2] != "-o":
		return "", false, usage("see cso_backupnrestore --help", "there is no option %s", name)
	case name == "-dr" || (len(name) == 3 && isLast):
		return "", false, usage(fmt.Sprintf("type -%s %s", last.letter, orExample(next(args, i), last)),
			"%s is not an option: letters cannot be joined", name)
	}
	return "", false, usage(fmt.Sprintf("type %s %s, with a blank between", name[:2], strings.TrimPrefix(args[i][2:], "=")), "%s: option and value run together", name)
}

func orExample(v string, o option) string {
	if v == "" || strings.HasPrefix(v, "-") {
		return o.values
	}
	return v
}

func next(args []string, i int) string {
	if _, v, ok := strings.Cut(args[i], "="); ok {
		return v
	}
	if i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

func example(long string) string {
	for _, o := range options {
		if o.long == long {
			return o.values
		}
	}
	return map[string]string{"output": "json", "confirm": "NAME", "max-maintenance": "15m", "index": "NAME"}[long]
}

// stray explains a word that belongs to no option.
func (d *documented) stray(args []string, i int) error {
	word := args[i]
	last := ""
	for long, name := range d.seen {
		if i >= 2 && args[i-2] == name {
			last = long
		}
	}
	switch {
	case last == "databases" || (d.seen["databases"] != "" && last == ""):
		return usage("quote it: -t '*'; or write names with commas and without blanks: -t "+exampleList(),
			"%q belongs to no option: the shell replaces an unquoted * by file names", word)
	case last == "cron" || (d.seen["cron"] != "" && last == ""):
		return usage("quote it: -c '0 13 * * 0', or write it with dashes: -c '0-13-*-*-0'", "%q belongs to no option: the time is several words", word)
	case last == "operation" && !strings.HasPrefix(word, "-"):
		return usage("type -b "+d.value["operation"]+" -s "+word, "%q belongs to no option", word)
	}
	return usage("every value follows its option; see cso_backupnrestore --help", "%q belongs to no option", word)
}

// fits checks the operation and which options go with it.
func (d *documented) fits() error {
	op, ok := d.value["operation"]
	if !ok {
		return usage("add -b and one of: "+strings.Join(operations, " "), "option -b is missing")
	}
	if op == "schedulebackup" {
		d.notes = append(d.notes, "taking schedulebackup as scheduledbackup")
		op = opScheduled
	}
	if !slices.Contains(operations, op) {
		return usage("use one of: "+strings.Join(operations, " "), "%q is not an operation", op)
	}
	d.op = op
	for _, o := range options {
		name, given := d.seen[o.long]
		switch {
		case given && !slices.Contains(o.ops, op):
			return usage(d.why(o, op), "option %s does not go with -b %s", name, op)
		case !given && slices.Contains(o.required, op):
			return usage(fmt.Sprintf("add -%s %s", o.letter, o.values), "-b %s needs option -%s", op, o.letter)
		}
	}
	for long, x := range extras {
		if name, given := d.seen[long]; given && !slices.Contains(x.ops, op) {
			return usage("leave it out", "option %s does not go with -b %s", name, op)
		}
	}
	return nil
}

func (d *documented) why(o option, op string) string {
	switch {
	case o.long == "maintenance" && op == opRestore:
		return "leave it out: a restore always uses maintenance"
	case o.long == "cron":
		return "for a scheduled backup type -b scheduledbackup"
	}
	return "leave it out; it goes with -b " + strings.Join(o.ops, ", -b ")
}

// runDocumented does what the documented form asks for.
func (a *app) runDocumented(ctx context.Context, args []string) (*outcome, error) {
	d, err := parseDocumented(args)
	if err != nil {
		return nil, err
	}
	a.command = d.op
	if f, ok := d.value["output"]; ok {
		if err := checkFormat(f); err != nil {
			return nil, err
		}
	}
	for _, n := range d.notes {
		a.note("%s", n)
	}
	chosen, err := a.chosen(d)
	if err != nil {
		return nil, err
	}
	switch d.op {
	case opBackup:
		o := backupOptions{name: d.value["snapshot"], detach: d.value["detach"] != "", option: "-s"}
		if o.maintenance, err = d.yes("maintenance"); err != nil {
			return nil, err
		}
		if o.maxMaintenance, err = duration(d.value["max-maintenance"]); err != nil {
			return nil, err
		}
		return a.backup(ctx, o)
	case opScheduled:
		o := scheduleOptions{name: d.value["snapshot"], cron: d.value["cron"], option: "-s"}
		if o.maintenance, err = d.yes("maintenance"); err != nil {
			return nil, err
		}
		return a.scheduleAdd(ctx, o)
	case opRestore:
		o := restoreOptions{backup: d.value["snapshot"], components: chosen, confirm: d.value["confirm"], option: "-s",
			plan: d.value["plan"] != "", inPlace: d.value["in-place"] != "", detach: d.value["detach"] != ""}
		if o.disaster, err = d.yes("disaster-recovery"); err != nil {
			return nil, err
		}
		return a.restore(ctx, o)
	case opHealth:
		return a.healthcheck(ctx, nil)
	case opReindex:
		return a.reindex(ctx, reindexOptions{index: d.value["index"], detach: d.value["detach"] != ""})
	case opDetails:
		return a.info(ctx, "-s", d.value["snapshot"])
	}
	return a.list(ctx, listOptions{filter: d.value["snapshot"], option: "-s"})
}

func (d *documented) yes(long string) (bool, error) {
	v, ok := d.value[long]
	if !ok {
		return false, nil
	}
	return yesNo(d.seen[long], v)
}

// chosen reads -t and applies the rule that a backup is always of everything.
func (a *app) chosen(d *documented) ([]string, error) {
	v, ok := d.value["databases"]
	if !ok {
		return nil, nil
	}
	chosen, told, err := databases(d.seen["databases"], v)
	if err != nil {
		return nil, err
	}
	if d.op != opRestore && len(chosen) > 0 {
		return nil, usage("type -t '*' or leave it out: a backup always holds everything, and a restore can choose", "-b %s takes only '*' with option %s", d.op, d.seen["databases"])
	}
	for _, t := range told {
		a.note("%s", t)
	}
	return chosen, nil
}
