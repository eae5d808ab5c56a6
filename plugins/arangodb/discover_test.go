package arangodb

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"db1": "http://db1:8529", "db1:1234": "http://db1:1234", "tcp://db1": "http://db1:8529", "ssl://db1:1": "https://db1:1",
		"http://db1/": "http://db1:8529", "https://[::1]:7": "https://[::1]:7", "http+ssl://db1": "https://db1:8529",
	} {
		if got := address(in); got != want {
			t.Errorf("address(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDiscover(t *testing.T) {
	p := &Plugin{root: t.TempDir()}
	found := func() []plugins.Target {
		t.Helper()
		ts, err := p.Discover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return ts
	}
	if ts := found(); len(ts) != 0 {
		t.Errorf("found without a configuration: %+v", ts)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(p.root, confFile)
	if err := os.MkdirAll(filepath.Dir(conf), 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("# comment\n[database]\ndirectory = /var/lib/arangodb3\n[server]\nendpoint = unix:///run/a.sock\nendpoint = tcp://0.0.0.0:%s\njwt-secret-keyfile = /etc/arangodb3/jwt\n[log]\nlevel = info\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ts := found()
	if len(ts) != 1 || len(ts[0].Members) != 1 || ts[0].Members[0].Address != "http://127.0.0.1:"+port || ts[0].Members[0].Options["jwt_secret_file"] != "/etc/arangodb3/jwt" {
		t.Errorf("found %+v", ts)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if ts := found(); len(ts) != 0 {
		t.Errorf("found although nothing listens: %+v", ts)
	}
}
