package server

import (
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func viewInfo(v *value.Object) *value.Object { return v.Keep("globallyUniqueId", "id", "name", "type") }

func listViews(r *request) error {
	out := []any{}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		for _, v := range tx.Entries(d, "views") {
			out = append(out, viewInfo(v))
		}
		return r.result(200, out)
	})
}

// findView answers a view by name or id.
func findView(tx *store.Tx, d *store.Database, name string) (*value.Object, error) {
	if v := tx.Entry(d, "views", name); v != nil {
		return v, nil
	}
	for _, v := range tx.Entries(d, "views") {
		if v.String("id") == name {
			return v, nil
		}
	}
	return nil, fail(1203)
}

func getView(full bool) handler {
	return func(r *request) error {
		return r.view(func(tx *store.Tx, d *store.Database) error {
			v, err := findView(tx, d, r.vars["v"])
			if err != nil {
				return err
			}
			if !full {
				v = viewInfo(v)
			}
			return r.ok(200, v)
		})
	}
}

func createViewHandler(r *request, o *value.Object) error {
	return r.update(func(tx *store.Tx, d *store.Database) error {
		v, err := r.createView(tx, d, o)
		if err != nil {
			return err
		}
		return r.reply(201, v)
	})
}

func (s *Server) createView(tx *store.Tx, d *store.Database, o *value.Object) (*value.Object, error) {
	name := o.String("name")
	if err := collectionName(name, false); err != nil {
		return nil, err
	}
	if tx.Entry(d, "views", name) != nil || tx.Collection(d, name) != nil {
		return nil, fail(1207)
	}
	id := tx.NewTick()
	v := value.New("globallyUniqueId", s.uniqueID(d, id, name), "id", id, "name", name, "type", o.String("type"))
	if err := s.setViewProperties(tx, d, v, o, true); err != nil {
		return nil, err
	}
	tx.PutEntry(d, "views", name, v)
	return v, nil
}

// setViewProperties writes properties into v: fresh ones (POST, PUT) or merged over the old (PATCH).
func (s *Server) setViewProperties(tx *store.Tx, d *store.Database, v, o *value.Object, fresh bool) error {
	switch v.String("type") {
	case "arangosearch":
		return s.searchProperties(tx, d, v, o, fresh)
	case "search-alias":
		if s.atLeast(3, 10, 0) {
			return s.aliasProperties(tx, d, v, o, fresh)
		}
	}
	return fail(10, "unknown view type '%s'", v.String("type"))
}

// What cannot change after creation.
var immutableSearch = []string{"primarySort", "primarySortCompression", "primarySortCache", "primaryKeyCache", "storedValues", "optimizeTopK",
	"writebufferActive", "writebufferIdle", "writebufferSizeMax"}

func (s *Server) searchProperties(tx *store.Tx, d *store.Database, v, o *value.Object, fresh bool) error {
	created := !v.Has("links")
	defaults := value.New("cleanupIntervalStep", 2, "commitIntervalMsec", 1000, "consolidationIntervalMsec", 1000,
		"consolidationPolicy", s.consolidation(nil))
	for _, m := range defaults.Members {
		switch given, ok := o.Lookup(m.Name); {
		case ok && m.Name == "consolidationPolicy":
			p, _ := given.(*value.Object)
			v.Set(m.Name, s.consolidation(p))
		case ok:
			v.Set(m.Name, given)
		case fresh:
			v.Set(m.Name, m.Value)
		}
	}
	if created {
		if err := s.immutable(v, o); err != nil {
			return err
		}
	}
	links := v.Object("links")
	if fresh || links == nil {
		links = &value.Object{}
	}
	if given := o.Object("links"); given != nil {
		for _, m := range given.Members {
			l, ok := m.Value.(*value.Object)
			if m.Value == nil {
				links.Delete(m.Name)
				continue
			}
			c := tx.Collection(d, m.Name)
			if c == nil || !ok {
				return fail(1203, "while validating arangosearch link definition, error: collection '%s' not found", m.Name)
			}
			links.Set(c.Name(), s.link(l))
		}
	}
	v.Set("links", links)
	return nil
}

func (s *Server) immutable(v, o *value.Object) error {
	sort := []any{}
	for _, e := range o.Array("primarySort") {
		f, ok := e.(*value.Object)
		if !ok || f.String("field") == "" || !f.Has("asc") && f.String("direction") == "" {
			return fail(10, "error in attribute 'primarySort': a sort entry needs field and direction")
		}
		asc := f.Bool("asc", true)
		if d := f.String("direction"); d != "" {
			asc = strings.EqualFold(d, "asc")
		}
		sort = append(sort, value.New("field", f.String("field"), "asc", asc))
	}
	v.Set("primarySort", sort)
	v.Set("primarySortCompression", "lz4")
	if c := o.String("primarySortCompression"); c != "" {
		v.Set("primarySortCompression", c)
	}
	v.Set("storedValues", storedValues(o.Array("storedValues")))
	v.Set("writebufferActive", defaultTo(o.Get("writebufferActive"), int64(0)))
	v.Set("writebufferIdle", defaultTo(o.Get("writebufferIdle"), int64(64)))
	v.Set("writebufferSizeMax", defaultTo(o.Get("writebufferSizeMax"), int64(33554432)))
	if s.features() {
		for _, n := range []string{"primarySortCache", "primaryKeyCache"} {
			if o.Bool(n, false) {
				v.Set(n, true)
			}
		}
		if s.atLeast(3, 11, 0) {
			v.Set("optimizeTopK", defaultTo(o.Get("optimizeTopK"), []any{}))
		}
	}
	return nil
}

