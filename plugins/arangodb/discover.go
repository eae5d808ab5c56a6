package arangodb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// answersWithin is how long a local server may take to accept a connection.
const answersWithin = time.Second

// confFile is where the vendor's packages put the server's configuration.
const confFile = "etc/arangodb3/arangod.conf"

// Discover finds the server of this host by its configuration. There is no standard place for root's password:
// the target is returned and refuses to open unless it is empty, or the configuration names a readable file with the JWT
// secret. No configuration, or no answer: no target.
func (p *Plugin) Discover(ctx context.Context) ([]plugins.Target, error) {
	path := filepath.Join("/", p.root, confFile)
	conf, err := readConf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find local servers: %w: write an estate file if the worker may not read it", err)
	}
	m := plugins.Member{Name: "arangodb-1", Options: map[string]string{}}
	endpoints := conf["server.endpoint"]
	if len(endpoints) == 0 {
		endpoints = []string{"tcp://127.0.0.1:8529"} // the server's default
	}
	if f := conf["server.jwt-secret-keyfile"]; len(f) > 0 {
		m.Options["jwt_secret_file"] = f[0]
	}
	if f := conf["ssl.keyfile"]; len(f) > 0 {
		m.Options["ca_file"] = f[0] // this very server's certificate is trusted, whoever signed it
	}
	for _, e := range endpoints {
		scheme, rest, ok := strings.Cut(e, "://")
		if !ok || scheme == "unix" {
			continue
		}
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			host, port = strings.Trim(rest, "[]"), "8529"
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		m.Address = address(scheme + "://" + net.JoinHostPort(host, port))
		c, err := (&net.Dialer{Timeout: answersWithin}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		_ = c.Close()
		return []plugins.Target{{Component: "arangodb", Instance: plugins.DefaultInstance, Members: []plugins.Member{m}}}, nil
	}
	return nil, nil
}

// readConf reads sections and lines `key = value`, by "section.key"; a key may stand more than once.
func readConf(path string) (map[string][]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1:len(line)-1] + "."
		default:
			if key, value, ok := strings.Cut(line, "="); ok {
				key = section + strings.TrimSpace(key)
				out[key] = append(out[key], strings.Trim(strings.TrimSpace(value), `"`))
			}
		}
	}
	return out, nil
}
