package arangodb_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// clearAll leaves no user data.
func clearAll(t testing.TB, on plugins.Target) {
	t.Helper()
	a := foreign(t, on)
	defer a.close()
	for _, db := range a.databases() {
		if db != "_system" {
			a.do("DELETE", "_system", "/_api/database/"+url.PathEscape(db), nil, 200, 404)
		}
	}
	db := "_system"
	var views struct{ Result []obj }
	a.get(db, "/_api/view", &views)
	for _, v := range views.Result {
		a.do("DELETE", db, "/_api/view/"+url.PathEscape(fmt.Sprint(v["name"])), nil)
	}
	var tasks []obj
	a.get(db, "/_api/tasks", &tasks)
	for _, x := range tasks {
		a.do("DELETE", db, "/_api/tasks/"+url.PathEscape(fmt.Sprint(x["id"])), nil)
	}
	var graphs struct{ Graphs []obj }
	a.get(db, "/_api/gharial", &graphs)
	for _, g := range graphs.Graphs {
		a.do("DELETE", db, "/_api/gharial/"+url.PathEscape(fmt.Sprint(g["_key"])), nil)
	}
	var fs struct{ Result []obj }
	a.get(db, "/_api/aqlfunction", &fs)
	for _, f := range fs.Result {
		a.do("DELETE", db, "/_api/aqlfunction/"+url.PathEscape(fmt.Sprint(f["name"])), nil)
	}
	for round := range 2 { // what others are sharded like goes last
		for _, c := range a.collections(db) {
			if c.IsSystem {
				continue
			}
			code, out, err := a.try("DELETE", db, "/_api/collection/"+url.PathEscape(c.Name), nil)
			must(t, err)
			if code >= 300 && round > 0 {
				t.Fatalf("drop %s: HTTP %d %s", c.Name, code, out)
			}
		}
	}
	var an struct{ Result []obj }
	a.get(db, "/_api/analyzer", &an)
	for _, x := range an.Result {
		if n, ok := strings.CutPrefix(fmt.Sprint(x["name"]), "_system::"); ok {
			a.do("DELETE", db, "/_api/analyzer/"+url.PathEscape(n)+"?force=true", nil)
		}
	}
	var users struct{ Result []obj }
	a.get(db, "/_api/user", &users)
	for _, u := range users.Result {
		if n := fmt.Sprint(u["user"]); n != "root" {
			a.do("DELETE", db, "/_api/user/"+url.PathEscape(n), nil)
		}
	}
}

// content fills servers. Documents are written as text: how their numbers and attributes are written is part of the proof.
type content struct {
	*api
	rng     *rand.Rand
	cluster bool
	newer   bool // 3.10 and later: computed values, search-alias views, inverted indexes
}

func (c *content) collection(db, name string, more obj) {
	c.t.Helper()
	body := obj{"name": name}
	if c.cluster {
		body["numberOfShards"], body["replicationFactor"] = 3, 2
	}
	for k, v := range more {
		body[k] = v
	}
	c.do("POST", db, "/_api/collection", body)
}

func (c *content) docs(db, coll string, docs ...string) {
	c.t.Helper()
	out := c.do("POST", db, "/_api/document/"+url.PathEscape(coll)+"?overwriteMode=replace", "["+strings.Join(docs, ",")+"]")
	if strings.Contains(string(out), `"error":true`) {
		c.t.Fatalf("%s/%s: %.500s", db, coll, out)
	}
}

func begin(t testing.TB, on plugins.Target, seed int64) *content {
	t.Helper()
	c := &content{api: foreign(t, on), rng: rand.New(rand.NewPCG(uint64(seed), 7))}
	var v struct{ Version string }
	c.get("_system", "/_api/version", &v)
	c.newer = !strings.HasPrefix(v.Version, "3.8.") && !strings.HasPrefix(v.Version, "3.9.")
	var r struct{ Role string }
	c.get("_system", "/_admin/server/role", &r)
	c.cluster = r.Role == "COORDINATOR"
	return c
}

// numbers that a program which reads and writes them would change.
var oddities = []string{
	`9223372036854775807`, `-9223372036854775808`, `18446744073709551615`, `1e+300`, `0.1`, `1.5e-9`, `123456789012345680`, `-7`, `true`, `null`,
	`"\u0000 nul, \" quote, \\ and / slash"`, `"日本語 🚀 é"`, `[[[[[[{"deep":[1,[2,[3]]]}]]]]]]`, `{"z":1,"a":2,"m":{"y":[],"b":{}}}`, `""`, `"<script>&amp;"`,
}

func (c *content) odd() string { return oddities[c.rng.IntN(len(oddities))] }

