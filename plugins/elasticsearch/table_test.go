package elasticsearch_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// row is one kind of change that a restore must undo.
type row struct {
	name   string
	change func(a *api)
	// removed and touched are how many things the restore is to report as removed, and how many at
	// most as changed: what is equal must not be touched. 0: nobody counts.
	removed, touched int
}

const one = `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0,"index.max_result_window":100}}`

// rows are the restore table: what the server's own restore leaves behind, merges or forgets, and the rest.
func rows() []row {
	doc := func(a *api, index, id string) { a.do("PUT", "/"+index+"/_doc/"+id+"?refresh=true", `{"n":1}`) }
	return []row{
		{"nothing", func(*api) {}, 0, 0},
		{"index deleted", func(a *api) { a.do("DELETE", "/devices", nil) }, 0, 1},
		{"document added", func(a *api) { doc(a, "devices", "late") }, 0, 1},
		{"document changed", func(a *api) { a.do("PUT", "/devices/_doc/versioned?refresh=true", `{"n":2}`) }, 0, 1},
		{"document deleted", func(a *api) { a.do("DELETE", "/family/_doc/c1?routing=p1&refresh=true", nil) }, 0, 1},
		{"document written again with the same content", func(a *api) { a.do("PUT", "/types/_doc/1?refresh=true", a.source("types", "1")) }, 0, 1},
		{"index made anew with the same documents", func(a *api) {
			var docs []string
			for _, id := range []string{"0", "1", "2"} {
				docs = append(docs, a.source("types", id))
			}
			shape := map[string]map[string]any{}
			a.get("/types", &shape)
			set := shape["types"]["settings"].(map[string]any)["index"].(map[string]any)
			for _, k := range []string{"uuid", "version", "creation_date", "provided_name"} {
				delete(set, k)
			}
			a.do("DELETE", "/types", nil)
			a.do("PUT", "/types", map[string]any{"settings": set, "mappings": shape["types"]["mappings"]})
			for i, d := range docs {
				a.do("PUT", fmt.Sprintf("/types/_doc/%d?refresh=true", i), d)
			}
		}, 0, 1},
		{"document in a hidden index", func(a *api) { doc(a, ".app-hidden", "late") }, 0, 1},
		{"index without _source written to", func(a *api) { doc(a, "nosource", "1") }, 0, 1},
		{"index whose _source leaves fields out written to", func(a *api) { doc(a, "excludes", "1") }, 0, 1},
		{"open index closed", func(a *api) { a.do("POST", "/devices/_close", nil) }, 0, 1},
		{"closed index opened", func(a *api) { a.do("POST", "/closed/_open?wait_for_active_shards=1", nil) }, 0, 1},
		{"closed index opened, written to and closed again", func(a *api) {
			a.do("POST", "/closed/_open?wait_for_active_shards=1", nil)
			doc(a, "closed", "late")
			a.do("POST", "/closed/_close", nil)
		}, 0, 1},
		{"closed index deleted", func(a *api) { a.do("DELETE", "/closed", nil) }, 0, 1},
		{"mapping grown", func(a *api) {
			a.do("PUT", "/devices/_mapping", `{"properties":{"more":{"type":"keyword"}}}`)
		}, 0, 1},
		{"setting of an index changed", func(a *api) { a.do("PUT", "/devices/_settings", `{"index.refresh_interval":"7s"}`) }, 0, 1},
		{"other number of shards", func(a *api) { a.do("DELETE", "/family", nil); a.do("PUT", "/family", one) }, 0, 1},
		{"block removed", func(a *api) { a.do("PUT", "/blocked/_settings", `{"index.blocks.write":null}`) }, 0, 1},
		{"block set", func(a *api) { a.do("PUT", "/devices/_settings", `{"index.blocks.write":true}`) }, 0, 1},
		{"read-only index", func(a *api) { a.do("PUT", "/devices/_settings", `{"index.blocks.read_only":true}`) }, 0, 1},
		{"index read-only as after a full disk", func(a *api) {
			a.do("PUT", "/devices/_settings", `{"index.blocks.read_only_allow_delete":true}`)
		}, 0, 1},
		{"alias added", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"add":{"index":"events-1","alias":"late"}}]}`)
		}, 0, 1},
		{"alias removed", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"remove":{"index":"devices","alias":"all-devices"}}]}`)
		}, 0, 1},
		{"filter and routing of an alias changed", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"add":{"index":"devices","alias":"few","filter":{"term":{"n":1}},"routing":"r2"}}]}`)
		}, 0, 1},
		{"write index of an alias changed", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"add":{"index":"events-1","alias":"writes","is_write_index":false}},{"add":{"index":"old-1","alias":"writes","is_write_index":true}}]}`)
		}, 0, 2},
		{"hidden alias added", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"add":{"index":"empty","alias":".h","is_hidden":true}}]}`)
		}, 0, 1},
		{"extra index", func(a *api) { a.do("PUT", "/extra", one); doc(a, "extra", "1") }, 1, 0},
		{"extra index closed", func(a *api) { a.do("PUT", "/extra", one); a.do("POST", "/extra/_close", nil) }, 1, 0},
		{"extra index with an alias of the backup", func(a *api) {
			a.do("PUT", "/extra", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"aliases":{"few":{},"writes":{}}}`)
		}, 1, 0},
		{"extra index named like an alias of the backup", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"remove":{"index":"devices","alias":"few"}}]}`)
			a.do("PUT", "/few", one)
		}, 1, 1},
		{"alias named like an index of the backup", func(a *api) {
			a.do("POST", "/_aliases", `{"actions":[{"remove_index":{"index":"empty"}},{"add":{"index":"devices","alias":"empty"}}]}`)
		}, 0, 2},
		{"persistent settings added, changed, removed", func(a *api) {
			a.do("PUT", "/_cluster/settings", `{"persistent":{"search.max_buckets":"123","cluster.metadata.owner":null,"cluster.metadata.late":"1"}}`)
		}, 0, 3},
		{"transient settings added, changed", func(a *api) {
			a.do("PUT", "/_cluster/settings", `{"transient":{"cluster.routing.allocation.cluster_concurrent_rebalance":"4","cluster.metadata.late":"1"}}`)
		}, 0, 2},
		{"transient setting removed", func(a *api) {
			a.do("PUT", "/_cluster/settings", `{"transient":{"cluster.routing.allocation.cluster_concurrent_rebalance":null}}`)
		}, 0, 1},
		{"recovery limited", func(a *api) {
			a.do("DELETE", "/empty", nil)
			a.do("PUT", "/_cluster/settings", `{"transient":{"indices.recovery.max_bytes_per_sec":"1mb"},"persistent":{"indices.recovery.max_bytes_per_sec":"2mb"}}`)
		}, 0, 0},
		{"allocation off", func(a *api) {
			a.do("DELETE", "/empty", nil)
			a.do("PUT", "/_cluster/settings", `{"persistent":{"cluster.routing.allocation.enable":"none"}}`)
		}, 0, 0},
		{"whole cluster read-only", func(a *api) {
			a.do("DELETE", "/empty", nil)
			a.do("PUT", "/_cluster/settings", `{"persistent":{"cluster.blocks.read_only":true}}`)
		}, 0, 0},
		{"legacy template added", func(a *api) { a.do("PUT", "/_template/late", `{"index_patterns":["zz-*"]}`) }, 1, 0},
		{"legacy template changed", func(a *api) { a.do("PUT", "/_template/legacy", `{"index_patterns":["old-*","zz-*"]}`) }, 0, 1},
		{"legacy template deleted", func(a *api) { a.do("DELETE", "/_template/legacy", nil) }, 0, 1},
		{"component template changed", func(a *api) {
			a.do("PUT", "/_component_template/settings-1", `{"template":{"settings":{"index.number_of_shards":2}}}`)
		}, 0, 1},
		{"component template deleted", func(a *api) { a.do("DELETE", "/_component_template/spare", nil) }, 0, 1},
		{"component and index template added", func(a *api) {
			a.do("PUT", "/_component_template/late", `{"template":{}}`)
			a.do("PUT", "/_index_template/late", `{"index_patterns":["zz-*"],"composed_of":["late"]}`)
		}, 2, 0},
		{"index template changed", func(a *api) {
			a.do("PUT", "/_index_template/events", `{"index_patterns":["events-*"],"priority":6,"composed_of":[]}`)
		}, 0, 1},
		{"index template deleted", func(a *api) { a.do("DELETE", "/_index_template/events", nil) }, 0, 1},
		{"pipeline added", func(a *api) { a.do("PUT", "/_ingest/pipeline/late", `{"processors":[]}`) }, 1, 0},
		{"pipeline changed or made", func(a *api) { a.do("PUT", "/_ingest/pipeline/mark", `{"processors":[]}`) }, 0, 1},
		{"pipeline deleted", func(a *api) { a.try("DELETE", "/_ingest/pipeline/mark", nil) }, 0, 1},
		{"script added", func(a *api) { a.try("PUT", "/_scripts/late", `{"script":{"lang":"painless","source":"1"}}`) }, 0, 0},
		{"script changed", func(a *api) { a.try("PUT", "/_scripts/twice", `{"script":{"lang":"painless","source":"3"}}`) }, 0, 1},
		{"script deleted", func(a *api) { a.try("DELETE", "/_scripts/twice", nil) }, 0, 1},
	}
}

// streamRows are for servers that know data streams.
func streamRows() []row {
	return []row{
		{"document in a data stream", func(a *api) { a.do("POST", "/logs-app/_doc?refresh=true", `{"@timestamp":"2026-03-01T00:00:00Z"}`) }, 0, 1},
		{"data stream rolled over", func(a *api) { a.do("POST", "/logs-app/_rollover", nil) }, 0, 1},
		{"data stream deleted", func(a *api) { a.do("DELETE", "/_data_stream/logs-app", nil) }, 0, 1},
		{"extra data stream", func(a *api) { a.do("PUT", "/_data_stream/logs-late", nil) }, 1, 0},
		{"backing index of a data stream deleted", func(a *api) {
			a.do("DELETE", "/"+a.backing("logs-app")[0], nil)
		}, 0, 1},
	}
}

// source is the body of a document, byte by byte.
func (a *api) source(index, id string) string {
	a.t.Helper()
	return string(a.do("GET", "/"+index+"/_source/"+id, nil))
}

func (a *api) backing(stream string) []string {
	a.t.Helper()
	var d struct {
		Streams []struct {
			Indices []struct {
				Name string `json:"index_name"`
			} `json:"indices"`
		} `json:"data_streams"`
	}
	a.get("/_data_stream/"+stream, &d)
	var out []string
	for _, x := range d.Streams[0].Indices {
		out = append(out, x.Name)
	}
	return out
}

// table makes one change after the other, and each time restores the same backup.
func (s *stand) table(t *testing.T) {
	a := client(t, s.on)
	a.fill(42)
	a.foreignRepository(s)
	ses := open(t, s.on)
	m, _ := backup(t, ses)
	want := a.fingerprint()
	all := rows()
	if !long() && s.version != versions()[0] { // what one product does the other does too, in most rows: a sample
		n := 0
		all = slices.DeleteFunc(all, func(row) bool { n++; return n%4 != 0 })
	}
	if a.streams() {
		all = append(all, streamRows()...)
	}
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) {
			a := client(t, s.on)
			r.change(a)
			rep := restore(t, ses, m)
			same(t, want, a.fingerprint())
			if rep.Removed != r.removed && r.removed > 0 || r.touched > 0 && rep.Artifacts > r.touched {
				t.Errorf("%d removed and %d changed, want %d and at most %d", rep.Removed, rep.Artifacts, r.removed, r.touched)
			}
			code, b := a.try("PUT", "/writable/_doc/1", `{"n":1}`) // creates an index: no setting of the run is left
			if code/100 != 2 {
				t.Errorf("after the restore nobody can write: %d %s", code, b)
			}
			a.do("DELETE", "/writable", nil)
		})
	}
	t.Run("repository of somebody else stays", func(t *testing.T) {
		if code, _ := client(t, s.on).try("GET", "/_snapshot/mine", nil); code != 200 {
			t.Errorf("the repository is gone: %d", code)
		}
	})
	t.Run("kinds never used before", s.neverUsed)
	t.Run("unknown to the backup, wholly", s.fromNothing)
}

func (a *api) foreignRepository(s *stand) {
	a.t.Helper()
	dir := filepath.Join(s.on.Members[0].Options["repo_dir"], "mine")
	must(a.t, os.MkdirAll(dir, 0o700))
	a.do("PUT", "/_snapshot/mine", map[string]any{"type": "fs", "settings": map[string]any{"location": dir}})
	a.t.Cleanup(func() { a.do("DELETE", "/_snapshot/mine", nil) })
}

// neverUsed: the server's own restore keeps later templates, pipelines and scripts of a kind that did not
// exist at all when the snapshot was taken.
func (s *stand) neverUsed(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/only", one)
	ses := open(t, s.on)
	m, _ := backup(t, ses)
	want := a.fingerprint()
	a.do("PUT", "/_template/late", `{"index_patterns":["zz-*"]}`)
	a.do("PUT", "/_component_template/late", `{"template":{}}`)
	a.do("PUT", "/_index_template/late", `{"index_patterns":["zz-*"],"composed_of":["late"]}`)
	a.do("PUT", "/_ingest/pipeline/late", `{"processors":[]}`)
	removed := 4
	if code, _ := a.try("PUT", "/_scripts/late", `{"script":{"lang":"painless","source":"1"}}`); code == 200 {
		removed++
	}
	if rep := restore(t, ses, m); rep.Removed != removed {
		t.Errorf("%d objects removed, want %d", rep.Removed, removed)
	}
	same(t, want, a.fingerprint())
}

// fromNothing restores onto servers that hold nothing, with what the manifest says looked at, and again: nothing to do.
func (s *stand) fromNothing(t *testing.T) {
	a := client(t, s.on)
	a.fill(43)
	ses := open(t, s.on)
	m, rep := backup(t, ses)
	if !strings.Contains(rep.Consistency, "one snapshot") {
		t.Errorf("consistency: %q", rep.Consistency)
	}
	want := a.fingerprint()
	second := plugintest.NewMemory().After(m)
	_, err := ses.Backup(t.Context(), run(t, plugins.OpBackup), second)
	must(t, err)
	if len(second.Reused()) == 0 {
		t.Error("a second backup of unchanged indices reuses nothing")
	}
	a.clear()
	restore(t, ses, m)
	same(t, want, a.fingerprint())
	at := position(t, s.on)
	if rep := restore(t, ses, m); rep.Artifacts != 0 || rep.Removed != 0 || rep.Unchanged == 0 {
		t.Errorf("a second restore: %+v", rep)
	}
	if now := position(t, s.on); now != at {
		t.Errorf("a second restore wrote:\n%s\nwas\n%s", now, at)
	}
	var dirs []string
	entries, err := os.ReadDir(filepath.Join(s.on.Members[0].Options["repo_dir"], "cso-backup"))
	must(t, err)
	for _, e := range entries {
		dirs = append(dirs, e.Name())
	}
	if len(dirs) > 0 {
		t.Errorf("left in path.repo: %q", dirs)
	}
	var repos map[string]json.RawMessage
	a.get("/_snapshot", &repos)
	for r := range repos {
		if strings.HasPrefix(r, "cso-backup") {
			t.Errorf("repository %s is left", r)
		}
	}
}
