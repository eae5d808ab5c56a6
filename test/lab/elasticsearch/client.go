package elasticsearch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// client talks to one node over plain HTTP.
type client struct {
	base, user, password string
	http                 *http.Client
}

// dial makes a client for a member; nothing is sent yet. With security it
// shows the administrator's certificate, because some requests are refused to every user.
func dial(m engine.Member) (*client, error) {
	c := &client{base: address(m)}
	transport := &http.Transport{MaxIdleConnsPerHost: 4}
	c.http = &http.Client{Transport: transport}
	if m.Options["ca_file"] == "" {
		return c, nil
	}
	ca, err := os.ReadFile(m.Options["ca_file"])
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(m.Options["client_cert_file"], m.Options["client_key_file"])
	if err != nil {
		return nil, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
	return c, nil
}

// dialUser is dial with the user's password instead of a certificate.
func dialUser(m engine.Member) (*client, error) {
	c, err := dial(m)
	if err != nil || m.Options["password_file"] == "" {
		return c, err
	}
	password, err := os.ReadFile(m.Options["password_file"])
	if err != nil {
		return nil, fmt.Errorf("read the user's password: %w", err)
	}
	c.http.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	c.user, c.password = m.Options["user"], string(password)
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// statusError is an answer other than 2xx.
type statusError struct {
	method, path string
	code         int
	body         string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: HTTP %d: %s", e.method, e.path, e.code, e.body)
}

// do sends a request; body is nil, text, or what JSON is made of. Its answer is returned whole.
func (c *client) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var in io.Reader
	contentType := "application/json"
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	case *bytes.Buffer:
		in, contentType = bytes.NewReader(b.Bytes()), "application/x-ndjson"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if c.password != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if res.StatusCode/100 != 2 {
		return answer, &statusError{method, path, res.StatusCode, string(answer[:min(len(answer), 2000)])}
	}
	return answer, nil
}

// get decodes an answer. Some releases answer an empty list with 404: into is left alone then.
func (c *client) get(ctx context.Context, path string, into any) error {
	answer, err := c.do(ctx, http.MethodGet, path, nil)
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusNotFound && string(bytes.TrimSpace(answer)) == "{}" {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("decode the answer to %s: %w", path, err)
	}
	return nil
}
