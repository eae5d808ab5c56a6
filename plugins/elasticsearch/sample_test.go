package elasticsearch_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// many fills an index with more documents than are read one by one.
func (a *api) many(name string, except int) {
	a.t.Helper()
	a.do("PUT", "/"+name, `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0,"index.refresh_interval":"-1","index.translog.durability":"async"},"mappings":{"dynamic":false}}`)
	for from := 0; from < 102_000; from += 17_000 {
		var b strings.Builder
		for i := range 17_000 {
			n := from + i
			if n == except {
				n = -1
			}
			fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"n":%d}`+"\n", from+i, n)
		}
		a.do("POST", "/"+name+"/_bulk?filter_path=errors", b.String())
	}
	a.do("POST", "/"+name+"/_refresh", nil)
}

// sampled: of a large index all sequence numbers and a sample are compared; whatever differs elsewhere shows, too,
// because nothing but the very index of the backup passes for it.
func (s *stand) sampled(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.many("large", -1)
	ses := open(t, withSamples(s.on))
	m, rep := backup(t, ses)
	if !strings.Contains(rep.Consistency, "a sample: large") {
		t.Errorf("the report does not say that a sample was taken: %q", rep.Consistency)
	}
	want := a.fingerprint()
	differs := func(what string) {
		t.Helper()
		d, err := ses.Compare(t.Context(), run(t, plugins.OpInspect), m)
		must(t, err)
		if !slices.ContainsFunc(d, func(d plugins.Difference) bool { return d.Artifact == "documents/large" }) {
			t.Errorf("%s: not seen: %+v", what, d)
		}
		if rep := restore(t, ses, m); rep.Artifacts != 1 {
			t.Errorf("%s: %+v", what, rep)
		}
		same(t, want, a.fingerprint())
		if rep := restore(t, ses, m); rep.Artifacts != 0 || rep.Unchanged != 1 {
			t.Errorf("%s, restored again: %+v", what, rep)
		}
	}
	ids := []string{"59999"}
	if long() {
		ids = []string{"0", "59999", "99999"}
	}
	for _, id := range ids {
		a.do("PUT", "/large/_doc/"+id+"?refresh=true", `{"n":-1}`)
		differs("document " + id + " changed")
	}
	a.do("DELETE", "/large/_doc/70001?refresh=true", nil)
	differs("a document deleted")
	a.do("DELETE", "/large", nil)
	a.many("large", 77_777)
	d, err := ses.Compare(t.Context(), run(t, plugins.OpInspect), m)
	must(t, err)
	if len(d) == 0 {
		t.Error("an index made anew, with one other document, passes for that of the backup")
	}
	restore(t, ses, m)
	same(t, want, a.fingerprint())

	// The live digest is the recorded one, and by default every document is read.
	live, err := ses.Digest(t.Context(), run(t, plugins.OpInspect))
	must(t, err)
	every := plugintest.NewMemory()
	all := open(t, s.on)
	_, err = all.Backup(t.Context(), run(t, plugins.OpBackup), every)
	must(t, err)
	for _, x := range m.Artifacts() {
		if !x.Volatile && live[x.Name] != x.Digest {
			t.Errorf("%s: live %s, in the backup %s", x.Name, live[x.Name], x.Digest)
		}
	}
	for _, x := range every.Artifacts() {
		if i := slices.IndexFunc(m.Artifacts(), func(o plugins.ArtifactInfo) bool { return o.Name == x.Name }); x.Name == "documents/large" && m.Artifacts()[i].Digest == x.Digest {
			t.Error("by default no more than a sample is read")
		}
	}
	a.do("PUT", "/large/_doc/59999?refresh=true", `{"n":-1}`)
	restore(t, all, every)
	same(t, want, a.fingerprint())
	a.clear()
}

// withSamples is the instance with large indices sampled.
func withSamples(on plugins.Target) plugins.Target {
	on.Members = slices.Clone(on.Members)
	for i, m := range on.Members {
		opts := map[string]string{"digest": "sample"}
		for k, v := range m.Options {
			opts[k] = v
		}
		on.Members[i].Options = opts
	}
	return on
}
