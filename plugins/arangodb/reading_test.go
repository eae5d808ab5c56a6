package arangodb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// count counts requests on a path, by a fault that delays by nothing.
func (w *world) count(t testing.TB, path string) (hits func() int) {
	t.Helper()
	w.control(t, "PUT", "faults", []fault{{"path": path, "kind": "delay", "count": -1}}, nil)
	return func() int {
		t.Helper()
		var now []struct{ Hits int }
		w.control(t, "GET", "faults", obj{}, &now)
		w.control(t, "PUT", "faults", []fault{}, nil)
		return now[0].Hits
	}
}

// TestSimulatedParallelDump: the interface for parallel dumps of 3.12 gives the same backup, also when answers break off.
func TestSimulatedParallelDump(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		largeOf(t, w.on, 10)
		plain := plugintest.NewMemory()
		_, err := backUp(t, w.on, plain)
		must(t, err)
		on := w.target(t, "central")
		for _, m := range on.Members {
			m.Options["dump"] = "parallel"
		}
		met := w.faults(t, fault{"path": "/_api/dump/next", "kind": "truncate", "skip": 2, "count": 2}, fault{"path": "/_api/dump/next", "kind": "status", "skip": 5, "count": 2})
		m := plugintest.NewMemory()
		rep, err := backUp(t, on, m)
		must(t, err)
		met()
		if d := cmp.Diff(digests(plain), digests(m)); d != "" {
			t.Errorf("the backup differs: %s", d)
		}
		if len(rep.Warnings) > 0 {
			t.Errorf("warnings: %q", rep.Warnings)
		}
	})
}

// TestSimulatedIncremental: unchanged collections are not read again by a backup, a plan or a restore.
func TestSimulatedIncremental(t *testing.T) {
	for _, cfg := range append([]server.Config{{Version: "3.8", Mode: "single"}}, modes...) {
		t.Run(fmt.Sprintf("simulated %s %s", cfg.Mode, cfg.Version), func(t *testing.T) {
			w := newWorld(t, cfg)
			a := foreign(t, w.on)
			defer a.close()
			count := func(do func()) int {
				hits := w.count(t, "/replication/dump")
				do()
				return hits()
			}
			next := plugintest.NewMemory().After(w.clean)
			full := count(func() { _, err := backUp(t, w.on, plugintest.NewMemory()); must(t, err) })
			none := count(func() { _, err := backUp(t, w.on, next); must(t, err) })
			a.do("POST", "shop", "/_api/document/customers?overwriteMode=replace", `{"_key":"c00000","mail":"new","age":1}`)
			third := plugintest.NewMemory().After(next)
			one := count(func() { _, err := backUp(t, w.on, third); must(t, err) })
			t.Logf("SIMULATED %s: requests for documents: full %d, nothing changed %d, one collection changed %d", cfg.Mode, full, none, one)
			if n := len(next.Reused()); n < 6 || none >= full {
				t.Errorf("unchanged: %d artifacts were not read, %d requests of %d", n, none, full)
			}
			if len(third.Reused()) != len(next.Reused())-1 || one >= full || one <= none {
				t.Errorf("one collection changed: %d artifacts not read before, %d after", len(next.Reused()), len(third.Reused()))
			}
			if d := cmp.Diff(digests(w.clean), digests(next)); d != "" {
				t.Errorf("the backup differs: %s", d)
			}
			changed := 0
			for n, d := range digests(third) {
				if digests(next)[n] != d {
					changed++
				}
			}
			if changed != 1 {
				t.Errorf("%d artifacts changed", changed)
			}
			// The collection that did change is put back, and nothing else is looked at.
			must(t, restore(t, w.on, w.clean))
			w.same(t)
		})
	}
}

// TestSimulatedIdentity: what is taken over from the last backup unread is only what the server vouches for: by revision id and count
// before and after the snapshot, and by revision tree or checksum.
func TestSimulatedIdentity(t *testing.T) {
	proof := map[string]string{"single": "/revisions/tree", "cluster": "/checksum"}
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		name := "documents/shop/parts"
		write := func() { // the same document again: only its revision is another
			a.do("POST", "shop", "/_api/document/parts?overwriteMode=replace", a.docs("shop", "parts")[0])
		}
		next := func(pinned func()) *plugintest.Memory {
			t.Helper()
			m := plugintest.NewMemory().After(w.clean)
			must(t, in(t, w.on, func(s plugins.Session) error {
				run := newRun(t, plugins.OpBackup)
				p, err := s.(plugins.Pinner).Pin(t.Context(), run)
				if err != nil {
					return err
				}
				pinned()
				_, err = p.Backup(t.Context(), run, m)
				return errors.Join(err, p.Release(t.Context()))
			}))
			if d := cmp.Diff(digests(w.clean), digests(m)); d != "" {
				t.Errorf("the backup differs: %s", d)
			}
			return m
		}
		if m := next(func() {}); !slices.Contains(m.Reused(), name) {
			t.Fatalf("unchanged and read again: %q are not", m.Reused())
		}
		met := w.faults(t, fault{"path": proof[w.cfg.Mode], "kind": "status", "status": 501, "count": -1})
		if m := next(func() {}); len(m.Reused()) > 0 {
			t.Errorf("without the server's word, taken over unread: %q", m.Reused())
		}
		met()
		all := len(next(func() {}).Reused())
		if m := next(write); slices.Contains(m.Reused(), name) || len(m.Reused()) != all-1 {
			t.Errorf("written after the snapshot was taken, taken over unread: %q", m.Reused())
		}
		if m := next(func() {}); slices.Contains(m.Reused(), name) || len(m.Reused()) != all-1 {
			t.Errorf("written before the snapshot was taken, taken over unread: %q", m.Reused())
		}
	})
}

// sizing counts what a backup hands over.
type sizing struct {
	plugins.ArtifactWriter
	bytes atomic.Int64
}

type sizingRecords struct {
	plugins.RecordWriter
	bytes *atomic.Int64
}

func (r sizingRecords) Put(key, value []byte) error {
	r.bytes.Add(int64(len(key) + len(value)))
	return r.RecordWriter.Put(key, value)
}

func (s *sizing) Create(ctx context.Context, a plugins.Artifact) (plugins.RecordWriter, error) {
	w, err := s.ArtifactWriter.Create(ctx, a)
	return sizingRecords{w, &s.bytes}, err
}

// BenchmarkSimulatedIncremental says what incremental reading saves: 160 MiB in one collection and a little in others.
func BenchmarkSimulatedIncremental(b *testing.B) {
	w := newWorld(b, modes[0])
	largeOf(b, w.on, 40)
	first := plugintest.NewMemory()
	report := func(name string, to *plugintest.Memory) {
		b.Run(name, func(b *testing.B) {
			var moved int64
			for b.Loop() {
				s := &sizing{ArtifactWriter: plugintest.NewMemory().After(first)}
				if name == "full" {
					s.ArtifactWriter = plugintest.NewMemory()
				}
				_, err := backUp(b, w.on, s)
				must(b, err)
				moved = s.bytes.Load()
			}
			b.ReportMetric(float64(moved)/(1<<20), "MiB/read")
		})
	}
	begin := time.Now()
	_, err := backUp(b, w.on, first)
	must(b, err)
	b.Logf("SIMULATED single server; first backup %s", time.Since(begin).Round(time.Millisecond))
	report("full", first)
	report("nothing changed", first)
	a := foreign(b, w.on)
	defer a.close()
	a.do("POST", "shop", "/_api/document/customers?overwriteMode=replace", `{"_key":"c00000","mail":"new","age":1}`)
	report("a small collection changed", first)
}
