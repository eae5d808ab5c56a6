// Command arangosim runs a simulated ArangoDB in the foreground, for tests and
// the lab. It prints one line per coordinator (or for the single server),
// "endpoint URL", once it answers, and ends on SIGTERM or SIGINT.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "arangosim:", err)
		os.Exit(1)
	}
}

func run() error {
	var cfg server.Config
	var passwordFile, more, of, name string
	noAuth := false
	flag.StringVar(&cfg.Dir, "dir", "", "directory of the database file")
	flag.StringVar(&cfg.Mode, "mode", "single", "single or cluster")
	flag.StringVar(&cfg.Version, "version", "3.12", "version to simulate: 3.8, 3.11, 3.12 or a full one")
	flag.StringVar(&cfg.License, "license", "community", "community or enterprise")
	flag.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "address of the single server or first coordinator")
	flag.StringVar(&more, "listen-more", "", "addresses of the further coordinators, separated by commas")
	flag.IntVar(&cfg.Coordinators, "coordinators", 1, "number of coordinators of a cluster, 1 to 3")
	flag.BoolVar(&cfg.Apart, "apart", false, "the further coordinators are processes of their own, made with --coordinator-of")
	flag.StringVar(&of, "coordinator-of", "", "URL of a cluster's first coordinator: be a further one of it, which --name names")
	flag.StringVar(&name, "name", "", "with --coordinator-of: Coordinator0002 or Coordinator0003")
	flag.StringVar(&passwordFile, "password-file", "", "file with root's password; it counts when the directory is empty")
	flag.BoolVar(&noAuth, "no-auth", false, "no authentication")
	flag.DurationVar(&cfg.TTLInterval, "ttl-interval", 0, "how often ttl indexes end documents (default 1s)")
	flag.Parse()
	cfg.Auth = !noAuth
	if more != "" {
		cfg.ListenMore = strings.Split(more, ",")
	}
	if passwordFile != "" {
		b, err := os.ReadFile(passwordFile)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		cfg.Password = string(bytes.TrimSpace(b))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if of != "" {
		return coordinate(ctx, of, name, cfg.Listen)
	}
	s, err := server.Start(cfg)
	if err != nil {
		return err
	}
	for _, e := range s.Endpoints() {
		fmt.Println("endpoint", e)
	}
	<-ctx.Done()
	return s.Close()
}
