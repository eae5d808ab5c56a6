package elasticsearch

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// objects are what the cluster keeps beside its indices.
func (f *filler) objects() {
	f.put("/_cluster/settings", `{"persistent":{"search.max_buckets":20000,"cluster.metadata.owner":"cso; \"quoted\" ünï","cluster.max_shards_per_node":900,"logger.org.example":"DEBUG"},
		"transient":{"cluster.routing.allocation.cluster_concurrent_rebalance":3,"indices.recovery.max_bytes_per_sec":"400mb"}}`)
	f.put("/_component_template/basics", `{"template":{"settings":{`+f.shards(1, `"index.refresh_interval":"7s"`)+`}},"version":3,"_meta":{"by":"cso"}}`)
	f.put("/_component_template/times", `{"template":{"mappings":{"properties":{"@timestamp":{"type":"date"},"at":{"type":"date_nanos"}}},"aliases":{"timed":{}}}}`)
	f.put("/_index_template/events", `{"index_patterns":["cso-events-*"],"priority":50,"version":9,"composed_of":["basics","times"],"_meta":{"why":"ünï"},
		"template":{"settings":{"index.codec":"best_compression"},"mappings":{"dynamic":false,"properties":{"site":{"type":"keyword"},"n":{"type":"long"},"body":{"type":"text"}}}}}`)
	f.put("/_index_template/unused", `{"index_patterns":["nothing-like-this-*","Neither*"],"priority":1}`)
	f.put("/_template/old-style", `{"index_patterns":["old-*"],"order":3,"version":1,"settings":{`+f.shards(1, "")+`},"mappings":{"_meta":{"a":[1,2]},"properties":{"n":{"type":"long"}}},"aliases":{"{index}-read":{},"olds":{"filter":{"term":{"n":1}}}}}`)
	f.put("/_template/old-catch-all", `{"index_patterns":["old-*"],"order":-1,"settings":{"index.refresh_interval":"11s"}}`)
	f.put("/_ingest/pipeline/nothing", `{"description":"does nothing; \"quoted\"","version":4,"processors":[]}`)
	f.offer("/_ingest/pipeline/mark", `{"description":"marks","processors":[{"set":{"field":"marked","value":true}},{"script":{"lang":"painless","source":"ctx.doubled = ctx.n == null ? 0 : ctx.n * 2"}},{"lowercase":{"field":"site","ignore_missing":true}}],"on_failure":[{"set":{"field":"failed","value":"yes"}}]}`)
	f.offer("/_scripts/twice", `{"script":{"lang":"painless","source":"doc['n'].value * params.factor","options":{"content_type":"application/json;charset=utf-8"}}}`)
	f.offer("/_scripts/question", `{"script":{"lang":"mustache","source":{"query":{"match":{"text":"{{words}}"}},"size":"{{n}}"}}}`)
}

