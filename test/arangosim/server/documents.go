package server

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func newUUID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// read runs f on the collection as the request's stream transaction sees it.
func (r *request) read(name string, f func(tx *store.Tx, c *store.Collection) error) error {
	s, err := r.stream(r.http.Header.Get(trxHeader))
	if err != nil {
		return err
	}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		if s != nil {
			tx = tx.WithOverlay(s.overlay)
		}
		c, err := r.collection(tx, d, name, readDB)
		if err != nil {
			return err
		}
		if err := r.reachable(c); err != nil {
			return err
		}
		return f(tx, c)
	})
}

// write runs f with a writer on the collection, inside the request's stream transaction if it names one.
func (r *request) write(name string, opt writeOptions, f func(w *writer) error) error {
	s, err := r.stream(r.http.Header.Get(trxHeader))
	if err != nil {
		return err
	}
	run := func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, name, writeDB)
		if err != nil {
			return err
		}
		if r.isCluster() && (name == "_analyzers" || name == "_users") {
			return fail(11)
		}
		if err := r.writeConcern(c); err != nil {
			return err
		}
		w := r.newWriter(tx, c, opt)
		if s != nil {
			w.tx, w.trx = tx.WithOverlay(s.overlay), s.id
			if err := s.writes(c.Name()); err != nil {
				return err
			}
		}
		if err := f(w); err != nil {
			return err
		}
		if s == nil {
			w.finish()
		}
		if name == "_users" {
			defer r.users.forget()
		}
		return nil
	}
	if s == nil {
		return r.update(run)
	}
	if err := r.writable(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.view(run)
}

func readDocument(r *request) error {
	return r.read(r.vars["c"], func(tx *store.Tx, c *store.Collection) error {
		raw := tx.Get(c, r.vars["k"])
		if raw == nil {
			return fail(1202)
		}
		rev := value.MustObject(raw).String("_rev")
		r.w.Header().Set("Etag", quoteETag(rev))
		if m := strings.Trim(r.http.Header.Get("If-None-Match"), `"`); m != "" && m == rev {
			return r.send(http.StatusNotModified, "", nil)
		}
		if m := strings.Trim(r.http.Header.Get("If-Match"), `"`); m != "" && m != rev {
			e := fail(1200)
			e.Extra = value.New("_id", c.Name()+"/"+r.vars["k"], "_key", r.vars["k"], "_rev", rev)
			return e
		}
		return r.send(200, "application/json; charset=utf-8", store.AppendWithID(nil, c.Name(), raw))
	})
}

// status is the code for data that was synced (201 or 200, as the request has it), else 202.
func status(w *writer, synced int) int {
	if w.opt.waitForSync || w.c.Props.Bool("waitForSync", false) {
		return synced
	}
	return 202
}

// one answers a write of a single document.
func (r *request) one(f func(w *writer) (*value.Object, error), synced int) error {
	return r.write(r.vars["c"], r.writeOptions(), func(w *writer) error {
		out, err := f(w)
		if err != nil {
			return err
		}
		if rev := out.String("_rev"); rev != "" {
			r.w.Header().Set("Etag", quoteETag(rev))
		}
		return r.reply(status(w, synced), out)
	})
}

// many answers a write of an array: each element for itself, errors in their places.
func (r *request) many(items []any, opt writeOptions, synced int, f func(w *writer, item any) (*value.Object, error)) error {
	out := []any{}
	counts := map[int]int{}
	return r.write(r.vars["c"], opt, func(w *writer) error {
		for _, item := range items {
			o, err := f(w, item)
			if err == nil {
				if !opt.silent {
					out = append(out, o)
				}
				continue
			}
			e := errorOf(err)
			counts[e.Num]++
			element := value.New("error", true, "errorNum", e.Num, "errorMessage", e.Message)
			if e.Extra != nil {
				element.Members = append(element.Members, e.Extra.Members...)
			}
			out = append(out, element)
		}
		r.errorCodes(counts)
		return r.reply(status(w, synced), out)
	})
}

func (r *request) errorCodes(counts map[int]int) {
	if len(counts) == 0 {
		return
	}
	o := map[string]any{}
	for num, n := range counts {
		o[strconv.Itoa(num)] = n
	}
	r.w.Header().Set("X-Arango-Error-Codes", string(value.JSON(o)))
}