// fill makes the content a function of the seed alone.
func fill(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	clearAll(t, on)
	c := begin(t, on, seed)
	defer c.close()
	root := c.rng.IntN(1000)
	c.collection("_system", "settings", nil)
	c.docs("_system", "settings", fmt.Sprintf(`{"_key":"version","n":%d}`, root), `{"_key":"a:b@c.d-e_f","odd":`+c.odd()+`}`)
	for i, db := range []string{"shop", "logs"} {
		options := obj{}
		if c.cluster && i == 0 {
			options["replicationFactor"], options["writeConcern"] = 2, 1
		}
		c.do("POST", "_system", "/_api/database", obj{"name": db, "options": options})
	}
	c.fillShop(seed)
	c.collection("logs", "lines", obj{"waitForSync": true})
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf(`{"_key":"line-%06d","level":%d,"text":"line %d of %d","odd":%s}`, i*7, c.rng.IntN(5), i, seed, c.odd()))
	}
	c.docs("logs", "lines", lines...)
	c.collection("logs", "empty", nil)
	c.do("POST", "_system", "/_api/user", obj{"user": "app", "passwd": "first", "active": true, "extra": obj{"team": fmt.Sprint("t", root)}})
	c.do("PUT", "_system", "/_api/user/app/database/shop", obj{"grant": "rw"})
	c.do("PUT", "_system", "/_api/user/app/database/shop/customers", obj{"grant": "ro"})
	c.do("POST", "_system", "/_api/user", obj{"user": "reader/ü", "passwd": "second", "active": c.rng.IntN(2) == 0})
	c.do("PUT", "_system", "/_api/user/"+url.PathEscape("reader/ü")+"/database/*", obj{"grant": "ro"})
	c.do("PUT", "_system", "/_api/user/root", obj{"passwd": c.pw, "active": true})
}

