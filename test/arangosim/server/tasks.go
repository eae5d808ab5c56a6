package server

import (
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Tasks are kept and listed, never run. The real server forgets them when it
// stops; so does this one.

func saveTask(r *request, o *value.Object) error {
	id := r.vars["id"] // none with POST /_api/tasks
	if o.String("command") == "" {
		return fail(10, "command must be specified")
	}
	return r.update(func(tx *store.Tx, d *store.Database) error {
		if id == "" {
			id = tx.NewTick()
		}
		if tx.Entry(d, "tasks", id) != nil {
			return fail(1851)
		}
		kind := "timed"
		if o.Has("period") {
			kind = "periodic"
		}
		name := o.String("name")
		if name == "" {
			name = "user-defined task"
		}
		t := value.New("id", id, "name", name, "created", float64(time.Now().UnixMicro())/1e6, "type", kind)
		if o.Has("period") {
			t.Set("period", o.Get("period"))
		}
		t.Set("offset", defaultTo(o.Get("offset"), int64(0))).Set("command", o.String("command")).
			Set("params", o.Get("params")).Set("database", d.Name)
		tx.PutEntry(d, "tasks", id, t)
		return r.ok(200, t)
	})
}

func listTasks(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		out := tx.Entries(d, "tasks")
		if out == nil {
			out = []*value.Object{}
		}
		return r.reply(200, out)
	})
}

func getTask(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		t := tx.Entry(d, "tasks", r.vars["id"])
		if t == nil {
			return fail(1852)
		}
		return r.ok(200, t)
	})
}

func deleteTask(r *request) error {
	return r.update(func(tx *store.Tx, d *store.Database) error {
		if tx.Entry(d, "tasks", r.vars["id"]) == nil {
			return fail(1852)
		}
		tx.DeleteEntry(d, "tasks", r.vars["id"])
		return r.ok(200, value.New())
	})
}
