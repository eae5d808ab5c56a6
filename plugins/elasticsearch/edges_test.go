package elasticsearch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/elasticsearch"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// edges are single cases that need no particular content.
func (s *stand) edges(t *testing.T) {
	t.Run("acknowledged before the pin", s.acknowledged)
	t.Run("damaged file in path.repo", func(t *testing.T) { s.damaged(t, 0) })
	t.Run("damaged large file in path.repo", func(t *testing.T) { s.damaged(t, 1<<20) })
	if long() || s.version == versions()[0] {
		t.Run("large index", s.sampled)
	}
	if s.on.Members[0].Options["ca_file"] == "" {
		t.Run("pages", s.pages)
	}
	t.Run("health", s.health)
	t.Run("credentials", s.credentials)
	t.Run("first member unreachable", s.unreachable)
	if long() {
		t.Run("full disk", s.full)
	}
}

// acknowledged: what a server acknowledged before the pin was asked for is in the backup, whatever is written on.
func (s *stand) acknowledged(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/ledger", `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0}}`)
	ctx, stop := context.WithCancel(t.Context())
	var acked atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var b strings.Builder
			for i := range int64(20) {
				fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"n":1}`+"\n", acked.Load()+i)
			}
			if code, _ := a.try("POST", "/ledger/_bulk?filter_path=errors", b.String()); code != 200 {
				return
			}
			acked.Add(20)
		}
	}()
	ses := open(t, s.on)
	for acked.Load() < 200 {
		time.Sleep(10 * time.Millisecond)
	}
	r := run(t, plugins.OpBackup)
	before := acked.Load()
	pin, err := ses.(plugins.Pinner).Pin(t.Context(), r)
	if err == nil {
		time.Sleep(300 * time.Millisecond)
		m := plugintest.NewMemory()
		_, err = pin.Backup(t.Context(), r, m)
		after := acked.Load()
		stop()
		<-done
		must(t, errors.Join(err, pin.Release(t.Context())))
		restore(t, ses, m)
		a.do("POST", "/ledger/_refresh", nil)
		have := map[string]bool{}
		for _, h := range a.hits("ledger") {
			id, _, _ := strings.Cut(h, "|")
			have[strings.Trim(id, `"`)] = true
		}
		for i := range before {
			if !have[fmt.Sprint(i)] {
				t.Fatalf("document %d was acknowledged before the pin (%d were) and is not in the backup", i, before)
			}
		}
		if after == before || int64(len(have)) >= after {
			t.Errorf("nothing was written after the pin: %d before, %d after, %d in the backup", before, after, len(have))
		}
		return
	}
	stop()
	<-done
	t.Fatal(err)
}

// damaged: a segment that rots in path.repo after the snapshot is found by its own checksum before it counts as stored.
func (s *stand) damaged(t *testing.T, over int64) {
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/rot", one)
	noise := rand.New(rand.NewPCG(3, 4))
	for range 3 {
		var b strings.Builder
		for range 1000 {
			fmt.Fprintf(&b, `{"index":{}}`+"\n"+`{"t":"%x`, noise.Uint64())
			for i := int64(0); i < over/1000; i += 16 {
				fmt.Fprintf(&b, "%016x", noise.Uint64())
			}
			b.WriteString("\"}\n")
		}
		a.do("POST", "/rot/_bulk?filter_path=errors", b.String())
	}
	a.do("POST", "/rot/_forcemerge?max_num_segments=1", nil)
	ses := open(t, s.on)
	r := run(t, plugins.OpBackup)
	pin, err := ses.(plugins.Pinner).Pin(t.Context(), r)
	must(t, err)
	defer func() { must(t, pin.Release(t.Context())) }()
	dir := filepath.Join(s.on.Members[0].Options["repo_dir"], "cso-backup", pin.Info().ID)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if l, _ := filepath.Glob(filepath.Join(dir, "index-*")); len(l) > 0 || time.Now().After(deadline) {
			break
		}
	}
	var biggest string
	var size int64
	must(t, filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err == nil && strings.HasPrefix(fi.Name(), "__") && fi.Size() > size {
			biggest, size = p, fi.Size()
		}
		return err
	}))
	if size <= over {
		t.Fatalf("the largest file has %d bytes: nothing is tested", size)
	}
	content, err := os.ReadFile(biggest)
	must(t, err)
	content[len(content)/3] ^= 4
	must(t, os.WriteFile(biggest, content, 0o600))
	_, err = pin.Backup(t.Context(), r, plugintest.NewMemory())
	if !errors.Is(err, plugins.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(biggest)) {
		t.Errorf("%v, want ErrCorrupt and the name of the file", err)
	}
}

