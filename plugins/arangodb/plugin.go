// Package arangodb protects ArangoDB, single servers and clusters, through
// the vendor's Go driver: databases, collections, indexes, views, analyzers,
// graphs, user functions, Foxx services, tasks and accounts, and the documents
// as the server writes them.
//
// Documents are read by replication batches, as arangodump does: one batch
// holds one snapshot of a whole server. On a single server that is the pin. In
// a cluster each DB server gets a batch while every coordinator is read-only for
// a moment. Writing goes through the documented API, under an account that
// belongs to one attempt and that its successor removes: what an overtaken
// attempt still sends is refused by the server itself. README.md says what is
// exact, what is not and why.
package arangodb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const defaultTimeout = 2 * time.Minute

// Plugin protects one ArangoDB server or cluster. Members are the server, or
// the coordinators. Member options: user (default root), password_file or
// password_env; jwt_secret_file or jwt_secret_env (the server's JWT secret: the
// session is then the super user); ca_file, cert_file, key_file; timeout (how long a
// server may be silent, default 2m); dump (`parallel`: read by the interface for
// parallel dumps of version 3.12 where the server has it); native (`yes`: write
// definitions and documents through the undocumented interface of arangorestore); read_only (`no`: do not make a
// cluster read-only for the moment of a pin, which then is no consistency point); hot_backup (`restore`, the default:
// where the servers can, one lies below every restore until it is complete; `always`: one beside the newest backup too; `no`).
type Plugin struct {
	root string // where Discover looks for the standard places; empty: /
}

// New returns the plugin.
func New() *Plugin { return &Plugin{} }

// Info describes the plugin.
func (*Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: "arangodb",
		Product:   "ArangoDB",
		Versions:  "3.8 to 3.12, single server and cluster",
		Scope:     plugins.ScopeCluster,
		Inexact: []plugins.Inexact{
			{What: "_rev of documents that a restore had to write", Why: "the server gives out a new one with every write; it is also the number under which the document is stored, so that one kept from elsewhere could clash and damage the primary index"},
			{What: "ids of databases, collections, indexes and views", Why: "the server gives them out; nothing but the server's own files refers to them"},
			{What: "a key generator that runs ahead of the backup", Why: "generated keys only grow: the next lies above every key ever given out"},
			{What: "params and creation time of tasks", Why: "the server does not tell the params of a task"},
			{What: "attributes of the server's own collections (their documents are exact)", Why: "the server makes these collections itself, to the needs of its version"},
			{What: "documents that have expired by a TTL index", Why: "the server removes them: what has expired is not written back"},
			{What: "_statistics*, _frontend, the server's configuration, JWT secret, encryption key and licence", Why: "they belong to the server, not to the data: the first are written without pause, the others are files"},
		},
	}
}

// session is what all kinds of session share.
type session struct {
	target  plugins.Target
	member  plugins.Member
	addrs   []string
	cred    credentials
	timeout time.Duration
	tr      *http.Transport

	main    *client // with the credentials of the estate file
	c       *client // in use: main, or the attempt's own once it has a claim
	cluster bool
	version version
	license string
	holds   *claim
}

// singleSession is a session on a single server.
type singleSession struct{ *session }

// clusterSession is a session on a cluster.
type clusterSession struct{ *session }

var (
	_ plugins.Plugin          = (*Plugin)(nil)
	_ plugins.Discoverer      = (*Plugin)(nil)
	_ plugins.Pinner          = singleSession{}
	_ plugins.Pinner          = clusterSession{}
	_ plugins.Planner         = (*session)(nil)
	_ plugins.Fencer          = superSingle{}
	_ plugins.Fencer          = superCluster{}
	_ plugins.AccountSwitcher = (*session)(nil)
	_ plugins.Quieter         = (*session)(nil)
)

// version is a server version.
type version struct {
	text         string
	major, minor int
}

func parseVersion(s string) (version, error) {
	v := version{text: s}
	p := strings.SplitN(s, ".", 3)
	var err error
	if len(p) >= 2 {
		if v.major, err = strconv.Atoi(p[0]); err == nil {
			v.minor, err = strconv.Atoi(p[1])
		}
	}
	if len(p) < 2 || err != nil {
		return v, fmt.Errorf("server version %q is none: %w", s, plugins.ErrVersion)
	}
	return v, nil
}

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

