package store

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Only what changes what a server answers is kept: unique indexes refuse
// documents and ttl indexes end them. The others are definitions.

func maintained(index *value.Object) bool { return isUnique(index) || index.String("type") == "ttl" }

func isUnique(index *value.Object) bool {
	switch index.String("type") {
	case "primary", "edge":
		return false
	}
	return index.Bool("unique", false)
}

func indexBucket(index *value.Object) []byte { return []byte("ix:" + index.String("id")) }

// BuildIndex fills a new index from the documents that exist; a violated uniqueness is an error.
func (tx *Tx) BuildIndex(c *Collection, index *value.Object) error {
	if !maintained(index) {
		return nil
	}
	for _, s := range c.Shards() {
		b := tx.shard(s)
		if _, err := b.CreateBucketIfNotExists(indexBucket(index)); err != nil {
			return err
		}
		var failed error
		tx.Scan(s, 0, func(rev uint64, doc []byte) bool {
			failed = tx.indexPut(b, index, value.MustObject(doc), rev)
			return failed == nil
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

// DropIndex removes an index's own data.
func (tx *Tx) DropIndex(c *Collection, index *value.Object) {
	for _, s := range c.Shards() {
		if b := tx.shard(s); b != nil && b.Bucket(indexBucket(index)) != nil {
			must(b.DeleteBucket(indexBucket(index)))
		}
	}
}

func (tx *Tx) indexPut(b *bolt.Bucket, index, doc *value.Object, rev uint64) error {
	ix, err := b.CreateBucketIfNotExists(indexBucket(index))
	if err != nil {
		return err
	}
	if index.String("type") == "ttl" {
		if at, ok := expiry(index, doc); ok {
			must(ix.Put(binary.BigEndian.AppendUint64(timeKey(at), rev), nil))
		}
		return nil
	}
	own := map[string]bool{}
	for _, entry := range entries(index, doc) {
		holder := ix.Get(entry)
		repeated := own[string(entry)]
		if repeated && index.Bool("deduplicate", true) {
			continue
		}
		if holder != nil && binary.BigEndian.Uint64(holder) != rev || repeated {
			key := doc.String("_key")
			if holder != nil {
				if other := b.Bucket([]byte("docs")).Get(holder); other != nil {
					key = KeyOf(other)
				}
			}
			return &UniqueError{Index: index, Key: key}
		}
		own[string(entry)] = true
		must(ix.Put(entry, revBytes(rev)))
	}
	return nil
}

func (tx *Tx) indexDelete(b *bolt.Bucket, index, doc *value.Object, rev []byte) {
	ix := b.Bucket(indexBucket(index))
	if ix == nil {
		return
	}
	if index.String("type") == "ttl" {
		if at, ok := expiry(index, doc); ok {
			must(ix.Delete(append(timeKey(at), rev...)))
		}
		return
	}
	for _, entry := range entries(index, doc) {
		must(ix.Delete(entry))
	}
}

// entries are the values a document stands under: one, or one per element of an expanded array (tags[*]).
func entries(index, doc *value.Object) [][]byte {
	rows := [][]any{nil}
	sparse := index.Bool("sparse", false)
	for _, field := range value.StringList(index.Get("fields")) {
		path, rest, expanded := strings.Cut(field, "[*]")
		v := value.Path(doc, strings.Split(path, ".")...)
		values := []any{v}
		if expanded {
			values, _ = v.([]any)
			if rest = strings.TrimPrefix(rest, "."); rest != "" {
				for i := range values {
					values[i] = value.Path(values[i], strings.Split(rest, ".")...)
				}
			}
		}
		var next [][]any
		for _, row := range rows {
			for _, v := range values {
				if v == nil && sparse {
					continue
				}
				next = append(next, append(append([]any(nil), row...), v))
			}
		}
		rows = next
	}
	var out [][]byte
	for _, row := range rows {
		out = append(out, value.JSON(row))
	}
	return out
}

// expiry is when a ttl index ends the document: a numeric attribute is seconds since 1970, a string a date.
func expiry(index, doc *value.Object) (float64, bool) {
	field := value.StringList(index.Get("fields"))[0]
	after := float64(index.Int("expireAfter", 0))
	switch v := value.Path(doc, strings.Split(field, ".")...).(type) {
	case string:
		at, err := time.Parse(time.RFC3339, v)
		return float64(at.UnixMilli())/1000 + after, err == nil
	case int64, float64, uint64:
		f, _ := value.Float(v)
		return f + after, true
	}
	return 0, false
}

// timeKey orders expiries, negative ones first.
func timeKey(at float64) []byte {
	bits := math.Float64bits(at)
	if at < 0 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	return binary.BigEndian.AppendUint64(nil, bits)
}

// Expired lists the keys that a ttl index ends by the given time.
func (tx *Tx) Expired(c *Collection, index *value.Object, now time.Time) []string {
	var keys []string
	end := timeKey(float64(now.UnixMilli()) / 1000)
	for _, s := range c.Shards() {
		b := tx.shard(s)
		if b == nil || b.Bucket(indexBucket(index)) == nil {
			continue
		}
		cur := b.Bucket(indexBucket(index)).Cursor()
		for k, _ := cur.First(); k != nil && string(k[:8]) <= string(end); k, _ = cur.Next() {
			if doc := b.Bucket([]byte("docs")).Get(k[8:]); doc != nil {
				keys = append(keys, KeyOf(doc))
			}
		}
	}
	return keys
}
