package arangodb

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Wreck changes, deletes and adds at every level, accounts included, but for root. It can run twice: what is gone
// already is no error.
func (e *Engine) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	c, err := dial(members[0])
	if err != nil {
		return err
	}
	defer c.close()
	w := &wrecker{client: c, r: rand.New(rand.NewPCG(uint64(seed), 0xbad))}
	for _, step := range []func(context.Context) error{w.documents, w.definitions, w.additions, w.users} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("wreck: %w", err)
		}
	}
	return nil
}

type wrecker struct {
	*client
	r *rand.Rand
}

func (w *wrecker) all(ctx context.Context, db string, steps [][2]string, body any) error {
	for _, s := range steps {
		if err := w.gone(ctx, s[0], in(db, s[1]), body); err != nil {
			return err
		}
	}
	return nil
}

func (w *wrecker) documents(ctx context.Context) error {
	var changed []json.RawMessage
	var keys []string
	for i := range 60 {
		key := fmt.Sprintf("site-%06d", w.r.IntN(600))
		if i%2 == 0 {
			keys = append(keys, key)
		} else {
			changed = append(changed, json.RawMessage(fmt.Sprintf(`{"_key":%q,"tenant":"wrecked","owner":1,"n":%d}`, key, w.r.Int64())))
		}
	}
	for i := range 20 {
		changed = append(changed, json.RawMessage(fmt.Sprintf(`{"_key":"added-%d-%d","tenant":"x","owner":2}`, i, w.r.IntN(1e9))))
	}
	if err := w.gone(ctx, "DELETE", in(mainDB, "/_api/document/sites"), keys); err != nil {
		return err
	}
	for _, x := range []struct{ method, path, body string }{
		{"PATCH", "/_api/document/awkward/value-00", `{"v":9223372036854775806}`},
		{"PUT", "/_api/document/awkward/value-20", `{"v":{"a":2,"z":1,"m":{"b":2,"y":1}}}`},
		{"DELETE", "/_api/document/awkward/value-25", ``},
		{"POST", "/_api/document/audit", `{"who":"wrecker"}`},
		{"PUT", "/_api/collection/events/truncate", ``},
	} {
		var body any
		if x.body != "" {
			body = json.RawMessage(x.body)
		}
		if err := w.gone(ctx, x.method, in(mainDB, x.path), body); err != nil {
			return err
		}
	}
	return w.gone(ctx, "POST", in(mainDB, "/_api/document/sites?overwriteMode=replace"), changed)
}

func (w *wrecker) definitions(ctx context.Context) error {
	if err := w.all(ctx, mainDB, [][2]string{
		{"DELETE", "/_api/index/sites/by_tenant"}, {"DELETE", "/_api/view/search"}, {"DELETE", "/_api/analyzer/bars?force=true"},
		{"DELETE", "/_api/gharial/network"}, {"DELETE", "/_api/collection/links"}, {"DELETE", "/_api/tasks/nightly"}, {"DELETE", "/_api/aqlfunction/cso::twice"},
	}, nil); err != nil {
		return err
	}
	for _, x := range []struct {
		method, path string
		body         object
	}{
		{"PUT", "/_api/collection/sites/properties", object{"schema": nil, "waitForSync": true}},
		{"DELETE", "/_api/analyzer/lower?force=true", nil},
		{"POST", "/_api/analyzer", object{"name": "lower", "type": "norm", "properties": object{"locale": "de", "case": "upper"}, "features": []string{}}},
	} {
		var body any
		if x.body != nil {
			body = x.body
		}
		if err := w.gone(ctx, x.method, in(mainDB, x.path), body); err != nil {
			return err
		}
	}
	return w.gone(ctx, "DELETE", in(systemDB, "/_api/database/"+logsDB), nil)
}

func (w *wrecker) additions(ctx context.Context) error {
	n := w.r.IntN(1e6)
	for _, x := range []struct {
		db, method, path string
		body             any
	}{
		{systemDB, "POST", "/_api/database", object{"name": fmt.Sprintf("late%d", n)}},
		{mainDB, "POST", "/_api/collection", object{"name": fmt.Sprintf("late%d", n), "type": 3}},
		{mainDB, "POST", "/_api/collection", object{"name": "latecomer"}},
		{mainDB, "POST", "/_api/document/latecomer", []object{{"a": 1}, {"a": 2}}},
		{mainDB, "POST", "/_api/index?collection=awkward", object{"type": "persistent", "fields": []string{"n"}, "name": fmt.Sprintf("late%d", n)}},
		{mainDB, "POST", "/_api/view", object{"name": fmt.Sprintf("lateview%d", n), "type": "arangosearch"}},
		{mainDB, "POST", "/_api/aqlfunction", object{"name": "late::f", "code": "function () { return 1; }"}},
		{mainDB, "PUT", "/_api/tasks/late", object{"name": "late", "command": "1", "period": 100000}},
		{systemDB, "POST", "/_api/document/settings?overwriteMode=replace", object{"_key": "release", "n": 2_000_000 + n}},
	} {
		if err := w.gone(ctx, x.method, in(x.db, x.path), x.body); err != nil {
			return err
		}
	}
	return nil
}

func (w *wrecker) users(ctx context.Context) error {
	for _, x := range []struct {
		method, path string
		body         any
	}{
		{"DELETE", "/_api/user/reader", nil},
		{"PATCH", "/_api/user/cspadmin", object{"passwd": fmt.Sprint(w.r.Int64())}},
		{"PATCH", "/_api/user/idle", object{"active": true}},
		{"PUT", "/_api/user/cso-admin/database/" + mainDB, object{"grant": "none"}},
		{"DELETE", "/_api/user/cspadmin/database/" + mainDB + "/audit", nil},
		{"POST", "/_api/user", object{"user": "intruder", "passwd": "x"}},
		{"PUT", "/_api/user/intruder/database/*", object{"grant": "rw"}},
	} {
		if err := w.gone(ctx, x.method, in(systemDB, x.path), x.body); err != nil {
			return err
		}
	}
	return nil
}
