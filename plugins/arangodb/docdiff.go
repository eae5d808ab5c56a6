package arangodb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// change is one document that differs. Its slices are valid until emit returns.
type change struct {
	how       byte // '+' missing, '~' changed, '-' extra: of the live data
	key, body []byte
}

// lookahead is how many live records are held while the digest of a stored piece is computed.
const lookahead = 200_000

// liveRecords reads the keys of a live collection in order, with the hash of each record.
type liveRecords struct {
	st     *stream
	queue  []liveRecord
	eof    bool
	digest plugins.Digest // of everything
}

type liveRecord struct {
	key  []byte
	hash [sha256.Size]byte
}

// readLive reads a live collection; what is held of it is small, whatever its documents are.
func (v *view) readLive(ctx context.Context, db string, c *collection, run plugins.Run) (*liveRecords, error) {
	l := &liveRecords{}
	var mu sync.Mutex
	st, err := v.read(ctx, db, c, run, func(d document) ([]byte, error) {
		h := plugins.RecordHash(d.key, d.body)
		mu.Lock()
		defer mu.Unlock()
		l.digest.AddHash(h)
		return h[:], nil
	})
	l.st = st
	return l, err
}

func (l *liveRecords) close() {
	if l != nil && l.st != nil {
		l.st.close()
	}
}

// peek is the next record, or nil.
func (l *liveRecords) peek() (*liveRecord, error) {
	if len(l.queue) == 0 && !l.eof {
		if err := l.fetch(); err != nil {
			return nil, err
		}
	}
	if len(l.queue) == 0 {
		return nil, nil
	}
	return &l.queue[0], nil
}

func (l *liveRecords) fetch() error {
	k, h, err := l.st.read()
	if errors.Is(err, io.EOF) {
		l.eof = true
		return nil
	}
	if err == nil {
		l.queue = append(l.queue, liveRecord{bytes.Clone(k), [sha256.Size]byte(h)})
	}
	return err
}

func (l *liveRecords) drop() { l.queue = l.queue[1:] }

// until computes the digest of the records up to a key, included; false: they are too many to look at in advance.
func (l *liveRecords) until(last []byte) (d plugins.Digest, n int, ok bool, err error) {
	for ; ; n++ {
		if n == len(l.queue) && !l.eof {
			if n >= lookahead {
				return d, n, false, nil
			}
			if err := l.fetch(); err != nil {
				return d, n, false, err
			}
		}
		if n == len(l.queue) || bytes.Compare(l.queue[n].key, last) > 0 {
			return d, n, true, nil
		}
		d.AddHash(l.queue[n].hash)
	}
}

// diffDocuments says where a live collection (nil: there is none) differs from the artifact (nil: there is none).
// Pieces of the backup that are equal are not opened.
func diffDocuments(ctx context.Context, live *liveRecords, a *plugins.ArtifactInfo, r plugins.ArtifactReader, emit func(change) error) error {
	if live == nil {
		live = &liveRecords{eof: true}
	}
	if a == nil {
		return live.extra(nil, emit)
	}
	if live.digest == a.Digest {
		return nil
	}
	pieces, err := r.Pieces(ctx, a.Name)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", a.Name, err)
	}
	for i, p := range pieces {
		d, n, ok, err := live.until(p.Last)
		if err != nil {
			return err
		}
		if ok && d == p.Digest {
			live.queue = live.queue[n:]
			continue
		}
		if err := diffPiece(ctx, live, a.Name, i, p.Last, r, emit); err != nil {
			return err
		}
	}
	return live.extra(nil, emit)
}

// extra emits what is left up to a key (nil: all) as extra.
func (l *liveRecords) extra(last []byte, emit func(change) error) error {
	for {
		p, err := l.peek()
		if err != nil || p == nil || last != nil && bytes.Compare(p.key, last) > 0 {
			return err
		}
		if err := emit(change{how: '-', key: p.key}); err != nil {
			return err
		}
		l.drop()
	}
}

func diffPiece(ctx context.Context, live *liveRecords, name string, i int, last []byte, r plugins.ArtifactReader, emit func(change) error) error {
	rd, err := r.OpenPieces(ctx, name, i, i+1)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", name, err)
	}
	defer rd.Close()
	for {
		key, body, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return live.extra(last, emit)
		}
		if err != nil {
			return fmt.Errorf("artifact %s: %w", name, err)
		}
		for {
			p, err := live.peek()
			if err != nil {
				return err
			}
			c := 1
			if p != nil {
				c = bytes.Compare(p.key, key)
			}
			if c < 0 {
				if err := emit(change{how: '-', key: p.key}); err != nil {
					return err
				}
				live.drop()
				continue
			}
			if c > 0 {
				err = emit(change{'+', key, body})
			} else {
				if p.hash != plugins.RecordHash(key, body) {
					err = emit(change{'~', key, body})
				}
				live.drop()
			}
			if err != nil {
				return err
			}
			break
		}
	}
}

// expiry is a TTL index: https://docs.arango.ai/arangodb/stable/indexes-and-search/indexing/working-with-indexes/ttl-indexes/.
type expiry struct {
	path  []string
	after time.Duration
}

// expiries are the TTL indexes of a collection.
func (c *collection) expiries() []expiry {
	var out []expiry
	for _, b := range c.indexes {
		o, err := parseObject(b)
		if err != nil || o.str("type") != "ttl" {
			continue
		}
		n, _ := o["expireAfter"].(json.Number)
		secs, err := n.Float64()
		fields, _ := o["fields"].([]any)
		if err != nil || len(fields) != 1 {
			continue
		}
		if f, ok := fields[0].(string); ok {
			out = append(out, expiry{strings.Split(f, "."), time.Duration(secs * float64(time.Second))})
		}
	}
	return out
}

// lapsed says whether a document has expired: a number is seconds since 1970, a string a date.
func lapsed(body []byte, es []expiry, now time.Time) bool {
	if len(es) == 0 {
		return false
	}
	doc, err := parseObject(body)
	if err != nil {
		return false
	}
	for _, e := range es {
		o := doc
		for _, p := range e.path[:len(e.path)-1] {
			o = o.sub(p)
		}
		var at time.Time
		switch x := o[e.path[len(e.path)-1]].(type) {
		case json.Number:
			f, err := x.Float64()
			if err != nil {
				continue
			}
			at = time.UnixMilli(int64(f * 1000))
		case string:
			for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02"} {
				if at, err = time.Parse(layout, x); err == nil {
					break
				}
			}
			if err != nil {
				continue
			}
		default:
			continue
		}
		if at.Add(e.after).Before(now) {
			return true
		}
	}
	return false
}
