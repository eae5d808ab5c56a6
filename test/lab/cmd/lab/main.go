// Command lab starts real servers on one machine, fills, wrecks and
// fingerprints them. See package lab.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab"
)

const usage = `usage: lab COMMAND --dir D [options]

  up          [--only etcd,etcd@east,…] [--members 1|3] [--version etcd=3.7] [--servers-only]
              start servers, cso-temporald and a worker; what runs already is left alone
  env         KEY=value lines for a shell to eval
  fill        --seed N --size small|large [--component X]   replace all content
  wreck       --seed N [--component X]                      change, delete and add at every level
  fingerprint [--component X] [--summary]                   full content, then one sum per instance
  kill | freeze | thaw | start  --member M                  SIGKILL, SIGSTOP, SIGCONT, start again
  reinstall   [--component X]                               destroy servers, put empty ones in their place
  control     stop|start|status MEMBER                      what the estate's control_program runs
  status      which members run
  down        stop everything that was started here
`

// exitCode ends the program with a code of its own and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// options are the flags of all commands; each command takes some of them.
type options struct {
	dir, only, version, size, component, member string
	members, pid                                int
	seed                                        int64
	serversOnly, summary, remove                bool
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Fprint(out, usage)
		return nil
	}
	var o options
	fs := flag.NewFlagSet("lab "+args[0], flag.ContinueOnError)
	fs.Usage = func() { fmt.Fprint(progress, usage) }
	fs.StringVar(&o.dir, "dir", "", "the lab's directory")
	switch args[0] {
	case "up":
		fs.StringVar(&o.only, "only", "", "components")
		fs.IntVar(&o.members, "members", 1, "servers per cluster")
		fs.StringVar(&o.version, "version", "", "component=version,…")
		fs.BoolVar(&o.serversOnly, "servers-only", false, "no cso-temporald, no worker")
	case "fill":
		fs.StringVar(&o.size, "size", "small", "small or large")
		fallthrough
	case "wreck":
		fs.Int64Var(&o.seed, "seed", 1, "equal seeds, equal content")
		fallthrough
	case "reinstall", "fingerprint":
		fs.StringVar(&o.component, "component", "", "components, all by default")
		if args[0] == "fingerprint" {
			fs.BoolVar(&o.summary, "summary", false, "only the sums")
		}
	case "kill", "freeze", "thaw", "start":
		fs.StringVar(&o.member, "member", "", "the member's name")
	case "guard":
		fs.IntVar(&o.pid, "pid", 0, "the process to outlive")
		fs.BoolVar(&o.remove, "remove", false, "remove the directory, too")
	}
	if err := fs.Parse(args[1:]); err != nil {
		return exitCode(64)
	}
	if o.dir == "" {
		return errors.New("--dir is missing: name the lab's directory")
	}
	if args[0] != "control" && fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see `lab help`", fs.Arg(0))
	}
	if args[0] == "up" {
		return up(ctx, o, progress)
	}
	if args[0] == "guard" {
		return lab.Guard(ctx, o.dir, o.pid, o.remove)
	}
	l, err := lab.Open(o.dir)
	if err != nil {
		return err
	}
	switch args[0] {
	case "env":
		return env(l, out)
	case "fill":
		return l.Fill(ctx, o.seed, o.size, list(o.component)...)
	case "wreck":
		return l.Wreck(ctx, o.seed, list(o.component)...)
	case "reinstall":
		return l.Reinstall(ctx, list(o.component)...)
	case "fingerprint":
		return fingerprint(ctx, l, o, out)
	case "kill", "freeze", "thaw", "start":
		return act(ctx, l, args[0], o.member)
	case "control":
		return control(ctx, l, fs.Args(), out)
	case "status":
		return l.Status(out)
	case "down":
		return l.Down(ctx)
	}
	return fmt.Errorf("unknown command %q: see `lab help`", args[0])
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func up(ctx context.Context, o options, progress io.Writer) error {
	versions := map[string]string{}
	for _, v := range list(o.version) {
		c, version, found := strings.Cut(v, "=")
		if !found {
			return fmt.Errorf("--version %s: write component=version, for example etcd=3.7", v)
		}
		versions[c] = version
	}
	l, err := lab.Start(ctx, lab.Options{Dir: o.dir, Components: list(o.only), Members: o.members,
		ServersOnly: o.serversOnly, Versions: versions, Out: progress, Detach: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "the lab is up: eval \"$(lab env --dir %s)\"\n", lab.Quote(l.Dir()))
	return nil
}

func env(l *lab.Lab, out io.Writer) error {
	lines, err := l.Env()
	if err != nil {
		return err
	}
	for _, line := range lines {
		k, v, _ := strings.Cut(line, "=")
		fmt.Fprintf(out, "export %s=%s\n", k, lab.Quote(v))
	}
	return nil
}

func fingerprint(ctx context.Context, l *lab.Lab, o options, out io.Writer) error {
	lines := out
	if o.summary {
		lines = io.Discard
	}
	sums, err := l.Fingerprint(ctx, lines, list(o.component)...)
	if err != nil || !o.summary {
		return err
	}
	names := make([]string, 0, len(sums))
	for n := range sums {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(out, "fingerprint %s %s\n", n, sums[n])
	}
	return nil
}

func act(ctx context.Context, l *lab.Lab, verb, member string) error {
	do := map[string]func(context.Context, string) error{
		"kill": l.Kill, "freeze": l.Freeze, "thaw": l.Thaw, "start": l.StartMember,
	}
	return do[verb](ctx, member)
}

func control(ctx context.Context, l *lab.Lab, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("control needs stop, start or status, and a member")
	}
	switch verb, member := args[0], args[1]; verb {
	case "stop":
		return l.Stop(ctx, member)
	case "start":
		return l.Launch(ctx, member)
	case "status":
		running, _, err := l.Running(member)
		if err != nil {
			return err
		}
		if running {
			fmt.Fprintln(out, "running")
			return nil
		}
		fmt.Fprintln(out, "stopped")
		return exitCode(3) // as systemctl status and LSB init scripts answer
	default:
		return fmt.Errorf("control cannot %q: give stop, start or status", verb)
	}
}
