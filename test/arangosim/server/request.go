package server

import (
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// bodyLimit is the largest request (the real server takes 1 GiB).
const bodyLimit = 1 << 30

// request is one call on its way through a handler.
type request struct {
	*Server
	node  *node
	w     http.ResponseWriter
	http  *http.Request
	db    string            // database named in the path, _system without one
	path  []string          // unescaped parts behind /_db/<name>
	vars  map[string]string // what {x} of the route matched
	query url.Values
	body  []byte
	user  string // who asks; root when authentication is off
	super bool   // a token of the server itself: no user, all rights
	out   *reply
	sent  bool // the handler has written the answer itself
}

// reply is what is sent when the handler has returned: a handler may answer inside a transaction, whose failure to commit is
// then answered instead.
type reply struct {
	code        int
	contentType string
	body        []byte
}

// handler answers a request or returns the error to answer with.
type handler func(r *request) error

func (s *Server) serve(n *node, w http.ResponseWriter, hr *http.Request) {
	r := &request{Server: s, node: n, w: w, http: hr, query: hr.URL.Query()}
	w.Header().Set("Server", "ArangoDB")
	r.answer(r.handle)
}

// answer runs f and answers with its error. A handler that stumbles over a
// request answers 500; the simulator lives on.
func (r *request) answer(f func() error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			r.log.Error("handler failed", "path", r.http.URL.Path, "panic", p)
			r.fail(fail(4, "%v", p))
		}
		r.deliver()
	}()
	if err := f(); err != nil {
		r.fail(errorOf(err))
	} else if r.out == nil && !r.sent {
		r.fail(fail(4, "the handler has not answered"))
	}
}

func (r *request) handle() error {
	if err := r.split(); err != nil {
		return err
	}
	if !r.node.up() {
		panic(http.ErrAbortHandler)
	}
	if r.path[0] == "_sim" {
		if err := r.readBody(); err != nil {
			return err
		}
		return r.control()
	}
	if done := r.inject(); done {
		return nil
	}
	if err := r.readBody(); err != nil {
		return err
	}
	if mode := r.http.Header.Get(asyncHeader); mode == "store" || mode == "true" {
		return r.startJob(mode == "store")
	}
	return r.dispatch()
}

// dispatch finds the handler and runs it, once rights are checked.
func (r *request) dispatch() error {
	rt, vars, methodKnown := r.find()
	if rt == nil {
		if err := r.authenticate(); err != nil {
			return err
		}
		if methodKnown {
			return fail(405)
		}
		return fail(404, "unknown path '%s'", r.http.URL.Path)
	}
	r.vars = vars
	if rt.access != anyone {
		if err := r.authenticate(); err != nil {
			return err
		}
		if err := r.authorize(rt); err != nil {
			return err
		}
	}
	return rt.handler(r)
}

