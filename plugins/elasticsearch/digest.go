package elasticsearch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// scrollLife is how long the server keeps a scroll that nobody reads, as after a crash of this program.
const scrollLife = "1h"

// hit is one document as the server shows it. The slices are valid until the next one is read.
type hit struct {
	ID, Routing []byte // as in the JSON answer, without the quotes; Routing nil when there is none
	Version     []byte // decimal
	SeqNo       []byte
	Source      []byte // nil when the index stores none
}

// digestOf adds the document. With seq, its sequence number counts too: a snapshot keeps it, an export cannot.
func (h *hit) digestOf(d *plugins.Digest, seq bool) {
	s := sha256.New()
	for _, p := range [][]byte{h.ID, h.Routing, h.Version} {
		s.Write(p)
		s.Write([]byte{0})
	}
	if seq {
		s.Write(h.SeqNo)
		s.Write([]byte{0})
	}
	if h.Source != nil {
		s.Write([]byte{1})
		s.Write(h.Source)
	}
	d.AddHash([sha256.Size]byte(s.Sum(nil)))
}

func (h *hit) parse(b []byte) error {
	*h = hit{}
	return members(b, func(name, value []byte) error {
		switch string(name) {
		case "_id":
			h.ID = unquoted(value)
		case "_routing":
			h.Routing = unquoted(value)
		case "_version":
			h.Version = value
		case "_seq_no":
			h.SeqNo = value
		case "_source":
			h.Source = value
		}
		return nil
	})
}

func unquoted(b []byte) []byte {
	if len(b) >= 2 && b[0] == '"' {
		return b[1 : len(b)-1]
	}
	return b
}

// scroll is an open view of one shard. PIT is not used: without _shard_doc, which not every server
// has, it loses documents at page edges (measured).
type scroll struct {
	s     *session
	c     *client // that asks: see near
	id    string
	total int64
	seen  int64
	done  bool
	each  func(*hit) error
}

// stretch is a part of a shard, by sequence numbers: several can be read at once. Both ends 0: the whole shard.
type stretch struct {
	shard    int
	from, to int64 // from included, to excluded; 0: no limit
	sample   bool  // only a sample of it
}

// stretches cuts large shards so that there are at least as many parts as streams.
func (x *index) stretches(parallel int) []stretch {
	var out []stretch
	for _, k := range slices.Sorted(maps.Keys(x.Shards)) {
		n := int64(1)
		if sh := x.Shards[k]; x.Primaries < parallel {
			n = min(int64(parallel+x.Primaries-1)/int64(x.Primaries), sh.Docs/largeShard, sh.MaxNo)
		}
		if n < 2 {
			out = append(out, stretch{shard: k})
			continue
		}
		for i := range n {
			part := stretch{shard: k, from: x.Shards[k].MaxNo * i / n, to: x.Shards[k].MaxNo * (i + 1) / n}
			if i == n-1 {
				part.to = 0
			}
			out = append(out, part)
		}
	}
	return out
}

// largeShard is how many documents make a part worth a stream of its own.
const largeShard = 10_000

func (p stretch) query() string {
	if p.sample {
		return sampleQuery(p.to)
	}
	var limits []string
	if p.from > 0 {
		limits = append(limits, fmt.Sprintf(`"gte":%d`, p.from))
	}
	if p.to > 0 {
		limits = append(limits, fmt.Sprintf(`"lt":%d`, p.to))
	}
	if len(limits) == 0 {
		return `{"match_all":{}}`
	}
	return `{"range":{"_seq_no":{` + strings.Join(limits, ",") + `}}}`
}

// scrollShard opens a view of a shard, or of a part of it, and reads its first page.
func (s *session) scrollShard(ctx context.Context, x *index, part stretch, each func(*hit) error) (*scroll, error) {
	sc := &scroll{s: s, c: s.near(ctx, x, part.shard), each: each, total: -1}
	size, err := s.pageSize(ctx, x, part.shard)
	if err != nil {
		return sc, err
	}
	path := fmt.Sprintf("/%s/_search?scroll=%s&preference=%s", esc(x.Name), scrollLife, onShard(part.shard))
	body := fmt.Sprintf(`{"size":%d,"sort":["_doc"],"version":true,"seq_no_primary_term":true,"query":%s}`, size, part.query())
	return sc, sc.page(ctx, path, body)
}

