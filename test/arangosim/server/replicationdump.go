package server

import (
	"strconv"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
)

// Sizes of dump chunks (RestReplicationHandler.cpp).
const (
	defaultChunk = 128 << 10
	maxChunk     = 128 << 20
)

func (r *request) chunkSize() int {
	n := r.number("chunkSize", defaultChunk)
	return int(min(max(n, 1), maxChunk))
}

const dumpType = "application/x-arango-dump; charset=utf-8"

// dumpCollection is GET /_api/replication/dump: the next chunk of a collection
// (on a DB server: of a shard) as the batch's snapshot holds it. As in
// RocksDBReplicationContext::dumpJson the batch remembers how far it is, so
// "from" and the like are ignored and a lost answer cannot be asked for again;
// after the last chunk the iterator starts anew.
func dumpCollection(r *request) error {
	server, err := r.forward("DBserver")
	if err != nil {
		return err
	}
	name := r.query.Get("collection")
	if name == "" {
		return fail(400, "invalid collection parameter")
	}
	if !r.query.Has("batchId") {
		return fail(400, "replication dump - request misses batchId").withCode(404)
	}
	b, ok := r.batch(r.query.Get("batchId"), server, 0)
	if !ok {
		return fail(400, "replication dump - unable to find context (it could be expired)").withCode(404)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return fail(400, "replication dump - unable to find context (it could be expired)").withCode(404)
	}
	c, shard, err := r.dumpTarget(name, server)
	if err != nil {
		return err
	}
	it := b.dumps[shard]
	if it == nil {
		it = &dumpIterator{tick: 1}
		b.dumps[shard] = it
	}
	envelope, size := r.flag("useEnvelope", true), r.chunkSize()
	var out []byte
	more := false
	b.snapshot.Scan(shard, it.next, func(rev uint64, doc []byte) bool {
		if len(out) >= size {
			it.next, more = rev, true
			return false
		}
		if envelope {
			out = append(out, `{"type":2300,"data":`...)
		}
		out = store.AppendWithID(out, c.Name(), doc)
		if envelope {
			out = append(out, '}')
		}
		out = append(out, '\n')
		return true
	})
	included := it.tick
	if more {
		it.tick++
		included = it.tick
	} else {
		delete(b.dumps, shard)
	}
	if len(out) == 0 {
		included = 0
	}
	h := r.w.Header()
	h.Set("x-arango-replication-checkmore", strconv.FormatBool(more))
	h.Set("x-arango-replication-lastincluded", strconv.FormatUint(included, 10))
	if len(out) == 0 {
		return r.send(204, "", nil)
	}
	return r.stream200(dumpType, out)
}

// dumpTarget finds the collection by its name, or on a DB server the shard that it holds.
func (r *request) dumpTarget(name, server string) (c *store.Collection, shard string, err error) {
	err = r.view(func(tx *store.Tx, d *store.Database) error {
		if server == "" {
			if c = tx.Collection(d, name); c == nil {
				return fail(400, "replication dump - bad parameter")
			}
			shard = c.Shards()[0]
		} else {
			if c = tx.ShardCollection(d, name); c == nil || !r.holds(c, name, server) {
				return fail(400, "replication dump - bad parameter")
			}
			shard = name
		}
		if r.allowed(store.SystemDatabase, "", writeDB) == nil {
			return nil // administrators may dump everything, _users included
		}
		return r.allowed(d.Name, c.Name(), readDB)
	})
	return c, shard, err
}
