// Command cso-backup-worker is the agent on every VM.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/csobackup/cso_backupnrestore/internal/buildinfo"
	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/coredump"
	"github.com/csobackup/cso_backupnrestore/plugins/all"
	"github.com/csobackup/cso_backupnrestore/worker"
)

// memory is the soft limit of what the collector manages: the process is promised
// to stay below 256 MiB, of which the program itself takes nearly 40.
const memory = 208 << 20

func main() { os.Exit(run()) }

func run() int {
	p := config.FromEnv(os.Getenv)
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: cso-backup-worker [options]         work until SIGTERM\n"+
			"       cso-backup-worker [options] reap    leave maintenance that a dead run left on, once\n\noptions:")
		flag.PrintDefaults()
	}
	flag.StringVar(&p.Root, "root", p.Root, "store of the backups (CSO_BACKUP_ROOT)")
	flag.StringVar(&p.State, "state", p.State, "state directory of this host (CSO_BACKUP_STATE)")
	flag.StringVar(&p.Estate, "estate", p.Estate, "estate file (CSO_BACKUP_ESTATE)")
	flag.StringVar(&p.VM, "vm", p.VM, "name of this VM (CSO_BACKUP_VM)")
	version := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *version {
		fmt.Println("cso-backup-worker", buildinfo.Version())
		return 0
	}
	syscall.Umask(0o077)
	if err := coredump.Forbid(); err != nil {
		fmt.Fprintln(os.Stderr, "cso-backup-worker:", err)
		return 1
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	registry, err := all.Registry()
	if err != nil {
		log.Error("plugins", "err", err)
		return 1
	}
	w := &worker.Worker{Paths: p, Registry: registry, Out: os.Stdout, Log: log}
	switch flag.Arg(0) {
	case "":
		err = w.Run(ctx)
	case "reap":
		err = w.Reap(ctx)
	default:
		flag.Usage()
		return 64
	}
	if err != nil && ctx.Err() == nil {
		log.Error("cso-backup-worker", "err", err)
		return 1
	}
	return 0
}
