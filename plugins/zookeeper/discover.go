package zookeeper

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

var _ plugins.Discoverer = (*Plugin)(nil)

// answersWithin is how long a local server may take to accept a connection.
const answersWithin = time.Second

// confFiles are the standard places of a server's configuration; the first that exists counts.
var confFiles = []string{"etc/zookeeper/conf/zoo.cfg", "etc/zookeeper/zoo.cfg"}

// Discover finds the server of this host by its zoo.cfg. There is no standard
// place for the super user's credentials: znodes whose access list shuts
// others out need the estate file, and a backup names them. No zoo.cfg, or no answer: no target.
func (p *Plugin) Discover(ctx context.Context) ([]plugins.Target, error) {
	for _, f := range confFiles {
		path := filepath.Join("/", p.root, f)
		conf, err := readConf(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find local servers: %w: write an estate file if the worker may not read it", err)
		}
		if conf["clientPort"] == "" {
			return nil, fmt.Errorf("find local servers: %s names no clientPort (TLS or dynamic configuration): %w: write an estate file", path, plugins.ErrConfig)
		}
		host := conf["clientPortAddress"]
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		m := plugins.Member{Name: "zookeeper-1", Address: net.JoinHostPort(host, conf["clientPort"]), Options: map[string]string{}}
		c, err := (&net.Dialer{Timeout: answersWithin}).DialContext(ctx, "tcp", m.Address)
		if err != nil {
			return nil, ctx.Err()
		}
		c.Close()
		for option, key := range map[string]string{"data_dir": "dataDir", "data_log_dir": "dataLogDir"} {
			if conf[key] != "" {
				m.Options[option] = conf[key]
			}
		}
		return []plugins.Target{{Component: "zookeeper", Instance: plugins.DefaultInstance, Members: []plugins.Member{m}}}, nil
	}
	return nil, nil
}

// readConf reads lines key=value, as Java's properties without continuation lines.
func readConf(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok {
			out[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return out, nil
}
