package zookeeper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

func host(t *testing.T, name, text string) *Plugin {
	t.Helper()
	p := &Plugin{root: t.TempDir()}
	path := filepath.Join(p.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDiscover: the very zoo.cfg of a running server leads to it.
func TestDiscover(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Components: []string{"zookeeper"}, ServersOnly: true, Out: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	ms, err := l.Members("zookeeper", plugins.DefaultInstance)
	if err != nil {
		t.Fatal(err)
	}
	address, options, err := l.Target(ms[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := os.ReadFile(filepath.Join(ms[0].Dir, "zoo.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	want := []plugins.Target{{Component: "zookeeper", Instance: plugins.DefaultInstance, Members: []plugins.Member{{
		Name: "zookeeper-1", Address: address, Options: map[string]string{"data_dir": options["data_dir"]},
	}}}}
	var found []plugins.Target
	for _, place := range confFiles {
		if found, err = host(t, place, string(cfg)).Discover(t.Context()); err != nil {
			t.Fatalf("%s: %v", place, err)
		}
		if d := cmp.Diff(want, found); d != "" {
			t.Errorf("%s: %s", place, d)
		}
	}
	s, err := New().Open(t.Context(), found[0])
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Health(t.Context())
	if err := errors.Join(err, s.Close()); err != nil || h.Version == "" {
		t.Errorf("health %+v, %v", h, err)
	}

	if err := l.Kill(t.Context(), ms[0].Name); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*Plugin{"nothing installed": {root: t.TempDir()}, "not running": host(t, confFiles[1], string(cfg))} {
		if found, err := p.Discover(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("%s: found %+v, %v", name, found, err)
		}
	}
	if found, err := host(t, confFiles[0], "dataDir=/d\nsecureClientPort=2281\n").Discover(t.Context()); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("a server without a clientPort: %+v, %v", found, err)
	}
}
