package server

import (
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func collectionInfo(c *store.Collection) *value.Object {
	return value.New("id", c.ID(), "name", c.Name(), "status", 3, "type", c.Props.Get("type"),
		"isSystem", c.IsSystem(), "globallyUniqueId", c.Props.String("globallyUniqueId"))
}

func listCollections(r *request) error {
	out := []any{}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		for _, c := range tx.Collections(d) {
			if r.flag("excludeSystem", false) && c.IsSystem() || r.allowed(d.Name, c.Name(), readDB) != nil {
				continue
			}
			out = append(out, collectionInfo(c))
		}
		return r.result(200, out)
	})
}

func createCollectionHandler(r *request, o *value.Object) error {
	if err := r.definable(); err != nil {
		return err
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		if rf, ok := value.Float(o.Get("replicationFactor")); ok && r.isCluster() && r.flag("enforceReplicationFactor", true) && rf > 3 {
			return fail(400, "replicationFactor is larger than the number of DB servers").withCode(500)
		}
		c, err := r.createCollection(tx, d, o)
		if err != nil {
			return err
		}
		return r.ok(200, r.described(c))
	})
}

// described is a collection with its properties.
func (s *Server) described(c *store.Collection) *value.Object {
	out := collectionInfo(c)
	for _, m := range s.properties(c).Members {
		out.Set(m.Name, m.Value)
	}
	return out
}

func collectionName(name string, system bool) error {
	if name == "" || len(name) > 256 || strings.ContainsAny(name, "/\x00") || name[0] == '_' && !system || name[0] >= '0' && name[0] <= '9' {
		return fail(1208, "illegal name: collection name invalid")
	}
	return nil
}

func getCollection(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], readDB)
		if err != nil {
			return err
		}
		return r.ok(200, collectionInfo(c))
	})
}

// show answers a collection's properties with whatever extra adds.
func (r *request) show(extra func(tx *store.Tx, c *store.Collection, out *value.Object) error) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], readDB)
		if err != nil {
			return err
		}
		out := r.described(c)
		if err := extra(tx, c, out); err != nil {
			return err
		}
		return r.ok(200, out)
	})
}

func getProperties(r *request) error {
	return r.show(func(*store.Tx, *store.Collection, *value.Object) error { return nil })
}

func countCollection(r *request) error {
	id := r.http.Header.Get(trxHeader)
	return r.show(func(tx *store.Tx, c *store.Collection, out *value.Object) error {
		if s, err := r.stream(id); err != nil {
			return err
		} else if s != nil {
			tx = tx.WithOverlay(s.overlay)
		}
		if r.flag("details", false) && r.isCluster() {
			per := value.New()
			for shard, n := range tx.Count(c) {
				per.Set(shard, n)
			}
			out.Set("count", per)
			return nil
		}
		out.Set("count", tx.Total(c))
		return nil
	})
}

func figures(r *request) error {
	return r.show(func(tx *store.Tx, c *store.Collection, out *value.Object) error {
		n := tx.Total(c)
		size := int64(0)
		tx.Each(c, func(doc []byte) bool { size += int64(len(doc)); return true })
		f := value.New("indexes", value.New("count", len(c.Indexes()), "size", n*32),
			"documentsSize", size, "cacheInUse", false, "cacheSize", 0, "cacheUsage", 0)
		if r.flag("details", false) {
			var ix []any
			for _, i := range c.Indexes() {
				ix = append(ix, value.New("type", i.String("type"), "id", i.String("id"), "count", n))
			}
			f.Set("engine", value.New("documents", n, "indexes", ix))
		}
		out.Set("count", n)
		out.Set("figures", f)
		return nil
	})
}

func revision(r *request) error {
	return r.show(func(tx *store.Tx, c *store.Collection, out *value.Object) error {
		out.Set("revision", collectionRevision(tx, c))
		return nil
	})
}

// collectionRevision changes with every write, removals included; an empty
// collection's is 0, which the server writes as a plain number.
func collectionRevision(tx *store.Tx, c *store.Collection) string {
	if tx.Total(c) == 0 {
		return "0"
	}
	return store.EncodeRevision(tx.LastRevision(c) + uint64(tx.Total(c)))
}

func recalculateCount(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], writeDB)
		if err != nil {
			return err
		}
		out := value.New("result", true)
		if !r.isCluster() {
			out.Set("count", tx.Total(c))
		}
		return r.ok(200, out)
	})
}

func truncate(r *request) error {
	if s, err := r.stream(r.http.Header.Get(trxHeader)); err != nil {
		return err
	} else if s != nil {
		return fail(9, "truncate inside a stream transaction is not simulated")
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], writeDB)
		if err != nil {
			return err
		}
		tx.Truncate(c)
		return r.ok(200, collectionInfo(c))
	})
}

func dropCollection(r *request) error {
	if err := r.definable(); err != nil {
		return err
	}
	var id string
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], writeDB)
		if err != nil {
			return err
		}
		if c.IsSystem() && !r.flag("isSystem", false) {
			return fail(11)
		}
		id = c.ID()
		return r.drop(tx, d, c)
	})
	if err != nil {
		return err
	}
	return r.ok(200, value.New("id", id))
}

// drop removes a collection and its links in views; a prototype of other collections' sharding stays.
func (s *Server) drop(tx *store.Tx, d *store.Database, c *store.Collection) error {
	for _, other := range tx.Collections(d) {
		if s.isCluster() && other.Props.String("distributeShardsLike") == c.Name() {
			return &Error{Code: 400, Num: 1485, Message: "must not drop collection while another has a distributeShardsLike attribute pointing to it"}
		}
	}
	dropLinks(tx, d, c.Name())
	tx.DropCollection(c)
	return nil
}

func renameCollection(r *request, o *value.Object) error {
	if r.isCluster() {
		return fail(9)
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], writeDB)
		if err != nil {
			return err
		}
		if err := collectionName(o.String("name"), c.IsSystem()); err != nil {
			return err
		}
		if tx.Collection(d, o.String("name")) != nil {
			return fail(1207)
		}
		tx.RenameCollection(c, o.String("name"))
		return r.ok(200, collectionInfo(c))
	})
}

// acknowledge answers what needs no doing: load, unload, compact, index warm-up.
func acknowledge(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], readDB)
		if err != nil {
			return err
		}
		out := collectionInfo(c)
		out.Set("result", true)
		return r.ok(200, out)
	})
}

func keyGenerators(r *request) error {
	return r.ok(200, value.New("keyGenerators", value.Strings("autoincrement", "padded", "traditional", "uuid")))
}
