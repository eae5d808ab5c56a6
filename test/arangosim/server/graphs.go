package server

import (
	"slices"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Graphs are documents of _graphs, as on the real server.

func findGraph(tx *store.Tx, d *store.Database, name string) (*value.Object, error) {
	raw := tx.Get(tx.Collection(d, "_graphs"), name)
	if raw == nil {
		return nil, fail(1924, "graph '%s' not found", name)
	}
	return store.WithID("_graphs", raw), nil
}

// shownGraph is a graph as the API answers it.
func shownGraph(g *value.Object) *value.Object {
	out := g.Clone().Set("name", g.String("_key"))
	if rf := out.Get("replicationFactor"); rf == "satellite" {
		out.Set("isSatellite", true)
	}
	return out
}

func (s *Server) saveGraph(tx *store.Tx, d *store.Database, g *value.Object, replace bool) error {
	w := s.newWriter(tx, tx.Collection(d, "_graphs"), writeOptions{mode: "conflict", keepNull: true, ignoreRevs: true, returnNew: true})
	var out *value.Object
	var err error
	if replace {
		out, err = w.change(g.String("_key"), g, false)
	} else {
		out, err = w.insert(g)
	}
	if err == nil {
		g.Set("_id", out.String("_id")).Set("_rev", out.String("_rev"))
	}
	return err
}

func listGraphs(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		out := []any{}
		tx.Each(tx.Collection(d, "_graphs"), func(raw []byte) bool {
			out = append(out, shownGraph(store.WithID("_graphs", raw)))
			return true
		})
		return r.ok(200, value.New("graphs", out))
	})
}

func getGraph(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		g, err := findGraph(tx, d, r.vars["g"])
		if err != nil {
			return err
		}
		return r.ok(200, value.New("graph", shownGraph(g)))
	})
}

func createGraph(r *request, o *value.Object) error {
	name := o.String("name")
	if !validKey(name) {
		return fail(1921, "invalid graph name").withCode(400)
	}
	options := o.Object("options")
	g := value.New("_key", name, "edgeDefinitions", []any{}, "orphanCollections", value.Strings(value.StringList(o.Get("orphanCollections"))...))
	if r.isCluster() {
		rf := defaultTo(options.Get("replicationFactor"), int64(1))
		wc := defaultTo(options.Get("writeConcern"), defaultTo(options.Get("minReplicationFactor"), int64(1)))
		g.Set("numberOfShards", defaultTo(options.Get("numberOfShards"), int64(1))).Set("replicationFactor", rf).
			Set("minReplicationFactor", wc).Set("writeConcern", wc)
	}
	g.Set("isSmart", o.Bool("isSmart", false)).Set("isSatellite", g.Get("replicationFactor") == "satellite")
	if a := options.String("smartGraphAttribute"); a != "" {
		g.Set("smartGraphAttribute", a)
	}
	if o.Bool("isDisjoint", false) || options.Bool("isDisjoint", false) {
		g.Set("isDisjoint", true)
	}
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		if _, err := findGraph(tx, d, name); err == nil {
			return fail(1925)
		}
		satellites := value.StringList(options.Get("satellites"))
		for _, v := range o.Array("edgeDefinitions") {
			e, ok := v.(*value.Object)
			if !ok {
				return fail(10, "malformed edge definition")
			}
			if err := r.addDefinition(tx, d, g, e, satellites); err != nil {
				return err
			}
		}
		for _, c := range value.StringList(g.Get("orphanCollections")) {
			if err := r.graphCollection(tx, d, g, c, 2, slices.Contains(satellites, c)); err != nil {
				return err
			}
		}
		return r.saveGraph(tx, d, g, false)
	})
	if err != nil {
		return err
	}
	code := 202
	if r.flag("waitForSync", false) {
		code = 201
	}
	return r.ok(code, value.New("graph", shownGraph(g)))
}