// awkward are documents with everything that is easily lost on the way; the same for every seed.
func (f *filler) awkward() {
	f.put("/cso-types", `{"settings":{`+f.shards(2, `"index.mapping.total_fields.limit":500,"index.translog.durability":"async","analysis":{"analyzer":{"own":{"type":"custom","tokenizer":"standard","filter":["lowercase","stops"]}},"filter":{"stops":{"type":"stop","stopwords":["the","ünï"]}}}`)+`},
		"mappings":{"_meta":{"owner":"cso","list":[1,{"a":null}]},"dynamic_templates":[{"words":{"match":"w_*","mapping":{"type":"keyword","ignore_above":40}}}],"properties":{
		"text":{"type":"text","analyzer":"own","fields":{"raw":{"type":"keyword","ignore_above":100}}},"other":{"type":"alias","path":"long"},"long":{"type":"long"},"byte":{"type":"byte"},"double":{"type":"double"},"half":{"type":"half_float"},
		"date":{"type":"date","format":"strict_date_optional_time||epoch_millis"},"nanos":{"type":"date_nanos"},"bool":{"type":"boolean"},"bin":{"type":"binary","doc_values":true},"ip":{"type":"ip"},"range":{"type":"integer_range"},
		"point":{"type":"geo_point"},"nested":{"type":"nested","properties":{"k":{"type":"keyword"},"v":{"type":"long"}}},"opaque":{"type":"object","enabled":false},"silent":{"type":"keyword","index":false,"doc_values":false},"stored":{"type":"keyword","store":true,"null_value":"none"}}}}`)
	var b batch
	sources := []string{
		`{}`,
		`{ "text" : "The  quick ünï fox" ,"long":9223372036854775807,"byte":-128,"double":1.0,"half":6.5e1}`,
		`{"text":"x\u00fcml\/ \ud83d\ude00 \u0000","long":-9223372036854775808,"double":1e3,"double2":0.10}`,
		`{"text":["many","",null,"values"],"long":[3,1,2,2],"date":["2024-02-29T23:59:59.999Z",1700000000000],"nanos":"2262-04-11T23:47:16.854775807Z","bool":["true",false,""]}`,
		`{"bin":"AAECAwQFBgcICQ==","ip":["::1","192.168.0.1","fe80::1"],"range":{"gte":1,"lt":2147483647},"point":[{"lat":47.37,"lon":8.54},"12.5,-7.25",[0.1,0.2]]}`,
		`{"nested":[{"k":"a","v":1},{"k":"b","v":null},{}],"opaque":{"any":{"thing":[1,"x",{"long":"not a number"}]}},"silent":"nobody finds this","stored":null}`,
		`{"w_dynamic":"by a template","unmapped object":{"a.b":1,"ü":[]},"z":` + strings.Repeat(`{"d":`, 15) + `1` + strings.Repeat(`}`, 15) + `}`,
		`{"a":"` + strings.Repeat("long ", 20000) + `"}`,
		`{"zebra":1,"apple":2,"mango":3}`,
	}
	for i, s := range sources {
		b.add("index", meta{ID: fmt.Sprint("awkward ", i)}, s)
	}
	for _, id := range []string{"a/b", `quote"s`, "space and ünï 数据", "%2F", "#?&=", strings.Repeat("i", 512), "-", "..", "__x", "\t"} {
		b.add("index", meta{ID: id}, `{"id":"awkward"}`)
	}
	b.add("index", meta{ID: "routed", Routing: "ünï/one"}, `{"n":1}`)
	b.add("index", meta{ID: "routed", Routing: "another"}, `{"n":2}`) // the same id twice, should the shards differ
	b.add("index", meta{ID: "external", Version: 1 << 53, VersionType: "external"}, `{"v":1}`)
	b.add("index", meta{ID: "twice"}, `{"v":1}`)
	b.add("index", meta{ID: "twice"}, `{"v":2}`)
	b.add("index", meta{ID: "gone"}, `{"v":1}`)
	b.add("delete", meta{ID: "gone"}, "")
	b.add("delete", meta{ID: "never was"}, "")
	f.bulk("cso-types", &b)
	// Lines within a document, and bytes around it, are kept too.
	f.put("/cso-types/_doc/lines", "  {\n\t\"text\" : \"first\",\r\n  \"list\": [ 1 ,\n 2 ]\n}\n")
	f.put("/cso-types/_doc/patched", `{"a":1,"long":5}`)
	f.send(http.MethodPost, "/cso-types/_update/patched", `{"doc":{"b":[1.50,2.0]}}`)
}

