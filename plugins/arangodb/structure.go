package arangodb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// structure repairs the definitions: before the documents what stands in their way, after them the rest.
type structure struct {
	*applier
	live      *layout
	fresh     map[string]bool // DATABASE/COLLECTION made in this pass: without documents and indexes
	more      []item          // to make after the documents, beside what differs
	lock      sync.Mutex
	suspended map[string]bool // DATABASE/COLLECTION whose schema and computed values are taken away for the load
}

func (w *structure) call(ctx context.Context, q call) error {
	if q.method != "GET" && (strings.HasPrefix(q.path, "/_api/index") || strings.HasPrefix(q.path, "/_api/view")) {
		q.timeout = longCall // it is built over all documents before the server answers
	}
	_, err := w.write(ctx, q)
	if w.spoiled(err) {
		return nil
	}
	return err
}

func (w *structure) del(ctx context.Context, db, path string, query map[string]string) error {
	err := w.call(ctx, call{method: "DELETE", db: db, path: path, query: query})
	if statused(err, 404) {
		return nil
	}
	return err
}

// remove notes what appeared later.
func (w *structure) remove(it item) {
	if it.how == "extra" {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.removed[it.String()] = true
	}
}

// before removes what is extra or must be made anew, and makes what documents need. True: databases were
// dropped to be made anew.
func (w *structure) before(ctx context.Context, items []item) (bool, error) {
	of := func(kind string, hows ...string) []item {
		var out []item
		for _, it := range items {
			if it.kind == kind && slices.Contains(hows, it.how) {
				out = append(out, it)
			}
		}
		return out
	}
	again := false
	for _, it := range of("database", "extra", "changed") {
		if err := w.del(ctx, systemDB, "/_api/database/"+esc(it.db), nil); err != nil {
			return false, fmt.Errorf("drop database %s: %w", it.db, err)
		}
		w.remove(it)
		again = again || it.how == "changed"
	}
	for _, it := range of("database", "missing", "changed") {
		def, err := parseObject(it.want)
		if err != nil {
			return false, err
		}
		if !w.s.cluster {
			def = object{}
		}
		if err := w.call(ctx, call{method: "POST", db: systemDB, path: "/_api/database", body: map[string]any{"name": it.db, "options": def}}); err != nil {
			return false, fmt.Errorf("make database %s: %w", it.db, err)
		}
	}
	if again {
		return true, nil
	}
	for _, it := range of("task", "extra", "changed") {
		if err := w.del(ctx, it.db, "/_api/tasks/"+esc(it.name), nil); err != nil {
			return false, fmt.Errorf("remove %s: %w", it, err)
		}
		w.remove(it)
	}
	gone := w.dependents(of("analyzer", "extra", "changed"))
	for _, it := range append(of("view", "extra", "changed"), gone["view"]...) {
		if err := w.del(ctx, it.db, "/_api/view/"+esc(it.name), nil); err != nil {
			return false, fmt.Errorf("drop %s: %w", it, err)
		}
		w.remove(it)
	}
	for _, it := range append(of("index", "extra", "changed"), gone["index"]...) {
		coll, name, _ := strings.Cut(it.name, "/")
		if err := w.del(ctx, it.db, "/_api/index/"+esc(coll)+"/"+esc(w.indexID(it.db, coll, name)), nil); err != nil {
			return false, fmt.Errorf("drop %s: %w", it, err)
		}
		w.remove(it)
	}
	if err := w.collections(ctx, of("collection", "extra", "changed", "missing")); err != nil {
		return false, err
	}
	for _, it := range of("analyzer", "extra", "changed") {
		if err := w.del(ctx, it.db, "/_api/analyzer/"+esc(it.name), map[string]string{"force": "true"}); err != nil {
			return false, fmt.Errorf("remove %s: %w", it, err)
		}
		w.remove(it)
	}
	for _, it := range of("analyzer", "missing", "changed") {
		def, err := parseObject(it.want)
		if err != nil {
			return false, err
		}
		def["name"] = it.name
		if err := w.call(ctx, call{method: "POST", db: it.db, path: "/_api/analyzer", body: def}); err != nil {
			return false, fmt.Errorf("make %s: %w", it, err)
		}
	}
	return false, nil
}

func (w *structure) indexID(db, coll, name string) string {
	if d := w.live.databases[db]; d != nil && d.collections[coll] != nil {
		if id := d.collections[coll].ids[name]; id != "" {
			id = strings.TrimPrefix(id, coll+"/")
			return id
		}
	}
	return name
}

