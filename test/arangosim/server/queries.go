package server

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// queryLog knows the queries that run and remembers slow ones.
type queryLog struct {
	mu         sync.Mutex
	n          uint64
	running    map[string]*runningQuery
	slow       map[string][]*value.Object // by database
	properties map[string]*value.Object   // by database
}

type runningQuery struct {
	db, user, text string
	binds          *value.Object
	started        time.Time
	kill           context.CancelFunc
}

// start enters a query; the returned function takes it out again.
func (l *queryLog) start(ctx context.Context, db, user, text string, binds *value.Object) (context.Context, func(error)) {
	if binds == nil {
		binds = &value.Object{}
	}
	ctx, kill := context.WithCancel(ctx)
	q := &runningQuery{db, user, text, binds, time.Now(), kill}
	l.mu.Lock()
	l.n++
	id := strconv.FormatUint(l.n, 10)
	if l.running == nil {
		l.running, l.slow, l.properties = map[string]*runningQuery{}, map[string][]*value.Object{}, map[string]*value.Object{}
	}
	l.running[id] = q
	l.mu.Unlock()
	return ctx, func(error) {
		kill()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.running, id)
		threshold, _ := value.Float(l.settings(db).Get("slowQueryThreshold"))
		if took := time.Since(q.started); took.Seconds() >= threshold {
			l.slow[db] = append(l.slow[db], q.shown(id, "finished").Set("exitCode", 0))
			if len(l.slow[db]) > 64 {
				l.slow[db] = l.slow[db][1:]
			}
		}
	}
}

func (q *runningQuery) shown(id, state string) *value.Object {
	return value.New("id", id, "database", q.db, "user", q.user, "query", q.text, "bindVars", q.binds,
		"started", q.started.UTC().Format(time.RFC3339), "runTime", time.Since(q.started).Seconds(), "peakMemoryUsage", 0, "state", state, "stream", false)
}

// settings are the tracking properties of a database; the caller holds the lock.
func (l *queryLog) settings(db string) *value.Object {
	if p := l.properties[db]; p != nil {
		return p
	}
	return value.New("enabled", true, "trackSlowQueries", true, "trackBindVars", true, "maxSlowQueries", 64,
		"slowQueryThreshold", 10, "slowStreamingQueryThreshold", 10, "maxQueryStringLength", 4096)
}

// killIn ends all queries of a database.
func (l *queryLog) killIn(db string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.running {
		if q.db == db {
			q.kill()
		}
	}
}

func currentQueries(r *request) error {
	r.queries.mu.Lock()
	defer r.queries.mu.Unlock()
	out := []any{}
	for id, q := range r.queries.running {
		if q.db == r.db {
			out = append(out, q.shown(id, "executing"))
		}
	}
	return r.reply(200, out)
}

func slowQueries(r *request) error {
	r.queries.mu.Lock()
	defer r.queries.mu.Unlock()
	if r.http.Method == "DELETE" {
		delete(r.queries.slow, r.db)
		return r.ok(200, value.New())
	}
	return r.reply(200, r.queries.slow[r.db])
}

func killQuery(r *request) error {
	r.queries.mu.Lock()
	defer r.queries.mu.Unlock()
	q := r.queries.running[r.vars["id"]]
	if q == nil || q.db != r.db {
		return fail(1591)
	}
	q.kill()
	return r.ok(200, value.New())
}

func queryProperties(r *request, o *value.Object) error {
	r.queries.mu.Lock()
	defer r.queries.mu.Unlock()
	p := r.queries.settings(r.db).Clone()
	for _, m := range o.Members {
		if p.Has(m.Name) {
			p.Set(m.Name, m.Value)
		}
	}
	if r.http.Method == "PUT" {
		if r.queries.properties == nil {
			r.queries.running, r.queries.slow, r.queries.properties = map[string]*runningQuery{}, map[string][]*value.Object{}, map[string]*value.Object{}
		}
		r.queries.properties[r.db] = p
	}
	return r.ok(200, p)
}
