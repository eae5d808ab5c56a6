package server

import (
	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func newUser(name, password string, active bool, extra *value.Object) *value.Object {
	return value.New("user", name,
		"authData", value.New("active", active, "simple", hashPassword(password)),
		"userData", extra, "databases", &value.Object{})
}

// putUser stores a user's document; the cache is forgotten at once and again after the commit.
func (s *Server) putUser(tx *store.Tx, users *store.Collection, user *value.Object, replace bool) error {
	if !replace {
		user.Set("_key", tx.NewTick())
	}
	doc := value.New("_key", user.String("_key"), "_rev", store.EncodeRevision(s.store.Clock().Next()))
	for _, m := range user.Members {
		if m.Name != "_key" && m.Name != "_id" && m.Name != "_rev" {
			doc.Set(m.Name, m.Value)
		}
	}
	return tx.Put(users, doc, replace)
}

// changeUser reads, changes and stores a user.
func (r *request) changeUser(name string, f func(tx *store.Tx, user *value.Object) error) error {
	if err := r.writable(); err != nil {
		return err
	}
	defer r.users.forget()
	return r.store.Update(func(tx *store.Tx) error {
		users, user := findUser(tx, name)
		if user == nil {
			return fail(1703)
		}
		if err := f(tx, user); err != nil {
			return err
		}
		return r.putUser(tx, users, user, true)
	})
}

func findUser(tx *store.Tx, name string) (*store.Collection, *value.Object) {
	users := tx.Collection(tx.Database(store.SystemDatabase), "_users")
	var found *value.Object
	tx.Each(users, func(doc []byte) bool {
		if o := value.MustObject(doc); o.String("user") == name {
			found = o
		}
		return found == nil
	})
	return users, found
}

// userInfo is what the API shows of a user: never the hash.
func userInfo(u *value.Object) *value.Object {
	extra := u.Object("userData")
	if extra == nil {
		extra = &value.Object{}
	}
	return value.New("user", u.String("user"), "active", u.Object("authData").Bool("active", true), "extra", extra)
}

// self lets users look at and change themselves; all else needs an administrator.
func (r *request) self() error {
	if r.super || r.user == r.vars["u"] {
		return nil
	}
	if err := r.allowed(store.SystemDatabase, "", writeDB); err != nil {
		return fail(11)
	}
	return nil
}

func listUsers(r *request) error {
	var out []any
	return r.store.View(func(tx *store.Tx) error {
		users := tx.Collection(tx.Database(store.SystemDatabase), "_users")
		tx.Each(users, func(doc []byte) bool {
			out = append(out, userInfo(value.MustObject(doc)))
			return true
		})
		return r.result(200, out)
	})
}

func getUser(r *request) error {
	if err := r.self(); err != nil {
		return err
	}
	u := r.account(r.vars["u"])
	if u == nil {
		return fail(1703)
	}
	return r.ok(200, userInfo(u))
}

func createUser(r *request, o *value.Object) error {
	if err := r.writable(); err != nil {
		return err
	}
	name := o.String("user")
	if name == "" {
		return fail(400, "invalid user name")
	}
	extra := o.Object("extra")
	if extra == nil {
		extra = &value.Object{}
	}
	user := newUser(name, o.String("passwd"), o.Bool("active", true), extra)
	defer r.users.forget()
	err := r.store.Update(func(tx *store.Tx) error {
		users, old := findUser(tx, name)
		if old != nil {
			return fail(1702)
		}
		return r.putUser(tx, users, user, false)
	})
	if err != nil {
		return err
	}
	return r.ok(201, userInfo(user))
}

// modifyUser is PUT and PATCH: PUT resets what is not given.
func modifyUser(replace bool) handler {
	return body(func(r *request, o *value.Object) error {
		if err := r.self(); err != nil {
			return err
		}
		return r.changeUser(r.vars["u"], func(_ *store.Tx, u *value.Object) error {
			auth := u.Object("authData")
			if o.Has("passwd") {
				auth.Set("simple", hashPassword(o.String("passwd")))
			} else if replace {
				auth.Set("simple", hashPassword(""))
			}
			if o.Has("active") || replace {
				auth.Set("active", o.Bool("active", true))
			}
			if extra := o.Object("extra"); extra != nil {
				if old := u.Object("userData"); old != nil && !replace {
					extra = value.Merge(old, extra, true, true)
				}
				u.Set("userData", extra)
			} else if replace {
				u.Set("userData", &value.Object{})
			}
			return r.ok(200, userInfo(u))
		})
	})
}

func deleteUser(r *request) error {
	if err := r.writable(); err != nil {
		return err
	}
	defer r.users.forget()
	err := r.store.Update(func(tx *store.Tx) error {
		users, u := findUser(tx, r.vars["u"])
		if u == nil {
			return fail(1703)
		}
		return tx.Delete(users, u.String("_key"))
	})
	if err != nil {
		return err
	}
	return r.ok(202, value.New())
}