func (c *content) fillShop(seed int64) {
	t := c.t
	t.Helper()
	db := "shop"
	c.do("POST", db, "/_api/analyzer", obj{"name": "lower", "type": "norm", "properties": obj{"locale": "en", "case": "lower"}, "features": []string{"frequency", "norm", "position"}})
	c.do("POST", db, "/_api/analyzer", obj{"name": "parts", "type": "delimiter", "properties": obj{"delimiter": "|"}, "features": []string{}})
	customers := obj{"schema": obj{"rule": obj{"type": "object", "properties": obj{"age": obj{"type": "number"}}}, "level": "moderate", "message": "age must be a number"}, "cacheEnabled": true}
	if c.newer {
		customers["computedValues"] = []obj{{"name": "seen", "expression": "RETURN DATE_NOW()", "computeOn": []string{"insert", "update", "replace"}, "overwrite": true, "keepNull": true, "failOnWarning": false}}
	}
	if c.cluster {
		customers["numberOfShards"] = 4
	}
	c.collection(db, "customers", obj{"cacheEnabled": true, "numberOfShards": customers["numberOfShards"]})
	var docs []string
	for i := range 200 {
		docs = append(docs, fmt.Sprintf(`{"_key":"c%05d","mail":"%d@example.com","age":%d,"odd":%s,"seen":%d}`, i*3, (i+int(seed))%200, c.rng.IntN(99), c.odd(), c.rng.IntN(1e6)))
	}
	c.docs(db, "customers", docs...)
	delete(customers, "numberOfShards")
	c.do("PUT", db, "/_api/collection/customers/properties", customers)
	if c.cluster {
		c.collection(db, "orders", obj{"keyOptions": obj{"type": "autoincrement", "increment": 1, "offset": 0, "allowUserKeys": false}, "numberOfShards": 1})
		c.collection(db, "parts", obj{"numberOfShards": 4, "distributeShardsLike": "customers"})
		c.collection(db, "regional", obj{"shardKeys": []string{"region"}})
		docs = nil
		for range 40 {
			docs = append(docs, fmt.Sprintf(`{"region":"r%d","v":%s}`, c.rng.IntN(5), c.odd()))
		}
		c.docs(db, "regional", docs...)
	} else {
		c.collection(db, "orders", obj{"keyOptions": obj{"type": "autoincrement", "increment": 1, "offset": 0, "allowUserKeys": false}})
		c.collection(db, "parts", obj{"keyOptions": obj{"type": "padded", "allowUserKeys": true}})
	}
	docs = nil
	for range 50 {
		docs = append(docs, fmt.Sprintf(`{"total":%d.%02d,"odd":%s}`, c.rng.IntN(1000), c.rng.IntN(100), c.odd()))
	}
	c.do("POST", db, "/_api/document/orders", "["+strings.Join(docs, ",")+"]")
	c.docs(db, "parts", `{"_key":"p1","odd":`+c.odd()+`}`, `{"_key":"p2","big":"`+strings.Repeat("0123456789abcdef", 20_000)+`"}`)
	c.do("POST", db, "/_api/index?collection=customers", obj{"type": "persistent", "fields": []string{"mail"}, "unique": !c.cluster, "sparse": true, "name": "by_mail"})
	c.do("POST", db, "/_api/index?collection=customers", obj{"type": "geo", "fields": []string{"place"}, "geoJson": true, "name": "by_place"})
	c.do("POST", db, "/_api/index?collection=orders", obj{"type": "ttl", "fields": []string{"expires"}, "expireAfter": 3600, "name": "old"})
	c.do("POST", db, "/_api/gharial", obj{"name": "social", "edgeDefinitions": []obj{{"collection": "knows", "from": []string{"customers"}, "to": []string{"customers"}}}, "orphanCollections": []string{}})
	docs = nil
	for i := range 60 {
		docs = append(docs, fmt.Sprintf(`{"_key":"k%d","_from":"customers/c%05d","_to":"customers/c%05d","since":%d}`, i, c.rng.IntN(200)*3, c.rng.IntN(200)*3, c.rng.IntN(99)))
	}
	c.docs(db, "knows", docs...)
	c.do("POST", db, "/_api/view", obj{"name": "search", "type": "arangosearch", "links": obj{"customers": obj{"fields": obj{"mail": obj{"analyzers": []string{"lower"}}}}, "parts": obj{"includeAllFields": true}}, "primarySort": []obj{{"field": "mail", "direction": "asc"}}})
	if c.newer {
		c.do("POST", db, "/_api/index?collection=parts", obj{"type": "inverted", "name": "inv", "fields": []any{"odd"}})
		c.do("POST", db, "/_api/view", obj{"name": "alias", "type": "search-alias", "indexes": []obj{{"collection": "parts", "index": "inv"}}})
	}
	c.service(db, "/hello", fmt.Sprintf("1.0.%d", c.rng.IntN(9)))
	c.docs(db, "_queues", `{"_key":"mails","maxWorkers":2}`)
	c.docs(db, "_jobs", fmt.Sprintf(`{"_key":"4711","queue":"mails","status":"pending","data":{"to":"u%d"},"type":{"mount":"/hello","name":"mail"}}`, c.rng.IntN(99)))
	c.do("POST", db, "/_api/aqlfunction", obj{"name": "my::double", "code": fmt.Sprintf("function (x) { return x * %d; }", 2+c.rng.IntN(5)), "isDeterministic": true})
	c.do("PUT", db, "/_api/tasks/nightly", obj{"name": "nightly", "command": fmt.Sprintf("require('console').log(%d)", c.rng.IntN(99)), "period": 86400})
}

// service installs a Foxx service.
func (c *content) service(db, mount, version string) {
	c.t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range [][2]string{{"manifest.json", fmt.Sprintf(`{"name":"hello","version":%q,"main":"index.js","engines":{"arangodb":"^3.8.0"}}`, version)}, {"index.js", "'use strict';"}} {
		// Equal seeds give equal bundles: the time of a file is not set.
		w, err := z.CreateHeader(&zip.FileHeader{Name: f[0]})
		must(c.t, err)
		_, err = w.Write([]byte(f[1]))
		must(c.t, err)
	}
	must(c.t, z.Close())
	req, err := http.NewRequest("POST", c.base+"/_db/"+url.PathEscape(db)+"/_api/foxx?mount="+url.QueryEscape(mount), &b)
	must(c.t, err)
	req.SetBasicAuth(c.user, c.pw)
	req.Header.Set("Content-Type", "application/zip")
	resp, err := c.http.Do(req)
	must(c.t, err)
	defer resp.Body.Close()
	if out, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		c.t.Fatalf("install a service: HTTP %d %s", resp.StatusCode, out)
	}
}

// maybe sends a request whose object an earlier wreck may have taken away.
func (c *content) maybe(method, db, path string, body any) {
	c.t.Helper()
	if code, out, err := c.try(method, db, path, body); err != nil || code >= 500 {
		c.t.Fatalf("%s %s%s: %v HTTP %d %s", method, db, path, err, code, out)
	}
}

