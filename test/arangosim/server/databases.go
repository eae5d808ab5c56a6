package server

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func listDatabases(accessible bool) handler {
	return func(r *request) error {
		out := []any{}
		return r.store.View(func(tx *store.Tx) error {
			for _, d := range tx.Databases() {
				if !accessible || r.allowed(d.Name, "", readDB) == nil {
					out = append(out, d.Name)
				}
			}
			return r.result(200, out)
		})
	}
}

// currentDatabase shows the properties; a single server has no sharding.
func currentDatabase(r *request) error {
	return r.view(func(_ *store.Tx, d *store.Database) error {
		o := value.New("id", d.ID, "name", d.Name, "isSystem", d.Name == store.SystemDatabase)
		if !r.isCluster() {
			o.Set("path", "")
		}
		for _, n := range []string{"sharding", "replicationFactor", "writeConcern", "replicationVersion"} {
			if v, ok := d.Props.Lookup(n); ok {
				o.Set(n, v)
			}
		}
		return r.result(200, o)
	})
}

func createDatabase(r *request, o *value.Object) error {
	if r.db != store.SystemDatabase {
		return fail(1230)
	}
	if err := r.definable(); err != nil {
		return err
	}
	name := o.String("name")
	if err := r.databaseName(name); err != nil {
		return err
	}
	options := o.Object("options")
	if options == nil {
		options = &value.Object{}
	}
	err := r.store.Update(func(tx *store.Tx) error {
		if tx.Database(name) != nil {
			return fail(1207)
		}
		_, err := r.createDatabase(tx, name, options)
		return err
	})
	if err != nil {
		return err
	}
	for _, u := range o.Array("users") {
		if err := r.databaseUser(name, u); err != nil {
			return err
		}
	}
	return r.result(201, true)
}

// databaseUser gives a user named with the new database the right on it, and makes the user when absent.
func (r *request) databaseUser(db string, u any) error {
	o, ok := u.(*value.Object)
	if !ok {
		return fail(400, "users must be objects")
	}
	name := o.String("username")
	if name == "" {
		name = o.String("user")
	}
	defer r.users.forget()
	return r.store.Update(func(tx *store.Tx) error {
		users, user := findUser(tx, name)
		known := user != nil
		if !known {
			extra := o.Object("extra")
			if extra == nil {
				extra = &value.Object{}
			}
			user = newUser(name, o.String("passwd"), o.Bool("active", true), extra)
		}
		child(child(user, "databases"), db).Set("permissions", permissions("rw"))
		return r.putUser(tx, users, user, known)
	})
}

// databaseName: traditional names, and from 3.11 on extended ones (NFC-normalized UTF-8).
func (r *request) databaseName(name string) error {
	if name == "" || len(name) > 128 || !utf8.ValidString(name) {
		return fail(1229)
	}
	if !norm.NFC.IsNormalString(name) {
		return fail(1208, "database name is not properly UTF-8 NFC-normalized")
	}
	if strings.ContainsAny(name, "/:") || name[0] == '.' || name[0] == '_' || name[0] == ' ' || name[len(name)-1] == ' ' || name[0] >= '0' && name[0] <= '9' {
		return fail(1229)
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f {
			return fail(1229)
		}
	}
	return nil
}

func dropDatabase(r *request) error {
	if r.db != store.SystemDatabase {
		return fail(1230)
	}
	if err := r.definable(); err != nil {
		return err
	}
	err := r.store.Update(func(tx *store.Tx) error {
		d := tx.Database(r.vars["name"])
		if d == nil {
			return fail(1228)
		}
		if d.Name == store.SystemDatabase {
			return fail(11)
		}
		tx.DropDatabase(d)
		return nil
	})
	if err != nil {
		return err
	}
	r.queries.killIn(r.vars["name"])
	return r.result(200, true)
}
