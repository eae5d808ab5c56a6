package elasticsearch_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/elasticsearch"
)

// wire is a TCP proxy that dies once the client has sent so many stretches: what was sent before has
// reached the server, what comes later has not, and no answer comes back.
type wire struct {
	l    net.Listener
	to   string
	left atomic.Int64
	mu   sync.Mutex
	open []net.Conn
}

func newWire(t testing.TB, on plugins.Target, after int64) (*wire, plugins.Target) {
	t.Helper()
	u, err := url.Parse(on.Members[0].Address)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &wire{l: l, to: u.Host}
	w.left.Store(after)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(c)
		}
	}()
	t.Cleanup(w.die)
	out := on
	out.Members = slices.Clone(on.Members)
	out.Members[0].Address = u.Scheme + "://" + l.Addr().String()
	return w, out
}

func (w *wire) die() {
	w.l.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		c.Close()
	}
}

func (w *wire) serve(c net.Conn) {
	s, err := net.Dial("tcp", w.to)
	if err != nil {
		c.Close()
		return
	}
	w.mu.Lock()
	w.open = append(w.open, c)
	w.mu.Unlock()
	go func() { _, _ = io.Copy(c, s); c.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if w.left.Add(-1) < 0 {
				w.die()
				break
			}
			if _, err := s.Write(buf[:n]); err != nil {
				break
			}
			if w.left.Load() == 0 {
				w.die()
				break
			}
		}
		if err != nil {
			break
		}
	}
	time.Sleep(2 * time.Second) // the server goes on with what it was sent
	s.Close()
}

