package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

func TestParseDocumented(t *testing.T) {
	for line, want := range map[string]map[string]string{
		"-b backup -s MAR09":                         {"operation": "backup", "snapshot": "MAR09"},
		"-s MAR09 -m yes -b backup":                  {"operation": "backup", "snapshot": "MAR09", "maintenance": "yes"},
		"--operation=backup --snapshot MAR09":        {"operation": "backup", "snapshot": "MAR09"},
		"-b=restore -s=/backups/DAILY/2019 -t *":     {"operation": "restore", "snapshot": "/backups/DAILY/2019", "databases": "*"},
		"-b restore -s X -d etcd -r yes":             {"operation": "restore", "snapshot": "X", "databases": "etcd", "disaster-recovery": "yes"},
		"-b schedulebackup -s D -c 0-13-*-*-0":       {"operation": "schedulebackup", "snapshot": "D", "cron": "0-13-*-*-0"},
		"-b restore -s X --plan --confirm X":         {"operation": "restore", "snapshot": "X", "plan": "yes", "confirm": "X"},
		"-o json -b listbackups":                     {"output": "json", "operation": "listbackups"},
		"-b healthcheck":                             {"operation": "healthcheck"},
		"-b reindex":                                 {"operation": "reindex"},
		"-b backupdetails -s X":                      {"operation": "backupdetails", "snapshot": "X"},
		"-b backup -s X --detach --output json":      {"operation": "backup", "snapshot": "X", "detach": "yes", "output": "json"},
		"-b backup -s X -m yes --max-maintenance=5m": {"operation": "backup", "snapshot": "X", "maintenance": "yes", "max-maintenance": "5m"},
	} {
		d, err := parseDocumented(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if diff := cmp.Diff(want, d.value); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
		if !isDocumented(strings.Fields(line)) {
			t.Errorf("%s: not taken as the documented form", line)
		}
	}
}

// Every refusal says what to type: the hint is part of the contract.
func TestParseDocumented_refusals(t *testing.T) {
	for line, want := range map[string][2]string{ // message, hint
		"-b":                                    {"-b needs a value", "type -b OPERATION"},
		"-b backup":                             {"needs option -s", "add -s NAME"},
		"-b scheduledbackup -s D":               {"needs option -c", "add -c '0-13-*-*-0'"},
		"-b backupdetails":                      {"needs option -s", "add -s NAME"},
		"-b restore -s X -dr yes":               {"-dr is not an option", "type -r yes"},
		"-b restore -s X -tr yes":               {"-tr is not an option", "type -r yes"},
		"-b backup -sm yes":                     {"-sm is not an option", "type -m yes"},
		"-b backup -s -m yes":                   {"-m follows", "type -s NAME before -m"},
		"-b backup -s X -s Y":                   {"appears twice", "give it once"},
		"-b restore -s X -t etcd -d mariadb":    {"-t and -d mean the same", "give one of them"},
		"-b restore -s X --snapshot Y":          {"-s and --snapshot mean the same", "give one of them"},
		"-b backup -s X a.txt":                  {`"a.txt" belongs to no option`, "every value follows its option"},
		"-b restore -s X -t a.txt b.txt":        {"unquoted *", "quote it: -t '*'"},
		"-b restore -t a b -s X":                {"unquoted *", "quote it: -t '*'"},
		"-b scheduledbackup -s D -c 0 13 * * 0": {"several words", "quote it: -c '0 13 * * 0'"},
		"-b backup MAR09":                       {`"MAR09" belongs to no option`, "type -b backup -s MAR09"},
		"-b backup -s X -c 0-1-*-*-*":           {"does not go with -b backup", "-b scheduledbackup"},
		"-b backup -s X -r yes":                 {"does not go with -b backup", "-b restore"},
		"-b restore -s X -m yes":                {"does not go with -b restore", "always uses maintenance"},
		"-b healthcheck -s X":                   {"does not go with", "leave it out"},
		"-b listbackups -t etcd":                {"does not go with", "leave it out"},
		"-b backup -s X --plan":                 {"--plan does not go with", "leave it out"},
		"-b restore -s X --plan=no":             {"takes no value", "type --plan alone"},
		"-b dump -s X":                          {`"dump" is not an operation`, "use one of: backup restore"},
		"-s X":                                  {"-b is missing", "add -b and one of"},
		"-bbackup -s X":                         {"run together", "type -b backup"},
		"-b backup -sX":                         {"run together", "type -s X"},
		"-b backup -x":                          {"no option -x", "--help"},
		"-b backup --force":                     {"no option --force", "--help"},
		"-b backup -s=":                         {"is empty", "type -s NAME"},
		"-b backup -=x":                         {"no option -", "--help"},
		"-b backup -- x":                        {`"--" belongs to no option`, "every value"},
		"-b backup -":                           {`"-" belongs to no option`, "every value"},
		"-b backup -é x":                        {"no option", "--help"},
	} {
		_, err := parseDocumented(strings.Fields(line))
		if err == nil {
			t.Errorf("%s: accepted", line)
			continue
		}
		p := problem.As(err)
		if p.Code != problem.Usage || !strings.Contains(p.Message, want[0]) || !strings.Contains(p.Hint, want[1]) {
			t.Errorf("%s:\n  %s: %s\n  hint: %s\n  want %q, %q", line, p.Code, p.Message, p.Hint, want[0], want[1])
		}
	}
}

func FuzzParseDocumented(f *testing.F) {
	for _, s := range []string{"-b backup -s MAR09", "-dr yes", "-\xff", "-b = -s", "--", "-b backup -c", "-o json -b x", "- -- ---"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		isDocumented(args)
		d, err := parseDocumented(args)
		if err != nil {
			if p := problem.As(err); p.Code != problem.Usage || p.Message == "" || p.Hint == "" {
				t.Fatalf("%q: %+v", args, p)
			}
			return
		}
		if d.op == "" {
			t.Fatalf("%q: accepted without an operation", args)
		}
		for long, v := range d.value {
			if v == "" || strings.HasPrefix(v, "-") && !strings.Contains(line, "="+v) {
				t.Fatalf("%q: %s = %q", args, long, v)
			}
		}
	})
}

