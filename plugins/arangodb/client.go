package arangodb

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/arangodb/go-driver/v2/connection"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	maxAnswer  = 512 << 20 // bytes of an answer that is held in memory
	maxTries   = 8         // of one request, over all members
	longCall   = time.Hour // an index over much data is built within one request
	systemDB   = "_system"
	octetBody  = "text/plain" // for bodies that are not one JSON value
	maxBackoff = 2 * time.Second
)

// client speaks to one instance through the vendor's connections, one for
// each member, and changes to the next when one does not answer.
type client struct {
	conns   []connection.Connection
	addrs   []string
	timeout time.Duration                         // how long a server may be silent
	now     *atomic.Int32                         // index of the member in use
	token   func(context.Context) (string, error) // nil: the connections authenticate
}

// call is one request.
type call struct {
	method, db, path string // path below /_db/DB, its parts escaped with esc; an empty db: no such prefix
	query            map[string]string
	header           map[string]string
	body             any    // sent as JSON
	raw              []byte // sent as it is
	timeout          time.Duration
	once             bool // do not try again
	member           int  // 1-based index of the only member to ask; 0: any
}

func (c call) String() string { return c.method + " " + c.url() }

func (c call) url() string {
	if c.db == "" {
		return c.path
	}
	return "/_db/" + esc(c.db) + c.path
}

// esc escapes one part of a path in the way the vendor's connection, which unescapes each URL once, takes it.
func esc(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }

// answer is what came back, already read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("answer of the server: %w", err)
	}
	return nil
}

// credentials make the Authorization header.
type credentials struct {
	user, password string
	secret         string // of the server's JWTs: then the session is the super user
}

func (c credentials) authentication() connection.Authentication {
	switch {
	case c == credentials{}:
		return nil
	case c.secret == "":
		return connection.NewBasicAuth(c.user, c.password)
	}
	return connection.NewHeaderAuth("Authorization", "bearer %s", superJWT(c.secret, ""))
}

// superJWT makes a token of the super user: https://docs.arango.ai/arangodb/stable/develop/http-api/authentication/#superuser-token.
// more are further claims, with a comma before them.
func superJWT(secret, more string) string {
	b64 := base64.RawURLEncoding
	t := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64.EncodeToString([]byte(`{"iss":"arangodb","server_id":"cso-backup"`+more+`}`))
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(t))
	return t + "." + b64.EncodeToString(m.Sum(nil))
}

func newTransport(cfg *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: cfg, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second, DisableCompression: true}
}

func newClient(tr *http.Transport, addrs []string, cred credentials, timeout time.Duration) *client {
	c := &client{addrs: addrs, timeout: timeout, now: new(atomic.Int32)}
	for _, a := range addrs {
		c.conns = append(c.conns, connection.NewHttpConnection(connection.HttpConfiguration{
			Endpoint: connection.NewRoundRobinEndpoints([]string{a}), Transport: tr, Authentication: cred.authentication(),
			ContentType: connection.ApplicationJSON, DontFollowRedirect: true,
		}))
	}
	return c
}

// errSilent is why a request is given up whose server says nothing.
var errSilent = errors.New("the server is silent")

// watched is a body that gives up when nothing arrives for the client's timeout.
type watched struct {
	io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	every time.Duration
	stop  context.CancelCauseFunc
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(w.every)
	}
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(w.ctx) == errSilent {
		err = errSilent
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.stop(context.Canceled)
	return err
}

// head is an answer whose body is still to be read, and closed.
type head struct {
	status int
	header http.Header
	body   io.ReadCloser
}

// send sends a request to one member and returns when the head of the answer is there.
func (c *client) send(ctx context.Context, member int, q call) (*head, error) {
	bearer := ""
	if c.token != nil {
		t, err := c.token(ctx)
		if err != nil {
			return nil, ended(ctx, err)
		}
		bearer = "bearer " + t
	}
	every := max(c.timeout, q.timeout)
	inner, stop := context.WithCancelCause(ctx)
	timer := time.AfterFunc(every, func() { stop(errSilent) })
	mods := []connection.RequestModifier{func(r connection.Request) error {
		for k, v := range q.query {
			r.AddQuery(k, url.QueryEscape(v))
		}
		for k, v := range q.header {
			r.AddHeader(k, v)
		}
		if bearer != "" {
			r.AddHeader("Authorization", bearer)
		}
		if q.raw != nil {
			r.AddHeader(connection.ContentType, octetBody)
			return r.SetBody(q.raw)
		}
		return r.SetBody(q.body)
	}}
	resp, body, err := connection.CallStream(inner, c.conns[member], q.method, q.url(), mods...)
	if err != nil {
		timer.Stop()
		if context.Cause(inner) == errSilent {
			err = errSilent
		}
		stop(context.Canceled)
		return nil, ended(ctx, err)
	}
	raw := resp.RawResponse() //nolint:bodyclose // body is this answer's, and closed by whoever reads it
	return &head{raw.StatusCode, raw.Header, &watched{body, inner, timer, every, stop}}, nil
}

// stream sends a request and returns the body of a good answer to read from. It is tried again only until then.
func (c *client) stream(ctx context.Context, q call) (*head, error) {
	wait := 50 * time.Millisecond
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at := int(c.now.Load()) % len(c.conns)
		if q.member > 0 {
			at = q.member - 1
		}
		h, err := c.send(ctx, at, q)
		if err == nil && h.status < 300 {
			return h, nil
		}
		if err == nil {
			b, rerr := io.ReadAll(io.LimitReader(h.body, 1<<20))
			_ = h.body.Close()
			e := newAPIError(q.method+" "+c.addrs[at]+q.url(), h.status, b)
			if rerr == nil && !e.transient() {
				return nil, e
			}
			err = e
		} else {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if errors.Is(err, plugins.ErrFenced) {
				return nil, err
			}
			err = fmt.Errorf("%s %s%s: %w: %w", q.method, c.addrs[at], q.url(), plugins.ErrUnavailable, err)
		}
		if q.member == 0 {
			c.now.CompareAndSwap(int32(at), int32((at+1)%len(c.conns)))
		}
		if q.once || try >= maxTries {
			return nil, fmt.Errorf("%w: look at the server and its log", err)
		}
		if err := plugins.Sleep(ctx, wait); err != nil {
			return nil, err
		}
		wait = min(2*wait, maxBackoff)
	}
}

// do sends a request and reads the answer. Every request of this plugin may be repeated: what it wants may
// already be so.
func (c *client) do(ctx context.Context, q call) (*answer, error) {
	for try := 1; ; try++ {
		h, err := c.stream(ctx, q)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(h.body, maxAnswer))
		_ = h.body.Close()
		if err == nil {
			return &answer{h.status, h.header, b}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if q.once || try >= maxTries {
			return nil, fmt.Errorf("%s: %w: the answer breaks off: %w: look at the server and its log", q, plugins.ErrUnavailable, err)
		}
	}
}

// get reads one JSON value.
func (c *client) get(ctx context.Context, db, path string, query map[string]string, into any) error {
	a, err := c.do(ctx, call{method: http.MethodGet, db: db, path: path, query: query})
	if err != nil {
		return err
	}
	return a.decode(into)
}
