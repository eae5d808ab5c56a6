package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/csobackup/cso_backupnrestore/internal/buildinfo"
)

func (a *app) manCommand(wire wireFunc) *cobra.Command {
	cmd := wire(&cobra.Command{
		Use: "man", Short: "print the manual page", Args: exactly(0, ""), Hidden: true,
		Long:    "Print the manual page of this version, in the form that man(1) reads.",
		Example: "  cso_backupnrestore man > /usr/local/share/man/man1/cso_backupnrestore.1",
	}, nil)
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		_, err := fmt.Fprint(a.p.Stdout, a.manual(c.Root()))
		return err
	}
	return cmd
}

const manFiles = `.SH ENVIRONMENT
.TP
.B CSO_BACKUP_ROOT
the store; default /backups
.TP
.B CSO_BACKUP_STATE
keys, certificates, schedules; default /var/lib/cso\-backup
.TP
.B CSO_BACKUP_ESTATE
the estate file; default /etc/cso\-backup/estate.yaml
.TP
.B CSO_BACKUP_VM
the name of this VM; default installer\-vm
.TP
.B CSO_BACKUP_TEMPORAL
where cso\-temporald listens; default 127.0.0.1:7233
.TP
.B TEMPORAL_ADDRESS, TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE
name a Temporal of your own instead
.TP
.B NO_COLOR, COLUMNS, TERM
as everywhere
`

// manual writes the whole command line as one page.
func (a *app) manual(root *cobra.Command) string {
	var m strings.Builder
	fmt.Fprintf(&m, ".TH CSO_BACKUPNRESTORE 1 \"\" %q\n", roff(buildinfo.Version()))
	m.WriteString(".SH NAME\ncso_backupnrestore \\- back up and restore the databases of an estate, its passwords and certificates\n")
	m.WriteString(".SH SYNOPSIS\n.B cso_backupnrestore\n\\-b OPERATION [\\-s NAME] [\\-m yes|no] [\\-t LIST] [\\-r yes|no] [\\-c TIME]\n.br\n.B cso_backupnrestore\nCOMMAND [options]\n")
	m.WriteString(".SH DESCRIPTION\n")
	verbatim(&m, a.introduction())
	m.WriteString(".SH COMMANDS\n")
	manCommands(&m, root.Commands())
	m.WriteString(".SH EXIT STATUS\n")
	_, table, _ := strings.Cut(exitHelp, "Exit status:\n")
	table, _, _ = strings.Cut(table, "\n\n")
	verbatim(&m, table)
	m.WriteString(manFiles)
	return m.String()
}

func manCommands(m *strings.Builder, cmds []*cobra.Command) {
	for _, c := range cmds {
		if !c.IsAvailableCommand() || c.Name() == "help" {
			continue
		}
		if c.HasAvailableSubCommands() {
			manCommands(m, c.Commands())
			continue
		}
		about := c.Long
		if about == "" {
			about = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
		}
		_, use, _ := strings.Cut(c.UseLine(), " ")
		fmt.Fprintf(m, ".SS %s\n", roff(strings.TrimSuffix(use, " [flags]")))
		verbatim(m, about)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "output" {
				kind, help := pflag.UnquoteUsage(f)
				fmt.Fprintf(m, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace("--"+f.Name+" "+kind)), roff(help))
			}
		})
		if c.Example != "" {
			m.WriteString(".PP\n")
			verbatim(m, c.Example)
		}
	}
}

// verbatim keeps the lines as they are.
func verbatim(m *strings.Builder, s string) {
	m.WriteString(".nf\n" + roff(strings.Trim(s, "\n")) + "\n.fi\n")
}

var roffStart = regexp.MustCompile(`(?m)^([.'])`)

// roff takes the meaning from what troff would read as a request or an escape.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	return roffStart.ReplaceAllString(s, `\&$1`)
}
