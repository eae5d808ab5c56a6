package elasticsearch

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDiscover: a configuration in either way of writing leads to what listens there.
func TestDiscover(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, c := range []struct{ name, file, text, address, ca string }{
		{"nothing installed", "etc/other", "", "", ""},
		{"flat", configFiles[0], "http.port: " + port + "\nnetwork.host: 127.0.0.1\n", "http://127.0.0.1:" + port, ""},
		{"nested, all addresses", configFiles[0], "http:\n  port: " + port + "-9300\nnetwork:\n  host: [0.0.0.0]\n", "http://127.0.0.1:" + port, ""},
		{"security", configFiles[1], "http.port: " + port + "\nplugins.security.ssl.http:\n  enabled: true\n  pemtrustedcas_filepath: ca.pem\n", "https://127.0.0.1:" + port, "etc/opensearch/ca.pem"},
		{"not running", configFiles[0], "http.port: 1\n", "", ""},
	} {
		p := &Plugin{root: t.TempDir()}
		at := filepath.Join(p.root, c.file)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := p.Discover(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		address, ca := "", ""
		if len(found) == 1 {
			address, ca = found[0].Members[0].Address, found[0].Members[0].Options["ca_file"]
		}
		if c.ca != "" {
			c.ca = filepath.Join(p.root, c.ca)
		}
		if address != c.address || ca != c.ca {
			t.Errorf("%s: found %q with CA %q, want %q with %q", c.name, address, ca, c.address, c.ca)
		}
	}
	p := &Plugin{root: t.TempDir()}
	at := filepath.Join(p.root, configFiles[0])
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte("a: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if found, err := p.Discover(t.Context()); err == nil || found != nil || time.Since(begin) > time.Second {
		t.Errorf("a broken configuration: %v, %v", found, err)
	}
}
