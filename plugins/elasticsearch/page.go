package elasticsearch

import (
	"context"
	"fmt"
)

const (
	pageLimit = 4 << 20 // bytes of a page: the fastest
	maxPage   = 4000    // documents of a page
	skew      = 4       // so many times pageLimit a page may hold where documents are as large as the largest that was seen
	skewed    = 10      // documents of a page at least, however large a single one is
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
		mean, most := max(1, sh.Bytes/sh.Docs), int64(1)
		if sh.Bytes > page/32 { // a smaller shard fits a page, or a few if it is shrunk beyond measure
			raw, largest, err := s.sourceBytes(ctx, x, shard, page)
			if err != nil {
				return 0, err
			}
			mean, most = max(mean, raw), max(most, largest)
		}
		size = max(1, min(maxPage, page/mean, max(skewed, skew*page/most)))
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

// sourceBytes is the mean size of some documents at even distances in a shard, and the size of the largest of them: large
// ones that came together are seen when they are one in a hundred. Few are asked first, in case all are very large.
func (s *session) sourceBytes(ctx context.Context, x *index, shard int, page int64) (mean, most int64, err error) {
	sh := x.Shards[shard]
	width := max(1, sh.MaxNo/sh.Docs) // about one document, if numbers are gone
	path := fmt.Sprintf("/%s/_search?preference=%s", esc(x.Name), onShard(shard))
	for _, n := range []int64{2, 16, 128} {
		if mean*n > page {
			break
		}
		var sum int64
		sc := &scroll{s: s, c: s.near(ctx, x, shard), total: -1, each: func(h *hit) error {
			sum += int64(len(h.Source))
			most = max(most, int64(len(h.Source)))
			return nil
		}}
		if err := sc.page(ctx, path, fmt.Sprintf(`{"size":%d,"sort":["_doc"],"track_total_hits":false,"query":%s}`, x.within(n), spread(sh.MaxNo, n, width))); err != nil {
			return 0, 0, err
		}
		if sc.seen > 0 {
			mean = max(mean, sum/sc.seen)
		}
	}
	return mean, most, nil
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
