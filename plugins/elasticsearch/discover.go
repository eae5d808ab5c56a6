package elasticsearch

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

	"go.yaml.in/yaml/v4"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var _ plugins.Discoverer = (*Plugin)(nil)

// The configuration files of the packages (https://www.elastic.co/guide/en/elasticsearch/reference/7.17/settings.html,
// https://opensearch.org/docs/2.19/install-and-configure/configuring-opensearch/).
var configFiles = []string{"etc/elasticsearch/elasticsearch.yml", "etc/opensearch/opensearch.yml"}

// Discover finds the server of this host by its configuration. There is no standard place for a user and password:
// where they are demanded, the target is returned and refuses to open. No configuration, or no answer: no target.
func (p *Plugin) Discover(ctx context.Context) ([]plugins.Target, error) {
	for _, f := range configFiles {
		path := filepath.Join("/", p.root, f)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find local servers: %w: make it readable, or write an estate file", err)
		}
		var tree map[string]any
		if err := yaml.Unmarshal(text, &tree); err != nil {
			return nil, fmt.Errorf("find local servers: %s: %w: %w: correct it, or write an estate file", path, plugins.ErrConfig, err)
		}
		set := map[string]string{}
		flatten("", tree, set)
		m := plugins.Member{Name: "elasticsearch-1", Options: map[string]string{}}
		if m.Address, err = answering(ctx, set); m.Address == "" {
			return nil, err
		}
		for _, k := range []string{"plugins.security.ssl.http.pemtrustedcas_filepath", "xpack.security.http.ssl.certificate_authorities"} {
			if v := set[k]; v != "" && strings.HasPrefix(m.Address, "https") {
				if !filepath.IsAbs(v) { // below the configuration
					v = filepath.Join(filepath.Dir(path), v)
				}
				m.Options["ca_file"] = v
			}
		}
		return []plugins.Target{{Component: "elasticsearch", Instance: plugins.DefaultInstance, Members: []plugins.Member{m}}}, nil
	}
	return nil, nil
}

// flatten gives settings their dotted names: both ways of writing them are allowed. Of a list the first counts.
func flatten(prefix string, tree map[string]any, out map[string]string) {
	for k, v := range tree {
		switch v := v.(type) {
		case map[string]any:
			flatten(prefix+k+".", v, out)
		case []any:
			if len(v) > 0 {
				out[prefix+k] = fmt.Sprint(v[0])
			}
		default:
			out[prefix+k] = fmt.Sprint(v)
		}
	}
}

// answering is the address at which the server accepts connections; empty: none.
func answering(ctx context.Context, set map[string]string) (string, error) {
	scheme := "http://"
	for _, k := range []string{"plugins.security.ssl.http.enabled", "xpack.security.http.ssl.enabled"} {
		if set[k] == "true" {
			scheme = "https://"
		}
	}
	port, _, _ := strings.Cut(set["http.port"], "-") // a range: the first that is free, which mostly is its first
	if port == "" {
		port = "9200"
	}
	hosts := []string{"127.0.0.1", "::1"}
	for _, k := range []string{"network.host", "http.host"} {
		if h := set[k]; h != "" && !strings.HasPrefix(h, "_") && h != "0.0.0.0" && h != "::" {
			hosts = []string{h}
		}
	}
	for _, h := range hosts {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(h, port))
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err == nil {
			return scheme + net.JoinHostPort(h, port), c.Close()
		}
	}
	return "", nil
}