// Open proves that a member answers and takes the credentials.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	s, err := newSession(t)
	if err != nil {
		return nil, err
	}
	if err := s.greet(ctx); err != nil {
		s.tr.CloseIdleConnections()
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	single, cluster := singleSession{s}, clusterSession{s}
	switch {
	case s.cluster && s.cred.secret != "":
		return superCluster{cluster, fencer{s}}, nil
	case s.cluster:
		return cluster, nil
	case s.cred.secret != "":
		return superSingle{single, fencer{s}}, nil
	}
	return single, nil
}

func newSession(t plugins.Target) (*session, error) {
	m, err := t.Self()
	if err != nil {
		return nil, err
	}
	s := &session{target: t, member: m, timeout: defaultTimeout, cred: credentials{user: m.Options["user"]}}
	if s.cred.user == "" {
		s.cred.user = "root"
	}
	if s.cred.password, err = m.Secret("password"); err != nil {
		return nil, err
	}
	if s.cred.secret, err = m.Secret("jwt_secret"); err != nil {
		return nil, err
	}
	if v := m.Options["timeout"]; v != "" {
		if s.timeout, err = time.ParseDuration(v); err != nil || s.timeout <= 0 {
			return nil, fmt.Errorf("%s: timeout %q is no duration, for example 2m: %w", t, v, plugins.ErrConfig)
		}
	}
	s.addrs = []string{address(m.Address)}
	for _, o := range t.Members {
		if o.Name != m.Name {
			s.addrs = append(s.addrs, address(o.Address))
		}
	}
	cfg, err := newTLS(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	s.tr = newTransport(cfg)
	s.main = newClient(s.tr, s.addrs, s.cred, s.timeout)
	s.c = s.main
	return s, nil
}

// address makes the URL that the driver wants; the vendor's own schemes are understood.
func address(a string) string {
	a = strings.TrimRight(a, "/")
	switch scheme, rest, ok := strings.Cut(a, "://"); {
	case !ok:
		a = "http://" + a
	case scheme == "tcp" || scheme == "http+tcp":
		a = "http://" + rest
	case scheme == "ssl" || scheme == "http+ssl":
		a = "https://" + rest
	}
	_, host, _ := strings.Cut(a, "://")
	if _, _, err := net.SplitHostPort(host); err != nil {
		a += ":8529"
	}
	return a
}

func newTLS(m plugins.Member) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f := m.Options["ca_file"]; f != "" {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w: %w: check the estate file", plugins.ErrConfig, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form: %w", f, plugins.ErrConfig)
		}
	}
	if f := m.Options["cert_file"]; f != "" {
		pair, err := tls.LoadX509KeyPair(f, m.Options["key_file"])
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w: %w: check the estate file", plugins.ErrConfig, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// greet learns what the server is.
func (s *session) greet(ctx context.Context) error {
	// An answer of any member will do, but a wrong password must be told at once.
	var v struct{ Version, License string }
	if err := s.c.get(ctx, systemDB, "/_api/version", nil, &v); err != nil {
		return s.hint(err)
	}
	var err error
	if s.version, err = parseVersion(v.Version); err != nil {
		return err
	}
	s.license = v.License
	if !s.version.atLeast(3, 8) {
		return fmt.Errorf("ArangoDB %s is older than 3.8: %w", v.Version, plugins.ErrVersion)
	}
	var r struct{ Role, Mode string }
	if err := s.c.get(ctx, systemDB, "/_admin/server/role", nil, &r); err != nil {
		return s.hint(err)
	}
	switch r.Role {
	case "SINGLE":
	case "COORDINATOR":
		s.cluster = true
	default:
		return fmt.Errorf("the member is a %s: name the coordinators in the estate file: %w", r.Role, plugins.ErrConfig)
	}
	return nil
}

// hint says what to do about refused credentials.
func (s *session) hint(err error) error {
	if errors.Is(err, plugins.ErrAuth) {
		return fmt.Errorf("%w: user %s needs the right password and read and write access to %s", err, s.cred.user, systemDB)
	}
	return err
}

// PreHook undoes a read-only mode that an attempt which died has left behind, and before a backup deletes
// the hot backups of earlier runs.
func (s *session) PreHook(ctx context.Context, run plugins.Run) error {
	if err := s.undoReadOnly(ctx, run); err != nil {
		return err
	}
	return s.sweepHot(ctx, run)
}

// PostHook undoes a read-only mode likewise.
func (s *session) PostHook(ctx context.Context, run plugins.Run) error {
	return s.undoReadOnly(ctx, run)
}

// Close gives up the claim, if there is one.
func (s *session) Close() error {
	err := s.release()
	s.tr.CloseIdleConnections()
	return err
}

func (s *session) options(run plugins.Run, name string) string {
	if v := run.Options[name]; v != "" {
		return v
	}
	return s.member.Options[name]
}
