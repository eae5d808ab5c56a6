// Command judge runs the vendor's own driver tests, unmodified, against the
// simulator in single and in cluster mode and counts what passes. The tests are
// the 128 of tests.txt. A test passes when, in every mode that it runs in, each
// of its leaves (subtests without subtests) passed: a skipped leaf counts as
// failed, unless the suite skips it for the mode and it passed in the other one.
//
//	go run ./test/arangosim/judge [-part] [-only REGEXP] [-version V] [-log DIR]
//
// It exits 1 when a test fails that tests.txt does not call a miss.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

// mainVersion is the one that all 128 tests are asked of.
const mainVersion = "3.12.10"

// goal is how many of the 128 tests must pass.
const goal = 122

func main() {
	part := flag.Bool("part", false, "leave out the tests called slow")
	only := flag.String("only", "", "run the tests whose name matches")
	log := flag.String("log", "", "directory to keep the suite's own output in")
	version := flag.String("version", mainVersion, "version to simulate")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := judge(ctx, os.Stdout, "test/arangosim/suite", *log, *version, *part, *only); err != nil {
		if !errors.Is(err, errUnexpected) { // the report has said so, its numbers stay last
			fmt.Fprintln(os.Stderr, "judge:", err)
		}
		os.Exit(1)
	}
}

// judge runs the chosen tests and writes the verdicts, the three numbers last.
// suite is the nested module's directory, log where the suite's output goes
// (none: nowhere).
func judge(ctx context.Context, out io.Writer, suite, log, version string, part bool, only string) error {
	name, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("the pattern of names: %w", err)
	}
	tests, err := listed()
	if err != nil {
		return err
	}
	var chosen []test
	for _, t := range tests {
		if !(part && t.slow) && (t.only == "" || t.only == version) && name.MatchString(t.name) {
			chosen = append(chosen, t)
		}
	}
	dir, err := os.MkdirTemp("", "arangosim-judge-*")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	s := session{dir: dir, log: log, version: version}
	if err := s.build(ctx, suite); err != nil {
		return err
	}
	results, err := s.run(ctx, chosen)
	if err != nil {
		return err
	}
	whole := len(chosen) == len(tests)
	return report(out, chosen, results, whole)
}
