package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var _ plugins.Discoverer = (*Plugin)(nil)

// answersWithin is how long a local server may take to accept a connection.
const answersWithin = time.Second

// The standard places: environment files of the packages of Debian and of the
// Red Hat family, and the server's own configuration file. The first that
// sets anything counts.
var (
	envFiles  = []string{"etc/default/etcd", "etc/etcd/etcd.conf"}
	yamlFiles = []string{"etc/etcd/etcd.conf.yml", "etc/etcd/etcd.conf.yaml"}
)

// settings is what Discover uses of a server's configuration
// (https://etcd.io/docs/v3.5/op-guide/configuration/).
type settings struct {
	Listen    string `yaml:"listen-client-urls"` // comma-separated
	Advertise string `yaml:"advertise-client-urls"`
	DataDir   string `yaml:"data-dir"`
	Name      string `yaml:"name"`
	Client    struct {
		Cert     string `yaml:"cert-file"`
		Key      string `yaml:"key-file"`
		OwnCert  string `yaml:"client-cert-file"` // what the server shows to other servers instead of Cert
		OwnKey   string `yaml:"client-key-file"`
		CertAuth bool   `yaml:"client-cert-auth"`
	} `yaml:"client-transport-security"`
}

// Discover finds the server of this host by its configuration. There is no
// standard place for a user and password: where authentication is on, the
// target is returned and refuses to open. No configuration, or no answer: no target.
func (p *Plugin) Discover(ctx context.Context) ([]plugins.Target, error) {
	s, err := p.settings()
	if err != nil {
		return nil, fmt.Errorf("find local servers: %w: correct it, or write an estate file", err)
	}
	if s == nil {
		return nil, nil
	}
	m := plugins.Member{Name: "etcd-1", Options: map[string]string{}}
	for k, v := range map[string]string{"data_dir": s.DataDir, "name": s.Name, "ca_file": s.Client.Cert} {
		if v != "" {
			m.Options[k] = v // ca_file: this very server's certificate is trusted, whoever signed it
		}
	}
	if s.Client.CertAuth {
		m.Options["cert_file"], m.Options["key_file"] = s.Client.Cert, s.Client.Key
		if s.Client.OwnCert != "" {
			m.Options["cert_file"], m.Options["key_file"] = s.Client.OwnCert, s.Client.OwnKey
		}
	}
	if m.Address, err = reach(ctx, s, m); m.Address == "" {
		return nil, errors.Join(ctx.Err(), err)
	}
	return []plugins.Target{{Component: "etcd", Instance: plugins.DefaultInstance, Members: []plugins.Member{m}}}, nil
}

func (p *Plugin) settings() (*settings, error) {
	place := func(f string) string { return filepath.Join("/", p.root, f) }
	var found *settings
	for _, f := range envFiles {
		s, file, err := readEnv(place(f))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case file != "":
			return readYAML(file) // etcd then ignores everything else
		case s.Listen != "":
			return s, nil
		case found == nil:
			found = s
		}
	}
	for _, f := range yamlFiles {
		s, err := readYAML(place(f))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
	}
	return found, nil
}

// readEnv reads lines ETCD_NAME=value; file is the configuration file they name.
func readEnv(path string) (s *settings, file string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	v := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if !ok || !strings.HasPrefix(name, "ETCD_") {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		v[strings.TrimSpace(name)] = value
	}
	s = &settings{Listen: v["ETCD_LISTEN_CLIENT_URLS"], Advertise: v["ETCD_ADVERTISE_CLIENT_URLS"], DataDir: v["ETCD_DATA_DIR"], Name: v["ETCD_NAME"]}
	s.Client.Cert, s.Client.Key, s.Client.CertAuth = v["ETCD_CERT_FILE"], v["ETCD_KEY_FILE"], v["ETCD_CLIENT_CERT_AUTH"] == "true"
	s.Client.OwnCert, s.Client.OwnKey = v["ETCD_CLIENT_CERT_FILE"], v["ETCD_CLIENT_KEY_FILE"]
	return s, v["ETCD_CONFIG_FILE"], nil
}

func readYAML(path string) (*settings, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &settings{}
	if err := yaml.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, plugins.ErrConfig, err)
	}
	return s, nil
}

// reach is the first address of the server that answers, and over TLS proves
// to be it; if none proves it, one that answers, so that opening it says what is
// wrong. Empty: none answers.
func reach(ctx context.Context, s *settings, m plugins.Member) (string, error) {
	listen := s.Listen
	if listen == "" {
		listen = "http://localhost:2379" // the server's default
	}
	first := ""
	for u := range strings.SplitSeq(listen+","+s.Advertise, ",") {
		at, err := url.Parse(strings.TrimSpace(u))
		if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
			continue
		}
		if ip := net.ParseIP(at.Hostname()); ip != nil && ip.IsUnspecified() {
			at.Host = net.JoinHostPort("127.0.0.1", at.Port())
		}
		address := at.Scheme + "://" + at.Host
		c, err := (&net.Dialer{Timeout: answersWithin}).DialContext(ctx, "tcp", at.Host)
		if err != nil {
			continue
		}
		proven, err := handshake(ctx, c, at, m)
		switch {
		case err != nil:
			return "", err
		case proven:
			return address, nil
		case first == "":
			first = address
		}
	}
	return first, nil
}

// handshake closes c.
func handshake(ctx context.Context, c net.Conn, at *url.URL, m plugins.Member) (bool, error) {
	defer c.Close()
	if at.Scheme == "http" {
		return true, nil
	}
	cfg, err := newTLS(m)
	if err != nil {
		return false, err
	}
	cfg.ServerName = at.Hostname()
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	return tls.Client(c, cfg).HandshakeContext(ctx) == nil, nil
}
