package server

import (
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Vertices and edges through their graph: documents in an envelope named kind.

// member checks that the collection belongs to the graph.
func (r *request) member(kind string) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		g, err := findGraph(tx, d, r.vars["g"])
		if err != nil {
			return err
		}
		if kind == "vertex" && !slices.Contains(vertexCollections(g), r.vars["c"]) {
			return fail(1926)
		}
		if kind == "edge" && !slices.Contains(edgeCollections(g), r.vars["c"]) {
			return fail(1930)
		}
		return nil
	})
}

func readGraphDocument(kind string) handler {
	return func(r *request) error {
		if err := r.member(kind); err != nil {
			return err
		}
		return r.read(r.vars["c"], func(tx *store.Tx, c *store.Collection) error {
			raw := tx.Get(c, r.vars["k"])
			if raw == nil {
				return fail(1202)
			}
			rev := value.MustObject(raw).String("_rev")
			want := strings.Trim(r.http.Header.Get("If-Match"), `"`)
			if q := r.query.Get("rev"); q != "" {
				want = q
			}
			if want != "" && want != rev {
				return fail(1200)
			}
			r.w.Header().Set("Etag", quoteETag(rev))
			return r.ok(200, value.New(kind, value.Raw(store.AppendWithID(nil, c.Name(), raw))))
		})
	}
}

// writeGraphDocument answers {kind: {_id, _key, _rev, _oldRev}, new, old}.
func writeGraphDocument(kind string, f func(w *writer, r *request, doc *value.Object) (*value.Object, error)) handler {
	return body(func(r *request, doc *value.Object) error {
		if err := r.member(kind); err != nil {
			return err
		}
		opt := r.writeOptions()
		opt.mode = "conflict"
		return r.write(r.vars["c"], opt, func(w *writer) error {
			if kind == "edge" && (doc.Has("_from") || doc.Has("_to")) {
				if err := w.endpoints(doc); err != nil {
					return err
				}
			}
			out, err := f(w, r, doc)
			if err != nil {
				return err
			}
			answer := value.New("removed", true)
			if r.http.Method != "DELETE" {
				answer = value.New(kind, out.Keep("_id", "_key", "_rev", "_oldRev"))
			}
			for _, n := range []string{"new", "old"} {
				if v, ok := out.Lookup(n); ok {
					answer.Set(n, v)
				}
			}
			synced := 200
			if r.http.Method == "POST" {
				synced = 201
			}
			return r.ok(status(w, synced), answer)
		})
	})
}

// endpoints: an edge of a graph needs vertices that exist.
func (w *writer) endpoints(doc *value.Object) error {
	for _, n := range []string{"_from", "_to"} {
		name, key, ok := cutID(doc.String(n))
		if !ok {
			if doc.Has(n) {
				return fail(1233)
			}
			continue
		}
		c := w.tx.Collection(w.c.Database, name)
		if c == nil {
			return fail(1203)
		}
		if w.tx.Get(c, key) == nil {
			return fail(1202)
		}
	}
	return nil
}

// edgesOf is GET /_api/edges/{c}?vertex&direction.
func edgesOf(r *request) error {
	vertex, direction := r.query.Get("vertex"), r.query.Get("direction")
	return r.read(r.vars["c"], func(tx *store.Tx, c *store.Collection) error {
		out := []any{}
		tx.Each(c, func(raw []byte) bool {
			e := value.MustObject(raw)
			if direction != "out" && e.String("_to") == vertex || direction != "in" && e.String("_from") == vertex {
				out = append(out, value.Raw(store.AppendWithID(nil, c.Name(), raw)))
			}
			return true
		})
		return r.ok(200, value.New("edges", out, "stats", value.New("scannedIndex", len(out), "filtered", 0)))
	})
}