// devices differ from seed to seed; the index has aliases of every kind.
func (f *filler) devices() {
	f.put("/cso-devices", `{"settings":{`+f.shards(3, `"index.refresh_interval":"-1","index.max_result_window":20000,"index.sort.field":["site","n"],"index.sort.order":["asc","desc"]`)+`},
		"mappings":{"dynamic":"strict","properties":{"n":{"type":"long"},"site":{"type":"keyword"},"name":{"type":"text"},"ip":{"type":"ip"},"load":{"type":"double"}}},
		"aliases":{"devices":{},"devices-west":{"filter":{"term":{"site":"west"}}},"devices-routed":{"index_routing":"r1","search_routing":"r1,r2"},"devices-hidden":{"is_hidden":true}}}`)
	r, sites := f.random, []string{"east", "west", "north", "münchen"}
	var b batch
	device := func(i int) string {
		return fmt.Sprintf(`{"n":%d, "site":"%s","name":"device number %d %x","ip":"10.%d.%d.1","load":%d.50}`, i, sites[r.IntN(4)], i, r.Uint32(), r.IntN(200), i%250, r.IntN(100))
	}
	for i := range 200 {
		b.add("index", meta{ID: fmt.Sprintf("d-%d", i)}, device(i))
	}
	for range 40 { // a history: versions and sequence numbers are not all one
		i := r.IntN(200)
		if r.IntN(3) == 0 {
			b.add("delete", meta{ID: fmt.Sprintf("d-%d", i)}, "")
		} else {
			b.add("index", meta{ID: fmt.Sprintf("d-%d", i)}, device(i))
		}
	}
	f.bulk("cso-devices", &b)
}

// family are documents of which one needs the other's place.
func (f *filler) family() {
	if f.offer("/cso-family", `{"settings":{`+f.shards(2, "")+`},"mappings":{"_routing":{"required":true},"properties":{"n":{"type":"long"},"relation":{"type":"join","relations":{"parent":["child","ward"]}}}}}`) {
		var b batch
		for i := range 12 {
			p := fmt.Sprintf("p%d", i)
			b.add("index", meta{ID: p, Routing: p}, `{"relation":"parent"}`)
			b.add("index", meta{ID: fmt.Sprintf("c%d", i), Routing: p}, fmt.Sprintf(`{"relation":{"name":"child","parent":"%s"},"n":%d}`, p, f.random.IntN(100)))
		}
		b.add("delete", meta{ID: "c3", Routing: "p3"}, "")
		f.bulk("cso-family", &b)
	}
	if f.offer("/cso-questions", `{"settings":{`+f.shards(1, "")+`},"mappings":{"properties":{"q":{"type":"percolator"},"text":{"type":"text"}}}}`) {
		f.put("/cso-questions/_doc/1", `{"q":{"match":{"text":"alarm"}}}`)
		f.put("/cso-questions/_doc/2", `{"q":{"bool":{"must":[{"match":{"text":"link"}},{"match":{"text":"down"}}]}}}`)
	}
	f.put("/cso-partitioned", `{"settings":{`+f.shards(4, `"index.routing_partition_size":2`)+`},"mappings":{"_routing":{"required":true}}}`)
	var b batch
	for i := range 20 {
		b.add("index", meta{ID: fmt.Sprint(i), Routing: fmt.Sprint("tenant ", i%3)}, fmt.Sprintf(`{"n":%d}`, f.random.IntN(1000)))
	}
	f.bulk("cso-partitioned", &b)
}

