package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// host makes a root directory with one file in it.
func host(t *testing.T, name, text string) *Plugin {
	t.Helper()
	p := &Plugin{root: t.TempDir()}
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDiscover: each kind of configuration leads to the running server, whose
// certificate is trusted because it is this server's.
func TestDiscover(t *testing.T) {
	b := start(t, lab.Options{})
	on := b.target(t, plugins.DefaultInstance)
	m := b.members(t, plugins.DefaultInstance)[0]
	url, dir := on.Members[0].Address, on.Members[0].Options["data_dir"]
	cert, key := filepath.Join(m.Dir, "server.crt"), filepath.Join(m.Dir, "server.key")
	yaml := fmt.Sprintf("name: a\ndata-dir: %s\nlisten-client-urls: %s\nunknown: [1]\nclient-transport-security:\n  cert-file: %s\n  key-file: %s\n", dir, url, cert, key)
	file := filepath.Join(t.TempDir(), "named.yml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	want := plugins.Target{Component: "etcd", Instance: plugins.DefaultInstance, Members: []plugins.Member{{
		Name: "etcd-1", Address: url, Options: map[string]string{"data_dir": dir, "ca_file": cert, "name": "a"},
	}}}
	var found []plugins.Target
	for name, p := range map[string]*Plugin{
		"environment": host(t, "etc/default/etcd", fmt.Sprintf("# comment\nETCD_NAME=a\nETCD_DATA_DIR='%s'\nexport ETCD_LISTEN_CLIENT_URLS=\"http://127.0.0.1:1,%s\"\nETCD_CERT_FILE=%s\n", dir, url, cert)),
		"yaml":        host(t, "etc/etcd/etcd.conf.yml", yaml),
		"named yaml":  host(t, "etc/etcd/etcd.conf", "ETCD_NAME=ignored\nETCD_CONFIG_FILE="+file+"\n"),
	} {
		var err error
		if found, err = p.Discover(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff([]plugins.Target{want}, found); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}

	// With authentication on the server is found and says what it lacks; with it off it opens as found.
	if _, err := New().Open(t.Context(), found[0]); !errors.Is(err, plugins.ErrAuth) {
		t.Errorf("a server that wants a user: %v", err)
	}
	c := b.client(t, on)
	defer c.Close()
	if _, err := c.AuthDisable(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := New().Open(t.Context(), found[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.(plugins.Switch); !ok {
		t.Error("the session holds no maintenance switch")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	t.Run("client certificates", func(t *testing.T) {
		p := host(t, "etc/etcd/etcd.conf.yml", yaml+"  client-cert-auth: true\n")
		found, err := p.Discover(t.Context())
		if err != nil || len(found) != 1 {
			t.Fatalf("found %+v, %v", found, err)
		}
		if o := found[0].Members[0].Options; o["cert_file"] != cert || o["key_file"] != key {
			t.Errorf("options %v", o)
		}
	})
	t.Run("all addresses", func(t *testing.T) {
		p := host(t, "etc/default/etcd", fmt.Sprintf("ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:%d\nETCD_CERT_FILE=%s\n", m.Ports["client"], cert))
		found, err := p.Discover(t.Context())
		if err != nil || len(found) != 1 || found[0].Members[0].Address != url {
			t.Errorf("found %+v, %v", found, err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		for name, p := range map[string]*Plugin{
			"nothing installed": {root: t.TempDir()},
			"not running":       host(t, "etc/default/etcd", "ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:1\n"),
		} {
			if found, err := p.Discover(t.Context()); err != nil || len(found) != 0 {
				t.Errorf("%s: found %+v, %v", name, found, err)
			}
		}
	})
	t.Run("not readable", func(t *testing.T) {
		if found, err := host(t, "etc/etcd/etcd.conf.yml", "name: [").Discover(t.Context()); !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("found %+v, %v", found, err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if found, err := host(t, "etc/etcd/etcd.conf.yml", yaml).Discover(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("found %+v, %v", found, err)
		}
	})
}