// graphCollection makes a collection of the graph unless it exists.
func (s *Server) graphCollection(tx *store.Tx, d *store.Database, g *value.Object, name string, kind int64, satellite bool) error {
	if c := tx.Collection(d, name); c != nil {
		if kind == 3 && !c.IsEdge() {
			return fail(10, "collection '%s' is no edge collection", name)
		}
		return nil
	}
	o := value.New("name", name, "type", kind)
	for _, n := range []string{"numberOfShards", "replicationFactor", "writeConcern"} {
		if v, ok := g.Lookup(n); ok {
			o.Set(n, v)
		}
	}
	switch {
	case satellite || g.Get("replicationFactor") == "satellite":
		o.Set("replicationFactor", "satellite").Delete("writeConcern", "numberOfShards")
	case g.Bool("isSmart", false) && s.features():
		o.Set("isSmart", true)
		if a := g.String("smartGraphAttribute"); a != "" && kind == 2 {
			o.Set("smartGraphAttribute", a)
		}
	}
	if g.Bool("isDisjoint", false) {
		o.Set("isDisjoint", true)
	}
	_, err := s.createCollection(tx, d, o)
	return err
}

// addDefinition adds an edge definition with its collections; its vertices are no orphans any more.
func (s *Server) addDefinition(tx *store.Tx, d *store.Database, g, e *value.Object, satellites []string) error {
	name, from, to := e.String("collection"), value.StringList(e.Get("from")), value.StringList(e.Get("to"))
	if name == "" || len(from) == 0 || len(to) == 0 {
		return fail(10, "malformed edge definition")
	}
	vertices := append(slices.Clone(from), to...)
	satellite := slices.Contains(satellites, name)
	for _, c := range vertices {
		satellite = satellite || slices.Contains(satellites, c)
		if err := s.graphCollection(tx, d, g, c, 2, slices.Contains(satellites, c)); err != nil {
			return err
		}
	}
	if err := s.graphCollection(tx, d, g, name, 3, satellite); err != nil {
		return err
	}
	g.Set("edgeDefinitions", append(g.Array("edgeDefinitions"), value.New("collection", name, "from", value.Strings(from...), "to", value.Strings(to...))))
	orphans := []any{}
	for _, c := range value.StringList(g.Get("orphanCollections")) {
		if !slices.Contains(vertices, c) {
			orphans = append(orphans, c)
		}
	}
	g.Set("orphanCollections", orphans)
	return nil
}

// takeDefinition removes an edge definition; vertices used nowhere else become orphans.
func takeDefinition(g *value.Object, name string) (*value.Object, bool) {
	var found *value.Object
	kept := []any{}
	for _, v := range g.Array("edgeDefinitions") {
		if e := v.(*value.Object); e.String("collection") == name {
			found = e
		} else {
			kept = append(kept, e)
		}
	}
	if found == nil {
		return nil, false
	}
	g.Set("edgeDefinitions", kept)
	used := vertexCollections(g)
	orphans := g.Array("orphanCollections")
	for _, c := range append(value.StringList(found.Get("from")), value.StringList(found.Get("to"))...) {
		if !slices.Contains(used, c) {
			used = append(used, c)
			orphans = append(orphans, c)
		}
	}
	g.Set("orphanCollections", orphans)
	return found, true
}

