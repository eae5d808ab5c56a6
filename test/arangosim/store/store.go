// Package store keeps what a simulated ArangoDB holds, in one bbolt file: every
// write is one transaction, so what was answered survives kill -9 of the
// process, and every read transaction is a snapshot that later writes do not
// touch, which is what replication batches and dumps hold.
//
// Layout: databases/<name> = options; db:<id>/{collections,names,views,tasks};
// shard:<id>/{docs: revision → document, keys: _key → revision, ix:<index> …}.
// As in RocksDB, documents stand in the order of their revision, and a document
// is stored without _id, which follows from the collection's name.
package store

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// mapSize is the address space reserved for the file: bbolt need not remap, and
// so never waits for a snapshot that is held long, until the file is this large.
const mapSize = 16 << 30

var (
	metaBucket = []byte("meta")
	dbsBucket  = []byte("databases")
	tickKey    = []byte("tick")
)

// Store is an open database file.
type Store struct {
	bolt  *bolt.DB
	clock Clock
}

// Open opens or makes the file in the directory. A power failure may lose the
// last writes (nothing is synced); the death of the process does not.
func Open(dir string) (*Store, error) {
	db, err := bolt.Open(filepath.Join(dir, "arangosim.db"), 0o600, &bolt.Options{
		Timeout: 5 * time.Second, NoSync: true, NoGrowSync: true, NoFreelistSync: true,
		FreelistType: bolt.FreelistMapType, InitialMmapSize: mapSize,
	})
	if err != nil {
		return nil, fmt.Errorf("open the simulator's file in %s (is another simulator running there?): %w", dir, err)
	}
	s := &Store{bolt: db}
	err = s.Update(func(tx *Tx) error {
		for _, name := range [][]byte{metaBucket, dbsBucket} {
			if _, err := tx.b.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("prepare the simulator's file: %w", err)
	}
	return s, nil
}

// Close ends all use of the file; snapshots must be released before.
func (s *Store) Close() error { return s.bolt.Close() }

// Clock answers the clock that makes revisions.
func (s *Store) Clock() *Clock { return &s.clock }

// Tx is one transaction or snapshot.
type Tx struct {
	b       *bolt.Tx
	s       *Store
	overlay *Overlay
}

// View runs a read.
func (s *Store) View(f func(*Tx) error) error {
	return s.bolt.View(func(b *bolt.Tx) error { return f(&Tx{b: b, s: s}) })
}

// Update runs a write: all of it is kept, or nothing.
func (s *Store) Update(f func(*Tx) error) error {
	return s.bolt.Update(func(b *bolt.Tx) error { return f(&Tx{b: b, s: s}) })
}

// Snapshot opens a view that stays as it is until Release.
func (s *Store) Snapshot() (*Tx, error) {
	b, err := s.bolt.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("open a snapshot: %w", err)
	}
	return &Tx{b: b, s: s}, nil
}

// Release ends a snapshot; releasing twice does no harm.
func (tx *Tx) Release() {
	if err := tx.b.Rollback(); err != nil && err.Error() != "tx closed" {
		panic(err)
	}
}

// WithOverlay answers the same view with a stream transaction's writes over it.
func (tx *Tx) WithOverlay(o *Overlay) *Tx { return &Tx{b: tx.b, s: tx.s, overlay: o} }

// NewTick answers a fresh number; ids of everything come from here, ever growing.
func (tx *Tx) NewTick() string {
	n := tx.Tick() + 1
	must(tx.b.Bucket(metaBucket).Put(tickKey, binary.BigEndian.AppendUint64(nil, n)))
	return strconv.FormatUint(n, 10)
}

// Tick is the last number that NewTick gave.
func (tx *Tx) Tick() uint64 {
	if v := tx.b.Bucket(metaBucket).Get(tickKey); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 100
}

// TxID grows with each committed write: the simulator's sequence number.
func (tx *Tx) TxID() uint64 { return uint64(tx.b.ID()) }

// Setting answers a server-wide setting, nil when never set.
func (tx *Tx) Setting(name string) *value.Object {
	if v := tx.b.Bucket(metaBucket).Get([]byte("setting:" + name)); v != nil {
		return value.MustObject(v)
	}
	return nil
}

// SetSetting stores a server-wide setting.
func (tx *Tx) SetSetting(name string, o *value.Object) {
	must(tx.b.Bucket(metaBucket).Put([]byte("setting:"+name), value.JSON(o)))
}

// must stops the process on an error of the file itself: there is nothing to answer then.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("the simulator's file: %v", err))
	}
}