func TestDatabases(t *testing.T) {
	for in, want := range map[string][]string{
		"*":                    nil,
		"etcd":                 {"etcd"},
		"mariadb,etcd":         {"mariadb", "etcd"},
		"mariadb, etcd":        {"mariadb", "etcd"},
		"mariadb@east,mariadb": {"mariadb@east", "mariadb"},
		"arrangodb":            {"arangodb"},
		"etcd@central":         {"etcd"},
		"secrets,certificates": {"secrets", "certificates"},
	} {
		got, told, err := databases("-t", in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", in, d)
		}
		if (in == "arrangodb") != (len(told) == 1) {
			t.Errorf("%q: told %v", in, told)
		}
	}
	for in, want := range map[string]string{
		"":                   "'*'",
		"etcd,":              "'*'",
		"*,etcd":             "alone",
		"etcd,*":             "alone",
		"oracle":             "comma list of",
		"MariaDB":            "type -t mariadb",
		"etcd,etcd":          "name it once",
		"etcd@central,etcd":  "name it once",
		"arangodb,arrangodb": "name it once",
		"etcd@":              "INSTANCE",
		"etcd@../x":          "INSTANCE",
		"etcd@a b":           "INSTANCE",
	} {
		if got, _, err := databases("-t", in); err == nil || !strings.Contains(problem.As(err).Hint, want) {
			t.Errorf("%q: %v, %+v", in, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, s := range []string{"MAR09", "a", "A.b_c-d", strings.Repeat("x", 64)} {
		if err := checkNewName("-s", s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "..", ".x", "-x", "_safety", "a/b", "/backups/MAR09/", "a b", "a\nb", "é", strings.Repeat("x", 65), "a\x00"} {
		if err := checkNewName("-s", s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
	for _, s := range []string{"yes", "no"} {
		if b, err := yesNo("-m", s); err != nil || b != (s == "yes") {
			t.Errorf("%q: %v, %v", s, b, err)
		}
	}
	for _, s := range []string{"Yes", "true", "1", "", "y", "yes "} {
		if _, err := yesNo("-m", s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}
