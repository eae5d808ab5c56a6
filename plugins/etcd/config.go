package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// dialTimeout bounds connecting and logging in to a member.
const dialTimeout = 5 * time.Second

// Keys of the product itself: outside backup, digest and restore.
const (
	ownPrefix        = "/cso-backup/"
	epochKey         = ownPrefix + "epoch"
	defaultSwitchKey = "/lb/maintenance"
)

// config is what the estate file says of one instance.
type config struct {
	target    plugins.Target
	self      plugins.Member
	endpoints []string // of self first
	user      string
	password  string
	tls       *tls.Config
	switchKey string
}

func newConfig(t plugins.Target) (*config, error) {
	self, err := t.Self()
	if err != nil {
		return nil, err
	}
	c := &config{target: t, self: self, user: self.Options["user"], switchKey: self.Options["switch_key"]}
	if c.switchKey == "" {
		c.switchKey = defaultSwitchKey
	}
	c.endpoints = []string{self.Address}
	for _, m := range t.Members {
		if m.Name != self.Name {
			c.endpoints = append(c.endpoints, m.Address)
		}
	}
	secure := false
	for i, ep := range c.endpoints {
		if !strings.Contains(ep, "://") {
			c.endpoints[i] = "http://" + ep
		}
		secure = secure || strings.HasPrefix(ep, "https://")
	}
	if c.password, err = self.Secret("password"); err != nil {
		return nil, err
	}
	if secure {
		if c.tls, err = newTLS(self); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// newTLS reads ca_file, and cert_file with key_file where the server asks for
// a client certificate. Without ca_file the system's authorities count.
func newTLS(m plugins.Member) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f := m.Options["ca_file"]; f != "" {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("ca_file of %s: %w: %w: check the estate file", m.Name, plugins.ErrConfig, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file of %s: %w: %s holds no certificate in PEM form", m.Name, plugins.ErrConfig, f)
		}
	}
	if f := m.Options["cert_file"]; f != "" {
		pair, err := tls.LoadX509KeyPair(f, m.Options["key_file"])
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file of %s: %w: %w: check the estate file", m.Name, plugins.ErrConfig, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// dial connects and logs in; it gives up when ctx ends or after dialTimeout.
func (c *config) dial(ctx context.Context, endpoints ...string) (*clientv3.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	cfg := clientv3.Config{
		Context: life, Endpoints: endpoints, DialTimeout: dialTimeout, Username: c.user, Password: c.password, Logger: zap.NewNop(),
		// A server may be set to take more than the client's default of 2 MiB: its limit counts, not ours.
		MaxCallSendMsgSize: math.MaxInt32, MaxCallRecvMsgSize: math.MaxInt32,
	}
	if c.tls != nil {
		cfg.TLS = c.tls.Clone()
	}
	cl, err := clientv3.New(cfg)
	if !stop() && err == nil {
		err = errors.Join(ctx.Err(), cl.Close())
	}
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.wrap("connect to "+strings.Join(endpoints, ", "), err)
	}
	return cl, nil
}

// wrap gives an error of the client its kind and says what to do.
func (c *config) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	pre := c.target.String() + ": " + what
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", pre, err)
	case status.Code(err) == codes.Canceled:
		return fmt.Errorf("%s: %w: %w", pre, context.Canceled, err)
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty),
		errors.Is(err, rpctypes.ErrInvalidAuthToken):
		return fmt.Errorf("%s: %w: %w: give a user with the role root in the estate file", pre, plugins.ErrAuth, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: %w: %w: compact, defragment and disarm the alarm NOSPACE first", pre, plugins.ErrSpace, err)
	case transient(err):
		return fmt.Errorf("%s: %w: %w: look at the server and its log", pre, plugins.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", pre, err)
}

// transient says that the same request may succeed a moment later.
func transient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrTimeout) || errors.Is(err, rpctypes.ErrLeaderChanged) ||
		errors.Is(err, rpctypes.ErrNoLeader) || errors.Is(err, rpctypes.ErrTooManyRequests) || errors.Is(err, clientv3.ErrNoAvailableEndpoints)
}

// own says whether a key is the product's.
func (c *config) own(key []byte) bool {
	return string(key) == c.switchKey || strings.HasPrefix(string(key), ownPrefix)
}
