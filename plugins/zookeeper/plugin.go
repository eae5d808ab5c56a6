// Package zookeeper protects Apache ZooKeeper: the whole tree with data, access
// lists, node types and sequence counters, read through the client protocol.
//
// ZooKeeper cannot hold a view for a client. A pin therefore reads the whole tree, at
// hundreds of thousands of znodes a second, again and again until two
// readings are equal or the server's transaction number stood still, and
// holds the result.
package zookeeper

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	sessionTimeout = 5 * time.Second // asked for; also how long a claim outlives a killed restore
	connectTimeout = 10 * time.Second
	walkers        = 3 // connections that read at once
)

// Plugin protects one ZooKeeper ensemble. Member options: auth_file or
// auth_env (lines `SCHEME CREDENTIALS`, as addauth takes them), data_dir and
// data_log_dir (of a server on this VM), control_program, bulk_reads (`no`: one
// znode in one request), and for TLS ca_file, cert_file and key_file.
type Plugin struct {
	root string // where Discover looks for the standard places; empty: /
}

// New returns the plugin.
func New() *Plugin { return &Plugin{} }

// Info describes the plugin.
func (*Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: "zookeeper",
		Product:   "Apache ZooKeeper",
		Versions:  "3.4 to 3.9 (bulk reads and exact node types from 3.6)",
		Scope:     plugins.ScopeCluster,
		Inexact: []plugins.Inexact{
			{What: "czxid, mzxid, pzxid, ctime, mtime, version and aversion of znodes that a restore had to write", Why: "no client can set them; disaster recovery writes them back as they were"},
			{What: "ephemeral znodes", Why: "they belong to sessions of running clients: counted and reported, never restored, and spared unless the znode above them appeared after the backup"},
			{What: "the age of TTL znodes and empty containers", Why: "the server counts from the last change: a restored znode begins anew"},
			{What: "a sequence counter that runs ahead of the backup", Why: "counters only grow: the next number lies above every number ever used"},
			{What: "/zookeeper/config and the usage figures of quotas", Why: "they belong to the server, which computes them"},
		},
	}
}

type session struct {
	target  plugins.Target
	members []plugins.Member // the one this session is for first
	auth    []zkwire.Auth
	tls     *tls.Config
}

var (
	_ plugins.Plugin       = (*Plugin)(nil)
	_ plugins.Bootstrapper = (*Plugin)(nil)
	_ plugins.Session      = (*session)(nil)
	_ plugins.Pinner       = (*session)(nil)
	_ plugins.Planner      = (*session)(nil)
)

// Open proves that a member answers and takes the credentials.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	s, err := newSession(t)
	if err != nil {
		return nil, err
	}
	c, _, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return s, c.Do(ctx, zkwire.Exists("/"), func(r zkwire.Reply) error {
		if r.Code != zkwire.OK {
			return s.fault("/", r.Code)
		}
		return nil
	})
}

func newSession(t plugins.Target) (*session, error) {
	m, err := t.Self()
	if err != nil {
		return nil, err
	}
	s := &session{target: t, members: []plugins.Member{m}}
	for _, o := range t.Members {
		if o.Name != m.Name {
			s.members = append(s.members, o)
		}
	}
	auth, err := m.Secret("auth")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(auth) {
		scheme, cred, ok := strings.Cut(strings.TrimSpace(line), " ")
		if scheme == "" {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("%s: a line of auth_file is not `SCHEME CREDENTIALS`, for example `digest super:PASSWORD`: %w", t, plugins.ErrConfig)
		}
		s.auth = append(s.auth, zkwire.Auth{Scheme: scheme, Auth: strings.TrimSpace(cred)})
	}
	if s.tls, err = tlsConfig(m); err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return s, nil
}

func tlsConfig(m plugins.Member) (*tls.Config, error) {
	ca := m.Options["ca_file"]
	if ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s holds no certificate: %w", ca, plugins.ErrConfig)
	}
	if cert := m.Options["cert_file"]; cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, m.Options["key_file"])
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// dial connects to the session's own member or, if it does not answer, to another.
func (s *session) dial(ctx context.Context) (*zkwire.Conn, plugins.Member, error) {
	var all []error
	for _, m := range s.members {
		c, err := s.dialMember(ctx, m)
		if err == nil {
			return c, m, nil
		}
		if ctx.Err() != nil {
			return nil, m, ctx.Err()
		}
		all = append(all, fmt.Errorf("%s (%s): %w", m.Name, m.Address, err))
		if errors.Is(err, zkwire.AuthFailed) {
			return nil, m, fmt.Errorf("%s: %w: %w: check auth_file", s.target, plugins.ErrAuth, errors.Join(all...))
		}
	}
	return nil, s.members[0], fmt.Errorf("%s: %w: %w", s.target, plugins.ErrUnavailable, errors.Join(all...))
}

func (s *session) dialMember(ctx context.Context, m plugins.Member) (*zkwire.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	addr := m.Address
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, "2181")
	}
	return zkwire.Dial(ctx, addr, zkwire.Options{Auth: s.auth, Timeout: sessionTimeout, TLS: s.tls})
}

// fault gives a server's refusal the kind the product knows, and what to do.
func (s *session) fault(path string, code zkwire.Code) error {
	switch code {
	case zkwire.NoAuth, zkwire.AuthFailed:
		return fmt.Errorf("%s: %s: %w: %w: give the super user's credentials in auth_file", s.target, path, plugins.ErrAuth, code)
	case zkwire.Unimplemented:
		return fmt.Errorf("%s: %s: %w: %w: TTL znodes need extendedTypesEnabled=true on the servers", s.target, path, plugins.ErrUnsupported, code)
	}
	return fmt.Errorf("%s: %s: %w", s.target, path, code)
}

func (s *session) PreHook(ctx context.Context, _ plugins.Run) error  { return ctx.Err() }
func (s *session) PostHook(ctx context.Context, _ plugins.Run) error { return ctx.Err() }
func (s *session) Close() error                                      { return nil }
