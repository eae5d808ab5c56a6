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
// Large ones that came together, one in a hundred, fill none beyond measure. The servers must speak plain HTTP, so that a proxy can measure it.
func (s *stand) pages(t *testing.T) {
	a := client(t, s.on)
	for _, c := range []struct {
		name         string
		docs, each   int
		large, size  int // documents of another size, one after the other in the middle
		read, allows int64
	}{
		{"alike", 3000, 20_000, 0, 0, 54 << 20, 6 << 20},
		{"some large", 24_000, 20, 240, 200_000, 45 << 20, 20 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.clear()
			a.do("PUT", "/paged", `{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0},"mappings":{"dynamic":false}}`)
			var b strings.Builder
			for i := range c.docs {
				size := c.each
				if i >= c.docs/2 && i < c.docs/2+c.large {
					size = c.size
				}
				fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"t":"%s"}`+"\n", i, strings.Repeat("all work and no play ", size/21+1))
				if b.Len() > 2<<20 || i == c.docs-1 {
					a.do("POST", "/paged/_bulk?filter_path=errors", b.String())
					b.Reset()
				}
			}
			a.do("POST", "/paged/_forcemerge?max_num_segments=1&flush=true", nil)
			read, largest := s.pagesOf(t)
			if read < c.read {
				t.Errorf("%d MiB were read of at least %d: the largest page says nothing", read>>20, c.read>>20)
			}
			if largest > c.allows {
				t.Errorf("a page of %d MiB", largest>>20)
			}
		})
	}
	a.clear()
}

// pagesOf reads all documents for a digest, and says how many bytes came and how many at most at once.
func (s *stand) pagesOf(t *testing.T) (sum, most int64) {
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
	return read.Load(), largest.Load()
}
