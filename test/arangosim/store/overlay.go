package store

import (
	"sort"
	"sync"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Overlay is what a stream transaction has written and not yet committed.
type Overlay struct {
	mu      sync.Mutex
	changes map[string]map[string]*change // by collection id, by key
	n       int
}

type change struct {
	doc   []byte // nil: removed
	order int
}

// NewOverlay starts a stream transaction's writes.
func NewOverlay() *Overlay { return &Overlay{changes: map[string]map[string]*change{}} }

func (o *Overlay) get(collection, key string) ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c, ok := o.changes[collection][key]; ok {
		return c.doc, true
	}
	return nil, false
}

func (o *Overlay) set(collection, key string, doc []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changes[collection] == nil {
		o.changes[collection] = map[string]*change{}
	}
	o.n++
	o.changes[collection][key] = &change{doc, o.n}
}

// sorted answers the changes of a collection in the order they were made.
func (o *Overlay) sorted(collection string) ([]string, []*change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var keys []string
	for k := range o.changes[collection] {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		return o.changes[collection][keys[i]].order < o.changes[collection][keys[j]].order
	})
	list := make([]*change, len(keys))
	for i, k := range keys {
		list[i] = o.changes[collection][k]
	}
	return keys, list
}

// added goes through documents that exist in the overlay only.
func (o *Overlay) added(tx *Tx, c *Collection, f func(doc []byte) bool) {
	keys, list := o.sorted(c.ID())
	for i, ch := range list {
		if b, _, _ := tx.find(c, keys[i]); b == nil && ch.doc != nil && !f(ch.doc) {
			return
		}
	}
}

func (o *Overlay) delta(tx *Tx, c *Collection) int64 {
	var n int64
	keys, list := o.sorted(c.ID())
	for i, ch := range list {
		b, _, _ := tx.find(c, keys[i])
		switch {
		case b == nil && ch.doc != nil:
			n++
		case b != nil && ch.doc == nil:
			n--
		}
	}
	return n
}

// Commit writes the overlay's changes of the collections into a write transaction.
func (o *Overlay) Commit(tx *Tx, collections []*Collection) error {
	for _, c := range collections {
		keys, list := o.sorted(c.ID())
		for i, ch := range list {
			b, _, _ := tx.find(c, keys[i])
			var err error
			switch {
			case ch.doc != nil:
				err = tx.Put(c, value.MustObject(ch.doc), b != nil)
			case b != nil:
				err = tx.Delete(c, keys[i])
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