// dependents finds the views and inverted indexes that use an analyzer which is about to go: they are made anew after it.
func (w *structure) dependents(analyzers []item) map[string][]item {
	out := map[string][]item{}
	for _, an := range analyzers {
		uses := func(def []byte) bool {
			return bytes.Contains(def, mustJSON(an.name)) || bytes.Contains(def, mustJSON(an.db+"::"+an.name))
		}
		for n, d := range w.live.databases {
			wd := w.want.databases[n]
			if wd == nil {
				continue
			}
			for name, def := range d.views {
				if uses(def) && bytes.Equal(def, wd.views[name]) {
					out["view"] = append(out["view"], item{db: n, kind: "view", name: name, how: "missing", want: def})
				}
			}
			for cn, c := range d.collections {
				for name, def := range c.indexes {
					if wc := wd.collections[cn]; uses(def) && wc != nil && bytes.Equal(def, wc.indexes[name]) {
						out["index"] = append(out["index"], item{db: n, kind: "index", name: cn + "/" + name, how: "missing", want: def})
					}
				}
			}
		}
	}
	w.more = append(append(w.more, out["view"]...), out["index"]...)
	return out
}

// collections drops what is extra or cannot be changed in place, then makes what is missing.
func (w *structure) collections(ctx context.Context, items []item) error {
	var drop, anew []item
	for _, it := range items {
		if it.how == "extra" || it.how == "changed" && !changeable(it.live, it.want, w.same) {
			drop = append(drop, it)
		}
		if it.how == "missing" || it.how == "changed" && !changeable(it.live, it.want, w.same) {
			anew = append(anew, it)
		}
	}
	// A collection that others are sharded like goes last and comes first.
	slices.SortStableFunc(drop, func(a, b item) int { return follows(b.live) - follows(a.live) })
	slices.SortStableFunc(anew, func(a, b item) int { return follows(a.want) - follows(b.want) })
	for _, it := range drop {
		q := map[string]string{}
		if strings.HasPrefix(it.name, "_") {
			q["isSystem"] = "true"
		}
		if err := w.del(ctx, it.db, "/_api/collection/"+esc(it.name), q); err != nil {
			return fmt.Errorf("drop %s: %w", it, err)
		}
		w.remove(it)
	}
	for _, it := range anew {
		def, err := parseObject(it.want)
		if err != nil {
			return err
		}
		if !w.same {
			def = def.without(clusterParams...)
		}
		// Both would stand in the way of the documents; they come back after them.
		def = def.without("schema", "computedValues")
		def["name"] = it.name
		if last := w.want.last[it.db+"/"+it.name]; last != nil && def.sub("keyOptions") != nil {
			k := def.sub("keyOptions").without()
			k["lastValue"] = json.Number(last)
			def["keyOptions"] = map[string]any(k)
		}
		if err := w.make(ctx, call{db: it.db, path: "/_api/collection", body: def}, "restore-collection", object{"parameters": def, "indexes": []any{}}); err != nil {
			return fmt.Errorf("make %s: %w", it, err)
		}
		w.fresh[it.db+"/"+it.name] = true
	}
	return nil
}

func follows(def []byte) int {
	if o, err := parseObject(def); err == nil && o.str("distributeShardsLike") != "" {
		return 1
	}
	return 0
}

// suspend takes schema and computed values away: the server would refuse or change documents that it once took.
func (w *structure) suspend(ctx context.Context, db, coll string) error {
	w.lock.Lock()
	done := w.suspended[db+"/"+coll]
	w.suspended[db+"/"+coll] = true
	w.lock.Unlock()
	d := w.live.databases[db]
	if done || w.fresh[db+"/"+coll] || d == nil || d.collections[coll] == nil {
		return nil
	}
	p := d.collections[coll].params
	if p["schema"] == nil && p["computedValues"] == nil {
		return nil
	}
	return w.properties(ctx, db, coll, object{"schema": nil, "computedValues": []any{}})
}

func (w *structure) properties(ctx context.Context, db, coll string, p object) error {
	if err := w.call(ctx, call{method: "PUT", db: db, path: "/_api/collection/" + esc(coll) + "/properties", body: p}); err != nil {
		return fmt.Errorf("properties of %s/%s: %w", db, coll, err)
	}
	return nil
}

// after makes what comes after the documents.
func (w *structure) after(ctx context.Context, items []item, diff map[string]bool) error {
	items = append(slices.Clone(items), w.more...)
	change := map[string]bool{}
	for n := range w.fresh {
		change[n] = true
	}
	for n := range w.suspended {
		change[n] = true
	}
	for _, it := range items {
		if it.kind == "collection" && it.how == "changed" {
			change[it.db+"/"+it.name] = true
		}
	}
	for _, n := range sortedKeys(change) {
		db, coll, _ := strings.Cut(n, "/")
		if err := w.settle(ctx, db, coll); err != nil {
			return err
		}
	}
	if err := w.generators(ctx); err != nil {
		return err
	}
	if err := w.indexes(ctx, items); err != nil {
		return err
	}
	if err := w.views(ctx, items); err != nil {
		return err
	}
	if err := w.tasks(ctx, items); err != nil {
		return err
	}
	for db := range w.want.databases {
		if diff[documentsName(db, "_apps")] || diff[documentsName(db, "_appbundles")] {
			// A server without JavaScript has no Foxx services to mend.
			if err := w.call(ctx, call{method: "POST", db: db, path: "/_api/foxx/_local/heal"}); err != nil && !statused(err, 404, 501) {
				return fmt.Errorf("services of %s: %w", db, err)
			}
		}
	}
	return nil
}

