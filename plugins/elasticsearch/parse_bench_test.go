package elasticsearch

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// BenchmarkPage reads and digests a page of 4000 documents of 1 kB: what this program costs beside the server.
func BenchmarkPage(b *testing.B) {
	var page bytes.Buffer
	page.WriteString(`{"_scroll_id":"abc","took":3,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},"hits":{"total":{"value":4000,"relation":"eq"},"max_score":null,"hits":[`)
	text := strings.Repeat("some words of text ", 50)
	for i := range 4000 {
		if i > 0 {
			page.WriteByte(',')
		}
		fmt.Fprintf(&page, `{"_index":"bulk","_type":"_doc","_id":"%d","_version":1,"_seq_no":%d,"_primary_term":1,"_score":null,"_source":{"name":"doc %d","n":%d,"text":"%s"},"sort":[%d]}`, i, i, i, i*i, text, i)
	}
	page.WriteString(`]}}`)
	b.SetBytes(int64(page.Len()))
	for b.Loop() {
		var d plugins.Digest
		n := 0
		sc := &scroll{total: -1, each: func(h *hit) error { h.digestOf(&d, true); return nil }}
		if err := sc.read(newStream(bytes.NewReader(page.Bytes())), &n); err != nil || n != 4000 || d.Records != 4000 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/doc")
}
