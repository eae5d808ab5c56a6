package server

import (
	"strconv"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// batch is a replication context: a snapshot of one server's data, held until it
// is deleted or its time is up (RocksDBReplicationContext). Each collection
// that is dumped has one iterator in it, which remembers where it is.
type batch struct {
	mu       sync.Mutex
	id       string
	server   string // the DB server that made it, "" on a single server
	snapshot *store.Tx
	tick     uint64
	dumps    map[string]*dumpIterator // by shard
	ended    bool
}

type dumpIterator struct {
	next uint64 // revision to go on from
	tick uint64 // number of chunks so far, plus one
}

func (b *batch) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended = true
		b.snapshot.Release()
	}
}

// defaultTTL is the server's (replutils::BatchInfo::DefaultTimeout).
const defaultTTL = 7200 * time.Second

func ttlOf(o *value.Object) time.Duration {
	if f, ok := value.Float(o.Get("ttl")); ok && f > 0 {
		return time.Duration(f * float64(time.Second))
	}
	return defaultTTL
}

// forward answers the DB server that a request on a coordinator is meant for;
// on a single server it is "". A server that is down is not reachable.
func (r *request) forward(parameter string) (string, error) {
	if !r.isCluster() || r.node.role == rolePrimary {
		if r.node.role == rolePrimary {
			return r.node.id, nil
		}
		return "", nil
	}
	id := r.query.Get(parameter)
	if id == "" {
		return "", fail(10, "need a '%s' parameter", parameter)
	}
	n := r.nodeByID(id)
	if n == nil || n.role != rolePrimary {
		return "", fail(10, "invalid '%s' parameter: unknown DB server %s", parameter, id)
	}
	if !n.up() {
		return "", fail(1478)
	}
	return n.id, nil
}

// onDBServer makes a handler of one that works on the DB server which a parameter names.
func onDBServer(parameter string, h func(r *request, server string, o *value.Object) error) handler {
	return body(func(r *request, o *value.Object) error {
		server, err := r.forward(parameter)
		if err != nil {
			return err
		}
		return h(r, server, o)
	})
}

func createBatch(r *request, server string, o *value.Object) error {
	// Out of memory, as TRI_NewTickServer: a batch writes nothing, so that the write counter of two is equal when nobody wrote.
	id := strconv.FormatUint(r.batchIDs.Add(1), 10)
	snapshot, err := r.store.Snapshot()
	if err != nil {
		return err
	}
	b := &batch{id: id, server: server, snapshot: snapshot, tick: snapshot.TxID(), dumps: map[string]*dumpIterator{}}
	r.batches.put(id, b, ttlOf(o))
	out := value.New("id", id, "lastTick", strconv.FormatUint(b.tick, 10))
	if r.flag("state", false) {
		out.Set("state", r.walState(b.tick))
	}
	return r.reply(200, out)
}

// batch answers a living batch of the right server.
func (r *request) batch(id, server string, ttl time.Duration) (*batch, bool) {
	b, ok := r.batches.get(id, ttl)
	if !ok || b.server != server {
		return nil, false
	}
	return b, true
}

func extendBatch(r *request, server string, o *value.Object) error {
	if _, ok := r.batch(r.vars["id"], server, ttlOf(o)); !ok {
		return fail(1600)
	}
	return r.send(204, "", nil)
}

func deleteBatch(r *request, server string, _ *value.Object) error {
	if _, ok := r.batch(r.vars["id"], server, 0); !ok {
		return fail(1600)
	}
	r.batches.remove(r.vars["id"])
	return r.send(204, "", nil)
}