// split takes the escaped path apart: names may hold escaped slashes.
func (r *request) split() error {
	parts := strings.Split(strings.TrimPrefix(r.http.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		plain, err := url.PathUnescape(parts[i])
		if err != nil {
			return fail(400, "malformed path")
		}
		parts[i] = plain
	}
	r.db = store.SystemDatabase
	if parts[0] == "_db" && len(parts) > 1 {
		r.db, parts = parts[1], parts[2:]
	}
	for len(parts) > 0 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 0 {
		parts = []string{""}
	}
	r.path = parts
	return nil
}

func (r *request) readBody() error {
	var in io.Reader = r.http.Body
	if r.http.Header.Get("Content-Encoding") == "deflate" {
		z, err := zlib.NewReader(r.http.Body)
		if err != nil {
			return fail(400, "malformed deflate body")
		}
		defer z.Close()
		in = z
	}
	var err error
	if r.body, err = io.ReadAll(io.LimitReader(in, bodyLimit)); err != nil {
		return fail(400, "reading the body: %v", err)
	}
	return nil
}

// reply answers with a JSON value.
func (r *request) reply(code int, v any) error {
	return r.send(code, "application/json; charset=utf-8", value.JSON(v))
}

// ok answers with the attributes of o behind code and error.
func (r *request) ok(code int, o *value.Object) error {
	out := value.New("error", false, "code", code)
	for _, m := range o.Members {
		out.Set(m.Name, m.Value)
	}
	return r.reply(code, out)
}

// result answers {"error":false,"code":…,"result":v}.
func (r *request) result(code int, v any) error { return r.ok(code, value.New("result", v)) }

func (r *request) fail(e *Error) { _ = r.reply(e.Code, e.body()) }

// send answers; it never fails, and is written as a return value for handlers.
func (r *request) send(code int, contentType string, body []byte) error {
	r.out = &reply{code, contentType, body}
	return nil
}

// deliver writes the answer. Nobody can be told when that fails.
func (r *request) deliver() {
	if r.sent {
		return
	}
	h, code, body := r.w.Header(), r.out.code, r.out.body
	empty := code == http.StatusNoContent || code == http.StatusNotModified
	if code != http.StatusNoContent || len(body) > 0 {
		h.Set("Content-Type", r.out.contentType)
	}
	if !empty {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	r.w.WriteHeader(code)
	if !empty && r.http.Method != http.MethodHead {
		if _, err := r.w.Write(body); err != nil {
			r.log.Debug("answer not delivered", "error", err)
		}
	}
}

// object reads the body as a JSON object; an empty body is an empty object.
func (r *request) object() (*value.Object, error) {
	if len(r.body) == 0 {
		return &value.Object{}, nil
	}
	o, err := value.ParseObject(r.body)
	if err != nil {
		return nil, fail(600, "VPackError error: %v", err)
	}
	return o, nil
}

// body makes a handler of one that wants the body as a JSON object.
func body(h func(r *request, o *value.Object) error) handler {
	return func(r *request) error {
		o, err := r.object()
		if err != nil {
			return err
		}
		return h(r, o)
	}
}

// any reads the body as any JSON value.
func (r *request) any() (any, error) {
	v, err := value.Parse(r.body)
	if err != nil {
		return nil, fail(600, "VPackError error: %v", err)
	}
	return v, nil
}

// flag reads a boolean query parameter.
func (r *request) flag(name string, otherwise bool) bool {
	switch strings.ToLower(r.query.Get(name)) {
	case "true", "1", "yes", "on":
		return true
	case "false", "0", "no", "off":
		return false
	}
	return otherwise
}

// number reads a numeric query parameter.
func (r *request) number(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(r.query.Get(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// database answers the database of the path.
func (r *request) database(tx *store.Tx) (*store.Database, error) {
	if d := tx.Database(r.db); d != nil {
		return d, nil
	}
	return nil, fail(1228)
}

// view runs a read in the database of the path.
func (r *request) view(f func(tx *store.Tx, d *store.Database) error) error {
	return r.store.View(func(tx *store.Tx) error {
		d, err := r.database(tx)
		if err != nil {
			return err
		}
		return f(tx, d)
	})
}

// update runs a write in the database of the path, unless the server is read-only.
func (r *request) update(f func(tx *store.Tx, d *store.Database) error) error {
	if err := r.writable(); err != nil {
		return err
	}
	return r.store.Update(func(tx *store.Tx) error {
		d, err := r.database(tx)
		if err != nil {
			return err
		}
		return f(tx, d)
	})
}

// collection answers the collection that {c} names, once rights are checked.
func (r *request) collection(tx *store.Tx, d *store.Database, name string, level access) (*store.Collection, error) {
	c := tx.Collection(d, name)
	if c == nil {
		return nil, fail(1203, "collection or view not found: %s", name)
	}
	if err := r.allowed(d.Name, c.Name(), level); err != nil {
		return nil, err
	}
	return c, nil
}

func quoteETag(rev string) string { return fmt.Sprintf("%q", rev) }
