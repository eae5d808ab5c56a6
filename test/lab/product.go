package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// The product's own processes, as members of the lab.
const (
	temporaldName = "temporald"
	workerName    = "worker"
	workerTwo     = "worker-2" // of the second VM
)

// programs are the paths of the product's binaries.
type programs struct{ temporald, worker string }

// findPrograms looks in $CSO_LAB_BIN, or in the repository's bin.
func findPrograms() (*programs, error) {
	dir := os.Getenv(programEnv)
	if dir == "" {
		root, err := repository()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(root, "bin")
	}
	p := &programs{filepath.Join(dir, "cso-temporald"), filepath.Join(dir, "cso-backup-worker")}
	for _, path := range []string{p.temporald, p.worker} {
		if !exists(path) {
			return nil, fmt.Errorf("%s is missing: run `make build` (or give --servers-only, or the folder in %s)", path, programEnv)
		}
	}
	return p, nil
}

// startProduct starts cso-temporald and a worker on this lab, and waits for their READY lines.
func (l *Lab) startProduct(ctx context.Context, st *state, p *programs) error {
	ports, err := l.productPorts(st)
	if err != nil {
		return err
	}
	argv := []string{p.temporald, "--state", l.path("state"), "--port", strconv.Itoa(ports["frontend"]), "--ui-port", strconv.Itoa(ports["ui"])}
	if err := l.startAndAwait(ctx, st, temporaldName, argv, nil, ports); err != nil {
		return err
	}
	if err := l.startAndAwait(ctx, st, workerName, []string{p.worker}, productEnv(l, ports, vmName), nil); err != nil || len(st.Remote) == 0 {
		return err
	}
	if err := l.shareState(); err != nil {
		return err
	}
	return l.startAndAwait(ctx, st, workerTwo, []string{p.worker}, productEnv(l, ports, vmTwo), nil)
}

// stateOf is a VM's state directory.
func (l *Lab) stateOf(vm string) string {
	if vm == vmName {
		return l.path("state")
	}
	return l.path("state-" + vm)
}

// shareState gives the second VM the certificates and keys of the first, as
// an administrator's copy does; claims, locks and scratch files are its own.
func (l *Lab) shareState() error {
	own := l.stateOf(vmTwo)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return fmt.Errorf("make the state directory of %s: %w", vmTwo, err)
	}
	for _, d := range []string{"pki", "keys"} {
		if err := os.Symlink(l.path("state", d), filepath.Join(own, d)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("share %s with %s: %w", d, vmTwo, err)
		}
	}
	return nil
}

// productPorts are those of the lab's cso-temporald: once chosen, they stay.
func (l *Lab) productPorts(st *state) (map[string]int, error) {
	taken := map[int]bool{}
	for _, s := range append(st.Members[:len(st.Members):len(st.Members)], st.Services...) {
		if s.Name == temporaldName {
			return s.Ports, nil
		}
		for _, p := range s.Ports {
			taken[p] = true
		}
	}
	frontend, err := freePorts(5, taken) // four roles and membership listen from here on
	if err != nil {
		return nil, err
	}
	ui, err := freePorts(1, taken)
	if err != nil {
		return nil, err
	}
	return map[string]int{"frontend": frontend, "ui": ui}, nil
}

func (l *Lab) startAndAwait(ctx context.Context, st *state, name string, argv, env []string, ports map[string]int) error {
	since, begin := logSize(l.logOf(name)), time.Now()
	started, err := l.startService(st, name, argv, env, ports)
	if err := errors.Join(err, l.save(st)); err != nil {
		return err
	}
	if !started {
		return nil
	}
	s, err := st.server(name)
	if err != nil {
		return err
	}
	if err := l.awaitLine(ctx, s, "READY", since); err != nil {
		return err
	}
	l.say("%-14s ready after %.1fs", name, time.Since(begin).Seconds())
	return nil
}

// startService enters a service into the state and starts it unless it runs; it says whether it did.
func (l *Lab) startService(st *state, name string, argv, env []string, ports map[string]int) (bool, error) {
	s, err := st.server(name)
	if err != nil {
		s = &server{Member: engine.Member{Component: name, Instance: central, Name: name, Dir: l.dir}}
		st.Services = append(st.Services, s)
	}
	s.Argv, s.Env, s.Ports = argv, env, ports
	started, err := l.run(st, nil, s)
	if err != nil {
		return false, fmt.Errorf("start %s: %w", name, err)
	}
	return started, nil
}

func logSize(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// awaitLine waits until a service has printed a line that begins with word after offset since of its log.
func (l *Lab) awaitLine(ctx context.Context, s *server, word string, since int64) error {
	log := l.logOf(s.Name)
	found := s.Process.wait(ctx, readyLimit, func() bool {
		b, err := os.ReadFile(log)
		if err != nil || int64(len(b)) < since {
			return false
		}
		new := b[since:]
		return bytes.HasPrefix(new, []byte(word)) || bytes.Contains(new, []byte("\n"+word)) || s.Process.gone()
	})
	if !found || s.Process.gone() {
		return fmt.Errorf("%s did not get ready; its log %s says:\n%s", s.Name, log, tail(log))
	}
	return nil
}

// productEnv is what CLI and worker need to work on this lab.
func productEnv(l *Lab, ports map[string]int, vm string) []string {
	return []string{
		"CSO_BACKUP_ROOT=" + l.path("backups"),
		"CSO_BACKUP_STATE=" + l.stateOf(vm),
		"CSO_BACKUP_ESTATE=" + l.path("estate.yaml"),
		"CSO_BACKUP_VM=" + vm,
		fmt.Sprintf("CSO_BACKUP_TEMPORAL=127.0.0.1:%d", ports["frontend"]),
		fmt.Sprintf("CSO_BACKUP_UI=http://127.0.0.1:%d", ports["ui"]),
	}
}

// Env gives KEY=value lines: LAB_* of every member, and all that the product's
// command line needs to work on this lab. Values are not quoted.
func (l *Lab) Env() ([]string, error) {
	st, err := l.read()
	if err != nil {
		return nil, err
	}
	var lines []string
	table := engines(st.Versions)
	numbers := map[string]int{}
	seen := map[string]bool{}
	for _, s := range st.Members {
		numbers[s.Component]++
		for _, line := range table[s.Component].engine.Env(s.Member, numbers[s.Component]) {
			key, _, _ := strings.Cut(line, "=")
			if !seen[key] {
				seen[key] = true
				lines = append(lines, line)
			}
		}
	}
	lines = append(lines, "LAB_DIR="+l.dir, "LAB_BACKUPS="+l.path("backups"))
	ports := map[string]int(nil)
	if s, err := st.server(temporaldName); err == nil {
		ports = s.Ports
		lines = append(lines, fmt.Sprintf("LAB_TEMPORAL_ADDR=127.0.0.1:%d", ports["frontend"]),
			fmt.Sprintf("LAB_UI_URL=http://127.0.0.1:%d", ports["ui"]))
	}
	env := productEnv(l, ports, vmName)
	if ports == nil { // servers only: nothing to connect to
		env = env[:4]
	}
	return append(lines, env...), nil
}
