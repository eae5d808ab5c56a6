package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Wreck changes, deletes and adds documents, indices, aliases, data streams,
// templates, pipelines, scripts and settings. What an earlier run has
// destroyed is passed over.
func (e *Engine) Wreck(ctx context.Context, members []engine.Member, seed int64) error {
	f, err := e.filler(ctx, members)
	if err != nil {
		return err
	}
	defer f.close()
	f.random = rand.New(rand.NewPCG(uint64(seed), 0xbad))
	f.wreckDocuments()
	f.wreckIndices(seed)
	f.wreckObjects(seed)
	return f.err
}

// try is send for what may be refused because an earlier run was here.
func (f *filler) try(method, path string, body any) {
	if f.err != nil {
		return
	}
	_, err := f.do(f.ctx, method, path, body)
	var status *statusError
	if errors.As(err, &status) && status.code < http.StatusInternalServerError && status.code != http.StatusUnauthorized {
		return
	}
	f.err = err
}

func (f *filler) wreckDocuments() {
	for _, r := range []struct{ method, path, body string }{
		{"PUT", "/cso-types/_doc/" + url.PathEscape("a/b"), `{"wrecked":true}`},
		{"DELETE", "/cso-types/_doc/external", ""},
		{"DELETE", "/cso-types/_doc/" + url.PathEscape("awkward 2"), ""},
		{"PUT", "/cso-types/_doc/" + url.PathEscape("awkward 0"), `{ }`}, // the same, but for one byte
		{"PUT", "/cso-types/_doc/routed?routing=another", `{"n":3}`},
		{"PUT", "/cso-types/_doc/twice", `{"v":2}`}, // the same content, another version
		{"PUT", "/cso-types/_doc/added", `{"v":1}`},
		{"DELETE", "/cso-family/_doc/c5?routing=p5", ""},
		{"PUT", "/cso-questions/_doc/3", `{"q":{"match_all":{}}}`},
		{"PUT", "/cso-nosource/_doc/1", `{"n":-1}`},
		{"PUT", "/cso-excludes/_doc/1", `{"n":1,"secret":"other","kept":"other"}`},
		{"PUT", "/cso-empty/_doc/1", `{"no":"longer"}`},
		{"DELETE", "/.app-hidden/_doc/1", ""},
		{"PUT", "/cso-partitioned/_doc/1?routing=" + url.QueryEscape("tenant 7"), `{"n":1}`},
	} {
		var body any
		if r.body != "" {
			body = r.body
		}
		f.try(r.method, r.path, body)
	}
	for range 40 {
		f.try(http.MethodPut, fmt.Sprintf("/cso-devices/_doc/d-%d", f.random.IntN(200)), fmt.Sprintf(`{"n":%d,"site":"wrecked"}`, f.random.IntN(99)))
		f.try(http.MethodDelete, fmt.Sprintf("/cso-devices/_doc/d-%d", f.random.IntN(200)), nil)
		f.try(http.MethodDelete, fmt.Sprintf("/cso-events-1/_doc/0-%06d", f.random.IntN(300)), nil)
		f.try(http.MethodPut, fmt.Sprintf("/cso-devices/_doc/added-%d", f.random.IntN(200)), `{"n":1,"site":"added"}`)
	}
}

