package cassandra

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// TestDiscover: a configuration, a port that answers, and the file of cqlsh.
func TestDiscover(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	address := fmt.Sprint("127.0.0.1:", port)
	for name, c := range map[string]struct {
		files map[string]string
		want  map[string]string // options; nil: no target
		err   error
	}{
		"nothing": {},
		"debian":  {files: map[string]string{"etc/cassandra/cassandra.yaml": fmt.Sprintf("rpc_address: 127.0.0.1\nnative_transport_port: %d\ndata_file_directories:\n  - /srv/a\n  - /srv/b\n", port)}, want: map[string]string{"data_dir": "/srv/a,/srv/b"}},
		"all interfaces, cqlshrc": {files: map[string]string{"etc/cassandra/conf/cassandra.yaml": fmt.Sprintf("rpc_address: 0.0.0.0\nnative_transport_port: %d\n", port),
			"root/.cassandra/cqlshrc": "[ui]\nusername = no\n[authentication]\nusername = backup\npassword = secret\n"}, want: map[string]string{"cqlshrc": "root/.cassandra/cqlshrc"}},
		"not running": {files: map[string]string{"etc/cassandra/cassandra.yaml": "native_transport_port: 1\n"}},
		"broken":      {files: map[string]string{"etc/cassandra/cassandra.yaml": "rpc_address: [\n"}, err: plugins.ErrConfig},
	} {
		root := t.TempDir()
		for f, text := range c.files {
			must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o700))
			must(t, os.WriteFile(filepath.Join(root, f), []byte(text), 0o600))
		}
		got, err := (&Plugin{root: root}).Discover(t.Context())
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		var want []plugins.Target
		if c.want != nil {
			if f := c.want["cqlshrc"]; f != "" {
				c.want["cqlshrc"] = filepath.Join(root, f)
			}
			want = []plugins.Target{{Component: "cassandra", Instance: "central", Members: []plugins.Member{{Name: "cassandra-1", Address: address, Options: c.want}}}}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestCredentials reads cqlsh's two kinds of files.
func TestCredentials(t *testing.T) {
	for text, want := range map[string][2]string{
		"":               {},
		"username = x\n": {},
		"[authentication]\nusername = u\npassword = p=q\n":                                       {"u", "p=q"},
		"; old\n[PlainTextAuthProvider]\n#username = no\nusername: no\nusername=u\npassword=p\n": {"u", "p"},
	} {
		f := filepath.Join(t.TempDir(), "rc")
		must(t, os.WriteFile(f, []byte(text), 0o600))
		user, password, err := credentials(f)
		if err != nil || user != want[0] || password != want[1] {
			t.Errorf("%q: %q %q %v", text, user, password, err)
		}
	}
}