// consolidation is the policy given, or the default of the version.
func (s *Server) consolidation(o *value.Object) *value.Object {
	if o != nil && len(o.Members) > 0 {
		if o.String("type") == "bytes_accum" {
			return o.Clone().Default("threshold", 0.1)
		}
		return o
	}
	if s.atLeast(3, 12, 7) {
		return value.New("type", "tier", "segmentsBytesMax", int64(8589934592), "maxSkewThreshold", 0.4, "minDeletionRatio", 0.5)
	}
	return value.New("type", "tier", "segmentsBytesFloor", 2097152, "segmentsBytesMax", int64(5368709120), "segmentsMax", 10, "segmentsMin", 1, "minScore", 0)
}

// link fills in a link's defaults; a false cache is not shown.
func (s *Server) link(o *value.Object) *value.Object {
	out := value.New("analyzers", value.Strings("identity"), "fields", &value.Object{}, "includeAllFields", false, "storeValues", "none", "trackListPositions", false)
	for _, m := range o.Members {
		switch m.Name {
		case "inBackground":
			continue
		case "cache":
			if m.Value != true || !s.features() {
				continue
			}
		case "fields", "nested":
			if f, ok := m.Value.(*value.Object); ok {
				m.Value = linkFields(f)
			}
		case "analyzers":
			if len(value.StringList(m.Value)) == 0 {
				continue
			}
		}
		out.Set(m.Name, m.Value)
	}
	return out
}

func linkFields(fields *value.Object) *value.Object {
	out := &value.Object{}
	for _, m := range fields.Members {
		f, ok := m.Value.(*value.Object)
		if !ok {
			continue
		}
		clean := &value.Object{}
		for _, a := range f.Members {
			if sub, ok := a.Value.(*value.Object); ok && (a.Name == "fields" || a.Name == "nested") {
				a.Value = linkFields(sub)
			}
			if a.Name == "cache" && a.Value != true {
				continue
			}
			clean.Set(a.Name, a.Value)
		}
		out.Set(m.Name, clean)
	}
	return out
}

// aliasProperties keeps the list of {collection, index}; operation "del" takes away.
func (s *Server) aliasProperties(tx *store.Tx, d *store.Database, v, o *value.Object, fresh bool) error {
	list := v.Array("indexes")
	if fresh {
		list = nil
	}
	if list == nil {
		list = []any{}
	}
	for _, e := range o.Array("indexes") {
		entry, ok := e.(*value.Object)
		if !ok {
			return fail(10, "search-alias: malformed index")
		}
		clean := value.New("collection", entry.String("collection"), "index", entry.String("index"))
		var kept []any
		for _, old := range list {
			if value.Compare(old, clean) != 0 {
				kept = append(kept, old)
			}
		}
		list = kept
		operation := defaultTo(entry.Get("operation"), defaultTo(o.Get("operation"), "add"))
		if operation == "del" {
			continue
		}
		if err := invertedExists(tx, d, clean); err != nil {
			return err
		}
		list = append(list, clean)
	}
	if list == nil {
		list = []any{}
	}
	v.Set("indexes", list)
	return nil
}

func invertedExists(tx *store.Tx, d *store.Database, entry *value.Object) error {
	c := tx.Collection(d, entry.String("collection"))
	if c == nil {
		return fail(1203, "search-alias: cannot find collection '%s'", entry.String("collection"))
	}
	for _, i := range c.Indexes() {
		if i.String("name") == entry.String("index") && i.String("type") == "inverted" {
			return nil
		}
	}
	return fail(10, "search-alias: cannot find inverted index '%s'", entry.String("index"))
}

func setView(fresh bool) handler {
	return body(func(r *request, o *value.Object) error {
		return r.update(func(tx *store.Tx, d *store.Database) error {
			v, err := findView(tx, d, r.vars["v"])
			if err != nil {
				return err
			}
			for _, n := range immutableSearch {
				if g, ok := o.Lookup(n); ok && fresh && value.Compare(g, v.Get(n)) != 0 {
					o.Delete(n)
				}
			}
			if err := r.setViewProperties(tx, d, v, o, fresh); err != nil {
				return err
			}
			tx.PutEntry(d, "views", v.String("name"), v)
			return r.reply(200, v)
		})
	})
}

func renameView(r *request, o *value.Object) error {
	if r.isCluster() {
		return fail(9)
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		v, err := findView(tx, d, r.vars["v"])
		if err != nil {
			return err
		}
		name := o.String("name")
		if err := collectionName(name, false); err != nil {
			return err
		}
		if tx.Entry(d, "views", name) != nil || tx.Collection(d, name) != nil {
			return fail(1207)
		}
		tx.DeleteEntry(d, "views", v.String("name"))
		v.Set("name", name)
		tx.PutEntry(d, "views", name, v)
		return r.reply(200, viewInfo(v))
	})
}

func dropView(r *request) error {
	return r.update(func(tx *store.Tx, d *store.Database) error {
		v, err := findView(tx, d, r.vars["v"])
		if err != nil {
			return err
		}
		tx.DeleteEntry(d, "views", v.String("name"))
		return r.result(200, true)
	})
}

// dropLinks takes a dropped collection out of all views.
func dropLinks(tx *store.Tx, d *store.Database, collection string) {
	for _, v := range tx.Entries(d, "views") {
		changed := false
		if links := v.Object("links"); links.Has(collection) {
			links.Delete(collection)
			changed = true
		}
		var kept []any
		for _, e := range v.Array("indexes") {
			if e.(*value.Object).String("collection") == collection {
				changed = true
			} else {
				kept = append(kept, e)
			}
		}
		if changed {
			if v.Has("indexes") {
				v.Set("indexes", defaultTo(kept, []any{}))
				if kept == nil {
					v.Set("indexes", []any{})
				}
			}
			tx.PutEntry(d, "views", v.String("name"), v)
		}
	}
}