func asDocument(item any) (*value.Object, error) {
	if o, ok := item.(*value.Object); ok {
		return o, nil
	}
	return nil, fail(1227)
}

func insertDocuments(r *request) error {
	body, err := r.any()
	if err != nil {
		return err
	}
	if items, ok := body.([]any); ok {
		return r.many(items, r.writeOptions(), 201, func(w *writer, item any) (*value.Object, error) {
			doc, err := asDocument(item)
			if err != nil {
				return nil, err
			}
			return w.insert(doc)
		})
	}
	doc, err := asDocument(body)
	if err != nil {
		return err
	}
	return r.one(func(w *writer) (*value.Object, error) { return w.insert(doc) }, 201)
}

// keyOf answers the key that an element names: a key, an id, or an object with one of them.
func keyOf(item any, c string) (string, error) {
	var id string
	switch item := item.(type) {
	case string:
		id = item
	case *value.Object:
		id = item.String("_key")
		if id == "" {
			id = item.String("_id")
		}
	}
	if name, key, ok := strings.Cut(id, "/"); ok {
		if name != c {
			return "", fail(1217)
		}
		id = key
	}
	if id == "" {
		return "", fail(1205)
	}
	return id, nil
}

// changeDocument is PUT and PATCH of one document.
func changeDocument(update bool) handler {
	return func(r *request) error {
		body, err := r.any()
		if err != nil {
			return err
		}
		doc, err := asDocument(body)
		if err != nil {
			return err
		}
		return r.one(func(w *writer) (*value.Object, error) { return w.change(r.vars["k"], doc, update) }, 201)
	}
}

// changeDocuments is PUT and PATCH of an array; PUT with onlyget=true reads instead.
func changeDocuments(update bool) handler {
	return func(r *request) error {
		items, err := r.items()
		if err != nil {
			return err
		}
		if r.flag("onlyget", false) {
			return r.readMany(items)
		}
		return r.many(items, r.writeOptions(), 201, func(w *writer, item any) (*value.Object, error) {
			doc, err := asDocument(item)
			if err != nil {
				return nil, err
			}
			key, err := keyOf(doc, w.c.Name())
			if err != nil {
				return nil, err
			}
			return w.change(key, doc, update)
		})
	}
}

func (r *request) items() ([]any, error) {
	body, err := r.any()
	if err != nil {
		return nil, err
	}
	items, ok := body.([]any)
	if !ok {
		return nil, fail(1227)
	}
	return items, nil
}

func (r *request) readMany(items []any) error {
	return r.read(r.vars["c"], func(tx *store.Tx, c *store.Collection) error {
		var out []any
		counts := map[int]int{}
		for _, item := range items {
			v, err := r.readOne(tx, c, item)
			if err != nil {
				e := errorOf(err)
				counts[e.Num]++
				element := value.New("error", true, "errorNum", e.Num, "errorMessage", e.Message)
				if key, err := keyOf(item, c.Name()); err == nil {
					element.Set("_key", key)
				}
				v = element
			}
			out = append(out, v)
		}
		r.errorCodes(counts)
		return r.reply(200, out)
	})
}

func (r *request) readOne(tx *store.Tx, c *store.Collection, item any) (any, error) {
	key, err := keyOf(item, c.Name())
	if err != nil {
		return nil, err
	}
	raw := tx.Get(c, key)
	if raw == nil {
		return nil, fail(1202)
	}
	if o, ok := item.(*value.Object); ok && !r.flag("ignoreRevs", true) && o.String("_rev") != "" && o.String("_rev") != value.MustObject(raw).String("_rev") {
		return nil, fail(1200)
	}
	return value.Raw(store.AppendWithID(nil, c.Name(), raw)), nil
}

func removeDocument(r *request) error {
	return r.one(func(w *writer) (*value.Object, error) { return w.remove(r.vars["k"], w.opt.ifMatch) }, 200)
}

func removeDocuments(r *request) error {
	items, err := r.items()
	if err != nil {
		return err
	}
	return r.many(items, r.writeOptions(), 200, func(w *writer, item any) (*value.Object, error) {
		key, err := keyOf(item, w.c.Name())
		if err != nil {
			return nil, err
		}
		expected := ""
		if o, ok := item.(*value.Object); ok && !w.opt.ignoreRevs {
			expected = o.String("_rev")
		}
		return w.remove(key, expected)
	})
}
