package elasticsearch_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/elasticsearch"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

func TestMain(m *testing.M) { plugintest.Main(m, elasticsearch.New()) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// servers starts real servers, which end with the test.
func servers(t testing.TB, version string, members int, components ...string) *lab.Lab {
	t.Helper()
	if len(components) == 0 {
		components = []string{"elasticsearch"}
	}
	o := lab.Options{Components: components, Members: members, ServersOnly: true, Out: os.Stderr}
	if version != "" {
		o.Versions = map[string]string{"elasticsearch": version}
	}
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		dir, err := os.MkdirTemp("/dev/shm", "cso-es-")
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		o.Dir = filepath.Join(dir, "lab")
	}
	l, err := lab.Start(context.Background(), o)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.Logs())
		}
		must(t, l.Down(context.Background()))
	})
	return l
}

// target is an instance of the lab as the estate file names it.
func target(t testing.TB, l *lab.Lab, instance string) plugins.Target {
	t.Helper()
	ms, err := l.Members("elasticsearch", instance)
	must(t, err)
	out := plugins.Target{Component: "elasticsearch", Instance: instance}
	for _, m := range ms {
		addr, opts, err := l.Target(m.Name)
		must(t, err)
		out.Members = append(out.Members, plugins.Member{Name: m.Name, VM: "vm", Address: addr, Options: opts})
	}
	return out
}

// api is a foreign client: plain HTTP, no code of the plugin. On a server with security it shows the
// administrator's certificate.
type api struct {
	t    testing.TB
	base string
	http *http.Client
	// plain: only what an export of documents can carry is filled in and looked at.
	plain bool
}

func client(t testing.TB, on plugins.Target) *api {
	t.Helper()
	m := on.Members[0]
	tr := &http.Transport{DisableKeepAlives: true}
	if f := m.Options["ca_file"]; f != "" {
		pem, err := os.ReadFile(f)
		must(t, err)
		tr.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		tr.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
		if cert := m.Options["client_cert_file"]; cert != "" {
			pair, err := tls.LoadX509KeyPair(cert, m.Options["client_key_file"])
			must(t, err)
			tr.TLSClientConfig.Certificates = []tls.Certificate{pair}
		}
	}
	return &api{t: t, base: m.Address, http: &http.Client{Timeout: time.Minute, Transport: tr}}
}

// try sends a request; body is text, or what JSON is made of.
func (a *api) try(method, path string, body any) (int, []byte) {
	var in []byte
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case string:
		in = []byte(b)
		if strings.Contains(path, "_bulk") {
			kind = "application/x-ndjson"
		}
	default:
		var err error
		in, err = json.Marshal(b)
		must(a.t, err)
	}
	req, err := http.NewRequest(method, a.base+path, bytes.NewReader(in))
	must(a.t, err)
	if len(in) > 0 {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, b
}

// do demands success.
func (a *api) do(method, path string, body any) []byte {
	a.t.Helper()
	code, b := a.try(method, path, body)
	if code/100 != 2 || bytes.Contains(b, []byte(`"errors":true`)) {
		a.t.Fatalf("%s %s: %d %.600s", method, path, code, b)
	}
	return b
}

func (a *api) get(path string, out any) {
	a.t.Helper()
	b := a.do("GET", path, nil)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	must(a.t, dec.Decode(out))
}

// streams says whether the server knows data streams.
func (a *api) streams() bool { code, _ := a.try("GET", "/_data_stream", nil); return code == 200 }

func (a *api) indices() map[string]string {
	var list []map[string]string
	a.get("/_cat/indices?format=json&h=index,status&expand_wildcards=all", &list)
	out := map[string]string{}
	for _, x := range list {
		if !strings.HasPrefix(x["index"], ".cso-backup") && x["index"] != ".tasks" && !strings.HasPrefix(x["index"], ".opendistro") {
			out[x["index"]] = x["status"]
		}
	}
	return out
}

// clear leaves no user data.
func (a *api) clear() {
	a.t.Helper()
	if a.streams() {
		a.do("DELETE", "/_data_stream/*", nil)
	}
	for n := range a.indices() {
		if code, _ := a.try("DELETE", "/"+url.PathEscape(n), nil); code == 403 {
			a.do("PUT", "/"+url.PathEscape(n)+"/_settings", `{"index.blocks.read_only":null}`)
			a.do("DELETE", "/"+url.PathEscape(n), nil)
		}
	}
	for _, p := range []string{"/_index_template/*", "/_template/*"} {
		a.try("DELETE", p, nil)
	}
	a.try("DELETE", "/_component_template/*", nil)
	a.try("DELETE", "/_ingest/pipeline/*", nil)
	for _, id := range a.scripts() {
		a.do("DELETE", "/_scripts/"+id, nil)
	}
	set := map[string]map[string]any{}
	a.get("/_cluster/settings?flat_settings=true", &set)
	for kind, m := range set {
		for k := range m {
			a.do("PUT", "/_cluster/settings", map[string]any{kind: map[string]any{k: nil}})
		}
	}
}

func (a *api) scripts() []string {
	var cs struct {
		Metadata struct {
			Scripts map[string]any `json:"stored_scripts"`
		} `json:"metadata"`
	}
	a.get("/_cluster/state/metadata?filter_path=metadata.stored_scripts", &cs)
	var out []string
	for k := range cs.Metadata.Scripts {
		out = append(out, k)
	}
	return out
}

