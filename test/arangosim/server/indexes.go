package server

import (
	"fmt"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func primaryIndex(_, _ string) *value.Object {
	return value.New("fields", value.Strings("_key"), "id", "0", "name", "primary", "sparse", false, "type", "primary", "unique", true, "selectivityEstimate", 1)
}

func edgeIndex(_ string) *value.Object {
	return value.New("fields", value.Strings("_from", "_to"), "id", "1", "name", "edge", "sparse", false, "type", "edge", "unique", false, "selectivityEstimate", 1)
}

// shown is an index as the API answers it: its id carries the collection's name.
func (r *request) shown(tx *store.Tx, c *store.Collection, i *value.Object) *value.Object {
	out := i.Clone().Set("id", c.Name()+"/"+i.String("id"))
	r.training(tx, c, i, out, r.flag("withHidden", false))
	return out
}

func isHidden(i *value.Object) bool { return i.String("type") == "arangosearch" }

func listIndexes(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.query.Get("collection"), readDB)
		if err != nil {
			return err
		}
		var list []any
		byID := value.New()
		for _, i := range c.Indexes() {
			if isHidden(i) && !r.flag("withHidden", false) {
				continue
			}
			o := r.shown(tx, c, i)
			list = append(list, o)
			byID.Set(o.String("id"), o)
		}
		return r.ok(200, value.New("indexes", list, "identifiers", byID))
	})
}

func (r *request) index(c *store.Collection) (*value.Object, error) {
	for _, i := range c.Indexes() {
		if i.String("id") == r.vars["i"] || i.String("name") == r.vars["i"] {
			return i, nil
		}
	}
	return nil, fail(1212)
}

func getIndex(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], readDB)
		if err != nil {
			return err
		}
		i, err := r.index(c)
		if err != nil {
			return err
		}
		return r.ok(200, r.shown(tx, c, i))
	})
}

func dropIndex(r *request) error {
	var id string
	return r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], writeDB)
		if err != nil {
			return err
		}
		i, err := r.index(c)
		if err != nil {
			return err
		}
		if t := i.String("type"); t == "primary" || t == "edge" {
			return fail(11)
		}
		id = c.Name() + "/" + i.String("id")
		var kept []*value.Object
		for _, other := range c.Indexes() {
			if other.String("id") != i.String("id") {
				kept = append(kept, other)
			}
		}
		c.SetIndexes(kept)
		tx.DropIndex(c, i)
		tx.SaveCollection(c)
		return r.ok(200, value.New("id", id))
	})
}

func createIndex(r *request, o *value.Object) error {
	var out *value.Object
	created := false
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.query.Get("collection"), writeDB)
		if err != nil {
			return err
		}
		var i *value.Object
		if i, created, err = r.ensureIndex(tx, c, o); err != nil {
			return err
		}
		out = r.shown(tx, c, i)
		return nil
	})
	if err != nil {
		return err
	}
	code := 200
	if created {
		code = 201
	}
	return r.ok(code, out.Set("isNewlyCreated", created))
}

// ensureIndex answers the index that equals the definition, or makes it.
func (s *Server) ensureIndex(tx *store.Tx, c *store.Collection, o *value.Object) (index *value.Object, created bool, err error) {
	def, err := s.indexDefinition(tx, c, o)
	if err != nil {
		return nil, false, err
	}
	for _, i := range c.Indexes() {
		if sameIndex(i, def) {
			return i, false, nil
		}
		if name := o.String("name"); name != "" && i.String("name") == name {
			return nil, false, fail(1207, "duplicate value: name '%s' of index is in use", name)
		}
	}
	if id := o.String("id"); id != "" && !strings.Contains(id, "/") && tx.Collection(c.Database, c.Name()) != nil {
		def.Set("id", id)
	} else {
		def.Set("id", tx.NewTick())
	}
	for _, i := range c.Indexes() {
		if i.String("id") == def.String("id") {
			def.Set("id", tx.NewTick())
		}
	}
	if def.String("name") == "" {
		def.Set("name", fmt.Sprintf("idx_%s", def.String("id")))
	}
	if err := tx.BuildIndex(c, def); err != nil {
		return nil, false, err
	}
	c.SetIndexes(append(c.Indexes(), def))
	tx.SaveCollection(c)
	return def, true, nil
}

// sameIndex compares all but the id and the name.
func sameIndex(a, b *value.Object) bool {
	strip := func(o *value.Object) *value.Object {
		return o.Clone().Delete("id", "name", "selectivityEstimate", "estimates", "figures", "cacheEnabled")
	}
	return value.Compare(strip(a), strip(b)) == 0
}
