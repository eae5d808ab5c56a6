package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/aql"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// writeOptions are the query parameters of document writes.
type writeOptions struct {
	returnNew, returnOld, silent, waitForSync bool
	keepNull, mergeObjects, ignoreRevs        bool
	mode                                      string // of an existing key: conflict, ignore, replace, update
	versionAttribute                          string
	isRestore                                 bool // keep the given _rev, compute nothing
	ifMatch                                   string
}

func (r *request) writeOptions() writeOptions {
	o := writeOptions{
		returnNew: r.flag("returnNew", false), returnOld: r.flag("returnOld", false), silent: r.flag("silent", false),
		waitForSync: r.flag("waitForSync", false), keepNull: r.flag("keepNull", true), mergeObjects: r.flag("mergeObjects", true),
		ignoreRevs: r.flag("ignoreRevs", true), mode: r.query.Get("overwriteMode"), isRestore: r.flag("isRestore", false),
		ifMatch: strings.Trim(r.http.Header.Get("If-Match"), `"`),
	}
	if r.atLeast(3, 12, 0) {
		o.versionAttribute = r.query.Get("versionAttribute")
	}
	if o.mode == "" {
		o.mode = "conflict"
		if r.flag("overwrite", false) {
			o.mode = "replace"
		}
	}
	return o
}

// writer changes documents of one collection in one transaction.
type writer struct {
	s   *Server
	tx  *store.Tx
	c   *store.Collection
	opt writeOptions
	trx string // the stream transaction that writes, "" without one

	computed  []*value.Object
	lastValue int64
	keysMoved bool
}

func (s *Server) newWriter(tx *store.Tx, c *store.Collection, opt writeOptions) *writer {
	w := &writer{s: s, tx: tx, c: c, opt: opt, lastValue: c.Props.Object("keyOptions").Int("lastValue", 0)}
	for _, v := range c.Props.Array("computedValues") {
		w.computed = append(w.computed, v.(*value.Object))
	}
	return w
}

// finish stores what the key generator has come to.
func (w *writer) finish() {
	if w.keysMoved {
		w.c.Props.Object("keyOptions").Set("lastValue", w.lastValue)
		w.tx.SaveCollection(w.c)
	}
}

const keyCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:.@()+,=;$!*'%-"

func validKey(key string) bool {
	return key != "" && len(key) <= 254 && strings.Trim(key, keyCharacters) == ""
}

// key takes the document's own key or makes one.
func (w *writer) key(doc *value.Object) (string, error) {
	options := w.c.Props.Object("keyOptions")
	kind := options.String("type")
	given, present := doc.Lookup("_key")
	if !present {
		return w.generate(kind, options)
	}
	key, ok := given.(string)
	if !ok || !validKey(key) {
		return "", fail(1221)
	}
	if !options.Bool("allowUserKeys", true) && !w.opt.isRestore {
		return "", fail(1222)
	}
	// Generators go on above the keys they see (KeyGenerator.cpp, track).
	base := 10
	if kind == "padded" {
		base = 16
	}
	if kind == "autoincrement" || kind == "padded" {
		if n, err := strconv.ParseInt(key, base, 64); err == nil && n > w.lastValue {
			w.lastValue, w.keysMoved = n, true
		}
	}
	return key, nil
}

func (w *writer) generate(kind string, options *value.Object) (string, error) {
	switch kind {
	case "autoincrement":
		offset, step := options.Int("offset", 0), options.Int("increment", 1)
		if w.lastValue < offset {
			w.lastValue = offset
		} else {
			w.lastValue += step - (w.lastValue-offset)%step
		}
		w.keysMoved = true
		return strconv.FormatInt(w.lastValue, 10), nil
	case "padded":
		n, err := strconv.ParseInt(w.tx.NewTick(), 10, 64)
		if err != nil {
			return "", err
		}
		w.lastValue, w.keysMoved = max(w.lastValue+1, n), true
		return fmt.Sprintf("%016x", w.lastValue), nil
	case "uuid":
		return newUUID(), nil
	}
	if w.trx != "" { // the tick belongs to the transaction that will commit later
		return strconv.FormatUint(w.s.store.Clock().Next()>>8, 10), nil
	}
	return w.tx.NewTick(), nil
}

