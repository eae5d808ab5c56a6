package elasticsearch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// request is one call of the API.
type request struct {
	method, path string
	body         any
}

// pair sends two requests in one stretch over a connection of its own (HTTP/1.1 pipelining, RFC 9112 section 9.3.2) and
// returns the outcome of each. When this process dies meanwhile, the server has got both or none.
func (c *client) pair(ctx context.Context, a, b request) (first, second error) {
	base, err := url.Parse(c.bases[int(c.at.Load())%len(c.bases)])
	if err != nil {
		return err, err
	}
	var conn net.Conn
	d := &net.Dialer{Timeout: dialTimeout}
	if base.Scheme == "https" {
		conf := c.tr.TLSClientConfig.Clone()
		conf.NextProtos = nil // HTTP/1.1
		conn, err = (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", base.Host)
	} else {
		conn, err = d.DialContext(ctx, "tcp", base.Host)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %w: look at the server and its log", c.target, plugins.ErrUnavailable, err)
		return err, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var out bytes.Buffer
	var reqs []*http.Request
	for _, r := range []request{a, b} {
		body, err := json.Marshal(r.body)
		if err != nil {
			return err, err
		}
		req, err := http.NewRequestWithContext(ctx, r.method, base.String()+r.path, bytes.NewReader(body))
		if err != nil {
			return err, err
		}
		req.Header.Set("Content-Type", "application/json")
		if c.auth != "" {
			req.Header.Set("Authorization", c.auth)
		}
		if err := req.Write(&out); err != nil {
			return err, err
		}
		reqs = append(reqs, req)
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		err = fmt.Errorf("%s: %w: %w", c.target, plugins.ErrUnavailable, err)
		return err, err
	}
	in := bufio.NewReader(conn)
	outcome := func(req *http.Request) error {
		resp, err := http.ReadResponse(in, req)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %w", c.target, plugins.ErrUnavailable, err)
		}
		ok, err := c.answer(req.Method, req.URL.Path, resp)
		if err != nil {
			return err
		}
		defer ok.Close()
		_, err = io.Copy(io.Discard, ok)
		return err
	}
	first = outcome(reqs[0])
	return first, outcome(reqs[1])
}
