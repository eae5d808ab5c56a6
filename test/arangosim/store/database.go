package store

import (
	"sort"

	bolt "go.etcd.io/bbolt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Database is one database: ID and options as the server keeps them.
type Database struct {
	ID    string
	Name  string
	Props *value.Object // id, name, sharding, replicationFactor, writeConcern, replicationVersion
}

func databaseOf(v []byte) *Database {
	o := value.MustObject(v)
	return &Database{ID: o.String("id"), Name: o.String("name"), Props: o}
}

// Database answers the database, nil when there is none.
func (tx *Tx) Database(name string) *Database {
	if v := tx.b.Bucket(dbsBucket).Get([]byte(name)); v != nil {
		return databaseOf(v)
	}
	return nil
}

// Databases lists all, by name.
func (tx *Tx) Databases() []*Database {
	var out []*Database
	must(tx.b.Bucket(dbsBucket).ForEach(func(_, v []byte) error {
		out = append(out, databaseOf(v))
		return nil
	}))
	return out
}

// CreateDatabase makes an empty database with the options of props; id and name are set here.
func (tx *Tx) CreateDatabase(name string, props *value.Object) *Database {
	d := &Database{ID: tx.NewTick(), Name: name}
	if name == SystemDatabase {
		d.ID = "1"
	}
	d.Props = value.New("id", d.ID, "name", name)
	for _, m := range props.Members {
		d.Props.Set(m.Name, m.Value)
	}
	must(tx.b.Bucket(dbsBucket).Put([]byte(name), value.JSON(d.Props)))
	root, err := tx.b.CreateBucket([]byte("db:" + d.ID))
	must(err)
	for _, sub := range []string{"collections", "names", "views", "tasks"} {
		_, err := root.CreateBucket([]byte(sub))
		must(err)
	}
	return d
}

// SystemDatabase always exists.
const SystemDatabase = "_system"

// DropDatabase removes the database with all it holds.
func (tx *Tx) DropDatabase(d *Database) {
	for _, c := range tx.Collections(d) {
		tx.DropCollection(c)
	}
	must(tx.b.DeleteBucket([]byte("db:" + d.ID)))
	must(tx.b.Bucket(dbsBucket).Delete([]byte(d.Name)))
}

func (tx *Tx) sub(dbID, name string) *bolt.Bucket {
	root := tx.b.Bucket([]byte("db:" + dbID))
	if root == nil {
		return nil
	}
	return root.Bucket([]byte(name))
}

// Named objects of a database that are no documents: views and tasks.

// Entry answers a named object of a kind ("views", "tasks"), nil when absent.
func (tx *Tx) Entry(d *Database, kind, name string) *value.Object {
	if b := tx.sub(d.ID, kind); b != nil {
		if v := b.Get([]byte(name)); v != nil {
			return value.MustObject(v)
		}
	}
	return nil
}

// Entries lists a kind, by name.
func (tx *Tx) Entries(d *Database, kind string) []*value.Object {
	var out []*value.Object
	if b := tx.sub(d.ID, kind); b != nil {
		must(b.ForEach(func(_, v []byte) error {
			out = append(out, value.MustObject(v))
			return nil
		}))
	}
	return out
}

// PutEntry stores a named object.
func (tx *Tx) PutEntry(d *Database, kind, name string, o *value.Object) {
	must(tx.sub(d.ID, kind).Put([]byte(name), value.JSON(o)))
}

// DeleteEntry removes a named object.
func (tx *Tx) DeleteEntry(d *Database, kind, name string) {
	must(tx.sub(d.ID, kind).Delete([]byte(name)))
}

// Collections lists the database's collections, by name.
func (tx *Tx) Collections(d *Database) []*Collection {
	var out []*Collection
	if b := tx.sub(d.ID, "collections"); b != nil {
		must(b.ForEach(func(_, v []byte) error {
			out = append(out, collectionOf(d, v))
			return nil
		}))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out
}