// assemble puts a document into the stored order: _key, _from, _to, _rev, then the rest as given.
func (w *writer) assemble(key string, doc *value.Object) (*value.Object, error) {
	out := &value.Object{Members: make([]value.Member, 0, len(doc.Members)+2)}
	out.Members = append(out.Members, value.Member{Name: "_key", Value: key})
	if w.c.IsEdge() {
		for _, n := range []string{"_from", "_to"} {
			id := doc.String(n)
			if c, k, ok := strings.Cut(id, "/"); !ok || c == "" || !validKey(k) {
				return nil, fail(1233)
			}
			out.Members = append(out.Members, value.Member{Name: n, Value: id})
		}
	}
	rev := ""
	if w.opt.isRestore {
		rev = doc.String("_rev")
		if n, err := store.DecodeRevision(rev); err == nil {
			w.s.store.Clock().Saw(n)
		} else {
			rev = ""
		}
	}
	if rev == "" {
		rev = store.EncodeRevision(w.s.store.Clock().Next())
	}
	out.Members = append(out.Members, value.Member{Name: "_rev", Value: rev})
	for _, m := range doc.Members {
		switch m.Name {
		case "_key", "_id", "_rev":
			continue
		case "_from", "_to":
			if w.c.IsEdge() {
				continue
			}
		}
		out.Members = append(out.Members, m)
	}
	return out, nil
}

// compute fills in computed values for insert, update or replace.
func (w *writer) compute(doc *value.Object, when string) error {
	if w.opt.isRestore {
		return nil
	}
	for _, def := range w.computed {
		name := def.String("name")
		if !slices.Contains(value.StringList(def.Get("computeOn")), when) || doc.Has(name) && !def.Bool("overwrite", false) {
			continue
		}
		q, err := aql.Parse(def.String("expression"))
		if err != nil {
			return errorOf(err)
		}
		binds := value.New()
		if q.Binds["doc"] {
			binds.Set("doc", doc)
		}
		var result any
		err = q.Run(context.Background(), noData{}, binds, func(v any) error { result = v; return nil })
		if err != nil && def.Bool("failOnWarning", false) {
			return errorOf(err)
		}
		if result == nil && !def.Bool("keepNull", true) {
			doc.Delete(name)
			continue
		}
		doc.Set(name, result)
	}
	return nil
}

// outcome is what a write answers.
func (w *writer) outcome(key, rev, oldRev string, before, after *value.Object) *value.Object {
	if w.opt.silent {
		return &value.Object{}
	}
	out := value.New("_id", w.c.Name()+"/"+key, "_key", key, "_rev", rev)
	if oldRev != "" {
		out.Set("_oldRev", oldRev)
	}
	if w.opt.returnNew && after != nil {
		out.Set("new", w.visible(after))
	}
	if w.opt.returnOld && before != nil {
		out.Set("old", w.visible(before))
	}
	return out
}

func (w *writer) visible(doc *value.Object) *value.Object {
	return store.WithID(w.c.Name(), value.JSON(doc))
}

