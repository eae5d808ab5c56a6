package elasticsearch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	dialTimeout = 5 * time.Second
	// maxAnswer bounds answers that are held in memory. Definitions of thousands of indices fit in.
	maxAnswer = 128 << 20
)

// client talks to the members of one cluster, the session's own first.
type client struct {
	target plugins.Target
	bases  []string
	http   *http.Client
	tr     *http.Transport
	auth   string
	at     atomic.Int32 // the member that answered last
}

func newClient(t plugins.Target, self plugins.Member) (*client, error) {
	c := &client{target: t}
	ms := []plugins.Member{self}
	for _, m := range t.Members {
		if m.Name != self.Name {
			ms = append(ms, m)
		}
	}
	for _, m := range ms {
		a := m.Address
		if !strings.Contains(a, "://") {
			a = "http://" + a
		}
		u, err := url.Parse(a)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%s: address of %s is no URL like https://host:9200: %w", t, m.Name, plugins.ErrConfig)
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "9200")
		}
		c.bases = append(c.bases, u.Scheme+"://"+u.Host+strings.TrimRight(u.Path, "/"))
	}
	password, err := self.Secret("password")
	if err != nil {
		return nil, err
	}
	key, err := self.Secret("api_key")
	if err != nil {
		return nil, err
	}
	switch user := self.Options["user"]; {
	case key != "" && strings.Contains(key, ":"): // id:key, as the server gives it
		c.auth = "ApiKey " + base64.StdEncoding.EncodeToString([]byte(key))
	case key != "":
		c.auth = "ApiKey " + key
	case user != "":
		c.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	conf, err := tlsConfig(self)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	c.tr = &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   2 * dialTimeout,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
		ExpectContinueTimeout: time.Second,
	}
	c.http = &http.Client{Transport: c.tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

func tlsConfig(m plugins.Member) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if f := m.Options["ca_file"]; f != "" {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("ca_file of %s: %w: %w: check the estate file", m.Name, plugins.ErrConfig, err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file of %s: %s holds no certificate in PEM form: %w", m.Name, f, plugins.ErrConfig)
		}
	}
	if f := m.Options["client_cert_file"]; f != "" {
		pair, err := tls.LoadX509KeyPair(f, m.Options["client_key_file"])
		if err != nil {
			return nil, fmt.Errorf("client_cert_file and client_key_file of %s: %w: %w: check the estate file", m.Name, plugins.ErrConfig, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// with is a client that asks these members only, in this order.
func (c *client) with(bases []string) *client {
	return &client{target: c.target, bases: bases, http: c.http, tr: c.tr, auth: c.auth}
}

func (c *client) close() { c.tr.CloseIdleConnections() }

// fault is an error answer of the server.
type fault struct {
	Status int
	Type   string
	Reason string
}

func (f *fault) Error() string {
	if f.Type == "" {
		return fmt.Sprintf("HTTP %d", f.Status)
	}
	return fmt.Sprintf("HTTP %d %s: %s", f.Status, f.Type, f.Reason)
}

// isFault says whether err is the server's answer of that status, and of that type unless it is empty.
func isFault(err error, status int, kind string) bool {
	var f *fault
	return errors.As(err, &f) && (status == 0 || f.Status == status) && (kind == "" || f.Type == kind)
}

// unknownCall recognises that a server has no such API at all.
func unknownCall(err error) bool {
	return isFault(err, http.StatusMethodNotAllowed, "") || isFault(err, http.StatusBadRequest, "") || isFault(err, http.StatusNotFound, "")
}

// patience is the longest pause after which a request that the server had no memory for is sent once more.
const patience = 3 * time.Second

// send makes one request, again when the server refused it unread. The caller closes the body.
func (c *client) send(ctx context.Context, method, path, kind string, body []byte) (io.ReadCloser, error) {
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		r, err := c.once(ctx, method, path, kind, body)
		var f *fault
		if !errors.As(err, &f) || !f.unread() || wait > patience {
			return r, err
		}
		if err := plugins.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// unread says that the server refused a request before it looked at it: it may be sent again, whatever it wants.
func (f *fault) unread() bool {
	return f.Type == "circuit_breaking_exception" && strings.Contains(f.Reason, "<http_request>")
}

// once makes one request, to the next member when one cannot be reached. The caller closes the body.
func (c *client) once(ctx context.Context, method, path, kind string, body []byte) (io.ReadCloser, error) {
	start := c.at.Load()
	var all []error
	for i := range c.bases {
		n := (int(start) + i) % len(c.bases)
		req, err := http.NewRequestWithContext(ctx, method, c.bases[n]+path, bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.target, err)
		}
		if len(body) > 0 {
			req.Header.Set("Content-Type", kind)
		}
		if c.auth != "" {
			req.Header.Set("Authorization", c.auth)
		}
		resp, err := c.http.Do(req)
		if err == nil {
			c.at.Store(int32(n))
			return c.answer(method, path, resp)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return nil, fmt.Errorf("%s: %w: %w: check ca_file in the estate file", c.target, plugins.ErrConfig, err)
		}
		all = append(all, err)
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" { // it may have arrived: not to be sent twice
			break
		}
	}
	return nil, fmt.Errorf("%s: %w: %w: look at the server and its log", c.target, plugins.ErrUnavailable, errors.Join(all...))
}

func (c *client) answer(method, path string, resp *http.Response) (io.ReadCloser, error) {
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	f := &fault{Status: resp.StatusCode}
	var e struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(b, &e) == nil && len(e.Error) > 0 {
		var d struct {
			Type   string `json:"type"`
			Reason string `json:"reason"`
			Cause  struct {
				Reason string `json:"reason"`
			} `json:"caused_by"`
		}
		if json.Unmarshal(e.Error, &d) != nil {
			_ = json.Unmarshal(e.Error, &d.Reason)
		}
		f.Type, f.Reason = d.Type, limit(d.Reason, 400)
		if d.Cause.Reason != "" && d.Cause.Reason != d.Reason {
			f.Reason += ": " + limit(d.Cause.Reason, 400)
		}
	}
	path, _, _ = strings.Cut(path, "?")
	pre := fmt.Sprintf("%s: %s %s", c.target, method, path)
	switch {
	case f.Status == http.StatusUnauthorized, f.Status == http.StatusForbidden && f.Type != "cluster_block_exception":
		return nil, fmt.Errorf("%s: %w: %w: give credentials with the rights of a cluster administrator in the estate file", pre, plugins.ErrAuth, f)
	case f.Status == http.StatusTooManyRequests && !strings.Contains(f.Reason, "read-only"), f.Status == http.StatusServiceUnavailable,
		f.Status == http.StatusBadGateway, f.Status == http.StatusGatewayTimeout:
		return nil, fmt.Errorf("%s: %w: %w: look at the cluster's health", pre, plugins.ErrUnavailable, f)
	case f.Status == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w: %w", pre, plugins.ErrNotFound, f)
	case strings.Contains(f.Reason, "No space left on device"):
		return nil, fmt.Errorf("%s: %w: %w: make room on the nodes", pre, plugins.ErrSpace, f)
	}
	return nil, fmt.Errorf("%s: %w", pre, f)
}

func limit(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// do sends in as JSON (nil: no body) and decodes the answer into out (nil: it is dropped).
func (c *client) do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(in); err != nil {
			return fmt.Errorf("%s: %s: %w", c.target, path, err)
		}
		body = b.Bytes()
	}
	r, err := c.send(ctx, method, path, "application/json", body)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %s %s: %w: %w", c.target, method, path, plugins.ErrUnavailable, err)
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("%s: %s %s: answer over %d bytes: %w", c.target, method, path, maxAnswer, plugins.ErrData)
	}
	if out == nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("%s: %s %s: answer is no JSON as expected: %w", c.target, method, path, err)
	}
	return nil
}

func (c *client) get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

func (c *client) put(ctx context.Context, path string, in any) error {
	return c.do(ctx, http.MethodPut, path, in, nil)
}

func (c *client) post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

// remove deletes; what is not there is no error.
func (c *client) remove(ctx context.Context, path string) error {
	err := c.do(ctx, http.MethodDelete, path, nil, nil)
	if isFault(err, http.StatusNotFound, "") {
		return nil
	}
	return err
}

// esc is a name as one segment of a path.
func esc(name string) string { return url.PathEscape(name) }

// promptly is how long the clean-up after the end of a context may take; what it does not reach, PostHook or a successor does.
const promptly = 1500 * time.Millisecond

// ending is ctx, or when it has ended, a short time to clean up in.
func ending(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return context.WithTimeout(context.WithoutCancel(ctx), promptly)
	}
	return context.WithCancel(ctx)
}
