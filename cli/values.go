package cli

import (
	"regexp"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var (
	backupName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// checkNewName accepts the name of a backup that is to be made.
func checkNewName(option, s string) error {
	switch {
	case s == "":
		return usage("type "+option+" NAME, for example "+option+" MAR09", "the name of the backup is empty")
	case strings.Contains(s, "/"):
		return usage("type only the name; the timestamp below it is made when the backup starts", "%q is a path: a new backup has a plain name without /", s)
	case !backupName.MatchString(s):
		return usage("use 1 to 64 letters, digits, dots, dashes, underscores; the first is a letter or digit", "%q cannot be the name of a backup", s)
	}
	return nil
}

// checkSelector accepts what may select an existing backup: NAME,
// NAME/TIMESTAMP or a prefix of it, or a path.
func checkSelector(option, s string) error {
	switch {
	case s == "":
		return usage("type "+option+" NAME, "+option+" NAME/TIMESTAMP, or the directory's path", "the name of the backup is empty")
	case strings.HasPrefix(s, "-"):
		return usage("type "+option+" NAME", "%q is an option, not the name of a backup", s)
	case len(s) > 4096 || strings.ContainsAny(s, "\x00\n\r"):
		return usage("type NAME, NAME/TIMESTAMP, or the directory's path", "the name of the backup cannot be meant")
	}
	return nil
}

func yesNo(option, s string) (bool, error) {
	switch s {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, usage("type "+option+" yes or "+option+" no", "option %s takes yes or no, not %q", option, s)
}

// databases reads the value of -t: "*" gives none, which means everything.
// Names may carry an instance (NAME@INSTANCE). Aliases are replaced, and told.
func databases(option, s string) (chosen, told []string, err error) {
	list := strings.Join(databaseNames(), ",")
	if s == "*" {
		return nil, nil, nil
	}
	for item := range strings.SplitSeq(s, ",") {
		name, instance, at := strings.Cut(strings.TrimSpace(item), "@")
		if name == "*" {
			return nil, nil, usage("type "+option+" '*' alone, or names alone", "* stands for all databases and cannot be mixed with names in %q", s)
		}
		c, ok := plugins.Lookup(name)
		if !ok {
			hint := "use '*' (in quotes) or a comma list of " + list
			if c, ok := plugins.Lookup(strings.ToLower(name)); ok {
				hint = "type " + option + " " + c.Name
			}
			return nil, nil, usage(hint, "%q is not a database", name)
		}
		if at && !instanceName.MatchString(instance) {
			return nil, nil, usage("type "+option+" "+c.Name+"@INSTANCE", "%q is not the name of an instance", instance)
		}
		if c.Name != name {
			told = append(told, "taking "+name+" as "+c.Name)
		}
		full := plugins.Target{Component: c.Name, Instance: instance}.String()
		if slices.Contains(chosen, full) {
			return nil, nil, usage("name it once", "%s appears twice in %q", full, s)
		}
		chosen = append(chosen, full)
	}
	return chosen, told, nil
}

// exampleList and exampleInstance stand in help texts; names come from the
// table of components only.
func exampleList() string { return strings.Join(databaseNames()[:2], ",") }

func exampleInstance() string { return databaseNames()[0] + "@east" }

func databaseNames() []string {
	var out []string
	for _, c := range plugins.Components {
		if c.Database {
			out = append(out, c.Name)
		}
	}
	return out
}
