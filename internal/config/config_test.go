package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const good = `
vms: [{name: installer-vm}, {name: infra-1}]
instances:
  - component: etcd
    members: [{name: etcd-1, vm: installer-vm, address: "https://127.0.0.1:2379", options: {user: root, password_file: /p}}]
  - component: etcd
    instance: east
    members: [{name: etcd-1, vm: infra-1, address: "https://127.0.0.1:2381"}]
switch: {component: etcd}
settings: {max_maintenance: 1m}
`

func TestParse(t *testing.T) {
	e, err := config.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	s := e.Settings
	if time.Duration(s.MaxMaintenance) != time.Minute || time.Duration(s.Heartbeat) != 90*time.Second || s.Parallel != 2 {
		t.Errorf("settings %+v", s)
	}
	x, err := e.Target("etcd", plugins.DefaultInstance, "")
	if err != nil || x.Members[0].Options["user"] != "root" || x.String() != "etcd" {
		t.Errorf("target %+v, %v", x, err)
	}
	if _, err := e.Target("etcd", "west", ""); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("an instance that is not there: %v", err)
	}
}

// TestParse_refuses: each mistake is an error that names it.
func TestParse_refuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":          {"settings:", "setings:", "setings"},
		"unknown option level": {"name: installer-vm}", "name: installer-vm, color: red}", "color"},
		"no such component":    {"component: etcd\n    members", "component: etdc\n    members", "etdc"},
		"vm name":              {"name: infra-1}", "name: infra-ctl}", "not ending in -ctl"},
		"vm not listed":        {"vm: infra-1", "vm: infra-9", "not listed"},
		"same instance twice":  {"instance: east", "instance: central", "twice"},
		"secret in the file":   {"password_file: /p", "password: hunter2", "password_file"},
		"switch nowhere":       {"switch: {component: etcd}", "switch: {component: mariadb}", "switch"},
		"duration":             {"1m}", "1 minute}", "duration"},
		"parallel":             {"max_maintenance: 1m", "parallel: 1000", "1 to 64"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			if text == good {
				t.Fatal("the test changes nothing")
			}
			_, err := config.Parse([]byte(text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, config.ErrNoFile) {
		t.Errorf("no file: %v", err)
	}
	p := filepath.Join(t.TempDir(), "estate.yaml")
	if err := os.WriteFile(p, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(p); err != nil {
		t.Error(err)
	}
}

// TestDiscovered: what was found is a valid estate of this VM, and a target
// comes back out of it as it went in.
func TestDiscovered(t *testing.T) {
	found := plugins.Target{Component: "etcd", Members: []plugins.Member{{Name: "etcd-1", Address: "http://127.0.0.1:1", Options: map[string]string{"data_dir": "/d"}}}}
	e := config.Discovered("infra-1", []plugins.Target{found})
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	if e.Settings.Parallel != 2 || time.Duration(e.Settings.MaxMaintenance) != 15*time.Minute || e.Switch != nil {
		t.Errorf("settings %+v, switch %+v", e.Settings, e.Switch)
	}
	got, err := e.Target("etcd", plugins.DefaultInstance, "")
	want := plugins.Member{Name: "etcd-1", VM: "infra-1", Address: "http://127.0.0.1:1", Options: map[string]string{"data_dir": "/d"}}
	if err != nil || len(got.Members) != 1 || cmp.Diff(want, got.Members[0]) != "" {
		t.Errorf("target %+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("vms: [{name: a}]\ninstances: [{component: etcd, members: []}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := config.Parse(text)
		if err == nil && e.Validate() != nil {
			t.Errorf("parsed without error and is not valid: %v", e.Validate())
		}
	})
}
