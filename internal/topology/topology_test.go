package topology_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/topology"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/all"
)

func TestUnits(t *testing.T) {
	r, err := all.Registry()
	if err != nil {
		t.Fatal(err)
	}
	e, err := config.Parse([]byte(`
vms: [{name: vm1}, {name: vm2}]
instances:
  - {component: secrets, members: [{name: vm1, vm: vm1}, {name: vm2, vm: vm2}]}
  - {component: mariadb, members: [{name: m1, vm: vm2}]}
  - {component: etcd, members: [{name: e1, vm: vm1}, {name: e2, vm: vm2}]}
  - {component: etcd, instance: east, members: [{name: e1, vm: vm1}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	units, err := topology.Units(e, r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range units {
		got = append(got, u.String()+" on "+u.VM)
	}
	want := []string{"etcd on vm1", "etcd@east on vm1", "mariadb on vm2", "secrets/vm1 on vm1", "secrets/vm2 on vm2"}
	if !slices.Equal(got, want) {
		t.Errorf("units %q, want %q", got, want)
	}
	if vms := topology.VMs(units); !slices.Equal(vms, []string{"vm1", "vm2"}) {
		t.Errorf("vms %q", vms)
	}
	none, err := plugins.NewRegistry()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topology.Units(e, none); !errors.Is(err, plugins.ErrUnsupported) {
		t.Errorf("an estate with a component that has no plugin: %v", err)
	}
}