// docs are ids, routing, versions and sources of an index: what a rebuilt index must hold too.
func (a *api) docs(name string) string {
	a.do("POST", "/"+url.PathEscape(name)+"/_refresh", nil)
	var out []string
	for _, h := range a.hits(name) {
		f := strings.SplitN(h, "|", 6)
		out = append(out, strings.Join([]string{f[0], f[1], f[2], f[5]}, "|"))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// shape is the definition of an index without what every new index gets anew.
func (a *api) shape(name string) string {
	all := map[string]map[string]any{}
	a.get("/"+url.PathEscape(name)+"?flat_settings=true", &all)
	d, ok := all[name]
	if !ok {
		a.t.Fatalf("%s is no index of its own", name)
	}
	set := d["settings"].(map[string]any)
	for k, v := range set {
		for _, p := range []string{"index.uuid", "index.history", "index.version", "index.resize", "index.creation", "index.provided", "index.routing.allocation.initial", "index.routing_partition"} {
			if strings.HasPrefix(k, p) || v == nil {
				delete(set, k)
			}
		}
	}
	return jsonText(d)
}

func (s *stand) reindex(t *testing.T) {
	t.Run("everything", s.reindexAll)
	t.Run("patterns and refusals", s.reindexSome)
	t.Run("under writers", s.reindexWritten)
	t.Run("killed at any point", s.reindexKilled)
}

func (s *stand) reindexAll(t *testing.T) {
	a := client(t, s.on)
	a.fill(7)
	names := []string{"devices", "family", "types", "blocked", "empty", "old-1", "events-1", ".app-hidden"}
	if _, ok := a.indices()["questions"]; ok {
		names = append(names, "questions")
	}
	docs, shape, uuid := map[string]string{}, map[string]string{}, map[string]string{}
	for _, n := range names {
		docs[n], shape[n], uuid[n] = a.docs(n), a.shape(n), a.uuid(n)
	}
	others := a.indices()
	ses := open(t, s.on)
	r := run(t, plugins.OpReindex)
	var mu sync.Mutex
	var last plugins.Status
	r.Progress = func(st plugins.Status) {
		mu.Lock()
		defer mu.Unlock()
		if st.Bytes < last.Bytes && st.Phase == last.Phase && st.Item == last.Item {
			t.Errorf("progress runs backwards: %+v after %+v", st, last)
		}
		last = st
	}
	rep, err := ses.(plugins.Reindexer).Reindex(t.Context(), r)
	must(t, err)
	if rep.Artifacts != len(names) || rep.Records < 120 {
		t.Errorf("report %+v", rep)
	}
	for _, n := range names {
		same(t, docs[n], a.docs(n))
		if now := a.shape(n); now != shape[n] {
			t.Errorf("%s was\n%s and is\n%s", n, shape[n], now)
		}
		if a.uuid(n) == uuid[n] {
			t.Errorf("%s was not rebuilt", n)
		}
	}
	for _, n := range []string{"nosource: it stores no _source", "excludes: its _source leaves out secret", "closed: it is closed"} {
		if !slices.ContainsFunc(rep.Warnings, func(w string) bool { return strings.Contains(w, strings.Replace(n, ":", " is not rebuilt:", 1)) }) {
			t.Errorf("no warning for %s: %q", n, rep.Warnings)
		}
	}
	a.nothingLeft(others)
	a.do("PUT", "/devices/_doc/writable", `{"n":1}`)
	if code, _ := a.try("PUT", "/blocked/_doc/x", `{"n":1}`); code != 403 {
		t.Errorf("an index that was blocked is not any more: %d", code)
	}
}

// nothingLeft: the indices are those of before, and no setting of a run remains.
func (a *api) nothingLeft(indices map[string]string) {
	a.t.Helper()
	if now := a.indices(); fmt.Sprint(now) != fmt.Sprint(indices) {
		a.t.Errorf("indices %v, were %v", now, indices)
	}
	var list []map[string]string
	a.get("/_cat/indices?format=json&h=index&expand_wildcards=all", &list)
	for _, x := range list {
		if strings.HasPrefix(x["index"], ".cso-backup-new") || x["index"] == ".tasks" {
			a.t.Errorf("%s is left", x["index"])
		}
	}
	set := map[string]map[string]any{}
	a.get("/_cluster/settings?flat_settings=true", &set)
	for _, k := range []string{"action.auto_create_index", "indices.recovery.max_bytes_per_sec", "cluster.routing.allocation.enable"} {
		if v, ok := set["transient"][k]; ok {
			a.t.Errorf("setting %s is left as %v", k, v)
		}
	}
	repos := map[string]any{}
	a.get("/_snapshot", &repos)
	for r := range repos {
		if strings.HasPrefix(r, "cso-backup") {
			a.t.Errorf("repository %s is left", r)
		}
	}
}

func (a *api) uuid(name string) string {
	all := map[string]struct {
		Settings map[string]any `json:"settings"`
	}{}
	a.get("/"+url.PathEscape(name)+"/_settings?flat_settings=true", &all)
	return fmt.Sprint(all[name].Settings["index.uuid"])
}

func (s *stand) reindexSome(t *testing.T) {
	a := client(t, s.on)
	a.fill(8)
	dev, fam := a.uuid("devices"), a.uuid("family")
	ses := open(t, s.on).(plugins.Reindexer)
	r := run(t, plugins.OpReindex)
	r.Options = map[string]string{"index": "fam*, empty"}
	rep, err := ses.Reindex(t.Context(), r)
	if must(t, err); rep.Artifacts != 2 || a.uuid("devices") != dev || a.uuid("family") == fam {
		t.Errorf("patterns: %+v", rep)
	}
	for pattern, want := range map[string]error{"nosource": plugins.ErrData, "nothing-such": plugins.ErrNotFound, "[": plugins.ErrConfig} {
		r := run(t, plugins.OpReindex)
		r.Options = map[string]string{"index": pattern}
		if _, err := ses.Reindex(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", pattern, err, want)
		}
	}
}

// reindexKilled kills after each number of stretches sent (or some of them), looks whether the index still
// serves, and lets a second run finish.
func (s *stand) reindexKilled(t *testing.T) {
	a := client(t, s.on)
	a.fill(9)
	others := a.indices()
	docs, shape := a.docs("devices"), a.shape("devices")
	died, step := 0, int64(1)
	switch {
	case long():
	case s.version == versions()[0]:
		step = 4
	default:
		step = 9
	}
	for n := int64(8); ; n += step {
		_, through := newWire(t, s.on, n)
		r := run(t, plugins.OpReindex)
		r.Options = map[string]string{"index": "devices"}
		ses, err := elasticsearch.New().Open(t.Context(), through)
		must(t, err)
		_, err = ses.(plugins.Reindexer).Reindex(t.Context(), r)
		ses.Close()
		if err == nil {
			if died < 3 {
				t.Fatalf("%d runs were killed: nothing was tested", died)
			}
			break
		}
		died++
		deadline := time.Now().Add(10 * time.Second)
		for {
			code, b := a.try("GET", "/devices/_count", nil)
			if code == 200 && strings.Contains(string(b), `"count":121`) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("killed after %d stretches: devices does not serve: %d %s", n, code, b)
			}
			time.Sleep(20 * time.Millisecond)
		}
		r = run(t, plugins.OpReindex)
		r.Options = map[string]string{"index": "devices"}
		rep, err := open(t, s.on).(plugins.Reindexer).Reindex(t.Context(), r)
		if err != nil || rep.Artifacts != 1 {
			t.Fatalf("killed after %d stretches, and the next run: %+v, %v", n, rep, err)
		}
		same(t, docs, a.docs("devices"))
		if now := a.shape("devices"); now != shape {
			t.Fatalf("killed after %d stretches: devices was\n%s and is\n%s", n, shape, now)
		}
		a.nothingLeft(others)
	}
	t.Logf("killed %d times", died)
}

// reindexWritten: what a writer was told is stored is in the rebuilt index, whenever its writes came; while
// the index is rebuilt they are refused.
func (s *stand) reindexWritten(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/busy", `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0},"aliases":{"way":{}}}`)
	var mu sync.Mutex
	acked := map[string]bool{}
	refused := 0
	end := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d", w, i)
				code, _ := a.try("PUT", "/"+[]string{"busy", "way", "busy"}[w]+"/_doc/"+id, `{"n":1}`)
				mu.Lock()
				if code/100 == 2 {
					acked[id] = true
				} else {
					refused++
				}
				mu.Unlock()
			}
		})
	}
	ses := open(t, s.on).(plugins.Reindexer)
	for range 4 {
		time.Sleep(150 * time.Millisecond)
		r := run(t, plugins.OpReindex)
		r.Options = map[string]string{"index": "busy"}
		if _, err := ses.Reindex(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	close(end)
	writers.Wait()
	a.do("POST", "/busy/_refresh", nil)
	have := map[string]bool{}
	for _, h := range a.hits("busy") {
		id, _, _ := strings.Cut(h, "|")
		have[strings.Trim(id, `"`)] = true
	}
	for id := range acked {
		if !have[id] {
			t.Fatalf("document %s was acknowledged and is gone (%d were, %d are there)", id, len(acked), len(have))
		}
	}
	if refused == 0 || len(acked) == 0 {
		t.Errorf("%d writes acknowledged, %d refused: nothing was tested", len(acked), refused)
	}
}