// wreck changes, deletes and adds at every level, accounts included.
func wreck(t testing.TB, on plugins.Target, seed int64) {
	t.Helper()
	c := begin(t, on, seed)
	defer c.close()
	db := "shop"
	for range 20 {
		k := fmt.Sprintf("c%05d", c.rng.IntN(200)*3)
		switch c.rng.IntN(3) {
		case 0:
			c.maybe("DELETE", db, "/_api/document/customers/"+k, nil)
		case 1:
			c.maybe("PATCH", db, "/_api/document/customers/"+k, fmt.Sprintf(`{"age":%d,"mail":"changed-%d"}`, c.rng.IntN(99), c.rng.IntN(1e9)))
		default:
			c.maybe("POST", db, "/_api/document/customers?overwriteMode=replace", fmt.Sprintf(`{"_key":"x%d","mail":"x%d","odd":%s}`, c.rng.IntN(1e6), c.rng.IntN(1e9), c.odd()))
		}
	}
	c.maybe("POST", "_system", "/_api/document/settings?overwriteMode=replace", fmt.Sprintf(`{"_key":"version","n":%d}`, c.rng.IntN(1e9)+1000))
	c.maybe("POST", db, "/_api/document/orders", fmt.Sprintf(`{"total":%d}`, c.rng.IntN(99)))
	steps := []func(){
		func() { c.maybe("DELETE", db, "/_api/collection/knows", nil) },
		func() { c.maybe("DELETE", db, "/_api/view/search", nil) },
		func() { c.maybe("DELETE", db, "/_api/index/customers/by_mail", nil) },
		func() { c.maybe("DELETE", db, "/_api/view/alias", nil) },
		func() {
			c.maybe("PUT", db, "/_api/collection/customers/properties", obj{"waitForSync": true, "schema": nil})
		},
		func() { c.maybe("DELETE", db, "/_api/tasks/nightly", nil) },
		func() { c.maybe("DELETE", db, "/_api/foxx/service?mount=%2Fhello", nil) },
		func() { c.maybe("PUT", db, "/_api/collection/_queues/truncate", nil) },
		func() { c.maybe("DELETE", db, "/_api/aqlfunction/my::double", nil) },
		func() { c.maybe("DELETE", db, "/_api/gharial/social", nil) },
		func() { c.maybe("DELETE", "_system", "/_api/database/logs", nil) },
		func() { c.maybe("DELETE", db, "/_api/collection/parts?force=true", nil) },
		func() { c.maybe("PUT", "logs", "/_api/collection/lines/truncate", nil) },
		func() { c.maybe("DELETE", "_system", "/_api/user/app", nil) },
		func() { c.maybe("PATCH", "_system", "/_api/user/app", obj{"passwd": "second"}) },
		func() { c.maybe("PUT", "_system", "/_api/user/app/database/logs", obj{"grant": "rw"}) },
		func() {
			c.maybe("PUT", "_system", "/_api/user/"+url.PathEscape("reader/ü")+"/database/*", obj{"grant": "none"})
		},
		func() { c.maybe("DELETE", db, "/_api/analyzer/parts?force=true", nil) },
		func() {
			c.maybe("DELETE", db, "/_api/view/search", nil)
			c.maybe("DELETE", db, "/_api/analyzer/lower?force=true", nil)
			c.maybe("POST", db, "/_api/analyzer", obj{"name": "lower", "type": "norm", "properties": obj{"locale": "de", "case": "upper"}, "features": []string{}})
		},
	}
	for _, i := range c.rng.Perm(len(steps))[:6] {
		steps[i]()
	}
	c.maybe("DELETE", "_system", "/_api/collection/large", nil)
	n := c.rng.IntN(1000)
	c.maybe("POST", "_system", "/_api/database", obj{"name": fmt.Sprintf("late%d", n)})
	c.maybe("POST", db, "/_api/collection", obj{"name": fmt.Sprintf("late%d", n)})
	c.maybe("POST", db, fmt.Sprintf("/_api/document/late%d", n), `[{"a":1},{"a":2}]`)
	c.maybe("POST", db, "/_api/index?collection=orders", obj{"type": "persistent", "fields": []string{"total"}, "name": fmt.Sprintf("late%d", n)})
	c.maybe("POST", db, "/_api/view", obj{"name": fmt.Sprintf("lateview%d", n), "type": "arangosearch"})
	c.maybe("POST", db, "/_api/analyzer", obj{"name": fmt.Sprintf("late%d", n), "type": "identity"})
	c.maybe("POST", db, "/_api/aqlfunction", obj{"name": fmt.Sprintf("late::f%d", n), "code": "function () { return 1; }"})
	c.maybe("PUT", db, fmt.Sprintf("/_api/tasks/late%d", n), obj{"name": "late", "command": "1", "period": 100000})
	c.maybe("POST", "_system", "/_api/user", obj{"user": fmt.Sprintf("late%d", n), "passwd": "first"})
}
