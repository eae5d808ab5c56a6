// Command bench measures the product beside the native tools, on real
// servers, in the same run, and writes docs/benchmarks.md. Every command is
// run Rounds times, product and peers alternating, and the best counts; peers
// that write a file sync it, because the product syncs what it seals.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// chapters are the parts of the page, in its order.
var chapters = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"mariadb", mariadbChapter},
	{"etcd", etcdChapter},
	{"zookeeper", zookeeperChapter},
	{"cassandra", cassandraChapter},
	{"cassandra-ring", cassandraRingChapter},
	{"elasticsearch", elasticsearchChapter},
	{"elasticsearch-ring", elasticsearchRingChapter},
	{"arangodb", arangodbChapter},
	{"pipeline", pipelineChapter},
	{"fixed", fixedChapter},
	{"tables", tablesChapter},
	{"scale", scaleChapter},
}

// bench is one run of this program.
type bench struct {
	bin    string // directory of the product's programs
	dir    string // of the labs and of what the peers write
	rounds int
	small  bool // a trial of the program itself: the figures mean nothing
	page   *page
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var names []string
	for _, c := range chapters {
		names = append(names, c.name)
	}
	only := flag.String("only", strings.Join(names, ","), "chapters to run; the page keeps the others as they are")
	out := flag.String("out", "docs/benchmarks.md", "the page")
	rounds := flag.Int("rounds", 3, "how often each command is run; the best counts")
	small := flag.Bool("small", false, "little data: a trial of this program, not a measurement")
	dir := flag.String("dir", "", "where data goes (default: a temporary directory)")
	least := flag.String("floor", "", "do nothing but read, hash, encrypt, hash and write into this directory the files that standard input names")
	scroll := flag.String("scroll", "", "do nothing but read the documents of the index bench from this Elasticsearch and hash them")
	shards := flag.Int("shards", 1, "with -scroll: the shards of the index")
	docs := flag.Int("docs", 0, "with -scroll: how many documents there are")
	flag.Parse()
	switch {
	case *least != "":
		return burn(*least, os.Stdin)
	case *scroll != "":
		return scrollAll(ctx, *scroll, *shards, *docs)
	}
	chosen := strings.Split(*only, ",")
	for _, c := range chosen {
		if !slices.Contains(names, c) {
			return fmt.Errorf("there is no chapter %q: choose from %s", c, strings.Join(names, ", "))
		}
	}
	bin, err := filepath.Abs(or(os.Getenv("CSO_LAB_BIN"), "bin"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(bin, "cso_backupnrestore")); err != nil {
		return fmt.Errorf("%w: run `make build` first", err)
	}
	if err := os.Setenv("CSO_LAB_BIN", bin); err != nil {
		return err
	}
	work, err := os.MkdirTemp(*dir, "cso-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	p, err := openPage(*out)
	if err != nil {
		return err
	}
	b := &bench{bin: bin, dir: work, rounds: *rounds, small: *small, page: p}
	for _, c := range chapters {
		if !slices.Contains(chosen, c.name) {
			continue
		}
		p.begin(c.name)
		if err := c.run(ctx, b); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", c.name, err), p.save())
		}
		if err := p.save(); err != nil {
			return err
		}
	}
	return nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