// rest reads all further pages, proves the count, and closes the view.
func (sc *scroll) rest(ctx context.Context) error {
	for !sc.done {
		id, _ := json.Marshal(sc.id)
		if err := sc.page(ctx, "/_search/scroll", fmt.Sprintf(`{"scroll":%q,"scroll_id":%s}`, scrollLife, id)); err != nil {
			return err
		}
	}
	if sc.seen != sc.total {
		return fmt.Errorf("%s: the server counted %d documents and gave %d: %w: try again, and check the shard if it repeats", sc.s.target, sc.total, sc.seen, plugins.ErrData)
	}
	sc.end(ctx)
	return nil
}

// end lets go of the view; safe to call twice.
func (sc *scroll) end(ctx context.Context) {
	if sc.id != "" {
		sc.s.endScrolls(ctx, []string{sc.id})
		sc.id = ""
	}
	sc.done = true
}

// endScrolls frees views, also after the end of ctx; what it does not reach, the server frees after scrollLife.
func (s *session) endScrolls(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	ctx, cancel := ending(ctx)
	defer cancel()
	_ = s.c.do(ctx, http.MethodDelete, "/_search/scroll", map[string]any{"scroll_id": ids}, nil)
}

func (sc *scroll) page(ctx context.Context, path, body string) error {
	r, err := sc.c.send(ctx, http.MethodPost, path, "application/json", []byte(body))
	if err != nil {
		return err
	}
	defer r.Close()
	n := 0
	if err := sc.read(newStream(r), &n); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: read documents: %w", sc.s.target, err)
	}
	if n == 0 {
		sc.done = true
	}
	return nil
}

func (sc *scroll) read(st *stream, n *int) error {
	var h hit
	return st.object(func(name string) error {
		switch name {
		case "hits":
			return st.object(func(name string) error {
				switch name {
				case "total":
					return sc.counted(st)
				case "hits":
					return st.array(func() error {
						b, err := st.value()
						if err != nil {
							return err
						}
						if err := h.parse(b); err != nil {
							return err
						}
						*n++
						sc.seen++
						return sc.each(&h)
					})
				}
				_, err := st.value()
				return err
			})
		case "_scroll_id":
			b, err := st.value()
			if err == nil {
				err = json.Unmarshal(b, &sc.id)
			}
			return err
		case "timed_out":
			b, err := st.value()
			if err == nil && !bytes.Equal(b, []byte("false")) {
				err = fmt.Errorf("the search timed out: %w", plugins.ErrUnavailable)
			}
			return err
		case "_shards":
			b, err := st.value()
			if err != nil {
				return err
			}
			var sh struct {
				Total, Successful, Failed int
				Failures                  []struct {
					Reason struct{ Type, Reason string }
				}
			}
			if err := json.Unmarshal(b, &sh); err != nil {
				return err
			}
			if sh.Failed > 0 || sh.Successful != sh.Total || sh.Total == 0 {
				why := "no shard answered"
				if len(sh.Failures) > 0 {
					why = limit(sh.Failures[0].Reason.Type+": "+sh.Failures[0].Reason.Reason, 300)
				}
				return fmt.Errorf("%d of %d shards answered (%s): %w", sh.Successful, sh.Total, why, plugins.ErrUnavailable)
			}
			return nil
		}
		_, err := st.value()
		return err
	})
}

// counted reads hits.total, which is an object since 7.0.
func (sc *scroll) counted(st *stream) error {
	b, err := st.value()
	if err != nil {
		return err
	}
	var t struct{ Value int64 }
	if json.Unmarshal(b, &t) != nil {
		if t.Value, err = strconv.ParseInt(string(b), 10, 64); err != nil {
			return fmt.Errorf("%w: hits.total", errJSON)
		}
	}
	if sc.total < 0 {
		sc.total = t.Value
	}
	return nil
}