func (s *stand) health(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	ses := open(t, s.on)
	look := func(grade plugins.Grade, reason string) plugins.Health {
		t.Helper()
		h, err := ses.Health(t.Context())
		must(t, err)
		if h.Grade != grade || !strings.Contains(strings.Join(h.Reasons, "; "), reason) {
			t.Errorf("%s %q, want %s and %q", h.Grade, h.Reasons, grade, reason)
		}
		return h
	}
	if h := look(plugins.Green, ""); !h.Empty || h.Members != s.members || !strings.Contains(h.Version, s.version) {
		t.Errorf("%+v", h)
	}
	a.do("PUT", "/some", one)
	a.do("PUT", "/some/_doc/1?refresh=true", `{"n":1}`)
	if h := look(plugins.Green, ""); h.Empty || h.Estimate == 0 {
		t.Errorf("%+v", h)
	}
	set := func(path, key string, v any) func() {
		if path == "" {
			a.do("PUT", "/_cluster/settings", map[string]any{"transient": map[string]any{key: v}})
			return func() { a.do("PUT", "/_cluster/settings", map[string]any{"transient": map[string]any{key: nil}}) }
		}
		a.do("PUT", path+"/_settings", map[string]any{key: v})
		return func() { a.do("PUT", path+"/_settings", map[string]any{key: nil}) }
	}
	// The server's file says that disks do not count: the lab's does, or a machine with a full disk could not run it.
	undo := set("", "cluster.routing.allocation.disk.watermark.low", "0.0001")
	look(plugins.Green, "")
	undo()
	for _, c := range []struct {
		path, key string
		value     any
		grade     plugins.Grade
		reason    string
	}{
		{"", "cluster.blocks.read_only", true, plugins.Red, "the cluster is read-only"},
		{"", "cluster.blocks.read_only_allow_delete", true, plugins.Red, "the cluster is read-only"},
		{"/some", "index.blocks.read_only_allow_delete", true, plugins.Amber, "a disk was full: some"},
		{"/some", "index.number_of_replicas", 5, plugins.Amber, "shards have no node"},
	} {
		undo := set(c.path, c.key, c.value)
		look(c.grade, c.reason)
		undo()
	}
	// Watermarks as amounts that must stay free: no disk has an exabyte.
	on := set("", "cluster.routing.allocation.disk.threshold_enabled", true)
	for _, c := range []struct {
		low, high, flood string
		grade            plugins.Grade
		reason           string
	}{
		{"900000tb", "1b", "1b", plugins.Amber, "no more shards are placed there"},
		{"900000tb", "900000tb", "900000tb", plugins.Red, "indices become read-only"},
		{"0.0001", "1.0", "1.0", plugins.Amber, "no more shards are placed there"},
	} {
		p := "cluster.routing.allocation.disk.watermark."
		a.do("PUT", "/_cluster/settings", map[string]any{"transient": map[string]any{p + "low": c.low, p + "high": c.high, p + "flood_stage": c.flood}})
		look(c.grade, c.reason)
		a.do("PUT", "/_cluster/settings", map[string]any{"transient": map[string]any{p + "low": nil, p + "high": nil, p + "flood_stage": nil}})
	}
	on()
	a.clear()
}

