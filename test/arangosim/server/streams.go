package server

import (
	"slices"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// trxHeader names a stream transaction in a request.
const trxHeader = "x-arango-trx-id"

// stream is a stream transaction: its writes stay in an overlay until commit.
// It stays known after its end, so that its status can be asked for.
type stream struct {
	mu      sync.Mutex
	id, db  string
	write   []string // collections it may write; nil with allowImplicit
	overlay *store.Overlay
	status  string // running, committed, aborted
	until   time.Time
}

func (s *stream) release() {}

// streamIdle ends a transaction that nobody uses (the server's default is 60 s).
const streamIdle = 60 * time.Second

// writes checks that the collection was declared at begin.
func (s *stream) writes(collection string) error {
	if slices.Contains(s.write, collection) {
		return nil
	}
	return &Error{Code: 400, Num: 1652, Message: "unregistered collection used in transaction: " + collection + " [write]"}
}

// stream answers the running transaction that the id names, nil without an id.
func (r *request) stream(id string) (*stream, error) {
	if id == "" {
		return nil, nil
	}
	s, ok := r.streams.get(id, 0)
	if !ok || s.db != r.db {
		return nil, fail(1655)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != "running" {
		return nil, fail(1655, "transaction '%s' not found: it is %s", id, s.status)
	}
	s.until = time.Now().Add(streamIdle)
	return s, nil
}

func beginStream(r *request, o *value.Object) error {
	if err := r.writable(); err != nil {
		return err
	}
	s := &stream{db: r.db, overlay: store.NewOverlay(), status: "running", until: time.Now().Add(streamIdle)}
	if o.Object("collections") == nil {
		return fail(10, "missing/invalid collections definition for transaction")
	}
	for _, kind := range []string{"write", "exclusive", "read"} {
		v := o.Object("collections").Get(kind)
		names := value.StringList(v)
		if one, ok := v.(string); ok {
			names = []string{one}
		}
		if kind != "read" {
			s.write = append(s.write, names...)
		}
		err := r.view(func(tx *store.Tx, d *store.Database) error {
			for _, n := range names {
				if _, err := r.collection(tx, d, n, readDB); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := r.store.Update(func(tx *store.Tx) error { s.id = tx.NewTick(); return nil }); err != nil {
		return err
	}
	r.streams.put(s.id, s, 10*time.Minute)
	return r.result(201, value.New("id", s.id, "status", "running"))
}

// known answers a transaction of this database, running or ended.
func (r *request) knownStream() (*stream, error) {
	s, ok := r.streams.get(r.vars["id"], 0)
	if !ok || s.db != r.db {
		return nil, fail(1655)
	}
	return s, nil
}

func getStream(r *request) error {
	s, err := r.knownStream()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.result(200, value.New("id", s.id, "status", s.status))
}

func listStreams(r *request) error {
	out := []any{}
	r.streams.each(func(id string, s *stream) {
		if s.db == r.db && s.status == "running" {
			out = append(out, value.New("id", id, "state", s.status))
		}
	})
	return r.reply(200, value.New("transactions", out))
}

func commitStream(r *request) error {
	s, err := r.knownStream()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status == "aborted" {
		return fail(1652)
	}
	if s.status == "running" {
		err := r.update(func(tx *store.Tx, d *store.Database) error {
			var list []*store.Collection
			for _, n := range s.write {
				if c := tx.Collection(d, n); c != nil {
					list = append(list, c)
				}
			}
			return s.overlay.Commit(tx, list)
		})
		if err != nil {
			return err
		}
		s.status = "committed"
		r.locks.free(s.id)
	}
	return r.result(200, value.New("id", s.id, "status", s.status))
}

func abortStream(r *request) error {
	s, err := r.knownStream()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status == "committed" {
		return fail(1652)
	}
	s.abort(r.Server)
	return r.result(200, value.New("id", s.id, "status", s.status))
}

// abort is for who holds the transaction's lock.
func (s *stream) abort(of *Server) {
	s.status = "aborted"
	of.locks.free(s.id)
}

func (s *Server) expireStreams(now time.Time) {
	s.streams.each(func(_ string, t *stream) {
		if !t.mu.TryLock() {
			return
		}
		defer t.mu.Unlock()
		if t.status == "running" && now.After(t.until) {
			t.abort(s)
		}
	})
	s.streams.expire(now)
}

// keyLocks are the documents that running stream transactions have written.
type keyLocks struct {
	mu     sync.Mutex
	holder map[string]string // collection/key → stream
}

// lockKey takes a document for a stream transaction; whoever else writes it meets a conflict.
func (s *Server) lockKey(stream, collection, key string) error {
	l := &s.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.holder) == 0 && stream == "" {
		return nil
	}
	at := collection + "/" + key
	if h, held := l.holder[at]; held && h != stream {
		return fail(1200, "timeout waiting to lock key - in index primary of type primary over '_key'; conflicting key: %s", key).withCode(409)
	}
	if stream != "" {
		if l.holder == nil {
			l.holder = map[string]string{}
		}
		l.holder[at] = stream
	}
	return nil
}

func (l *keyLocks) free(stream string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, h := range l.holder {
		if h == stream {
			delete(l.holder, at)
		}
	}
}