func (f *filler) wreckIndices(seed int64) {
	added := fmt.Sprintf("cso-added-%d", seed)
	f.try(http.MethodPut, "/"+added, `{"settings":{`+f.shards(1, "")+`},"aliases":{"devices":{},"added":{},"writes":{"is_write_index":false}}}`)
	f.try(http.MethodPut, "/"+added+"/_doc/1", `{"added":1}`)
	f.try(http.MethodPut, "/.added-hidden", `{"settings":{`+f.shards(1, `"index.hidden":true`)+`}}`)
	f.try(http.MethodPut, "/cso-added-closed", `{"settings":{`+f.shards(1, "")+`}}`)
	f.try(http.MethodPost, "/cso-added-closed/_close", nil)
	f.try(http.MethodDelete, "/old-1", nil)
	f.try(http.MethodDelete, "/cso-unreplicated", nil)
	f.try(http.MethodPut, "/cso-unreplicated", `{"settings":{"index.number_of_shards":5,"index.number_of_replicas":0}}`) // the same name, another index
	f.try(http.MethodPut, "/cso-unreplicated/_doc/1", `{"another":"index"}`)
	f.try(http.MethodPost, "/cso-closed/_open", nil)
	f.try(http.MethodPut, "/cso-closed/_doc/1?refresh=true", `{"wrecked":1}`)
	f.try(http.MethodPost, "/cso-2024.01.31/_close", nil) // with the write index of an alias
	f.try(http.MethodPut, "/cso-blocked/_settings", `{"index.blocks.write":false}`)
	f.try(http.MethodPut, "/cso-blocked/_doc/1", `{"wrecked":1}`)
	f.try(http.MethodPut, "/cso-frozen-metadata/_settings", `{"index.blocks.read_only":null}`)
	f.try(http.MethodDelete, "/cso-frozen-metadata/_doc/2", nil)
	f.try(http.MethodPut, "/cso-devices/_settings", `{"index.refresh_interval":"3s","index.max_result_window":500}`)
	f.try(http.MethodPut, "/cso-types/_mapping", `{"_meta":{"owner":"somebody"},"properties":{"added":{"type":"keyword"}}}`)
	f.try(http.MethodPost, "/_aliases", `{"actions":[{"remove":{"index":"cso-devices","alias":"devices"}},{"add":{"index":"cso-devices","alias":"devices-west","filter":{"term":{"site":"east"}}}},{"add":{"index":"cso-devices","alias":"devices-added"}}]}`)
	f.try(http.MethodPut, "/cso-2024.01.30", `{"aliases":{"shut":{}}}`)
	if f.release.opensearch {
		f.try(http.MethodPost, "/cso-logs-app/_rollover", nil)
		f.try(http.MethodPut, "/cso-logs-app/_create/added", `{"@timestamp":"2026-02-01T00:00:00Z","message":"added"}`)
		f.try(http.MethodDelete, "/_data_stream/cso-logs-system", nil)
		f.try(http.MethodPut, fmt.Sprintf("/_data_stream/cso-logs-added%d", seed), nil)
	}
}

func (f *filler) wreckObjects(seed int64) {
	for _, r := range []struct{ method, path, body string }{
		{"PUT", "/_cluster/settings", `{"persistent":{"search.max_buckets":30000,"cluster.metadata.added":"x","cluster.max_shards_per_node":null},"transient":{"search.max_open_scroll_context":600,"cluster.routing.allocation.cluster_concurrent_rebalance":null}}`},
		{"PUT", "/_component_template/times", `{"template":{"mappings":{"properties":{"@timestamp":{"type":"date"}}}}}`},
		{"PUT", "/_component_template/added", `{"template":{"settings":{"index.number_of_replicas":0}}}`},
		{"DELETE", "/_index_template/unused", ""},
		{"PUT", fmt.Sprintf("/_index_template/added-%d", seed), `{"index_patterns":["added-by-template-*"],"priority":7,"composed_of":["added"]}`},
		{"PUT", "/_template/old-style", `{"index_patterns":["old-*","more-*"],"order":4}`},
		{"DELETE", "/_template/old-catch-all", ""},
		{"PUT", "/_template/added", `{"index_patterns":["zzz-*"]}`},
		{"PUT", "/_ingest/pipeline/nothing", `{"description":"changed","processors":[]}`},
		{"PUT", fmt.Sprintf("/_ingest/pipeline/added-%d", seed), `{"processors":[]}`},
		{"DELETE", "/_ingest/pipeline/mark", ""},
		{"DELETE", "/_scripts/question", ""},
		{"PUT", "/_scripts/twice", `{"script":{"lang":"painless","source":"3"}}`},
		{"PUT", "/_scripts/added", `{"script":{"lang":"painless","source":"1"}}`},
	} {
		var body any
		if r.body != "" {
			body = r.body
		}
		f.try(r.method, r.path, body)
	}
}
