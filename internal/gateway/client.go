package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Client speaks to a gateway. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// NewClient speaks to the gateway at address (host:port); config comes from
// [pki.ClientTLS]. It connects at the first request.
func NewClient(address string, config *tls.Config) *Client {
	return &Client{base: "https://" + address + "/v1/", http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: pieceTime, MaxIdleConnsPerHost: 4,
	}}}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request; to, unless it is an io.Writer, is filled from the JSON of the answer.
func (c *Client) do(ctx context.Context, method, path string, h http.Header, body io.Reader, size int64, to any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("store gateway: %w", err)
	}
	if body != nil {
		req.ContentLength = size
	}
	for k, v := range h {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("store gateway: %w: %w: is the control worker running on the installer-vm?", plugins.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		var f failure
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&f); err != nil {
			return fmt.Errorf("store gateway: %s: %w", resp.Status, plugins.ErrUnavailable)
		}
		return f.asError()
	}
	if w, ok := to.(io.Writer); ok {
		_, err = io.Copy(w, io.LimitReader(resp.Body, manifest.MaxUnitFile))
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(to)
	}
	if err != nil {
		return fmt.Errorf("store gateway: answer: %w: %w", plugins.ErrUnavailable, err)
	}
	return nil
}

func (c *Client) ask(ctx context.Context, method, path string, h http.Header, doc, to any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return c.do(ctx, method, path, h, bytes.NewReader(b), int64(len(b)), to)
}

// List reads the list of a unit, and its SHA-256.
func (c *Client) List(ctx context.Context, ref manifest.Ref, u manifest.UnitID) (*manifest.UnitFile, manifest.Hash, error) {
	var b bytes.Buffer
	if err := c.do(ctx, http.MethodGet, ref.String()+"/"+u.String()+"/unit.json", nil, nil, 0, &b); err != nil {
		return nil, manifest.Hash{}, err
	}
	f, err := manifest.DecodeUnit(b.Bytes())
	return f, manifest.SHA256(b.Bytes()), err
}

// Piece copies the stored bytes of a piece to w. Who reads checks them, as always.
func (c *Client) Piece(ctx context.Context, ref manifest.Ref, u manifest.UnitID, id manifest.Hash, w io.Writer) error {
	return c.do(ctx, http.MethodGet, ref.String()+"/"+u.String()+"/pieces/"+id.String(), nil, nil, 0, w)
}

// Unit is a unit being stored through the gateway. It implements store.Shelf.
type Unit struct {
	c    *Client
	path string
	head http.Header
	past []*manifest.UnitFile
	done bool
}

// Begin begins or resumes a unit. plugins.ErrFenced, ErrRefused,
// store.ErrFinished, store.ErrSealed.
func (c *Client) Begin(ctx context.Context, ref manifest.Ref, u manifest.UnitID, b Begin) (*Unit, error) {
	u = u.Normal()
	x := &Unit{c: c, path: ref.String() + "/" + u.String()}
	var begun Begun
	if err := c.ask(ctx, http.MethodPost, x.path+"/begin", nil, b, &begun); err != nil {
		return nil, err
	}
	x.head = http.Header{headerSession: {begun.Session}}
	for _, r := range begun.Past {
		f, _, err := c.List(ctx, r, u)
		if errors.Is(err, plugins.ErrNotFound) { // pruned meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		x.past = append(x.past, f)
	}
	return x, nil
}

// Past implements store.Shelf.
func (x *Unit) Past() []*manifest.UnitFile { return x.past }

// Known implements store.Shelf.
func (x *Unit) Known(ctx context.Context, id manifest.Hash) (manifest.Piece, bool, error) {
	ps, err := x.KnownAll(ctx, id)
	if err != nil || len(ps) == 0 {
		return manifest.Piece{}, false, err
	}
	return ps[0], ps[0].ID == id, nil
}

// KnownAll says which of at most MaxKnown pieces the unit has.
func (x *Unit) KnownAll(ctx context.Context, ids ...manifest.Hash) ([]manifest.Piece, error) {
	var a knownAnswer
	err := x.c.ask(ctx, http.MethodPost, x.path+"/known", x.head, knownRequest{IDs: ids}, &a)
	return a.Pieces, err
}

// Put implements store.Shelf.
func (x *Unit) Put(ctx context.Context, p manifest.Piece, stored io.Reader) (manifest.Piece, error) {
	h := x.head.Clone()
	h[headerSHA256], h[headerBytes] = []string{p.SHA256.String()}, []string{strconv.FormatInt(p.Bytes, 10)}
	if p.Cut != 0 {
		h[headerCut] = []string{strconv.FormatInt(p.Cut, 10)}
	}
	var have manifest.Piece
	err := x.c.do(ctx, http.MethodPut, x.path+"/pieces/"+p.ID.String(), h, io.NopCloser(stored), p.Stored, &have)
	if t := (told{}); errors.As(err, &t) && t.Piece != nil {
		have, err = *t.Piece, nil // stored by an earlier attempt: it stays
	}
	if err == nil && (have.ID != p.ID || have.Bytes != p.Bytes || have.Cut != p.Cut) {
		err = fmt.Errorf("piece %s: the store has another one under this content id: %w", p.ID, plugins.ErrCorrupt)
	}
	return have, err
}

// Publish implements store.Shelf.
func (x *Unit) Publish(ctx context.Context, f *manifest.UnitFile) (store.UnitSummary, error) {
	var sum store.UnitSummary
	b, err := manifest.EncodeUnit(f)
	if err != nil {
		return sum, err
	}
	err = x.c.do(ctx, http.MethodPut, x.path+"/unit.json", x.head, bytes.NewReader(b), int64(len(b)), &sum)
	x.done = err == nil
	return sum, err
}

// End lets go of the unit, if it was not published. What was sent stays for
// the next attempt.
func (x *Unit) End(ctx context.Context) error {
	if x.done {
		return nil
	}
	return x.c.ask(ctx, http.MethodPost, x.path+"/end", x.head, struct{}{}, &struct{}{})
}
