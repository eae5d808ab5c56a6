// Package e2e tests the product as its operators meet it: the real three
// programs on real servers, the command line as a process of its own, and the
// lab's oracle as the judge. Only ArangoDB is simulated. The programs are looked for
// in $CSO_LAB_BIN, or in the repository's bin: run `make build` first.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// bin is where the three programs are.
var bin string

// The labs of this package, each started by the first test that needs it.
var (
	whole = &shared{components: append(lab.QuickComponents(), "etcd@east")}
	small = &shared{components: []string{"etcd", "secrets", "certificates"}}
)

// shared is a lab that several tests use one after the other.
type shared struct {
	components []string
	members    int                  // of each cluster; 0: one
	remote     []string             // on a second VM
	prepare    func(*lab.Lab) error // once it runs
	slow       bool                 // to start
	versions   map[string]string    // of components that are not the default ones
	once       sync.Once
	lab        *lab.Lab
	err        error
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if bin, err = programs(); err != nil {
		return 1, err
	}
	// The lab starts the programs it finds there, and no profile of the developer's shell may leak in.
	for _, k := range []string{"TEMPORAL_ADDRESS", "TEMPORAL_CONFIG_FILE", "TEMPORAL_PROFILE"} {
		if err := os.Unsetenv(k); err != nil {
			return 1, err
		}
	}
	for k, v := range map[string]string{"CSO_LAB_BIN": bin, "NO_COLOR": "1"} {
		if err := os.Setenv(k, v); err != nil {
			return 1, err
		}
	}
	defer func() {
		for _, s := range []*shared{whole, small, crowded, two, trio, wide, rings, coordinators} {
			if s.lab != nil {
				err = errors.Join(err, s.lab.Down(context.Background()))
			}
		}
	}()
	return m.Run(), nil
}

func programs() (string, error) {
	dir := os.Getenv("CSO_LAB_BIN")
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(wd, "..", "..", "bin")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, p := range []string{"cso_backupnrestore", "cso-backup-worker", "cso-temporald"} {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			return "", fmt.Errorf("%w: run `make build`", err)
		}
	}
	return dir, nil
}

// bench gives the shared lab, running and in the hands of this test.
func (s *shared) bench(t *testing.T) *bench {
	t.Helper()
	s.once.Do(func() {
		s.lab, s.err = lab.Start(context.Background(), lab.Options{Components: s.components, Remote: s.remote, Members: s.members, Versions: s.versions, Out: os.Stderr})
		if s.err == nil && s.prepare != nil {
			s.err = s.prepare(s.lab)
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return newBench(t, s.lab)
}

// down ends the lab; a test that needs it later starts it anew.
func (s *shared) down(t *testing.T) {
	t.Helper()
	if err := s.lab.Down(t.Context()); err != nil {
		t.Error(err)
	}
	s.lab, s.once = nil, sync.Once{}
}
