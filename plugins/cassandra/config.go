package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Ports of a server that names none (conf/cassandra.yaml and cassandra-env.sh of the server).
const (
	defaultPort = 9042
	defaultJMX  = "127.0.0.1:7199"
)

// Time limits. A DROP on a loaded cluster of three takes half a minute.
const (
	connectTimeout   = 5 * time.Second
	statementTimeout = 3 * time.Minute
	agreeTimeout     = 2 * time.Minute // for all nodes to have one schema
)

// defaultProve is up to how many bytes of Data.db a table is also read row by row at backup time; all tables together
// up to proveTables times that, the smallest first: reading rows is slower than reading files by far.
const (
	defaultProve = 16 << 20
	proveTables  = 4
)

// config is what the estate file says of the node of a session.
type config struct {
	target   plugins.Target
	self     plugins.Member
	user     string
	password string
	super    string   // superuser for what only one may do to accounts; empty: none
	jmx      string   // host:port
	jmxUser  string   // empty: JMX asks for none
	jmxFile  string   // file with lines "user password", for nodetool -pwf
	nodetool string   // program
	jolokia  string   // URL of a Jolokia agent in the server, used instead of nodetool; empty: none
	dataDirs []string // empty: ask the server
	staging  string   // directory for files to import; empty: beside the first data directory
	prove    int64    // see defaultProve
}

func newConfig(t plugins.Target) (*config, error) {
	self, err := t.Self()
	if err != nil {
		return nil, err
	}
	o := self.Options
	c := &config{target: t, self: self, user: o["user"], super: o["superuser"], jmx: o["jmx"], jmxUser: o["jmx_user"], jmxFile: o["jmx_password_file"],
		nodetool: o["nodetool"], jolokia: o["jolokia"], staging: o["staging_dir"], prove: defaultProve}
	if c.password, err = self.Secret("password"); err != nil {
		return nil, err
	}
	if f := o["cqlshrc"]; f != "" && c.user == "" {
		if c.user, c.password, err = credentials(f); err != nil {
			return nil, fmt.Errorf("%s: option cqlshrc of %s: %w: %w", t, self.Name, err, plugins.ErrConfig)
		}
	}
	if c.jmx == "" {
		c.jmx = defaultJMX
	}
	if c.nodetool == "" {
		c.nodetool = "nodetool"
	}
	for d := range strings.SplitSeq(o["data_dir"], ",") {
		if d = strings.TrimSpace(d); d != "" {
			c.dataDirs = append(c.dataDirs, filepath.Clean(d))
		}
	}
	if v := o["prove_mb"]; v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s: option prove_mb of %s is %q: %w: give a number of megabytes", t, self.Name, v, plugins.ErrConfig)
		}
		c.prove = n << 20
	}
	if _, _, err := net.SplitHostPort(c.jmx); err != nil {
		return nil, fmt.Errorf("%s: option jmx of %s: %w: %w: give host:port", t, self.Name, err, plugins.ErrConfig)
	}
	return c, nil
}

// host and port of a member's CQL address.
func hostPort(m plugins.Member) (string, int, error) {
	if !strings.Contains(m.Address, ":") {
		return m.Address, defaultPort, nil
	}
	h, p, err := net.SplitHostPort(m.Address)
	if err != nil {
		return "", 0, fmt.Errorf("address of %s: %w: %w: give host:port", m.Name, err, plugins.ErrConfig)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		return "", 0, fmt.Errorf("address of %s: port %q: %w: give host:port", m.Name, p, plugins.ErrConfig)
	}
	return h, n, nil
}

// connect opens a session with one node only, which coordinates every statement.
func (c *config) connect(ctx context.Context, m plugins.Member) (*gocql.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	host, port, err := hostPort(m)
	if err != nil {
		return nil, err
	}
	cl := gocql.NewCluster(host)
	cl.Port, cl.ProtoVersion = port, 4
	cl.ConnectTimeout, cl.Timeout, cl.WriteTimeout = connectTimeout, statementTimeout, statementTimeout
	cl.NumConns, cl.PageSize = 2, 1000
	cl.Consistency, cl.SerialConsistency = gocql.LocalOne, ownSerial
	cl.DisableInitialHostLookup = true
	cl.ReconnectInterval, cl.MaxWaitSchemaAgreement = 0, 0                                                    // see awake and settled
	cl.ReconnectionPolicy = &gocql.ConstantReconnectionPolicy{MaxRetries: 2, Interval: 50 * time.Millisecond} // the second connection of a session that is closed soon ends with it
	cl.Events.DisableNodeStatusEvents, cl.Events.DisableTopologyEvents, cl.Events.DisableSchemaEvents = true, true, true
	cl.Logger = log.New(io.Discard, "", 0)
	if c.user != "" {
		cl.Authenticator = gocql.PasswordAuthenticator{Username: c.user, Password: c.password}
	}
	if ca := m.Options["ca_file"]; ca != "" {
		cl.SslOpts = &gocql.SslOptions{CaPath: ca, CertPath: m.Options["cert_file"], KeyPath: m.Options["key_file"], EnableHostVerification: true}
	}
	type result struct {
		s   *gocql.Session
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := cl.CreateSession()
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, c.wrap(ctx, "connect to "+m.Name, r.err)
		}
		return r.s, nil
	case <-ctx.Done():
		go func() { // ends within the time to connect
			if r := <-done; r.s != nil {
				r.s.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// wrap says where an error comes from, what kind it is and what to do.
func (c *config) wrap(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return fmt.Errorf("%s: %s: %w", c.target, doing, cerr)
	}
	kind, advice := error(nil), ""
	var req gocql.RequestError
	text := err.Error()
	switch {
	case errors.As(err, &req):
		switch req.Code() {
		case gocql.ErrCodeCredentials:
			kind, advice = plugins.ErrAuth, "check user and password_file in the estate file"
		case gocql.ErrCodeUnauthorized:
			kind, advice = plugins.ErrAuth, "grant the role what README.md of the plugin lists"
		case gocql.ErrCodeUnavailable, gocql.ErrCodeReadTimeout, gocql.ErrCodeWriteTimeout, gocql.ErrCodeReadFailure, gocql.ErrCodeWriteFailure, gocql.ErrCodeOverloaded, gocql.ErrCodeBootstrapping:
			kind, advice = plugins.ErrUnavailable, "see `nodetool status`"
		case gocql.ErrCodeServer, gocql.ErrCodeTruncate:
			kind, advice = plugins.ErrUnavailable, "see the server's system.log"
		case gocql.ErrCodeConfig, gocql.ErrCodeInvalid, gocql.ErrCodeSyntax:
			kind, advice = plugins.ErrData, "see the server's system.log"
		}
	case strings.Contains(text, "Provided username") || strings.Contains(text, "credentials") || strings.Contains(text, "authentication"):
		kind, advice = plugins.ErrAuth, "check user and password_file in the estate file"
	default:
		kind, advice = plugins.ErrUnavailable, "check the address in the estate file and whether the server runs"
	}
	if kind == nil {
		return fmt.Errorf("%s: %s: %w: see the server's system.log", c.target, doing, err)
	}
	return fmt.Errorf("%s: %s: %w: %w: %s", c.target, doing, kind, err, advice)
}
