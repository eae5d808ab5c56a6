package elasticsearch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// reading is how the documents of an index are looked at.
type reading int

const (
	readAll      reading = iota // id, routing, version, sequence number and _source of every document, by shard
	readPortable                // the same without sequence numbers, all shards together: what an export can carry
	readSample                  // the sequence numbers of all documents, and all of some documents
)

// sampledFrom is from how many documents on (Lucene's count) an index is sampled when the member option digest is "sample".
//
// A server shows 40,000 to 80,000 documents a second (measured, two cores), so that reading all of a large index takes
// several times as long as copying its files. Where that is too long, the files of a large index carry the
// proof instead: Lucene's checksum of each is verified before it is stored, and
// again by the server when it restores it. What a checksum cannot show is that
// these are the right files, all of them, and that they can be read: that is what the
// sequence numbers of all documents and the sample are for.
const sampledFrom = 100_000

// Of each shard, so many stretches of so many sequence numbers are read, at even distances.
const (
	sampleStretches = 16
	sampleWidth     = 500
)

// reading says how the documents of a live index are read for a snapshot's proof.
func (s *session) reading(x *index) reading {
	var docs int64
	for _, sh := range x.Shards {
		docs += sh.Docs
	}
	if docs < sampledFrom || s.self.Options["digest"] != "sample" || x.Closed {
		return readAll
	}
	return readSample
}

// sampled says whether the backup holds a sample only. Two indices of which one sample is equal need not be equal: the index
// must be known to be the very one, or to have been restored from it.
func (d *described) sampled() bool {
	for k := range d.documents {
		if strings.HasPrefix(k, sampleKey) {
			return true
		}
	}
	return false
}

// Keys of the records of an index's documents, before the shard's number.
const (
	shardKey    = "shard/"    // → digest of all documents
	sampleKey   = "sample/"   // → digest of some documents
	sequenceKey = "sequence/" // → number of documents and hash of their sequence numbers
)

func keyOf(kind string, shard int) string { return fmt.Sprintf("%s%05d", kind, shard) }

// parts cuts an index into what is read as one stream each.
func (x *index) parts(how reading, parallel int) []stretch {
	if how != readSample {
		return x.stretches(parallel)
	}
	var out []stretch
	for _, k := range slices.Sorted(maps.Keys(x.Shards)) {
		out = append(out, stretch{shard: k, sample: true, to: x.Shards[k].MaxNo + 1})
	}
	return out
}

// sampleQuery finds the documents of a sample among sequence numbers below end.
func sampleQuery(end int64) string { return spread(end, sampleStretches, sampleWidth) }

// spread finds the documents in n places of so many sequence numbers each, evenly below end.
func spread(end, n, width int64) string {
	var ranges []string
	for i := range n {
		from := end / n * i
		ranges = append(ranges, fmt.Sprintf(`{"range":{"_seq_no":{"gte":%d,"lt":%d}}}`, from, from+width))
	}
	return `{"bool":{"should":[` + strings.Join(ranges, ",") + `]}}`
}

// records are the outcome of reading an index's parts.
func records(how reading, parts []stretch, read []plugins.Digest) map[string][]byte {
	var all plugins.Digest
	sums := map[int]plugins.Digest{}
	for i, part := range parts {
		sum := sums[part.shard]
		sum.Merge(read[i])
		sums[part.shard] = sum
		all.Merge(read[i])
	}
	if how == readPortable { // an export does not say which shard a document goes to
		return map[string][]byte{"documents": []byte(all.String())}
	}
	kind := shardKey
	if how == readSample {
		kind = sampleKey
	}
	out := map[string][]byte{}
	for k, sum := range sums {
		out[keyOf(kind, k)] = []byte(sum.String())
	}
	return out
}

// digestIndex reads the documents of a live index. Of a closed one only its sequence numbers can be told.
func (s *session) digestIndex(ctx context.Context, run plugins.Run, x *index, how reading, progress func(int64)) (map[string][]byte, error) {
	if x.Closed {
		return map[string][]byte{"closed": []byte(x.position())}, nil
	}
	if !x.complete() {
		return nil, fmt.Errorf("%s: index %s: not all shards have a live copy: %w: bring the missing member back", s.target, x.Name, plugins.ErrUnavailable)
	}
	parts := x.parts(how, run.Parallel)
	read := make([]plugins.Digest, len(parts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for i, part := range parts {
		g.Go(func() error {
			sc, err := s.scrollShard(gctx, x, part, func(h *hit) error { h.digestOf(&read[i], how != readPortable); return nil })
			if err == nil {
				err = sc.rest(gctx)
			}
			sc.end(ctx)
			progress(read[i].Records)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("index %s: %w", x.Name, err)
	}
	recs := records(how, parts, read)
	if how == readSample {
		return recs, s.sequences(ctx, x, recs)
	}
	return recs, nil
}

// sequences adds, for each shard, how many documents there are and a hash of their sequence numbers: of each range of
// numbers, how many documents it holds and the sum of their numbers. The server reads them from
// doc values, tens of millions a second.
func (s *session) sequences(ctx context.Context, x *index, recs map[string][]byte) error {
	for _, k := range slices.Sorted(maps.Keys(x.Shards)) {
		// At most 256 ranges; sums stay below 2^53, which the server's floating point still holds exactly.
		width := max(65536, x.Shards[k].MaxNo/256+1)
		var a struct {
			TimedOut bool                            `json:"timed_out"`
			Shards   struct{ Total, Successful int } `json:"_shards"`
			Hits     struct {
				Total struct{ Value int64 }
			}
			Aggregations struct {
				Ranges struct {
					Buckets []struct {
						Key   json.Number
						Count int64 `json:"doc_count"`
						Sum   struct{ Value json.Number }
					}
				}
			}
		}
		body := fmt.Sprintf(`{"size":0,"track_total_hits":true,"aggs":{"ranges":{"histogram":{"field":"_seq_no","interval":%d,"min_doc_count":1},"aggs":{"sum":{"sum":{"field":"_seq_no"}}}}}}`, width)
		path := fmt.Sprintf("/%s/_search?request_cache=false&preference=_shards:%d", esc(x.Name), k)
		if err := s.c.post(ctx, path, json.RawMessage(body), &a); err != nil {
			return fmt.Errorf("index %s: sequence numbers of shard %d: %w", x.Name, k, err)
		}
		if a.TimedOut || a.Shards.Successful != a.Shards.Total || a.Shards.Total == 0 {
			return fmt.Errorf("%s: index %s: shard %d did not answer: %w: look at the cluster's health", s.target, x.Name, k, plugins.ErrUnavailable)
		}
		h := sha256.New()
		var docs int64
		for _, b := range a.Aggregations.Ranges.Buckets {
			docs += b.Count
			fmt.Fprintf(h, "%s %d %s\n", b.Key, b.Count, b.Sum.Value)
		}
		if docs != a.Hits.Total.Value {
			return fmt.Errorf("%s: index %s: shard %d holds %d documents, and %d of them have sequence numbers: %w: try again, and check the shard if it repeats",
				s.target, x.Name, k, a.Hits.Total.Value, docs, plugins.ErrData)
		}
		recs[keyOf(sequenceKey, k)] = fmt.Appendf(nil, "%d:%x", docs, h.Sum(nil))
	}
	return nil
}

// agree says whether a live sample is the one the backup recorded. A backup under writers may lack sequence numbers.
func agree(live, want map[string][]byte) bool {
	for k, v := range want {
		if string(live[k]) != string(v) {
			return false
		}
	}
	return true
}
