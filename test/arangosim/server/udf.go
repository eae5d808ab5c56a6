package server

import (
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// AQL user functions are documents of _aqlfunctions; they are kept, not run.

func listFunctions(r *request) error {
	namespace := strings.ToUpper(r.query.Get("namespace"))
	return r.view(func(tx *store.Tx, d *store.Database) error {
		out := []any{}
		tx.Each(tx.Collection(d, "_aqlfunctions"), func(raw []byte) bool {
			f := value.MustObject(raw)
			if strings.HasPrefix(f.String("_key"), namespace) {
				out = append(out, f.Keep("name", "code", "isDeterministic"))
			}
			return true
		})
		return r.result(200, out)
	})
}

func createFunction(r *request, o *value.Object) error {
	name := o.String("name")
	if !strings.Contains(name, "::") || o.String("code") == "" {
		return &Error{Code: 400, Num: 1580, Message: "invalid user function name"}
	}
	fresh := true
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		doc := value.New("_key", strings.ToUpper(name), "name", name, "code", o.String("code"), "isDeterministic", o.Bool("isDeterministic", false))
		c := tx.Collection(d, "_aqlfunctions")
		fresh = tx.Get(c, doc.String("_key")) == nil
		_, err := r.newWriter(tx, c, writeOptions{mode: "replace", keepNull: true, ignoreRevs: true}).insert(doc)
		return err
	})
	if err != nil {
		return err
	}
	code := 200
	if fresh {
		code = 201
	}
	return r.ok(code, value.New("isNewlyCreated", fresh))
}

func deleteFunction(r *request) error {
	name := strings.ToUpper(r.vars["name"])
	n := 0
	return r.update(func(tx *store.Tx, d *store.Database) error {
		c := tx.Collection(d, "_aqlfunctions")
		var keys []string
		tx.Each(c, func(raw []byte) bool {
			key := store.KeyOf(raw)
			if key == name || r.flag("group", false) && strings.HasPrefix(key, strings.TrimSuffix(name, "::")+"::") {
				keys = append(keys, key)
			}
			return true
		})
		n = len(keys)
		if n == 0 && !r.flag("group", false) {
			return fail(1582)
		}
		for _, k := range keys {
			if err := tx.Delete(c, k); err != nil {
				return err
			}
		}
		return r.ok(200, value.New("deletedCount", n))
	})
}
