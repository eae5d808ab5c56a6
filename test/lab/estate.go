package lab

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The VMs of a lab: one, or a second one for the components of Options.Remote.
// Both are this machine; each has a worker and a state directory of its own.
const (
	vmName = "installer-vm"
	vmTwo  = "db-vm"
)

// vmOf is the VM that a component lives on.
func (st *state) vmOf(component string) string {
	if slices.Contains(st.Remote, component) {
		return vmTwo
	}
	return vmName
}

// The estate file of the product, written as its users would write it.
type (
	estate struct {
		VMs       []estateVM       `yaml:"vms"`
		Instances []estateInstance `yaml:"instances"`
		Switch    *estateSwitch    `yaml:"switch,omitempty"`
		Settings  estateSettings   `yaml:"settings"`
	}
	// estateSettings are short times: a test that kills a worker must not wait for production's.
	estateSettings struct {
		Heartbeat string `yaml:"heartbeat"`
	}
	estateVM struct {
		Name string `yaml:"name"`
	}
	estateInstance struct {
		Component string         `yaml:"component"`
		Instance  string         `yaml:"instance"`
		Members   []estateMember `yaml:"members"`
	}
	estateMember struct {
		Name    string            `yaml:"name"`
		VM      string            `yaml:"vm"`
		Address string            `yaml:"address,omitempty"`
		Options map[string]string `yaml:"options,omitempty"`
	}
	estateSwitch struct {
		Component string `yaml:"component"`
		Instance  string `yaml:"instance"`
	}
)

// target is a member as the estate file names it; the control program is the lab's.
func (l *Lab) target(e entry, s *server) (string, map[string]string) {
	address, options := e.engine.Target(s.Member)
	options = maps.Clone(options)
	if options == nil {
		options = map[string]string{}
	}
	if e.process {
		options["control_program"] = l.path("control")
	}
	return address, options
}

// writeEstate writes D/estate.yaml and D/control.
func (l *Lab) writeEstate(st *state, table map[string]entry) error {
	es := estate{VMs: []estateVM{{Name: vmName}}, Settings: estateSettings{Heartbeat: "10s"}}
	if len(st.Remote) > 0 {
		es.VMs = append(es.VMs, estateVM{Name: vmTwo})
	}
	for _, in := range st.instances() {
		vm := st.vmOf(in.component)
		out := estateInstance{Component: in.component, Instance: in.name}
		for _, s := range st.all(in.component) {
			if s.Instance != in.name {
				continue
			}
			e := table[in.component]
			m := estateMember{Name: s.Name, VM: vm}
			if e.perVM {
				m.Name = vm
			}
			m.Address, m.Options = l.target(e, s)
			out.Members = append(out.Members, m)
		}
		es.Instances = append(es.Instances, out)
		if in == (instance{"etcd", central}) {
			es.Switch = &estateSwitch{Component: in.component, Instance: in.name}
		}
	}
	b, err := yaml.Marshal(es)
	if err != nil {
		return fmt.Errorf("encode the estate file: %w", err)
	}
	if err := os.WriteFile(l.path("estate.yaml"), b, 0o600); err != nil {
		return fmt.Errorf("write the estate file: %w", err)
	}
	script := fmt.Sprintf("#!/bin/sh\n# control stop|start|status MEMBER: stops and starts one server of this lab.\nexec %s control --dir %s \"$@\"\n",
		Quote(l.path("bin", "lab")), Quote(l.dir))
	if err := os.WriteFile(l.path("control"), []byte(script), 0o700); err != nil {
		return fmt.Errorf("write the control program: %w", err)
	}
	return nil
}

// Quote makes s one word for a shell.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