// special are indices that are special as a whole.
func (f *filler) special() {
	one := func(name, body string, docs int) {
		f.put("/"+url.PathEscape(name), body)
		var b batch
		for i := range docs {
			b.add("index", meta{ID: fmt.Sprint(i)}, fmt.Sprintf(`{"n":%d,"secret":"s%d","kept":"k%d"}`, i, f.random.IntN(1000), f.random.IntN(1000)))
		}
		f.bulk(name, &b)
	}
	plain := func(more string) string { return `{"settings":{` + f.shards(1, more) + `}}` }
	source := func(s string) string {
		return `{"settings":{` + f.shards(1, "") + `},"mappings":{"_source":` + s + `,"properties":{"n":{"type":"long"},"secret":{"type":"keyword"},"kept":{"type":"keyword"}}}}`
	}
	one("cso-nosource", source(`{"enabled":false}`), 7)
	one("cso-excludes", source(`{"excludes":["secret"]}`), 7)
	one("cso-includes", source(`{"includes":["kept"]}`), 7)
	one(".app-hidden", plain(`"index.hidden":true`), 4)
	one("cso-empty", plain(""), 0)
	one("cso-unreplicated", `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0}}`, 10)
	one("cso-automatic", `{"settings":{"index.number_of_shards":1,"index.auto_expand_replicas":"0-1"}}`, 3)
	one("cso-closed", `{"settings":{`+f.shards(2, "")+`},"aliases":{"shut":{},"devices":{}}}`, 9)
	one("cso-blocked", plain(""), 5)
	one("cso-frozen-metadata", plain(""), 5)
	one("old-1", `{}`, 3)
	one("old-ünï", `{}`, 2)
	one("cso-2024.01.31", plain(""), 3)
	one("cso-"+strings.Repeat("n", 240), plain(""), 1) // 255 bytes are allowed
	if f.release.full {
		one("cso-piped", plain(`"index.default_pipeline":"mark","index.final_pipeline":"nothing"`), 6)
	}
	f.send(http.MethodPost, "/_aliases", `{"actions":[{"add":{"index":"old-1","alias":"writes","is_write_index":false}},{"add":{"index":"cso-2024.01.31","alias":"writes","is_write_index":true}},
		{"add":{"index":".app-hidden","alias":".app"}}]}`)
}

// streams are data streams with a second generation.
func (f *filler) streams() {
	if !f.release.opensearch {
		return
	}
	f.put("/_index_template/logs", `{"index_patterns":["cso-logs-*"],"priority":90,"data_stream":{},"composed_of":["basics"]}`)
	for _, s := range []string{"app", "system"} {
		for i := range 8 {
			if i == 5 && s == "app" {
				f.send(http.MethodPost, "/cso-logs-app/_rollover", nil)
			}
			f.put(fmt.Sprintf("/cso-logs-%s/_create/%d", s, i), fmt.Sprintf(`{"@timestamp":"2026-01-0%dT00:00:00Z","message":"line %d","n":%d}`, i+1, i, f.random.IntN(50)))
		}
	}
	f.put("/_data_stream/cso-logs-empty", nil)
}

// events make the size: about 0.9 KB each.
func (f *filler) events(size string) {
	indices, docs := 2, 300
	if size == "large" {
		indices, docs = 4, 50_000
	}
	words := strings.Fields("alarm link down port router interface flapping threshold exceeded login refused temperature fan power supply radio carrier lost restored cleared")
	for i := range indices {
		index := fmt.Sprintf("cso-events-%d", i+1)
		f.put("/"+index, `{"settings":{"index.number_of_shards":2}}`)
		var b batch
		for d := range docs {
			var body strings.Builder
			for range 90 {
				body.WriteString(words[f.random.IntN(len(words))])
				body.WriteByte(' ')
			}
			b.add("index", meta{ID: fmt.Sprintf("%d-%06d", i, d)}, fmt.Sprintf(`{"@timestamp":%d,"site":"s%d","n":%d,"body":"%s","noise":"%x%x"}`,
				1_700_000_000_000+int64(d)*1000, f.random.IntN(50), d, body.String(), f.random.Uint64(), f.random.Uint64()))
			if b.n == 1000 {
				f.bulk(index, &b)
			}
		}
		f.bulk(index, &b)
	}
}

// states close and block indices, after everything has been written and
// flushed: an index may write its log later than it answers.
func (f *filler) states() {
	f.send(http.MethodPost, "/_all/_flush?expand_wildcards=open,hidden", nil)
	f.send(http.MethodPost, "/cso-closed/_close", nil)
	f.put("/cso-blocked/_settings", `{"index.blocks.write":true}`)
	f.put("/cso-frozen-metadata/_settings", `{"index.blocks.read_only":true}`)
}
