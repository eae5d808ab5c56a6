package elasticsearch_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// pages: documents that resemble each other take a hundredth of their size on the disk; a page of them stays as small as any.
// The servers must speak plain HTTP, so that a proxy can measure it.
func (s *stand) pages(t *testing.T) {
	const docs, bytesEach = 3000, 20_000
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/alike", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"mappings":{"dynamic":false}}`)
	text := strings.Repeat("all work and no play ", bytesEach/21)
	for from := 0; from < docs; from += 100 {
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"t":"%s"}`+"\n", from+i, text)
		}
		a.do("POST", "/alike/_bulk?filter_path=errors", b.String())
	}
	a.do("POST", "/alike/_forcemerge?max_num_segments=1&flush=true", nil)

	server, err := url.Parse(s.on.Members[0].Address)
	must(t, err)
	var largest, read atomic.Int64
	through := httputil.NewSingleHostReverseProxy(server)
	through.ModifyResponse = func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if n := int64(len(body)); strings.Contains(r.Request.URL.Path, "_search") {
			read.Add(n)
			for old := largest.Load(); n > old && !largest.CompareAndSwap(old, n); old = largest.Load() {
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		return nil
	}
	front := httptest.NewServer(through)
	defer front.Close()
	on := s.on
	on.Members = slices.Clone(on.Members)
	on.Members[0].Address = front.URL
	_, err = open(t, on).Digest(t.Context(), run(t, plugins.OpInspect))
	must(t, err)
	if read.Load() < docs*bytesEach*9/10 {
		t.Errorf("%d bytes were read of %d: the largest page says nothing", read.Load(), docs*bytesEach)
	}
	if largest.Load() > 6<<20 {
		t.Errorf("a page of %d MiB", largest.Load()>>20)
	}
	a.clear()
}
