// Package config reads the estate file: which VMs and instances there are,
// and the few settings. YAML, strict: an unknown key is an error with its
// line. Secrets stand in it by reference only.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Estate is the estate file.
type Estate struct {
	VMs       []VM       `yaml:"vms"`
	Instances []Instance `yaml:"instances"`
	Switch    *Holder    `yaml:"switch"` // nil: the product has no maintenance switch of its own
	Settings  Settings   `yaml:"settings"`
}

// VM is one machine with a worker. The first is the installer-vm.
type VM struct {
	Name string `yaml:"name"`
}

// Instance is one cluster of a component.
type Instance struct {
	Component string   `yaml:"component"`
	Name      string   `yaml:"instance"` // default central
	Members   []Member `yaml:"members"`
}

// Member is one server of an instance.
type Member struct {
	Name    string            `yaml:"name"`
	VM      string            `yaml:"vm"`
	Address string            `yaml:"address"`
	Options map[string]string `yaml:"options"`
}

// Holder names the instance that holds the product's maintenance switch.
type Holder struct {
	Component string `yaml:"component"`
	Instance  string `yaml:"instance"`
}

// Settings are the knobs; zero values mean the defaults of Load.
type Settings struct {
	MaxMaintenance Duration `yaml:"max_maintenance"` // longest time a backup may hold maintenance; default 15m
	Parallel       int      `yaml:"parallel"`        // streams per VM; default 2
	Heartbeat      Duration `yaml:"heartbeat"`       // heartbeat timeout of transfers; default 90s
	VMLostAfter    Duration `yaml:"vm_lost_after"`   // default 5m
	Gateway        string   `yaml:"gateway"`         // host:port of the store gateway on the installer-vm; empty: workers write to the store themselves
	Hooks          Hooks    `yaml:"hooks"`
}

// Hooks are the operator's own programs, argument vectors, run on the installer-vm.
type Hooks struct {
	EnterMaintenance []string `yaml:"enter_maintenance"`
	ExitMaintenance  []string `yaml:"exit_maintenance"`
}

// Duration is a time.Duration written as "15m".
type Duration time.Duration

// UnmarshalYAML reads Go's duration notation.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q is not a duration: write it like 15m or 90s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

var (
	vmName       = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// maxFile bounds the size of an estate file, in bytes.
const maxFile = 1 << 20

// ErrNoFile: there is no estate file; everything is then found by discovery.
var ErrNoFile = errors.New("no estate file")

// Load reads and checks the estate file; ErrNoFile when it does not exist.
func Load(path string) (*Estate, error) {
	b, err := fsutil.ReadFile(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read estate file: %w", err)
	}
	e, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("estate file %s: %w", path, err)
	}
	return e, nil
}

// Parse reads and checks the text of an estate file and fills in the defaults.
func Parse(text []byte) (*Estate, error) {
	var e Estate
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	switch err := d.Decode(&e); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty: name at least the installer-vm under vms, or delete the file to work on what is found on this host")
	case err != nil:
		return nil, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it holds more than one document (---): write everything into one")
	}
	e.defaults()
	return &e, e.Validate()
}

// Discovered is the estate of one machine without an estate file: all members
// are on vm, the settings are the defaults. Who holds the maintenance switch is left open.
func Discovered(vm string, targets []plugins.Target) *Estate {
	e := &Estate{VMs: []VM{{Name: vm}}}
	for _, t := range targets {
		in := Instance{Component: t.Component, Name: t.Instance}
		for _, m := range t.Members {
			in.Members = append(in.Members, Member{Name: m.Name, VM: vm, Address: m.Address, Options: m.Options})
		}
		e.Instances = append(e.Instances, in)
	}
	e.defaults()
	return e
}

func (e *Estate) defaults() {
	s := &e.Settings
	for _, d := range []struct {
		v *Duration
		d time.Duration
	}{{&s.MaxMaintenance, 15 * time.Minute}, {&s.Heartbeat, 90 * time.Second}, {&s.VMLostAfter, 5 * time.Minute}} {
		if *d.v == 0 {
			*d.v = Duration(d.d)
		}
	}
	if s.Parallel == 0 {
		s.Parallel = 2
	}
	for i := range e.Instances {
		if e.Instances[i].Name == "" {
			e.Instances[i].Name = plugins.DefaultInstance
		}
	}
	if e.Switch != nil && e.Switch.Instance == "" {
		e.Switch.Instance = plugins.DefaultInstance
	}
}

