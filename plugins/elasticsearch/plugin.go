package elasticsearch

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plugin protects one Elasticsearch or OpenSearch cluster. Member options: user with
// password_file or password_env, api_key_file or api_key_env, ca_file,
// client_cert_file with client_key_file, repo_dir (the directory on this VM that
// the nodes know as path.repo; by default the same path).
type Plugin struct {
	root string // where Discover looks for the standard places; empty: /
}

// New returns the plugin.
func New() *Plugin { return &Plugin{} }

// Info describes the plugin.
func (*Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: "elasticsearch",
		Product:   "Elasticsearch, OpenSearch",
		Versions:  "Elasticsearch 7.10 to 8.x, OpenSearch 2.x",
		Scope:     plugins.ScopeCluster,
		Reindexes: true,
		Inexact: []plugins.Inexact{
			{What: "index.uuid, index.history.uuid, index.version.*, primary terms and metadata versions of an index that had to be restored", Why: "the server gives a restored index new ones"},
			{What: "indices of the server's security (.security*, .opendistro_security), task results (.tasks) and its caches (.geoip_databases, .async-search)", Why: "they belong to the server: back up users and roles with the security plugin's own tool"},
			{What: "repository registrations, keystore and the nodes' own configuration", Why: "they are no part of the data; the configuration files belong to the installation"},
			{What: "the files of the snapshot repository (artifacts segment…, repository)", Why: "they carry the data into the server and are not part of the live data"},
			{What: "deleted documents still held by segments, and tombstones", Why: "the server merges them away by itself"},
		},
	}
}

type session struct {
	c       *client
	target  plugins.Target
	self    plugins.Member
	product product
	page    atomic.Int64 // see pageBytes; 0: not asked yet
	homes   homes
}

// product is what GET / says.
type product struct {
	Version      string
	Distribution string // "opensearch", or empty
	Cluster      string
}

func (p product) String() string {
	if p.Distribution != "" {
		return p.Distribution + " " + p.Version
	}
	return p.Version
}

var (
	_ plugins.Plugin  = (*Plugin)(nil)
	_ plugins.Session = (*session)(nil)
	_ plugins.Pinner  = (*session)(nil)
	_ plugins.Planner = (*session)(nil)
	_ plugins.Quieter = (*session)(nil)

	_ plugins.Reindexer = (*session)(nil)
)

// Open proves that a member answers to the credentials.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	self, err := t.Self()
	if err != nil {
		return nil, err
	}
	c, err := newClient(t, self)
	if err != nil {
		return nil, err
	}
	s := &session{c: c, target: t, self: self}
	var root struct {
		ClusterName string `json:"cluster_name"`
		Version     struct {
			Number       string `json:"number"`
			Distribution string `json:"distribution"`
		} `json:"version"`
	}
	err = c.get(ctx, "/", &root)
	if isFault(err, http.StatusMethodNotAllowed, "") { // 8.x without its module main
		var ns struct {
			ClusterName string `json:"cluster_name"`
			Nodes       map[string]struct {
				Version string `json:"version"`
			} `json:"nodes"`
		}
		err = c.get(ctx, "/_nodes/_local/http?filter_path=cluster_name,nodes.*.version", &ns)
		for _, n := range ns.Nodes {
			root.ClusterName, root.Version.Number = ns.ClusterName, n.Version
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	s.product = product{root.Version.Number, root.Version.Distribution, root.ClusterName}
	if s.product.Version == "" {
		c.close()
		return nil, fmt.Errorf("%s: %s does not answer like Elasticsearch or OpenSearch: %w: check the address in the estate file", t, self.Address, plugins.ErrConfig)
	}
	return s, nil
}

// supported says whether the version is one this plugin was proved on.
func (p product) supported() bool {
	if p.Distribution != "" {
		return strings.HasPrefix(p.Version, "2.") || strings.HasPrefix(p.Version, "3.")
	}
	major, rest, _ := strings.Cut(p.Version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major == "8" || major == "7" && len(minor) >= 2
}

// PreHook changes nothing.
func (s *session) PreHook(ctx context.Context, _ plugins.Run) error { return ctx.Err() }

// PostHook puts back the cluster settings that an attempt which died had lifted.
func (s *session) PostHook(ctx context.Context, run plugins.Run) error { return s.unliftDead(ctx, run) }

// Close ends the connections.
func (s *session) Close() error { s.c.close(); return nil }
