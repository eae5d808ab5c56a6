package server

import (
	"bytes"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// The restore endpoints of arangorestore. They are not documented; what they
// do follows RestReplicationHandler.cpp.

func restored(r *request) error {
	return r.reply(200, value.New("error", false, "code", 200, "result", true))
}

// restoreCollection is PUT restore-collection {parameters, indexes}: with
// overwrite an existing collection is dropped, a system collection emptied.
func restoreCollection(r *request, o *value.Object) error {
	params := o.Object("parameters")
	if params == nil {
		return fail(400, "collection parameters declaration is invalid")
	}
	name := params.String("name")
	if name == "" {
		return fail(400, "collection name is missing")
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		if params.Bool("deleted", false) {
			return restored(r)
		}
		if c := tx.Collection(d, name); c != nil {
			if !r.flag("overwrite", false) {
				return fail(1207, "unable to create collection: duplicate name")
			}
			if c.IsSystem() {
				if name != "_users" {
					tx.Truncate(c)
				}
				return restored(r)
			}
			if err := r.drop(tx, d, c); err != nil {
				return err
			}
		}
		params.Set("isSystem", name[0] == '_')
		if _, err := r.createCollection(tx, d, params); err != nil {
			return err
		}
		return restored(r)
	})
}

func restoreIndexes(r *request, o *value.Object) error {
	params := o.Object("parameters")
	if params == nil {
		return fail(400, "collection parameters declaration is invalid")
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, params.String("name"), writeDB)
		if err != nil {
			return err
		}
		for _, i := range o.Array("indexes") {
			def, ok := i.(*value.Object)
			if !ok {
				return fail(400, "malformed index")
			}
			if t := def.String("type"); t == "primary" || t == "edge" {
				continue
			}
			if _, _, err := r.ensureIndex(tx, c, def); err != nil {
				return err
			}
		}
		return restored(r)
	})
}

func restoreView(r *request, o *value.Object) error {
	return r.update(func(tx *store.Tx, d *store.Database) error {
		if old := tx.Entry(d, "views", o.String("name")); old != nil {
			if !r.flag("overwrite", false) {
				return fail(1207)
			}
			tx.DeleteEntry(d, "views", o.String("name"))
		}
		if _, err := r.createView(tx, d, o); err != nil {
			return err
		}
		return restored(r)
	})
}

// restoreData is PUT restore-data: one document or marker per line. Documents
// replace those of the same key and get a new _rev unless preserveRevisionIds
// is set; in _users the user's name decides, not the key.
func restoreData(r *request) error {
	name := r.query.Get("collection")
	if name == "" {
		return fail(400, "invalid collection parameter, not given")
	}
	opt := writeOptions{mode: "replace", keepNull: true, mergeObjects: true, ignoreRevs: true, isRestore: true, silent: true}
	preserve := r.flag("preserveRevisionIds", false)
	defer r.users.forget()
	return r.update(func(tx *store.Tx, d *store.Database) error {
		c := tx.Collection(d, name)
		if c == nil {
			return fail(1203)
		}
		if err := r.allowed(store.SystemDatabase, "", writeDB); err != nil {
			if err := r.allowed(d.Name, name, writeDB); err != nil {
				return err
			}
		}
		if err := r.writeConcern(c); err != nil {
			return err
		}
		w := r.newWriter(tx, c, opt)
		for line := range bytes.SplitSeq(r.body, []byte("\n")) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			doc, remove, err := marker(line)
			if err != nil {
				return err
			}
			if !preserve {
				doc.Delete("_rev")
			}
			if err := w.restore(doc, remove, d.Name == store.SystemDatabase && name == "_users"); err != nil {
				return err
			}
		}
		w.finish()
		return restored(r)
	})
}

// marker takes an envelope off a line.
func marker(line []byte) (doc *value.Object, remove bool, err error) {
	o, err := value.ParseObject(line)
	if err != nil {
		return nil, false, fail(600, "received invalid JSON data: %v", err)
	}
	if data := o.Object("data"); data != nil && o.Has("type") {
		return data, o.Int("type", 2300) == 2302, nil
	}
	if o.Int("type", 0) == 2302 && o.Has("key") {
		return value.New("_key", o.String("key")), true, nil
	}
	return o, false, nil
}

func (w *writer) restore(doc *value.Object, remove, users bool) error {
	if users {
		doc.Delete("_key", "_id")
		if _, old := findUser(w.tx, doc.String("user")); old != nil {
			doc.Set("_key", old.String("_key"))
		}
	}
	if remove {
		if w.tx.Get(w.c, doc.String("_key")) == nil {
			return nil
		}
		return w.tx.Delete(w.c, doc.String("_key"))
	}
	_, err := w.insert(doc)
	return err
}
