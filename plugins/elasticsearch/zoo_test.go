package elasticsearch_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
)

// fill makes the content a function of the seed, dates apart: one of every kind of thing a restore must bring back.
func (a *api) fill(seed int64) {
	a.t.Helper()
	a.clear()
	r := rand.New(rand.NewPCG(uint64(seed), 7))
	a.do("PUT", "/_cluster/settings", `{"persistent":{"search.max_buckets":"20000","cluster.metadata.owner":"cso"},"transient":{"cluster.routing.allocation.cluster_concurrent_rebalance":"3"}}`)
	a.do("PUT", "/_component_template/settings-1", `{"template":{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0}}}`)
	a.do("PUT", "/_component_template/spare", `{"template":{"mappings":{"properties":{"spare":{"type":"keyword"}}}},"_meta":{"why":"used by nobody"}}`)
	a.do("PUT", "/_index_template/events", `{"index_patterns":["events-*"],"priority":5,"composed_of":["settings-1"],"template":{"mappings":{"properties":{"at":{"type":"date"}}}}}`)
	a.do("PUT", "/_template/legacy", `{"index_patterns":["old-*"],"order":3,"settings":{"index.number_of_replicas":0,"index.number_of_shards":1},"mappings":{"properties":{"n":{"type":"long"}}},"aliases":{"olds":{}}}`)
	a.try("PUT", "/_ingest/pipeline/mark", `{"description":"marks","processors":[{"set":{"field":"marked","value":true}}]}`) // not every server has the processor
	a.try("PUT", "/_scripts/twice", `{"script":{"lang":"painless","source":"doc['n'].value * 2"}}`)
	a.do("PUT", "/devices", `{"settings":{"index.number_of_shards":3,"index.number_of_replicas":0,"index.refresh_interval":"30s"},
		"mappings":{"dynamic":"strict","properties":{"n":{"type":"long"},"name":{"type":"keyword"},"text":{"type":"text"},"ip":{"type":"ip"},"parts":{"type":"nested","properties":{"k":{"type":"keyword"}}}}},
		"aliases":{"few":{"filter":{"range":{"n":{"lt":10}}},"routing":"r1"},"all-devices":{}}}`)
	var b strings.Builder
	for i := range 120 {
		fmt.Fprintf(&b, `{"index":{"_id":"d-%d/ä %d"}}`+"\n", i, r.IntN(3))
		fmt.Fprintf(&b, `{ "n": %d, "name":"x\u00fc\/%d",  "text":"%x", "ip":"10.0.%d.1","parts":[{"k":"a"},{"k":"%d"}]}`+"\n", i, i, r.Uint64(), i, r.IntN(9))
	}
	a.do("POST", "/devices/_bulk", b.String())
	a.do("POST", "/devices/_bulk", `{"index":{"_id":"versioned","version":77,"version_type":"external"}}`+"\n"+`{"n":1e3}`+"\n"+`{"delete":{"_id":"none"}}`+"\n")
	family := func(rel string) string {
		return `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0},"mappings":{"_routing":{"required":true},"properties":{"rel":` + rel + `}}}`
	}
	if code, _ := a.try("PUT", "/family", family(`{"type":"join","relations":{"p":"c"}}`)); code != 200 { // a server without that module
		a.do("PUT", "/family", family(`{"type":"object","enabled":false}`))
	}
	for i := range 6 {
		a.do("PUT", fmt.Sprintf("/family/_doc/p%d?routing=p%d", i, i), `{"rel":"p"}`)
		a.do("PUT", fmt.Sprintf("/family/_doc/c%d?routing=p%d", i, i), fmt.Sprintf(`{"rel":{"name":"c","parent":"p%d"},"v":%d}`, i, r.IntN(100)))
	}
	a.do("DELETE", "/family/_doc/c3?routing=p3", nil)
	one := func(name, body string, docs int) {
		a.do("PUT", "/"+url.PathEscape(name), body)
		for i := range docs {
			a.do("PUT", fmt.Sprintf("/%s/_doc/%d", url.PathEscape(name), i), fmt.Sprintf(`{"n":%d,"secret":"s%d"}`, i, r.IntN(1000)))
		}
	}
	a.do("PUT", "/types", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0,"analysis":{"analyzer":{"own":{"type":"custom","tokenizer":"standard","filter":["lowercase"]}}}},
		"mappings":{"properties":{"nanos":{"type":"date_nanos"},"span":{"type":"integer_range"},"at":{"type":"geo_point"},"t":{"type":"text","analyzer":"own","term_vector":"with_positions_offsets"},"o":{"type":"object","enabled":false}}}}`)
	for i := range 3 {
		a.do("PUT", fmt.Sprintf("/types/_doc/%d", i), fmt.Sprintf(`{"nanos":"2026-01-01T00:00:00.%09dZ","span":{"gte":%d,"lt":90},"at":{"lat":%d.5,"lon":7},"t":"Wörter %d","o":{"any":[1,{"k":null}]}}`, r.IntN(1e9), i, i, i))
	}
	if code, _ := a.try("PUT", "/questions", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"mappings":{"properties":{"q":{"type":"percolator"},"n":{"type":"long"}}}}`); code == 200 {
		a.do("PUT", "/questions/_doc/1", `{"q":{"range":{"n":{"gt":5}}}}`)
	}
	const plain = `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0}}`
	if !a.plain {
		one("nosource", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"mappings":{"_source":{"enabled":false}}}`, 3)
		one("excludes", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"mappings":{"_source":{"excludes":["secret"]}}}`, 3)
		one("closed", plain, 4)
		a.do("POST", "/closed/_close", nil)
	}
	one(".app-hidden", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0,"index.hidden":true}}`, 2)
	one("empty", plain, 0)
	one("blocked", plain, 2)
	one("old-1", `{}`, 2)
	one("events-1", `{}`, 2)
	a.do("POST", "/_aliases", `{"actions":[{"add":{"index":"old-1","alias":"writes","is_write_index":false}},{"add":{"index":"events-1","alias":"writes","is_write_index":true}}]}`)
	a.do("PUT", "/blocked/_settings", `{"index.blocks.write":true}`)
	if a.streams() && !a.plain {
		a.do("PUT", "/_index_template/logs", `{"index_patterns":["logs-*"],"priority":9,"data_stream":{},"composed_of":["settings-1"]}`)
		for i := range 4 {
			if i == 2 {
				a.do("POST", "/logs-app/_rollover", nil)
			}
			a.do("POST", "/logs-app/_doc?refresh=true", fmt.Sprintf(`{"@timestamp":"2026-01-0%dT00:00:00Z","m":%d}`, i+1, r.IntN(50)))
		}
	}
}

// wreck changes, deletes and adds at every level.
func (a *api) wreck(seed int64) {
	a.t.Helper()
	r := rand.New(rand.NewPCG(uint64(seed), 8))
	have := a.indices()
	a.do("PUT", "/_cluster/settings", `{"persistent":{"search.max_buckets":"30000","cluster.metadata.extra":"1"},"transient":{"search.max_open_scroll_context":"600"}}`)
	a.do("PUT", fmt.Sprintf("/extra-%d", r.IntN(1000)), `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"aliases":{"few":{},"late":{}}}`)
	a.do("PUT", "/_template/later", `{"index_patterns":["zzz-*"]}`)
	a.do("PUT", "/_component_template/later", `{"template":{"settings":{"index.number_of_replicas":0}}}`)
	a.do("PUT", "/_index_template/later", `{"index_patterns":["yyy-*"],"composed_of":["later"]}`)
	a.try("PUT", "/_ingest/pipeline/later", `{"processors":[]}`)
	a.try("PUT", "/_scripts/later", `{"script":{"lang":"painless","source":"1"}}`)
	a.try("DELETE", "/_ingest/pipeline/mark", nil)
	a.try("DELETE", "/_template/legacy", nil)
	if _, ok := have["devices"]; ok {
		a.try("PUT", "/devices/_doc/new", `{"n":5}`)
		a.try("POST", "/devices/_doc/"+url.PathEscape(fmt.Sprintf("new/%d", r.IntN(99))), `{"n":6}`)
		a.try("DELETE", "/devices/_doc/versioned", nil)
	}
	if _, ok := have["family"]; ok && r.IntN(2) == 0 {
		a.do("DELETE", "/family", nil)
		a.do("PUT", "/family", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0}}`)
	}
	if _, ok := have["events-1"]; ok {
		a.do("POST", "/_aliases", `{"actions":[{"add":{"index":"events-1","alias":"one-more"}}]}`)
	}
	if s, ok := have["closed"]; ok && s == "close" {
		a.do("POST", "/closed/_open?wait_for_active_shards=1", nil)
		a.try("PUT", "/closed/_doc/9?refresh=true", `{"n":9}`)
		if r.IntN(2) == 0 {
			a.do("POST", "/closed/_close", nil)
		}
	}
	for _, n := range []string{"empty", "old-1"} {
		if _, ok := have[n]; ok && r.IntN(2) == 0 {
			a.do("DELETE", "/"+n, nil)
		}
	}
	if a.streams() {
		if code, _ := a.try("GET", "/_data_stream/logs-app", nil); code == 200 {
			a.do("POST", "/logs-app/_doc?refresh=true", `{"@timestamp":"2026-02-01T00:00:00Z","m":1}`)
		}
		if code, _ := a.try("GET", "/_index_template/logs", nil); code == 200 {
			a.try("PUT", "/_data_stream/logs-extra", nil)
		}
	}
}
