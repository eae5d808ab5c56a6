package elasticsearch_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/elasticsearch"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// stand is a set of real servers of one version, shared by the tests that run on it.
type stand struct {
	version string
	members int
	lab     *lab.Lab
	on      plugins.Target
	second  *plugins.Target
}

// versions are the servers that the tests run on: the lab's default Elasticsearch and OpenSearch, or those
// that CSO_TEST_VERSIONS lists, comma separated; "all" are all that the lab has.
func versions() []string {
	const all = "7.10.2,2.19.1,7.17.29,8.19.21,2.19.4"
	switch v := os.Getenv("CSO_TEST_VERSIONS"); v {
	case "":
		return []string{"7.10.2", "2.19.1"}
	case "all":
		return strings.Split(all, ",")
	default:
		return strings.Split(v, ",")
	}
}

// long says that the tests were asked for by version: then they take all the time they need.
func long() bool { return os.Getenv("CSO_TEST_VERSIONS") != "" }

func begin(t testing.TB, version string, members int, instances ...string) *stand {
	t.Helper()
	components := []string{"elasticsearch"}
	for _, i := range instances {
		components = append(components, "elasticsearch@"+i)
	}
	s := &stand{version: version, members: members, lab: servers(t, version, members, components...)}
	s.on = target(t, s.lab, "central")
	for _, i := range instances {
		on := target(t, s.lab, i)
		s.second = &on
	}
	return s
}

// TestConformance runs everything that one node is enough for, on each version.
func TestConformance(t *testing.T) {
	for i, v := range versions() {
		t.Run(v, func(t *testing.T) {
			var s *stand
			if i == 0 {
				s = begin(t, v, 1, "east")
			} else {
				s = begin(t, v, 1)
			}
			t.Run("suite", s.suite)
			t.Run("restore table", s.table)
			t.Run("reindex", s.reindex)
			t.Run("export", s.exported)
			t.Run("edges", s.edges)
		})
	}
}

func (s *stand) suite(t *testing.T) { s.conformance(t, s.on, s.second, false) }

// conformance runs the suite; plain: on what an export of documents can carry.
func (s *stand) conformance(t *testing.T, on plugins.Target, second *plugins.Target, plain bool) {
	client := func(t testing.TB, on plugins.Target) *api {
		a := client(t, on)
		a.plain = plain
		return a
	}
	client(t, on).forgetRuns()
	kills := 2
	if long() {
		kills = 8
	}
	plugintest.Run(t, plugintest.Harness{
		Plugin: elasticsearch.New(), Target: on, Second: second,
		Versions:    fmt.Sprintf("%s, %d nodes", s.version, s.members),
		Fill:        func(t testing.TB, on plugins.Target, seed int64) { client(t, on).fill(seed) },
		Clear:       func(t testing.TB, on plugins.Target) { client(t, on).clear() },
		Wreck:       func(t testing.TB, on plugins.Target, seed int64) { client(t, on).wreck(seed) },
		Fingerprint: func(t testing.TB, on plugins.Target) string { return client(t, on).fingerprint() },
		Position:    position,
		Writer:      writer,
		Invariant:   invariant,
		Large:       large,
		MemoryLimit: 96 << 20,
		Kills:       kills,
	})
}

// forgetRuns removes the claims of earlier runs: the suite counts its epochs from lower numbers than the tests beside it.
func (a *api) forgetRuns() {
	var list []map[string]string
	a.get("/_cat/indices?format=json&h=index&expand_wildcards=all", &list)
	for _, x := range list {
		if strings.HasPrefix(x["index"], ".cso-backup-claim") {
			a.do("DELETE", "/"+x["index"], nil)
		}
	}
}

// position is the uuid of every index and what was written into it.
func position(t testing.TB, on plugins.Target) string {
	var list []map[string]string
	a := client(t, on)
	a.get("/_cat/indices?format=json&h=index,uuid,status&expand_wildcards=all&s=index", &list)
	var b strings.Builder
	for _, x := range list {
		if !strings.HasPrefix(x["index"], ".cso-backup") && !strings.HasPrefix(x["index"], ".opendistro") {
			fmt.Fprintln(&b, x["index"], x["uuid"], x["status"])
		}
	}
	var st map[string]json.RawMessage
	a.get("/_stats?level=shards&expand_wildcards=open,hidden&filter_path=indices.*.shards.*.seq_no.max_seq_no,indices.*.shards.*.routing.primary", &st)
	idx := map[string]json.RawMessage{}
	_ = json.Unmarshal(st["indices"], &idx)
	for k := range idx {
		if strings.HasPrefix(k, ".cso-backup") || strings.HasPrefix(k, ".opendistro") {
			delete(idx, k)
		}
	}
	return b.String() + jsonText(idx)
}

// writer writes numbered documents one by one into an index of one shard: each is acknowledged before the next begins.
func writer(t testing.TB, on plugins.Target) (stop func()) {
	a := client(t, on)
	a.try("PUT", "/ledger", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0}}`)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			if code, _ := a.try("PUT", fmt.Sprintf("/ledger/_doc/%d", i), fmt.Sprintf(`{"i":%d}`, i)); code/100 != 2 {
				i = -1 // the index was taken away: begin anew
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	return func() { close(end); <-done }
}

// invariant: the numbers have no gap.
func invariant(t testing.TB, on plugins.Target) {
	a := client(t, on)
	a.do("POST", "/ledger/_refresh", nil)
	hits := a.hits("ledger")
	have := map[string]bool{}
	for _, h := range hits {
		id, _, _ := strings.Cut(h, "|")
		have[strings.Trim(id, `"`)] = true
	}
	for i := range hits {
		if !have[fmt.Sprint(i)] {
			t.Fatalf("torn: %d documents, and number %d is missing", len(hits), i)
		}
	}
}

// large adds 160 MB of text in 20,000 documents.
func large(t testing.TB, on plugins.Target) {
	a := client(t, on)
	a.do("PUT", "/large", `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0,"index.refresh_interval":"-1","index.translog.durability":"async"},"mappings":{"dynamic":false}}`)
	word := make([]byte, 8000)
	for i := range 40 {
		var b strings.Builder
		for k := range 500 {
			for n := range word {
				word[n] = 'a' + byte((i*31+k*17+n*n*7+n*k)%26)
			}
			fmt.Fprintf(&b, `{"index":{"_id":"%d-%d"}}`+"\n"+`{"t":"%s"}`+"\n", i, k, word)
		}
		a.do("POST", "/large/_bulk?filter_path=errors", b.String())
	}
}
