package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// What a write can run into.
var (
	ErrKeyExists = errors.New("unique constraint violated")
	ErrNotFound  = errors.New("document not found")
)

// UniqueError says which index refused a document.
type UniqueError struct {
	Index *value.Object
	Key   string // of the document that is in the way
}

func (e *UniqueError) Error() string {
	return fmt.Sprintf("unique constraint violated - in index %s of type %s over %s; conflicting key: %s",
		e.Index.String("name"), e.Index.String("type"), value.JSON(e.Index.Get("fields")), e.Key)
}

func (e *UniqueError) Unwrap() error { return ErrKeyExists }

func revBytes(rev uint64) []byte { return binary.BigEndian.AppendUint64(nil, rev) }

func (tx *Tx) shard(id string) *bolt.Bucket { return tx.b.Bucket([]byte("shard:" + id)) }

// find answers the shard and revision of a key.
func (tx *Tx) find(c *Collection, key string) (*bolt.Bucket, string, []byte) {
	shards := c.Shards()
	if c.byKey() {
		shards = []string{c.ShardOf(value.New("_key", key))}
	}
	for _, s := range shards {
		b := tx.shard(s)
		if b == nil {
			continue
		}
		if rev := b.Bucket([]byte("keys")).Get([]byte(key)); rev != nil {
			return b, s, rev
		}
	}
	return nil, "", nil
}

// Get answers a document as stored (without _id), nil when there is none. The
// bytes are valid until the transaction ends.
func (tx *Tx) Get(c *Collection, key string) []byte {
	if tx.overlay != nil {
		if doc, ok := tx.overlay.get(c.ID(), key); ok {
			return doc
		}
	}
	b, _, rev := tx.find(c, key)
	if b == nil {
		return nil
	}
	return b.Bucket([]byte("docs")).Get(rev)
}

// Put stores a document under its _rev. replace tells whether the key must exist or must not.
func (tx *Tx) Put(c *Collection, doc *value.Object, replace bool) error {
	key := doc.String("_key")
	rev, err := DecodeRevision(doc.String("_rev"))
	if err != nil {
		return err
	}
	if exists := tx.Get(c, key) != nil; exists != replace {
		if replace {
			return ErrNotFound
		}
		return &UniqueError{Index: value.New("name", "primary", "type", "primary", "fields", value.Strings("_key")), Key: key}
	}
	if tx.overlay != nil {
		tx.overlay.set(c.ID(), key, value.JSON(doc))
		return nil
	}
	if replace {
		if err := tx.remove(c, key); err != nil {
			return err
		}
	}
	b := tx.shard(c.ShardOf(doc))
	if b == nil {
		return fmt.Errorf("shard %s of %s is missing", c.ShardOf(doc), c.Name())
	}
	docs := b.Bucket([]byte("docs"))
	if docs.Get(revBytes(rev)) != nil {
		return fmt.Errorf("revision %s exists in this shard: %w", doc.String("_rev"), ErrKeyExists)
	}
	for _, i := range c.Indexes() {
		if maintained(i) {
			if err := tx.indexPut(b, i, doc, rev); err != nil {
				return err
			}
		}
	}
	must(docs.Put(revBytes(rev), value.JSON(doc)))
	must(b.Bucket([]byte("keys")).Put([]byte(key), revBytes(rev)))
	tx.addCount(b, 1)
	return nil
}

// Delete removes a document.
func (tx *Tx) Delete(c *Collection, key string) error {
	if tx.overlay != nil {
		if tx.Get(c, key) == nil {
			return ErrNotFound
		}
		tx.overlay.set(c.ID(), key, nil)
		return nil
	}
	return tx.remove(c, key)
}

func (tx *Tx) remove(c *Collection, key string) error {
	b, _, rev := tx.find(c, key)
	if b == nil {
		return ErrNotFound
	}
	rev = append([]byte(nil), rev...)
	docs := b.Bucket([]byte("docs"))
	for _, i := range c.Indexes() {
		if maintained(i) {
			tx.indexDelete(b, i, value.MustObject(docs.Get(rev)), rev)
		}
	}
	must(docs.Delete(rev))
	must(b.Bucket([]byte("keys")).Delete([]byte(key)))
	tx.addCount(b, -1)
	return nil
}

