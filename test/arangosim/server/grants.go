package server

import (
	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// permissions is how _users keeps a right.
func permissions(level string) *value.Object {
	switch level {
	case "rw":
		return value.New("read", true, "write", true)
	case "ro":
		return value.New("read", true, "write", false)
	case "none":
		return value.New("read", false, "write", false)
	}
	return value.New("undefined", true)
}

// listGrants shows the rights on every database; full=true those on collections too.
func listGrants(r *request) error {
	if err := r.self(); err != nil {
		return err
	}
	name := r.vars["u"]
	u := r.account(name)
	if u == nil {
		return fail(1703)
	}
	grants := u.Object("databases")
	out := value.New()
	return r.store.View(func(tx *store.Tx) error {
		for _, d := range tx.Databases() {
			if !r.flag("full", false) {
				if l := r.level(name, d.Name, ""); l != "none" {
					out.Set(d.Name, l)
				}
				continue
			}
			collections := value.New()
			for _, c := range tx.Collections(d) {
				collections.Set(c.Name(), granted(grants.Object(d.Name).Object("collections").Object(c.Name())))
			}
			collections.Set("*", granted(grants.Object(d.Name).Object("collections").Object("*")))
			out.Set(d.Name, value.New("permission", granted(grants.Object(d.Name)), "collections", collections))
		}
		if r.flag("full", false) {
			out.Set("*", value.New("permission", granted(grants.Object("*")),
				"collections", value.New("*", granted(grants.Object("*").Object("collections").Object("*")))))
		} else if l := granted(grants.Object("*")); l != "undefined" {
			out.Set("*", l)
		}
		return r.result(200, out)
	})
}

// granted is the right that was given at this very place.
func granted(at *value.Object) string {
	p := at.Object("permissions")
	if !p.Has("read") {
		return "undefined"
	}
	return levelOf(p)
}

func getGrant(r *request) error {
	if err := r.self(); err != nil {
		return err
	}
	if r.account(r.vars["u"]) == nil {
		return fail(1703)
	}
	return r.result(200, r.level(r.vars["u"], r.vars["db"], r.vars["c"]))
}

func setGrant(r *request, o *value.Object) error {
	level := o.String("grant")
	switch level {
	case "rw", "ro", "none":
	default:
		return fail(400, "expecting grant to be one of rw, ro, none")
	}
	db, c := r.vars["db"], r.vars["c"]
	err := r.changeUser(r.vars["u"], func(tx *store.Tx, u *value.Object) error {
		if db != "*" {
			d := tx.Database(db)
			if d == nil {
				return fail(1228)
			}
			if c != "" && c != "*" && tx.Collection(d, c) == nil {
				return fail(1203)
			}
		}
		at := child(child(u, "databases"), db)
		if c == "" {
			at.Set("permissions", permissions(level))
			return nil
		}
		at.Default("permissions", permissions("undefined"))
		child(child(at, "collections"), c).Set("permissions", permissions(level))
		return nil
	})
	if err != nil {
		return err
	}
	key := db
	if c != "" {
		key = db + "/" + c
	}
	return r.ok(200, value.New(key, level))
}

// child answers an object attribute, made when absent.
func child(o *value.Object, name string) *value.Object {
	if sub := o.Object(name); sub != nil {
		return sub
	}
	sub := &value.Object{}
	o.Set(name, sub)
	return sub
}

func removeGrant(r *request) error {
	db, c := r.vars["db"], r.vars["c"]
	return r.changeUser(r.vars["u"], func(_ *store.Tx, u *value.Object) error {
		if c == "" {
			child(u, "databases").Delete(db)
		} else if collections := u.Object("databases").Object(db).Object("collections"); collections != nil {
			collections.Delete(c)
		}
		return r.ok(202, value.New())
	})
}
