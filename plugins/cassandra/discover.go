package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var _ plugins.Discoverer = (*Plugin)(nil)

// answersWithin is how long a local server may take to accept a connection.
const answersWithin = time.Second

// The standard places: the server's configuration as the packages of Debian and of the Red Hat family and the plain
// archive lay it out, and where cqlsh looks for a user and password. The first that exists counts.
var (
	configFiles     = []string{"etc/cassandra/cassandra.yaml", "etc/cassandra/conf/cassandra.yaml", "etc/cassandra/default.conf/cassandra.yaml", "opt/cassandra/conf/cassandra.yaml"}
	credentialFiles = []string{"root/.cassandra/credentials", "root/.cassandra/cqlshrc"}
)

// settings is what Discover uses of a cassandra.yaml.
type settings struct {
	Address   string   `yaml:"rpc_address"`
	Broadcast string   `yaml:"broadcast_rpc_address"`
	Port      int      `yaml:"native_transport_port"`
	Data      []string `yaml:"data_file_directories"`
}

// Discover finds the server of this host by its configuration, if it takes connections. With a user and password where
// cqlsh looks for them, it can be opened; without, a server with authentication refuses, and says so.
func (p *Plugin) Discover(ctx context.Context) ([]plugins.Target, error) {
	s, err := p.settings()
	if err != nil {
		return nil, fmt.Errorf("find local servers: %w: correct it, or write an estate file", err)
	}
	if s == nil {
		return nil, nil
	}
	m := plugins.Member{Name: "cassandra-1", Address: s.reach(ctx), Options: map[string]string{}}
	if m.Address == "" {
		return nil, ctx.Err()
	}
	if len(s.Data) > 0 {
		m.Options["data_dir"] = strings.Join(s.Data, ",")
	}
	for _, f := range credentialFiles {
		path := filepath.Join("/", p.root, f)
		if user, _, err := credentials(path); err == nil && user != "" {
			m.Options["cqlshrc"] = path
			break
		}
	}
	return []plugins.Target{{Component: "cassandra", Instance: plugins.DefaultInstance, Members: []plugins.Member{m}}}, nil
}

func (p *Plugin) settings() (*settings, error) {
	for _, f := range configFiles {
		path := filepath.Join("/", p.root, f)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s := &settings{}
		if err := yaml.Unmarshal(text, s); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, plugins.ErrConfig, err)
		}
		return s, nil
	}
	return nil, nil
}

// reach is the address at which the server takes connections; empty: at none.
func (s *settings) reach(ctx context.Context) string {
	port := strconv.Itoa(defaultPort)
	if s.Port > 0 {
		port = strconv.Itoa(s.Port)
	}
	for _, host := range []string{s.Address, s.Broadcast, "127.0.0.1"} {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			continue
		}
		at := net.JoinHostPort(host, port)
		c, err := (&net.Dialer{Timeout: answersWithin}).DialContext(ctx, "tcp", at)
		if err == nil {
			_ = c.Close()
			return at
		}
	}
	return ""
}

// credentials reads a file as cqlsh does: lines "username = …" and "password = …" in the section
// [authentication] or that of an authentication provider.
func credentials(path string) (user, password string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, ";") || strings.HasPrefix(line, "#") || section != "authentication" && !strings.HasSuffix(section, "AuthProvider") {
			continue
		}
		switch strings.TrimSpace(name) {
		case "username":
			user = strings.TrimSpace(value)
		case "password":
			password = strings.TrimSpace(value)
		}
	}
	return user, password, nil
}