// fingerprint is all content and definitions as text.
func (a *api) fingerprint() string {
	a.t.Helper()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	a.do("POST", "/_all/_refresh?expand_wildcards=open,hidden", nil)
	all := map[string]map[string]any{}
	a.get("/_all?expand_wildcards=all&flat_settings=true", &all)
	for name, status := range a.indices() {
		d := all[name]
		settings, _ := d["settings"].(map[string]any)
		for k := range settings {
			if k == "index.uuid" || k == "index.history.uuid" || strings.HasPrefix(k, "index.version") || k == "index.verified_before_close" || strings.HasPrefix(k, "index.resize") {
				delete(settings, k)
			}
			if a.plain && (k == "index.creation_date" || k == "index.provided_name") {
				delete(settings, k)
			}
		}
		add("index %s %s %s", name, status, jsonText(d))
		if status == "close" {
			continue
		}
		for _, h := range a.hits(name) {
			if a.plain {
				f := strings.SplitN(h, "|", 6)
				h = strings.Join([]string{f[0], f[1], f[2], f[5]}, "|")
			}
			add("doc %s %s", name, h)
		}
	}
	for _, p := range []string{"/_template", "/_component_template", "/_index_template", "/_ingest/pipeline", "/_cluster/settings", "/_data_stream"} {
		code, b := a.try("GET", p, nil)
		if code != 200 {
			continue
		}
		var v map[string]any
		must(a.t, json.Unmarshal(b, &v))
		for k, x := range v {
			if l, ok := x.([]any); ok {
				for _, e := range l {
					m := e.(map[string]any)
					delete(m, "status")
					for _, i := range asList(m["indices"]) {
						delete(i.(map[string]any), "index_uuid")
					}
					add("object %s %s", p, jsonText(m))
				}
				continue
			}
			add("object %s %s %s", p, k, jsonText(x))
		}
	}
	for _, id := range a.scripts() {
		add("script %s %s", id, a.do("GET", "/_scripts/"+id, nil))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func asList(v any) []any { l, _ := v.([]any); return l }

func jsonText(v any) string { b, _ := json.Marshal(v); return string(b) }

// hits are all documents of an index, with everything a restore must bring back.
func (a *api) hits(name string) []string {
	a.t.Helper()
	type page struct {
		ID   string `json:"_scroll_id"`
		Hits struct {
			Hits []map[string]json.RawMessage `json:"hits"`
		} `json:"hits"`
	}
	var p page
	const ask = `{"size":%d,"version":true,"seq_no_primary_term":true,"sort":["_doc"]}`
	path := "/" + url.PathEscape(name) + "/_search?scroll=1m"
	code, b := a.try("POST", path, fmt.Sprintf(ask, 5000))
	if code/100 != 2 { // more than index.max_result_window allows
		b = a.do("POST", path, fmt.Sprintf(ask, 100))
	}
	must(a.t, json.Unmarshal(b, &p))
	var out []string
	for len(p.Hits.Hits) > 0 {
		for _, h := range p.Hits.Hits {
			out = append(out, fmt.Sprintf("%s|%s|%s|%s|%s|%s", h["_id"], h["_routing"], h["_version"], h["_seq_no"], h["_primary_term"], h["_source"]))
		}
		next := a.do("POST", "/_search/scroll", map[string]any{"scroll": "1m", "scroll_id": p.ID})
		p = page{}
		must(a.t, json.Unmarshal(next, &p))
	}
	a.try("DELETE", "/_search/scroll", map[string]any{"scroll_id": []string{p.ID}})
	return out
}

// open opens a session that ends with the test.
func open(t testing.TB, on plugins.Target) plugins.Session {
	t.Helper()
	s, err := elasticsearch.New().Open(t.Context(), on)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

var epoch = struct {
	sync.Mutex
	n uint64
}{n: uint64(time.Now().Unix()) << 1}

func run(t testing.TB, op plugins.Operation) plugins.Run {
	t.Helper()
	epoch.Lock()
	defer epoch.Unlock()
	epoch.n++
	return plugins.Run{Epoch: epoch.n, Operation: op, Backup: "T/2026-01-02T03-04-05Z", Attempt: fmt.Sprint(epoch.n), Parallel: 4, Scratch: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func backup(t testing.TB, s plugins.Session) (*plugintest.Memory, plugins.Report) {
	t.Helper()
	m := plugintest.NewMemory()
	rep, err := s.Backup(t.Context(), run(t, plugins.OpBackup), m)
	must(t, err)
	return m, rep
}

// restore restores and demands equality.
func restore(t testing.TB, s plugins.Session, m *plugintest.Memory) plugins.Report {
	t.Helper()
	r := run(t, plugins.OpRestore)
	rep, err := s.Restore(t.Context(), r, m)
	must(t, err)
	d, err := s.Compare(t.Context(), r, m)
	must(t, err)
	if len(d) > 0 {
		t.Fatalf("after the restore: %+v", d)
	}
	return rep
}

// same fails with the first lines that differ.
func same(t testing.TB, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	missing := func(lines, in, what string) {
		have := map[string]bool{}
		for l := range strings.Lines(in) {
			have[strings.TrimSuffix(l, "\n")] = true
		}
		n := 0
		for l := range strings.Lines(lines) {
			if l = strings.TrimSuffix(l, "\n"); !have[l] && n < 5 {
				t.Errorf("%s: %.400s", what, l)
				n++
			}
		}
	}
	missing(want, got, "missing")
	missing(got, want, "extra")
	t.Fatal("fingerprints differ")
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
