package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

const stateFile = "lab.json"

// state is what lab.json holds.
type state struct {
	Versions map[string]string `json:"versions,omitempty"`
	Remote   []string          `json:"remote,omitempty"` // components of the second VM
	Members  []*server         `json:"members"`
	Services []*server         `json:"services"` // cso-temporald, the worker, the guard
}

// server is one member or service with the process that runs it.
type server struct {
	engine.Member
	Process process  `json:"process"`
	Argv    []string `json:"argv,omitempty"` // services only: members' commands come from their engine
	Env     []string `json:"env,omitempty"`
}

// instance names one instance of a component.
type instance struct{ component, name string }

func (in instance) String() string {
	if in.name == central {
		return in.component
	}
	return in.component + "@" + in.name
}

// parseInstance reads "etcd" or "etcd@east".
func parseInstance(s string) instance {
	component, name, found := strings.Cut(s, "@")
	if !found {
		name = central
	}
	return instance{component, name}
}

// lock takes the lab's lock and reads its state; unlock releases it.
func (l *Lab) lock() (st *state, unlock func(), err error) {
	f, err := os.OpenFile(l.path("lab.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the lab's lock: %w", err)
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("lock the lab: %w", err), f.Close())
	}
	unlock = func() { _ = f.Close() } // closing releases the lock
	if st, err = l.read(); err != nil {
		unlock()
		return nil, nil, err
	}
	return st, unlock, nil
}

// read loads the state; a lab without a file is empty.
func (l *Lab) read() (*state, error) {
	b, err := os.ReadFile(l.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return &state{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lab's state: %w", err)
	}
	st := &state{}
	if err := json.Unmarshal(b, st); err != nil {
		return nil, fmt.Errorf("read the lab's state %s: %w", l.path(stateFile), err)
	}
	return st, nil
}

// save replaces lab.json in one step, so that readers without the lock never see half of it.
func (l *Lab) save(st *state) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the lab's state: %w", err)
	}
	tmp := l.path(stateFile + ".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	if err := os.Rename(tmp, l.path(stateFile)); err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	return nil
}

// want adds the members that o asks for and the state does not have yet.
func (st *state) want(o Options, dir string) error {
	wanted := o.Components
	if len(wanted) == 0 && len(st.Members) == 0 {
		wanted = DefaultComponents()
	}
	if st.Versions == nil {
		st.Versions = map[string]string{}
	}
	if len(o.Remote) > 0 {
		st.Remote = o.Remote
	}
	for c, v := range o.Versions {
		if st.Versions[c] != v && len(st.all(c)) > 0 {
			return fmt.Errorf("this lab already runs %s in another version: use another directory for %s %s", c, c, v)
		}
		st.Versions[c] = v
	}
	table := engines(st.Versions)
	taken := map[int]bool{}
	for _, s := range append(st.Members[:len(st.Members):len(st.Members)], st.Services...) {
		for _, p := range s.Ports {
			taken[p] = true
		}
	}
	for _, w := range wanted {
		in := parseInstance(w)
		e, ok := table[in.component]
		if !ok || in.name == "" {
			return fmt.Errorf("unknown component %q: name some of %s, with @instance for a second one", w, strings.Join(DefaultComponents(), ", "))
		}
		if len(st.members(in.component, in.name)) > 0 {
			continue
		}
		count := 1
		if e.cluster {
			count = max(o.Members, 1)
		}
		for n := 1; n <= count; n++ {
			m, err := newMember(in, e, n, dir, taken)
			if err != nil {
				return err
			}
			st.Members = append(st.Members, &server{Member: m})
		}
	}
	return nil
}

func newMember(in instance, e entry, n int, dir string, taken map[int]bool) (engine.Member, error) {
	name := fmt.Sprintf("%s-%d", in.component, n)
	if in.name != central {
		name = fmt.Sprintf("%s-%s-%d", in.component, in.name, n)
	}
	m := engine.Member{Component: in.component, Instance: in.name, Name: name, Dir: filepath.Join(dir, name),
		Ports: map[string]int{}, Options: map[string]string{}}
	for _, purpose := range e.engine.Ports() {
		first, err := freePorts(1, taken)
		if err != nil {
			return m, err
		}
		m.Ports[purpose] = first
	}
	return m, nil
}

// members are those of one instance, in order.
func (st *state) members(component, instance string) []engine.Member {
	var ms []engine.Member
	for _, s := range st.Members {
		if s.Component == component && s.Instance == instance {
			ms = append(ms, s.Member)
		}
	}
	return ms
}

// all are the members of all instances of a component, in order.
func (st *state) all(component string) []*server {
	var all []*server
	for _, s := range st.Members {
		if s.Component == component {
			all = append(all, s)
		}
	}
	return all
}

// instances in the order they were asked for.
func (st *state) instances() []instance {
	var ins []instance
	seen := map[instance]bool{}
	for _, s := range st.Members {
		in := instance{s.Component, s.Instance}
		if !seen[in] {
			seen[in] = true
			ins = append(ins, in)
		}
	}
	return ins
}

// server finds a member or service by name.
func (st *state) server(name string) (*server, error) {
	var names []string
	for _, list := range [][]*server{st.Members, st.Services} {
		for _, s := range list {
			if s.Name == name {
				return s, nil
			}
			names = append(names, s.Name)
		}
	}
	return nil, fmt.Errorf("no member %q in this lab: it has %s", name, strings.Join(names, ", "))
}