// vertexCollections are all of a graph, orphans included, sorted.
func vertexCollections(g *value.Object) []string {
	out := value.StringList(g.Get("orphanCollections"))
	for _, v := range g.Array("edgeDefinitions") {
		e := v.(*value.Object)
		out = append(out, append(value.StringList(e.Get("from")), value.StringList(e.Get("to"))...)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func edgeCollections(g *value.Object) []string {
	var out []string
	for _, v := range g.Array("edgeDefinitions") {
		out = append(out, v.(*value.Object).String("collection"))
	}
	slices.Sort(out)
	return out
}

func dropGraph(r *request) error {
	return r.update(func(tx *store.Tx, d *store.Database) error {
		g, err := findGraph(tx, d, r.vars["g"])
		if err != nil {
			return err
		}
		if err := tx.Delete(tx.Collection(d, "_graphs"), r.vars["g"]); err != nil {
			return err
		}
		used := graphUse(tx, d)
		for _, c := range append(edgeCollections(g), vertexCollections(g)...) {
			if !r.flag("dropCollections", false) || slices.Contains(used, c) || tx.Collection(d, c) == nil {
				continue
			}
			if err := r.drop(tx, d, tx.Collection(d, c)); err != nil {
				return err
			}
		}
		return r.ok(202, value.New("removed", true))
	})
}

// graphUse are the collections that graphs use.
func graphUse(tx *store.Tx, d *store.Database) []string {
	var out []string
	tx.Each(tx.Collection(d, "_graphs"), func(raw []byte) bool {
		g := value.MustObject(raw)
		out = append(append(out, edgeCollections(g)...), vertexCollections(g)...)
		return true
	})
	return out
}

// graphCollections lists the edge or vertex collections.
func graphCollections(list func(*value.Object) []string) handler {
	return func(r *request) error {
		return r.view(func(tx *store.Tx, d *store.Database) error {
			g, err := findGraph(tx, d, r.vars["g"])
			if err != nil {
				return err
			}
			return r.ok(200, value.New("collections", value.Strings(list(g)...)))
		})
	}
}

// editGraph changes a graph's definition and answers it.
func editGraph(edit func(r *request, tx *store.Tx, d *store.Database, g, o *value.Object) error) handler {
	return body(func(r *request, o *value.Object) error {
		return r.update(func(tx *store.Tx, d *store.Database) error {
			g, err := findGraph(tx, d, r.vars["g"])
			if err != nil {
				return err
			}
			if err := edit(r, tx, d, g, o); err != nil {
				return err
			}
			if err := r.saveGraph(tx, d, g, true); err != nil {
				return err
			}
			return r.ok(202, value.New("graph", shownGraph(g)))
		})
	})
}

func addEdgeDefinition(r *request, tx *store.Tx, d *store.Database, g, o *value.Object) error {
	if slices.Contains(edgeCollections(g), o.String("collection")) {
		return fail(1920, "multi use of edge collection in edge def")
	}
	return r.addDefinition(tx, d, g, o, value.StringList(o.Object("options").Get("satellites")))
}

func replaceEdgeDefinition(r *request, tx *store.Tx, d *store.Database, g, o *value.Object) error {
	if _, ok := takeDefinition(g, r.vars["c"]); !ok {
		return fail(1930)
	}
	o.Set("collection", r.vars["c"])
	return r.addDefinition(tx, d, g, o, value.StringList(o.Object("options").Get("satellites")))
}

func removeEdgeDefinition(r *request, tx *store.Tx, d *store.Database, g, _ *value.Object) error {
	if _, ok := takeDefinition(g, r.vars["c"]); !ok {
		return fail(1930)
	}
	return r.dropUnused(tx, d)
}

// dropUnused drops the collection of the path when the request says so.
func (r *request) dropUnused(tx *store.Tx, d *store.Database) error {
	c := tx.Collection(d, r.vars["c"])
	if c == nil || !r.flag("dropCollections", false) && !r.flag("dropCollection", false) {
		return nil
	}
	return r.drop(tx, d, c)
}

func addVertexCollection(r *request, tx *store.Tx, d *store.Database, g, o *value.Object) error {
	name := o.String("collection")
	if slices.Contains(vertexCollections(g), name) {
		return fail(1938)
	}
	if err := r.graphCollection(tx, d, g, name, 2, slices.Contains(value.StringList(o.Object("options").Get("satellites")), name)); err != nil {
		return err
	}
	g.Set("orphanCollections", append(g.Array("orphanCollections"), name))
	return nil
}

func removeVertexCollection(r *request, tx *store.Tx, d *store.Database, g, _ *value.Object) error {
	orphans := value.StringList(g.Get("orphanCollections"))
	i := slices.Index(orphans, r.vars["c"])
	if i < 0 {
		return fail(1926)
	}
	g.Set("orphanCollections", value.Strings(slices.Delete(orphans, i, i+1)...))
	return r.dropUnused(tx, d)
}