// settle gives a collection the properties of the backup that can be changed in place.
func (w *structure) settle(ctx context.Context, db, coll string) error {
	wd := w.want.databases[db]
	if wd == nil || wd.collections[coll] == nil || wd.collections[coll].def == nil {
		return nil
	}
	def := wd.collections[coll].params
	p := object{"schema": def["schema"], "computedValues": def["computedValues"]}
	if p["computedValues"] == nil {
		p["computedValues"] = []any{}
	}
	for _, n := range mutableParams {
		clustered := n == "replicationFactor" || n == "writeConcern"
		if x, ok := def[n]; ok && (!clustered || w.s.cluster && w.same && def.str("distributeShardsLike") == "") {
			p[n] = x
		}
	}
	if !w.s.version.atLeast(3, 10) {
		delete(p, "computedValues")
	}
	return w.properties(ctx, db, coll, p)
}

// indexes makes the missing ones over the documents, which is faster than keeping them up to date, and the only
// way for vector indexes.
func (w *structure) indexes(ctx context.Context, items []item) error {
	want := map[string]item{}
	for _, it := range items {
		if it.kind == "index" && it.how != "extra" {
			want[it.db+"/"+it.name] = it
		}
	}
	for n := range w.fresh {
		db, coll, _ := strings.Cut(n, "/")
		for x, def := range w.want.databases[db].collections[coll].indexes {
			want[n+"/"+x] = item{db: db, kind: "index", name: coll + "/" + x, want: def}
		}
	}
	for _, n := range sortedKeys(want) {
		it := want[n]
		coll, name, _ := strings.Cut(it.name, "/")
		def, err := parseObject(it.want)
		if err != nil {
			return err
		}
		def["name"] = name
		documented := call{db: it.db, path: "/_api/index", query: map[string]string{"collection": coll}, body: def}
		if err := w.make(ctx, documented, "restore-indexes", object{"parameters": object{"name": coll}, "indexes": []any{def}}); err != nil {
			return fmt.Errorf("make %s: %w", it, err)
		}
	}
	return nil
}

// views makes the missing ones; those that name inverted indexes come last.
func (w *structure) views(ctx context.Context, items []item) error {
	for _, alias := range []bool{false, true} {
		for _, it := range items {
			if it.kind != "view" || it.how == "extra" {
				continue
			}
			def, err := parseObject(it.want)
			if err != nil {
				return err
			}
			if (def.str("type") == "search-alias") != alias {
				continue
			}
			def["name"] = it.name
			if err := w.make(ctx, call{db: it.db, path: "/_api/view", body: def}, "restore-view", def); err != nil {
				return fmt.Errorf("make %s: %w", it, err)
			}
		}
	}
	return nil
}

// The server wraps the command of a task: https://github.com/arangodb/arangodb, arangod/VocBase/Methods/Tasks.cpp.
const taskHead, taskTail = "(function (params) { ", " } )(params);"

// tasks registers the missing ones under the account of the estate file: the server runs a task with the rights
// of who made it, and the attempt's own account ends with the attempt.
func (w *structure) tasks(ctx context.Context, items []item) error {
	for _, it := range items {
		if it.kind != "task" || it.how == "extra" {
			continue
		}
		def, err := parseObject(it.want)
		if err != nil {
			return err
		}
		if c, ok := strings.CutPrefix(def.str("command"), taskHead); ok {
			def["command"] = strings.TrimSuffix(c, taskTail)
		}
		if err := w.s.mine(ctx); err != nil {
			return err
		}
		w.below.spread(ctx, w.s, w.run)
		_, err = w.s.main.do(ctx, call{method: "PUT", db: it.db, path: "/_api/tasks/" + esc(it.name), body: def})
		if err != nil && !numbered(err, errTaskDuplicate) {
			return fmt.Errorf("make %s: %w", it, err)
		}
	}
	return nil
}

// generators moves key generators forward to where they stood: by a document with that key, removed at once.
func (w *structure) generators(ctx context.Context) error {
	for n, want := range w.want.last {
		db, coll, _ := strings.Cut(n, "/")
		wd := w.want.databases[db]
		if wd == nil || wd.collections[coll] == nil || w.fresh[n] {
			continue
		}
		d := w.live.databases[db]
		if d == nil || d.collections[coll] == nil || !behind(d.collections[coll].last, string(want)) {
			continue
		}
		key, err := generatedKey(wd.collections[coll].params.sub("keyOptions").str("type"), string(want))
		if err != nil {
			return fmt.Errorf("key generator of %s: %w", n, err)
		}
		t := &collectionTask{applier: w.applier, w: w, db: db, name: coll, want: wd.collections[coll]}
		if err := t.touch(ctx, key); err != nil {
			return fmt.Errorf("key generator of %s: %w", n, err)
		}
	}
	return nil
}