// Validate reports everything that is wrong, joined.
func (e *Estate) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(e.VMs) == 0 {
		bad("vms: name at least the installer-vm")
	}
	var vms []string
	for _, v := range e.VMs {
		if !vmName.MatchString(v.Name) || strings.HasSuffix(v.Name, "-ctl") {
			bad("vm %q: use lower-case letters, digits and dashes, not ending in -ctl", v.Name)
		}
		if slices.Contains(vms, v.Name) {
			bad("vm %q appears twice", v.Name)
		}
		vms = append(vms, v.Name)
	}
	seen := map[string]bool{}
	for _, in := range e.Instances {
		id := in.Component + "@" + in.Name
		if c, ok := plugins.Lookup(in.Component); !ok || c.Name != in.Component {
			bad("component %q is unknown: use one of %s", in.Component, strings.Join(componentNames(), ", "))
		}
		if !instanceName.MatchString(in.Name) {
			bad("%s: instance names are letters, digits, dot, dash, underscore", id)
		}
		if seen[id] {
			bad("instance %s appears twice", id)
		}
		seen[id] = true
		if len(in.Members) == 0 {
			bad("%s: needs at least one member", id)
		}
		names := map[string]bool{}
		for _, m := range in.Members {
			if !instanceName.MatchString(m.Name) || m.Name == "cluster" || names[m.Name] {
				bad("%s: member name %q is empty, odd, reserved or used twice", id, m.Name)
			}
			names[m.Name] = true
			if !slices.Contains(vms, m.VM) {
				bad("%s: member %s is on vm %q, which is not listed under vms", id, m.Name, m.VM)
			}
			for k := range m.Options {
				if k == "password" || k == "secret" || k == "auth" {
					bad("%s: member %s: option %q would put a secret into this file: use %s_file with a path", id, m.Name, k, k)
				}
			}
		}
	}
	if e.Switch != nil && !seen[e.Switch.Component+"@"+e.Switch.Instance] {
		bad("switch: there is no instance %s@%s", e.Switch.Component, e.Switch.Instance)
	}
	if s := e.Settings; s.Parallel < 1 || s.Parallel > 64 {
		bad("settings: parallel is %d: use 1 to 64", s.Parallel)
	}
	if g := e.Settings.Gateway; g != "" {
		if host, port, err := net.SplitHostPort(g); err != nil || host == "" || port == "" {
			bad("settings: gateway %q: write HOST:PORT of the installer-vm, like 127.0.0.1:7243", g)
		}
	}
	return errors.Join(errs...)
}

func componentNames() []string {
	out := make([]string, 0, len(plugins.Components))
	for _, c := range plugins.Components {
		out = append(out, c.Name)
	}
	return out
}

// Target is the plugin's view of an instance; member may be empty.
func (e *Estate) Target(component, instance, member string) (plugins.Target, error) {
	for _, in := range e.Instances {
		if in.Component != component || in.Name != instance {
			continue
		}
		t := plugins.Target{Component: component, Instance: instance, Member: member}
		for _, m := range in.Members {
			t.Members = append(t.Members, plugins.Member{Name: m.Name, VM: m.VM, Address: m.Address, Options: m.Options})
		}
		return t, nil
	}
	return plugins.Target{}, fmt.Errorf("%s@%s is not in the estate file: %w", component, instance, plugins.ErrConfig)
}

// Paths are the places of one host, from the environment with documented defaults.
type Paths struct {
	Root   string // CSO_BACKUP_ROOT, default /backups
	State  string // CSO_BACKUP_STATE, default /var/lib/cso-backup
	Estate string // CSO_BACKUP_ESTATE, default /etc/cso-backup/estate.yaml
	VM     string // CSO_BACKUP_VM, default installer-vm
}

// FromEnv reads the paths; getenv is os.Getenv outside of tests.
func FromEnv(getenv func(string) string) Paths {
	get := func(k, d string) string {
		if v := getenv(k); v != "" {
			return v
		}
		return d
	}
	return Paths{
		Root:   get("CSO_BACKUP_ROOT", "/backups"),
		State:  get("CSO_BACKUP_STATE", "/var/lib/cso-backup"),
		Estate: get("CSO_BACKUP_ESTATE", "/etc/cso-backup/estate.yaml"),
		VM:     get("CSO_BACKUP_VM", "installer-vm"),
	}
}

// PKI is where certificates lie.
func (p Paths) PKI() string { return filepath.Join(p.State, "pki") }

// Keys is where identity, content-id key and manifest key lie.
func (p Paths) Keys() string { return filepath.Join(p.State, "keys") }

// Schedules is where the schedule files lie.
func (p Paths) Schedules() string { return filepath.Join(p.State, "schedules") }

// Worker is where this VM's worker keeps its claim, locks and scratch files.
func (p Paths) Worker() string { return filepath.Join(p.State, "worker") }