// credentials: what a server that demands them answers is told apart. Where the lab's server has no security of its own, one
// that checks an API key and TLS stands before it (simulated; the real plugin has no API keys).
func (s *stand) credentials(t *testing.T) {
	if s.on.Members[0].Options["ca_file"] != "" {
		s.secured(t)
		return
	}
	password := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(password, []byte("id:s3cret\n"), 0o600))
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if r.Header.Get("Authorization") != "ApiKey aWQ6czNjcmV0" && (user != "ann" || pass != "id:s3cret") {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"type":"security_exception","reason":"missing authentication credentials"},"status":401}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		req, err := http.NewRequestWithContext(r.Context(), r.Method, s.on.Members[0].Address+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", r.Header.Get("Content-Type"))
		if len(body) == 0 {
			req.Header.Del("Content-Type")
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	t.Cleanup(func() { front.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pemOf(front.Certificate().Raw), 0o600))
	with := func(opts map[string]string) plugins.Target {
		on := s.on
		on.Members = slices.Clone(on.Members)
		opts["repo_dir"] = on.Members[0].Options["repo_dir"]
		on.Members[0].Address, on.Members[0].Options = front.URL, opts
		return on
	}
	for _, c := range []struct {
		name string
		opts map[string]string
		want error
	}{
		{"API key", map[string]string{"api_key_file": password, "ca_file": ca}, nil},
		{"user and password", map[string]string{"user": "ann", "password_file": password, "ca_file": ca}, nil},
		{"wrong user", map[string]string{"user": "bob", "password_file": password, "ca_file": ca}, plugins.ErrAuth},
		{"none", map[string]string{"ca_file": ca}, plugins.ErrAuth},
		{"unknown CA", map[string]string{"api_key_file": password}, plugins.ErrConfig},
		{"no such CA file", map[string]string{"ca_file": ca + "x"}, plugins.ErrConfig},
	} {
		opens(t, c.name, with(c.opts), c.want)
	}
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/some", one)
	ses := open(t, with(map[string]string{"api_key_file": password, "ca_file": ca}))
	m, _ := backup(t, ses)
	a.do("DELETE", "/some", nil)
	restore(t, ses, m)
}

func opens(t *testing.T, name string, on plugins.Target, want error) {
	t.Helper()
	ses, err := elasticsearch.New().Open(t.Context(), on)
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", name, err, want)
	}
	if err == nil {
		must(t, ses.Close())
	} else if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "aWQ6") {
		t.Errorf("%s: the error shows the secret: %v", name, err)
	}
}

// secured: on the real security plugin.
func (s *stand) secured(t *testing.T) {
	own := s.on.Members[0].Options
	with := func(opts map[string]string) plugins.Target {
		on := s.on
		on.Members = slices.Clone(on.Members)
		opts["repo_dir"] = own["repo_dir"]
		for i := range on.Members {
			on.Members[i].Options = opts
		}
		return on
	}
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(t, os.WriteFile(wrong, []byte("s3cret"), 0o600))
	for _, c := range []struct {
		name string
		opts map[string]string
		want error
	}{
		{"password", map[string]string{"user": own["user"], "password_file": own["password_file"], "ca_file": own["ca_file"]}, nil},
		{"client certificate", map[string]string{"client_cert_file": own["client_cert_file"], "client_key_file": own["client_key_file"], "ca_file": own["ca_file"]}, nil},
		{"wrong password", map[string]string{"user": own["user"], "password_file": wrong, "ca_file": own["ca_file"]}, plugins.ErrAuth},
		{"no credentials", map[string]string{"ca_file": own["ca_file"]}, plugins.ErrAuth},
		{"unknown CA", map[string]string{"user": own["user"], "password_file": own["password_file"]}, plugins.ErrConfig},
	} {
		opens(t, c.name, with(c.opts), c.want)
	}
	// The administrator by password, who may not touch the security's own index.
	ses := open(t, with(map[string]string{"user": own["user"], "password_file": own["password_file"], "ca_file": own["ca_file"]}))
	a := client(t, s.on)
	a.fill(77)
	m, _ := backup(t, ses)
	want := a.fingerprint()
	if a.streams() {
		a.do("DELETE", "/_data_stream/logs-app", nil)
		before := a.fingerprint()
		if _, err := ses.Restore(t.Context(), run(t, plugins.OpRestore), m); !errors.Is(err, plugins.ErrAuth) || !strings.Contains(err.Error(), "logs-app") {
			t.Errorf("a data stream restored by a user: %v, want ErrAuth", err)
		}
		same(t, before, a.fingerprint())
		restore(t, open(t, s.on), m) // by the certificate
		same(t, want, a.fingerprint())
	}
	a.do("PUT", "/devices/_doc/late?refresh=true", `{"n":1}`)
	a.do("DELETE", "/family", nil)
	restore(t, ses, m)
	same(t, want, a.fingerprint())
	r := run(t, plugins.OpReindex)
	r.Options = map[string]string{"index": "devices"}
	_, err := ses.(plugins.Reindexer).Reindex(t.Context(), r)
	must(t, err)
}

// unreachable: another member answers.
func (s *stand) unreachable(t *testing.T) {
	on := s.on
	dead := on.Members[0]
	dead.Name, dead.Address = "dead", "http://127.0.0.1:1"
	on.Members = append([]plugins.Member{dead}, on.Members...)
	ses := open(t, on)
	h, err := ses.Health(t.Context())
	must(t, err)
	if b, _ := json.Marshal(h.Reasons); h.Grade == plugins.Green || !strings.Contains(string(b), "members are there") {
		t.Errorf("a member is missing: %+v", h)
	}
}
