package server

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// parallelDump is the dump context of 3.12 (RestDumpHandler, RocksDBDumpContext):
// a snapshot of its own over the named shards, cut into batches that clients
// fetch by number, in parallel; a batch can be fetched again until the client
// says with lastBatch that it has it.
type parallelDump struct {
	mu       sync.Mutex
	db, user string
	server   string
	snapshot *store.Tx
	size     int
	shards   []dumpShard
	next     uint64 // revision to go on from in shards[0]
	given    map[uint64]*dumpBatch
	ended    bool
}

// dumpShard is a shard under the name that the answer carries: on a single server the collection's own.
type dumpShard struct{ shard, collection, shown string }

type dumpBatch struct {
	shard string
	body  []byte
}

func (p *parallelDump) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.snapshot.Release()
	}
}

// batch answers the numbered batch, nil when all has been given.
func (p *parallelDump) batch(id uint64) *dumpBatch {
	if b, ok := p.given[id]; ok {
		return b
	}
	for len(p.shards) > 0 {
		s := p.shards[0]
		b := &dumpBatch{shard: s.shown}
		more := false
		p.snapshot.Scan(s.shard, p.next, func(rev uint64, doc []byte) bool {
			if len(b.body) >= p.size {
				p.next, more = rev, true
				return false
			}
			b.body = append(store.AppendWithID(b.body, s.collection, doc), '\n')
			return true
		})
		if !more {
			p.shards, p.next = p.shards[1:], 0
		}
		if len(b.body) > 0 {
			p.given[id] = b
			return b
		}
	}
	return nil
}

func startDump(r *request, server string, o *value.Object) error {
	p := &parallelDump{db: r.db, user: r.user, server: server, size: int(o.Int("batchSize", 16<<10)), given: map[uint64]*dumpBatch{}}
	for _, name := range value.StringList(o.Get("shards")) {
		c, shard, err := r.dumpTarget(name, server)
		if err != nil {
			return fail(1203, "shard or collection %s not found", name)
		}
		p.shards = append(p.shards, dumpShard{shard, c.Name(), name})
	}
	if !o.Has("shards") {
		return fail(10, "invalid 'shards' value in request")
	}
	var err error
	if p.snapshot, err = r.store.Snapshot(); err != nil {
		return err
	}
	ttl := 600 * time.Second
	if f, ok := value.Float(o.Get("ttl")); ok && f > 0 {
		ttl = time.Duration(f * float64(time.Second))
	}
	id := fmt.Sprintf("dump-%d", r.store.Clock().Next())
	r.dumps.put(id, p, ttl)
	r.w.Header().Set("x-arango-dump-id", id)
	return r.send(201, "application/json; charset=utf-8", []byte("{}"))
}

// dump answers a dump context of this user, database and server.
func (r *request) dump() (*parallelDump, error) {
	server, err := r.forward("dbserver")
	if err != nil {
		return nil, err
	}
	p, ok := r.dumps.get(r.vars["id"], 0)
	if !ok || p.db != r.db || p.server != server {
		return nil, fail(36, "requested dump context not found")
	}
	if p.user != r.user {
		return nil, fail(11, "insufficient permissions")
	}
	return p, nil
}

func nextDump(r *request) error {
	p, err := r.dump()
	if err != nil {
		return err
	}
	if !r.query.Has("batchId") {
		return fail(10, "expecting 'batchId'")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return fail(36, "requested dump context not found")
	}
	if r.query.Has("lastBatch") {
		delete(p.given, r.number("lastBatch", 0))
	}
	b := p.batch(r.number("batchId", 0))
	if b == nil {
		return r.send(204, "", nil)
	}
	r.w.Header().Set("x-arango-dump-shard-id", b.shard)
	r.w.Header().Set("x-arango-dump-block-counts", strconv.Itoa(0))
	return r.stream200(dumpType, b.body)
}

func finishDump(r *request) error {
	if _, err := r.dump(); err != nil {
		return err
	}
	r.dumps.remove(r.vars["id"])
	return r.ok(200, value.New())
}