// insert stores a new document, or does with an existing one what the mode says.
func (w *writer) insert(doc *value.Object) (*value.Object, error) {
	key, err := w.key(doc)
	if err != nil {
		return nil, err
	}
	if err := w.s.lockKey(w.trx, w.c.ID(), key); err != nil {
		return nil, err
	}
	if w.opt.mode != "conflict" && w.tx.Get(w.c, key) != nil {
		switch w.opt.mode {
		case "ignore":
			rev := value.MustObject(w.tx.Get(w.c, key)).String("_rev")
			return w.outcome(key, rev, "", nil, nil), nil
		case "replace", "update":
			return w.change(key, doc, w.opt.mode == "update")
		}
	}
	stored, err := w.assemble(key, doc)
	if err != nil {
		return nil, err
	}
	if !w.opt.keepNull && w.opt.mode == "update" {
		stored = value.WithoutNulls(stored)
	}
	if err := w.compute(stored, "insert"); err != nil {
		return nil, err
	}
	if err := validate(w.c, stored, nil); err != nil {
		return nil, err
	}
	if err := w.tx.Put(w.c, stored, false); err != nil {
		return nil, err
	}
	return w.outcome(key, stored.String("_rev"), "", nil, stored), nil
}

// conflict is the answer to a wrong revision.
func (w *writer) conflict(key, rev string) *Error {
	e := fail(1200)
	e.Extra = value.New("_id", w.c.Name()+"/"+key, "_key", key, "_rev", rev)
	return e
}

// current answers the stored document once the expected revision is checked.
func (w *writer) current(key, expected string) (*value.Object, error) {
	if err := w.s.lockKey(w.trx, w.c.ID(), key); err != nil {
		return nil, err
	}
	raw := w.tx.Get(w.c, key)
	if raw == nil {
		return nil, fail(1202)
	}
	old := value.MustObject(raw)
	if expected != "" && expected != old.String("_rev") {
		return nil, w.conflict(key, old.String("_rev"))
	}
	return old, nil
}

// expected is the revision that a write insists on.
func (w *writer) expected(doc *value.Object) string {
	if w.opt.ifMatch != "" {
		return w.opt.ifMatch
	}
	if !w.opt.ignoreRevs {
		return doc.String("_rev")
	}
	return ""
}

// change replaces or updates an existing document.
func (w *writer) change(key string, doc *value.Object, update bool) (*value.Object, error) {
	old, err := w.current(key, w.expected(doc))
	if err != nil {
		return nil, err
	}
	oldRev := old.String("_rev")
	if v := w.opt.versionAttribute; v != "" {
		was, wasNumber := value.Float(old.Get(v))
		is, isNumber := value.Float(doc.Get(v))
		if wasNumber && isNumber && is <= was {
			return w.outcome(key, oldRev, oldRev, old, old), nil
		}
	}
	next, when := doc, "replace"
	if update {
		patch := doc.Clone().Delete("_key", "_id", "_rev")
		next, when = value.Merge(old, patch, w.opt.keepNull, w.opt.mergeObjects), "update"
		if w.opt.isRestore && doc.Has("_rev") {
			next.Set("_rev", doc.Get("_rev"))
		}
	}
	stored, err := w.assemble(key, next)
	if err != nil {
		return nil, err
	}
	if err := w.compute(stored, when); err != nil {
		return nil, err
	}
	if err := validate(w.c, stored, old); err != nil {
		return nil, err
	}
	if err := w.tx.Put(w.c, stored, true); err != nil {
		return nil, err
	}
	return w.outcome(key, stored.String("_rev"), oldRev, old, stored), nil
}

// remove deletes a document.
func (w *writer) remove(key, expected string) (*value.Object, error) {
	old, err := w.current(key, expected)
	if err != nil {
		return nil, err
	}
	if err := w.tx.Delete(w.c, key); err != nil {
		return nil, err
	}
	return w.outcome(key, old.String("_rev"), "", old, nil), nil
}

// noData is for expressions that look at their bind parameters only.
type noData struct{}

var errNoData = errors.New("computed values see no collections")

func (noData) Each(string, func(*value.Object) error) error { return errNoData }
func (noData) Document(string) *value.Object                { return nil }
func (noData) EdgesOf(string) ([]string, error)             { return nil, errNoData }
func (noData) Write(string, string, any, any, any) (before, after *value.Object, err error) {
	return nil, nil, errNoData
}
