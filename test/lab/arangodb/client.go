package arangodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/arangodb/go-driver/v2/connection"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

const (
	readyTimeout = 5 * time.Second

	ownAccounts = "cso-backup-" // accounts of the product's attempts
	root0       = "root"        // the administrator, whom Wreck leaves alone
	systemDB    = "_system"
	pageSize    = 2000 // documents of one answer
)

type object = map[string]any

// client speaks the documented HTTP API through the vendor's driver.
type client struct {
	conn connection.Connection
	tr   *http.Transport
}

func dial(m engine.Member) (*client, error) {
	password, err := os.ReadFile(m.Options["password_file"])
	if err != nil {
		return nil, fmt.Errorf("read root's password: %w", err)
	}
	return dialAs(m, root0, strings.TrimSpace(string(password))), nil
}

func dialAs(m engine.Member, user, password string) *client {
	tr := &http.Transport{}
	return &client{tr: tr, conn: connection.NewHttpConnection(connection.HttpConfiguration{
		Endpoint: connection.NewRoundRobinEndpoints([]string{endpoint(m)}), Transport: tr, ContentType: connection.ApplicationJSON,
		Authentication: connection.NewBasicAuth(user, password), DontFollowRedirect: true})}
}

func (c *client) close() { c.tr.CloseIdleConnections() }

// refusal is an answer that is no success.
type refusal struct {
	code int
	what string
}

func (r *refusal) Error() string { return r.what }

// refused says whether the server refused with one of these HTTP codes.
func refused(err error, codes ...int) bool {
	var r *refusal
	return errors.As(err, &r) && slices.Contains(codes, r.code)
}

// esc escapes one part of a path.
func esc(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }

// in is the path of an interface in a database; what holds a query keeps it.
func in(db, path string) string { return "/_db/" + esc(db) + path }

// call sends one request. body may be nil; into may be nil.
func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	path, query, _ := strings.Cut(path, "?")
	mods := []connection.RequestModifier{}
	if query != "" {
		for pair := range strings.SplitSeq(query, "&") {
			k, v, _ := strings.Cut(pair, "=")
			mods = append(mods, connection.WithQuery(k, v))
		}
	}
	if body != nil {
		mods = append(mods, connection.WithBody(body))
	}
	var out json.RawMessage
	resp, err := connection.Call(ctx, c.conn, method, path, &out, mods...)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.Code() >= 300 {
		return &refusal{resp.Code(), fmt.Sprintf("%s %s: HTTP %d %.300s", method, path, resp.Code(), out)}
	}
	if into == nil {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// gone is call for what may already be gone, or there.
func (c *client) gone(ctx context.Context, method, path string, body any) error {
	if err := c.call(ctx, method, path, body, nil); err != nil && !refused(err, 400, 404, 409) {
		return err
	}
	return nil
}

// each reads all documents of a collection by a cursor.
func (c *client) each(ctx context.Context, db, collection string, do func(json.RawMessage) error) error {
	var page struct {
		Result  []json.RawMessage
		HasMore bool
		ID      string
	}
	err := c.call(ctx, "POST", in(db, "/_api/cursor"), object{"query": "FOR d IN @@c RETURN d", "bindVars": object{"@c": collection}, "batchSize": pageSize}, &page)
	for err == nil {
		for _, d := range page.Result {
			if err := do(d); err != nil {
				return err
			}
		}
		if !page.HasMore {
			return nil
		}
		page.Result, page.HasMore = nil, false
		err = c.call(ctx, "POST", in(db, "/_api/cursor/"+page.ID), nil, &page)
	}
	return err
}

// list reads an array of names or objects that an interface answers below a key, or as the whole answer (key "").
func (c *client) list(ctx context.Context, path, key string) ([]object, error) {
	var all json.RawMessage
	if err := c.call(ctx, "GET", path, nil, &all); err != nil {
		return nil, err
	}
	if key != "" {
		var o map[string]json.RawMessage
		if err := json.Unmarshal(all, &o); err != nil {
			return nil, err
		}
		all = o[key]
	}
	var out []object
	d := json.NewDecoder(strings.NewReader(string(all)))
	d.UseNumber()
	err := d.Decode(&out)
	return out, err
}

func (c *client) databases(ctx context.Context) ([]string, error) {
	var l struct{ Result []string }
	err := c.call(ctx, "GET", in(systemDB, "/_api/database"), nil, &l)
	slices.Sort(l.Result)
	return l.Result, err
}

func text(o object, key string) string { s, _ := o[key].(string); return s }
