package store

import (
	"fmt"
	"hash/crc32"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Collection is one collection's definition. Props hold every property under
// the server's own names, in the server's order; "indexes" and "shards" are
// among them: shards = {"s100": [leader, follower …]}, in-sync servers first.
// A single server has one shard, named as the collection's id.
type Collection struct {
	Database *Database
	Props    *value.Object
}

func collectionOf(d *Database, v []byte) *Collection {
	return &Collection{Database: d, Props: value.MustObject(v)}
}

// ID is the collection's own number.
func (c *Collection) ID() string { return c.Props.String("id") }

// Name is what users call it.
func (c *Collection) Name() string { return c.Props.String("name") }

// IsEdge tells edge collections from document collections.
func (c *Collection) IsEdge() bool { return c.Props.Int("type", 2) == 3 }

// IsSystem is true for collections of the server itself.
func (c *Collection) IsSystem() bool { return c.Props.Bool("isSystem", false) }

// Indexes are the definitions, the primary and edge index included.
func (c *Collection) Indexes() []*value.Object {
	var out []*value.Object
	for _, i := range c.Props.Array("indexes") {
		out = append(out, i.(*value.Object))
	}
	return out
}

// SetIndexes replaces the definitions; SaveCollection stores them.
func (c *Collection) SetIndexes(list []*value.Object) {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	c.Props.Set("indexes", out)
}

// Shards names the collection's shards, in order.
func (c *Collection) Shards() []string {
	shards := c.Props.Object("shards")
	if shards == nil || len(shards.Members) == 0 {
		return []string{c.ID()}
	}
	var out []string
	for _, m := range shards.Members {
		out = append(out, m.Name)
	}
	return out
}

// ShardOf answers which shard a document belongs to, by its shard keys.
func (c *Collection) ShardOf(doc *value.Object) string {
	shards := c.Shards()
	if len(shards) == 1 {
		return shards[0]
	}
	keys := value.StringList(c.Props.Get("shardKeys"))
	if len(keys) == 0 {
		keys = []string{"_key"}
	}
	var b []byte
	for _, k := range keys {
		b = value.Append(b, doc.Get(k))
	}
	return shards[crc32.ChecksumIEEE(b)%uint32(len(shards))]
}

// byKey tells whether a document's shard follows from its _key alone.
func (c *Collection) byKey() bool {
	keys := value.StringList(c.Props.Get("shardKeys"))
	return len(keys) == 0 || len(keys) == 1 && keys[0] == "_key"
}

// Collection answers a collection by name or by id, nil when there is none.
func (tx *Tx) Collection(d *Database, name string) *Collection {
	names, all := tx.sub(d.ID, "names"), tx.sub(d.ID, "collections")
	if names == nil {
		return nil
	}
	id := names.Get([]byte(name))
	if id == nil {
		id = []byte(name)
	}
	if v := all.Get(id); v != nil {
		return collectionOf(d, v)
	}
	return nil
}

// ShardCollection answers the collection that a shard belongs to, nil when there is none.
func (tx *Tx) ShardCollection(d *Database, shard string) *Collection {
	for _, c := range tx.Collections(d) {
		for _, s := range c.Shards() {
			if s == shard {
				return c
			}
		}
	}
	return nil
}

// CreateCollection stores a new collection with empty shards. Props must be complete.
func (tx *Tx) CreateCollection(d *Database, props *value.Object) (*Collection, error) {
	c := &Collection{Database: d, Props: props}
	if tx.Collection(d, c.Name()) != nil {
		return nil, fmt.Errorf("collection %s exists", c.Name())
	}
	for _, s := range c.Shards() {
		shard, err := tx.b.CreateBucket([]byte("shard:" + s))
		if err != nil {
			return nil, fmt.Errorf("make shard %s: %w", s, err)
		}
		for _, sub := range []string{"docs", "keys"} {
			if _, err := shard.CreateBucket([]byte(sub)); err != nil {
				return nil, fmt.Errorf("make shard %s: %w", s, err)
			}
		}
	}
	tx.SaveCollection(c)
	return c, nil
}

// SaveCollection stores changed properties.
func (tx *Tx) SaveCollection(c *Collection) {
	must(tx.sub(c.Database.ID, "collections").Put([]byte(c.ID()), value.JSON(c.Props)))
	must(tx.sub(c.Database.ID, "names").Put([]byte(c.Name()), []byte(c.ID())))
}

// RenameCollection changes the name; documents' _id follow by themselves.
func (tx *Tx) RenameCollection(c *Collection, name string) {
	must(tx.sub(c.Database.ID, "names").Delete([]byte(c.Name())))
	c.Props.Set("name", name)
	tx.SaveCollection(c)
}

// DropCollection removes the collection with its documents.
func (tx *Tx) DropCollection(c *Collection) {
	for _, s := range c.Shards() {
		must(tx.b.DeleteBucket([]byte("shard:" + s)))
	}
	must(tx.sub(c.Database.ID, "collections").Delete([]byte(c.ID())))
	must(tx.sub(c.Database.ID, "names").Delete([]byte(c.Name())))
}

// Truncate removes all documents.
func (tx *Tx) Truncate(c *Collection) {
	for _, s := range c.Shards() {
		name := []byte("shard:" + s)
		must(tx.b.DeleteBucket(name))
		shard, err := tx.b.CreateBucket(name)
		must(err)
		for _, sub := range []string{"docs", "keys"} {
			_, err := shard.CreateBucket([]byte(sub))
			must(err)
		}
	}
	for _, i := range c.Indexes() {
		if maintained(i) {
			must(tx.BuildIndex(c, i))
		}
	}
}
