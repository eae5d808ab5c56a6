package arangodb

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

const putBytes = 4 << 20 // of documents in one request

// Fill replaces all databases, collections, users and what belongs to them.
func (e *Engine) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	c, err := dial(members[0])
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.empty(ctx); err != nil {
		return fmt.Errorf("empty the server: %w", err)
	}
	f := &filler{client: c, r: rand.New(rand.NewPCG(uint64(seed), 0xa4a)), seed: seed}
	for _, step := range []func(context.Context, string) error{f.databases, f.collections, f.documents, f.definitions, f.users} {
		if err := step(ctx, size); err != nil {
			return err
		}
	}
	return nil
}

// empty removes everything but root and the product's own collection.
func (c *client) empty(ctx context.Context) error {
	dbs, err := c.databases(ctx)
	if err != nil {
		return err
	}
	for _, db := range dbs {
		if db == systemDB {
			continue
		}
		if err := c.gone(ctx, "DELETE", in(systemDB, "/_api/database/"+esc(db)), nil); err != nil {
			return err
		}
	}
	for _, x := range []struct{ list, key, name, remove string }{
		{"/_api/view", "result", "name", "/_api/view/"},
		{"/_api/tasks", "", "id", "/_api/tasks/"},
		{"/_api/gharial", "graphs", "_key", "/_api/gharial/"},
		{"/_api/aqlfunction", "result", "name", "/_api/aqlfunction/"},
		{"/_api/collection", "result", "name", "/_api/collection/"},
		{"/_api/analyzer", "result", "name", "/_api/analyzer/"},
		{"/_api/user", "result", "user", "/_api/user/"},
	} {
		all, err := c.list(ctx, in(systemDB, x.list), x.key)
		if err != nil {
			return err
		}
		for _, o := range all {
			name := text(o, x.name)
			own := true
			if x.list == "/_api/analyzer" {
				name, own = strings.CutPrefix(name, systemDB+"::")
			}
			if !own || o["isSystem"] == true || name == root0 || x.list == "/_api/user" && strings.HasPrefix(name, ownAccounts) {
				continue
			}
			if err := c.gone(ctx, "DELETE", in(systemDB, x.remove+esc(name)), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

type filler struct {
	*client
	r    *rand.Rand
	seed int64
}

func (f *filler) post(ctx context.Context, db, path string, body any) error {
	return f.call(ctx, "POST", in(db, path), body, nil)
}

func (f *filler) databases(ctx context.Context, _ string) error {
	for _, db := range []string{mainDB, logsDB, "cso_empty"} {
		if err := f.post(ctx, systemDB, "/_api/database", object{"name": db}); err != nil {
			return err
		}
	}
	return nil
}

// collections makes them with every kind of property; some get their schema after the documents.
func (f *filler) collections(ctx context.Context, _ string) error {
	for _, x := range []struct {
		db   string
		body object
	}{
		{systemDB, object{"name": "settings", "waitForSync": true}},
		{mainDB, object{"name": "sites", "cacheEnabled": true}},
		{mainDB, object{"name": "awkward"}},
		{mainDB, object{"name": "audit", "numberOfShards": 1, "keyOptions": object{"type": "autoincrement", "increment": 3, "offset": 10, "allowUserKeys": false}}},
		{mainDB, object{"name": "events", "keyOptions": object{"type": "uuid"}}},
		{mainDB, object{"name": "nothing"}},
		{logsDB, object{"name": "lines"}},
	} {
		if err := f.post(ctx, x.db, "/_api/collection", x.body); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) put(ctx context.Context, db, collection string, docs []json.RawMessage) error {
	for len(docs) > 0 {
		n, bytes := 0, 0
		for n < len(docs) && (n == 0 || bytes+len(docs[n]) < putBytes) {
			bytes += len(docs[n])
			n++
		}
		var answers []object
		if err := f.call(ctx, "POST", in(db, "/_api/document/"+esc(collection)+"?overwriteMode=replace"), docs[:n], &answers); err != nil {
			return err
		}
		for _, a := range answers {
			if a["error"] == true {
				return fmt.Errorf("put a document into %s/%s: %v", db, collection, a)
			}
		}
		docs = docs[n:]
	}
	return nil
}

func (f *filler) documents(ctx context.Context, size string) error {
	var all, audit, events, lines []json.RawMessage
	for i := range sites(size) {
		all = append(all, site(f.r, i))
	}
	for i := range 120 {
		audit = append(audit, json.RawMessage(fmt.Sprintf(`{"who":"u%d","what":%q}`, f.r.IntN(9), randomText(f.r, 40))))
		lines = append(lines, json.RawMessage(fmt.Sprintf(`{"_key":"%08d","level":%d,"text":%q}`, i*13, f.r.IntN(6), randomText(f.r, 60))))
	}
	for i := range 40 {
		events = append(events, json.RawMessage(fmt.Sprintf(`{"_key":"event-%d","at":%d}`, i, 4_000_000_000+f.r.IntN(1e6))))
	}
	for _, x := range []struct {
		db, name string
		docs     []json.RawMessage
	}{
		{systemDB, "settings", []json.RawMessage{json.RawMessage(fmt.Sprintf(`{"_key":"release","n":%d}`, f.r.IntN(1e6)))}},
		{mainDB, "sites", all}, {mainDB, "awkward", awkward(f.r)}, {mainDB, "audit", audit}, {mainDB, "events", events}, {logsDB, "lines", lines},
	} {
		if err := f.put(ctx, x.db, x.name, x.docs); err != nil {
			return err
		}
	}
	return nil
}

// definitions: indexes, a graph with its edges, analyzers, views, functions, tasks, and a schema over documents that break it.
func (f *filler) definitions(ctx context.Context, size string) error {
	steps := []struct {
		path string
		body object
	}{
		{"/_api/index?collection=sites", object{"type": "persistent", "name": "by_tenant", "fields": []string{"tenant", "name"}, "storedValues": []string{"up"}}},
		{"/_api/index?collection=sites", object{"type": "persistent", "name": "by_name", "fields": []string{"name"}, "sparse": true, "estimates": false}},
		{"/_api/index?collection=sites", object{"type": "geo", "name": "by_place", "fields": []string{"place"}, "geoJson": true}},
		{"/_api/index?collection=events", object{"type": "ttl", "name": "expiry", "fields": []string{"at"}, "expireAfter": 86400}},
		{"/_api/analyzer", object{"name": "lower", "type": "norm", "properties": object{"locale": "en", "case": "lower"}, "features": []string{"frequency", "norm", "position"}}},
		{"/_api/analyzer", object{"name": "bars", "type": "delimiter", "properties": object{"delimiter": "|"}, "features": []string{}}},
		{"/_api/gharial", object{"name": "network", "edgeDefinitions": []object{{"collection": "links", "from": []string{"sites"}, "to": []string{"sites"}}}, "orphanCollections": []string{"nothing"}}},
		{"/_api/view", object{"name": "search", "type": "arangosearch", "commitIntervalMsec": 2000,
			"links": object{"sites": object{"fields": object{"name": object{"analyzers": []string{"lower"}}}}, "awkward": object{"includeAllFields": true}}}},
		{"/_api/aqlfunction", object{"name": "cso::twice", "code": fmt.Sprintf("function (x) { return x * %d; }", 2+f.r.IntN(7)), "isDeterministic": true}},
	}
	for _, s := range steps {
		if err := f.post(ctx, mainDB, s.path, s.body); err != nil {
			return err
		}
	}
	if err := f.call(ctx, "PUT", in(mainDB, "/_api/tasks/nightly"), object{"name": "nightly", "command": "require('console').log('night')", "period": 86400}, nil); err != nil {
		return err
	}
	var links []json.RawMessage
	n := sites(size)
	for i := range n / 2 {
		links = append(links, json.RawMessage(fmt.Sprintf(`{"_key":"link-%d","_from":"sites/site-%06d","_to":"sites/site-%06d","cost":%d}`, i, f.r.IntN(n), f.r.IntN(n), f.r.IntN(100))))
	}
	if err := f.put(ctx, mainDB, "links", links); err != nil {
		return err
	}
	return f.call(ctx, "PUT", in(mainDB, "/_api/collection/sites/properties"), object{"schema": object{"level": "moderate", "message": "a site has a tenant",
		"rule": object{"type": "object", "required": []string{"tenant", "owner"}}}}, nil)
}

func (f *filler) users(ctx context.Context, _ string) error {
	for _, a := range accounts() {
		if err := f.post(ctx, systemDB, "/_api/user", object{"user": a.name, "passwd": Password(a.name, f.seed), "active": a.active, "extra": a.extra}); err != nil {
			return err
		}
		for _, g := range a.grants {
			path := "/_api/user/" + esc(a.name) + "/database"
			for p := range strings.SplitSeq(g[0], "/") {
				path += "/" + esc(p)
			}
			if err := f.call(ctx, "PUT", in(systemDB, path), object{"grant": g[1]}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
