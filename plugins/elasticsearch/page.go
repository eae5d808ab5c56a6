package elasticsearch

import (
	"context"
	"fmt"
)

const (
	pageLimit = 4 << 20 // bytes of a page: the fastest
	maxPage   = 4000    // documents of a page
	minPage   = 10
)

// pageSize is how many documents of a shard come at once: about as many as fill a page, never more than the index allows.
// What they take on the disk says little: documents that resemble each other shrink to a hundredth, and a page of them by
// that measure would be hundreds of megabytes. Some are asked for their size.
func (s *session) pageSize(ctx context.Context, x *index, shard int) (int, error) {
	page, err := s.pageBytes(ctx)
	if err != nil {
		return 0, err
	}
	size, sh := int64(100), x.Shards[shard]
	if sh.Docs > 0 {
		each := max(1, sh.Bytes/sh.Docs)
		if sh.Bytes > page/32 { // a smaller shard fits a page, or a few if it is shrunk beyond measure
			raw, err := s.sourceBytes(ctx, x, shard, page)
			if err != nil {
				return 0, err
			}
			each = max(each, raw)
		}
		size = max(minPage, min(maxPage, page/each))
	}
	return int(x.within(size)), nil
}

// within limits a number of documents to what the index allows.
func (x *index) within(n int64) int64 {
	if x.Window > 0 {
		return min(n, int64(x.Window))
	}
	return n
}

// sourceBytes is the mean size of some documents of a shard; few are asked first, in case they are very large.
func (s *session) sourceBytes(ctx context.Context, x *index, shard int, page int64) (int64, error) {
	sh := x.Shards[shard]
	var mean int64
	for _, n := range []int64{2, 32} {
		var sum int64
		sc := &scroll{s: s, member: s.near(ctx, x, shard), total: -1, each: func(h *hit) error { sum += int64(len(h.Source)); return nil }}
		path := fmt.Sprintf("/%s/_search?preference=%s", esc(x.Name), onShard(shard))
		width := max(1, sh.MaxNo/sh.Docs) // about one document, if numbers are gone
		if err := sc.page(ctx, path, fmt.Sprintf(`{"size":%d,"sort":["_doc"],"track_total_hits":false,"query":%s}`, x.within(n), spread(sh.MaxNo, n, width))); err != nil {
			return 0, err
		}
		if sc.seen > 0 {
			mean = max(mean, sum/sc.seen)
		}
		if mean*32 > page {
			break
		}
	}
	return mean, nil
}

// pageBytes is how much a page may hold, by the smallest heap of a node. A node that answers for others holds each page
// several times: four pages are to take a tenth of it at most.
func (s *session) pageBytes(ctx context.Context) (int64, error) {
	if p := s.page.Load(); p > 0 {
		return p, nil
	}
	var ns struct {
		Nodes map[string]struct {
			JVM struct {
				Mem struct {
					Heap int64 `json:"heap_max_in_bytes"`
				} `json:"mem"`
			} `json:"jvm"`
		} `json:"nodes"`
	}
	if err := s.c.get(ctx, "/_nodes/jvm?filter_path=nodes.*.jvm.mem.heap_max_in_bytes", &ns); err != nil {
		return 0, err
	}
	page := int64(pageLimit)
	for _, n := range ns.Nodes {
		if n.JVM.Mem.Heap > 0 {
			page = min(page, max(pageLimit/16, n.JVM.Mem.Heap/256))
		}
	}
	s.page.Store(page)
	return page, nil
}
