// Command cso-temporald is the embedded default of the engine: a Temporal server on one SQLite file and a read-only
// Temporal Web UI in one process on the installer-vm. It speaks mutual TLS only, and its authorizer gives each
// certificate the calls of its role and no others (roles.go).
//
// Its database is a cache, not the record: backups are in the store, schedules in files, a half-done operation in its
// journal. So where the database is damaged, foreign or of another version, it stops and says so instead of guessing.
//
// It prints one line on standard output when it is ready,
//
//	READY frontend=127.0.0.1:7233 ui=http://127.0.0.1:8233 cluster=<id> version=<server version>
//
// logs to standard error, and ends on SIGTERM. Exit codes: 0 stopped, 1 failed, 3 the database file vanished under the
// running server, 64 usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.temporal.io/server/common/headers"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/coredump"

	// Schedules are computed here, in the time zone they name, on hosts that may have no zone files.
	_ "time/tzdata"
)

const (
	exitOK       = 0
	exitFailed   = 1
	exitFileLost = 3
	exitUsage    = 64

	defaultState = "/var/lib/cso-backup"
	stopTimeout  = 20 * time.Second
)

// options are the command line's.
type options struct {
	state   string // state directory of the installer-vm
	bind    string // IP address of the frontend; everything else stays on 127.0.0.1
	port    int    // first of five consecutive ports
	uiPort  int    // 0 = no Web UI
	minFree uint64 // bytes below which new runs are refused
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	slog.SetDefault(log) // the Web UI logs through the standard package
	opt, code, done := parse(args, stdout, stderr)
	if done {
		return code
	}
	// SQLite creates its files 0644 less the umask.
	unix.Umask(0o077)
	if err := coredump.Forbid(); err != nil {
		log.Error(err.Error())
		return exitFailed
	}
	ctx, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, restore) // a second signal ends the process at once
	defer restore()
	err := serve(ctx, opt, stdout, log)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFileLost):
		log.Error(err.Error())
		return exitFileLost
	default:
		log.Error(err.Error())
		return exitFailed
	}
}

func parse(args []string, stdout, stderr io.Writer) (opt options, code int, done bool) {
	fs := flag.NewFlagSet("cso-temporald", flag.ContinueOnError)
	fs.SetOutput(stderr)
	state := os.Getenv("CSO_BACKUP_STATE")
	if state == "" {
		state = defaultState
	}
	fs.StringVar(&opt.state, "state", state, "state `directory` (default from CSO_BACKUP_STATE)")
	fs.StringVar(&opt.bind, "bind", "127.0.0.1", "IP `address` of the frontend; the Web UI and the inner ports stay on 127.0.0.1")
	fs.IntVar(&opt.port, "port", 7233, "frontend `port`; the four ports after it are used too")
	fs.IntVar(&opt.uiPort, "ui-port", 8233, "Web UI `port`; 0 = no Web UI")
	fs.Uint64Var(&opt.minFree, "min-free", 256<<20, "refuse new runs when fewer `bytes` are free beside the database")
	version := fs.Bool("version", false, "print the version of the Temporal server and exit")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return opt, exitOK, true
	case err != nil:
		return opt, exitUsage, true
	case *version:
		fmt.Fprintf(stdout, "cso-temporald, Temporal server %s\n", headers.ServerVersion)
		return opt, exitOK, true
	}
	if err := opt.check(fs.Args()); err != nil {
		fmt.Fprintf(stderr, "cso-temporald: %v\n", err)
		return opt, exitUsage, true
	}
	return opt, exitOK, false
}

func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q; every option starts with --", rest[0])
	case net.ParseIP(o.bind) == nil:
		return fmt.Errorf("--bind %q is not an IP address; give one of this host's, or 127.0.0.1", o.bind)
	case o.port < 1 || o.port > 65535-(services-1):
		return fmt.Errorf("--port %d: give a port from 1 to %d", o.port, 65535-(services-1))
	case o.uiPort < 0 || o.uiPort > 65535:
		return fmt.Errorf("--ui-port %d: give a port from 1 to 65535, or 0 for no Web UI", o.uiPort)
	case o.uiPort >= o.port && o.uiPort < o.port+services:
		return fmt.Errorf("--ui-port %d is one of the five ports from --port %d; give another", o.uiPort, o.port)
	}
	abs, err := filepath.Abs(o.state)
	if err != nil {
		return fmt.Errorf("--state %q: %w", o.state, err)
	}
	o.state = abs
	return nil
}

// serve runs until ctx ends or the database file is lost.
func serve(ctx context.Context, opt options, stdout io.Writer, log *slog.Logger) error {
	db, err := openDatabase(filepath.Join(opt.state, "temporal"), log)
	if err != nil {
		return err
	}
	defer db.close()
	s, err := start(opt, db, log)
	if err != nil {
		return err
	}
	cluster, err := s.ready(ctx)
	if err == nil {
		err = db.stampCluster(cluster)
	}
	if err != nil {
		return errors.Join(err, s.stop())
	}
	fmt.Fprintln(stdout, s.readyLine(cluster))
	if err := notifySupervisor("READY=1"); err != nil {
		log.Warn(err.Error())
	}

	if err := db.watch(ctx, watchInterval); err != nil {
		// No orderly stop: closing SQLite removes the write-ahead log by its name, and under that name may now lie
		// the log of the file that somebody put there.
		return err
	}
	log.Info("stopping")
	if err := notifySupervisor("STOPPING=1"); err != nil {
		log.Warn(err.Error())
	}
	return s.stop()
}