func (tx *Tx) addCount(b *bolt.Bucket, n int64) {
	count := shardCount(b) + n
	must(b.Put([]byte("count"), binary.BigEndian.AppendUint64(nil, uint64(count))))
}

func shardCount(b *bolt.Bucket) int64 {
	if v := b.Get([]byte("count")); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// Count answers the number of documents per shard.
func (tx *Tx) Count(c *Collection) map[string]int64 {
	out := map[string]int64{}
	for _, s := range c.Shards() {
		out[s] = 0
		if b := tx.shard(s); b != nil {
			out[s] = shardCount(b)
		}
	}
	return out
}

// Total is the number of documents in all shards.
func (tx *Tx) Total(c *Collection) int64 {
	var n int64
	for _, k := range tx.Count(c) {
		n += k
	}
	if tx.overlay != nil {
		n += tx.overlay.delta(tx, c)
	}
	return n
}

// Scan goes through the documents of one shard in the order of their revision,
// from a revision on, until f answers false. The bytes are valid until the transaction ends.
func (tx *Tx) Scan(shard string, from uint64, f func(rev uint64, doc []byte) bool) {
	b := tx.shard(shard)
	if b == nil {
		return
	}
	cur := b.Bucket([]byte("docs")).Cursor()
	for k, v := cur.Seek(revBytes(from)); k != nil; k, v = cur.Next() {
		if !f(binary.BigEndian.Uint64(k), v) {
			return
		}
	}
}

// Each goes through all documents of the collection, a stream transaction's writes included.
func (tx *Tx) Each(c *Collection, f func(doc []byte) bool) {
	more := true
	for _, s := range c.Shards() {
		tx.Scan(s, 0, func(_ uint64, doc []byte) bool {
			if tx.overlay != nil {
				if changed, ok := tx.overlay.get(c.ID(), KeyOf(doc)); ok {
					if changed != nil {
						more = f(changed)
					}
					return more
				}
			}
			more = f(doc)
			return more
		})
		if !more {
			return
		}
	}
	if tx.overlay != nil {
		tx.overlay.added(tx, c, f)
	}
}

// Document answers the document with a given revision in a shard, nil when there is none.
func (tx *Tx) Document(shard string, rev uint64) []byte {
	if b := tx.shard(shard); b != nil {
		return b.Bucket([]byte("docs")).Get(revBytes(rev))
	}
	return nil
}

// LastRevision is the highest revision in the collection, 0 when it is empty.
func (tx *Tx) LastRevision(c *Collection) uint64 {
	var last uint64
	for _, s := range c.Shards() {
		if b := tx.shard(s); b != nil {
			if k, _ := b.Bucket([]byte("docs")).Cursor().Last(); k != nil {
				last = max(last, binary.BigEndian.Uint64(k))
			}
		}
	}
	return last
}

// keyPrefix is how every stored document begins; keys need no escaping.
const keyPrefix = `{"_key":"`

// KeyOf reads the key off a stored document.
func KeyOf(doc []byte) string {
	for i := len(keyPrefix); i < len(doc); i++ {
		if doc[i] == '"' {
			return string(doc[len(keyPrefix):i])
		}
	}
	panic("stored document without a key")
}

// AppendWithID writes a stored document as users see it: _id stands behind _key.
func AppendWithID(b []byte, collection string, doc []byte) []byte {
	key := KeyOf(doc)
	end := len(keyPrefix) + len(key) + 1
	b = append(b, doc[:end]...)
	b = append(b, `,"_id":`...)
	b = value.Append(b, collection+"/"+key)
	return append(b, doc[end:]...)
}

// WithID reads a stored document as users see it.
func WithID(collection string, doc []byte) *value.Object {
	return value.MustObject(AppendWithID(nil, collection, doc))
}
