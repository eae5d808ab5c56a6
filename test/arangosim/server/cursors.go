package server

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/aql"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// cursor holds a query's results until they are fetched.
type cursor struct {
	mu      sync.Mutex
	db      string
	results []any
	size    int
	retry   bool
	count   any
	next    int
	batch   int    // number of the batch given last
	last    []byte // its answer, to be given again
}

func (*cursor) release() {}

// data is what a query sees: the collections and views of one database in one transaction.
type data struct {
	r       *request
	tx      *store.Tx
	db      *store.Database
	shards  []string // when not empty: only these
	writers map[string]*writer
}

func (d *data) Each(name string, f func(*value.Object) error) error {
	var list []*store.Collection
	if c := d.tx.Collection(d.db, name); c != nil {
		list = append(list, c)
	} else if v := d.tx.Entry(d.db, "views", name); v != nil {
		for _, n := range viewCollections(v) {
			if c := d.tx.Collection(d.db, n); c != nil {
				list = append(list, c)
			}
		}
	} else {
		return fail(1203, "AQL: collection or view not found: %s", name)
	}
	for _, c := range list {
		if err := d.r.allowed(d.db.Name, c.Name(), readDB); err != nil {
			return err
		}
		if err := d.r.reachable(c); err != nil {
			return err
		}
		if err := d.each(c, f); err != nil {
			return err
		}
	}
	return nil
}

func (d *data) each(c *store.Collection, f func(*value.Object) error) error {
	var failed error
	visit := func(doc []byte) bool {
		failed = f(store.WithID(c.Name(), doc))
		return failed == nil
	}
	if len(d.shards) == 0 {
		d.tx.Each(c, visit)
		return failed
	}
	for _, s := range d.shards {
		if !slices.Contains(c.Shards(), s) {
			return fail(1203, "AQL: restrictToShards: shard %s does not belong to collection %s", s, c.Name())
		}
		d.tx.Scan(s, 0, func(_ uint64, doc []byte) bool { return visit(doc) })
		if failed != nil {
			return failed
		}
	}
	return nil
}

func viewCollections(v *value.Object) []string {
	var out []string
	if links := v.Object("links"); links != nil {
		for _, m := range links.Members {
			out = append(out, m.Name)
		}
	}
	for _, e := range v.Array("indexes") {
		if n := e.(*value.Object).String("collection"); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (d *data) Document(id string) *value.Object {
	name, key, _ := cutID(id)
	c := d.tx.Collection(d.db, name)
	if c == nil || d.r.allowed(d.db.Name, name, readDB) != nil {
		return nil
	}
	if raw := d.tx.Get(c, key); raw != nil {
		return store.WithID(c.Name(), raw)
	}
	return nil
}

func (d *data) EdgesOf(graph string) ([]string, error) {
	g, err := findGraph(d.tx, d.db, graph)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range g.Array("edgeDefinitions") {
		out = append(out, e.(*value.Object).String("collection"))
	}
	return out, nil
}

func (d *data) Write(op, name string, doc, with, options any) (before, after *value.Object, err error) {
	w := d.writers[name]
	if w == nil {
		c, err := d.r.collection(d.tx, d.db, name, writeDB)
		if err != nil {
			return nil, nil, err
		}
		w = d.r.newWriter(d.tx, c, writeOptions{mode: "conflict", keepNull: true, mergeObjects: true, ignoreRevs: true, returnNew: true, returnOld: true})
		d.writers[name] = w
	}
	if o, ok := options.(*value.Object); ok && o.String("overwriteMode") != "" {
		w.opt.mode = o.String("overwriteMode")
	}
	var out *value.Object
	if op == "INSERT" {
		o, err := asDocument(doc)
		if err != nil {
			return nil, nil, err
		}
		out, err = w.insert(o)
		if err != nil {
			return nil, nil, err
		}
		return out.Object("old"), out.Object("new"), nil
	}
	key, err := keyOf(doc, name)
	if err != nil {
		return nil, nil, err
	}
	if op == "REMOVE" {
		out, err = w.remove(key, "")
	} else {
		if with == nil {
			with = doc
		}
		o, isDoc := with.(*value.Object)
		if !isDoc {
			return nil, nil, fail(1227)
		}
		out, err = w.change(key, o, op == "UPDATE")
	}
	if err != nil {
		return nil, nil, err
	}
	return out.Object("old"), out.Object("new"), nil
}

func createCursor(r *request, o *value.Object) error {
	text := o.String("query")
	q, err := aql.Parse(text)
	if err != nil {
		return err
	}
	options := o.Object("options")
	c := &cursor{db: r.db, size: int(o.Int("batchSize", 1000)), retry: options.Bool("allowRetry", false)}
	if c.size < 1 {
		return fail(10, "expecting a positive 'batchSize'")
	}
	s, err := r.stream(r.http.Header.Get(trxHeader))
	if err != nil {
		return err
	}
	ctx, done := r.queries.start(r.http.Context(), r.db, r.user, text, o.Object("bindVars"))
	err = r.runQuery(ctx, q, o.Object("bindVars"), s, value.StringList(options.Get("shardIds")), func(v any) error {
		c.results = append(c.results, value.Raw(value.JSON(v)))
		return nil
	})
	done(err)
	if errors.Is(err, context.Canceled) {
		return fail(1500)
	}
	if err != nil {
		return err
	}
	if o.Bool("count", false) {
		c.count = len(c.results)
	}
	return r.firstBatch(c, o)
}

func (r *request) runQuery(ctx context.Context, q *aql.Query, binds *value.Object, s *stream, shards []string, f func(any) error) error {
	run := func(tx *store.Tx, d *store.Database) error {
		if s != nil {
			tx = tx.WithOverlay(s.overlay)
		}
		src := &data{r: r, tx: tx, db: d, shards: shards, writers: map[string]*writer{}}
		if err := q.Run(ctx, src, binds.Clone(), f); err != nil {
			return err
		}
		for _, w := range src.writers {
			if s == nil {
				w.finish()
			}
		}
		return nil
	}
	if q.Writes() && s == nil {
		return r.update(run)
	}
	return r.view(run)
}

func (r *request) firstBatch(c *cursor, o *value.Object) error {
	id := strconv.FormatUint(r.store.Clock().Next(), 10)
	ttl := 30 * time.Second
	if f, ok := value.Float(o.Get("ttl")); ok && f > 0 {
		ttl = time.Duration(f * float64(time.Second))
	}
	body := c.answer(id, 201)
	if c.next < len(c.results) || c.retry {
		r.cursors.put(id, c, ttl)
	}
	return r.send(201, "application/json; charset=utf-8", body)
}

// answer makes the next batch; the caller holds the cursor.
func (c *cursor) answer(id string, code int) []byte {
	end := min(c.next+c.size, len(c.results))
	part := c.results[c.next:end]
	c.next = end
	c.batch++
	if part == nil {
		part = []any{}
	}
	o := value.New("result", part, "hasMore", end < len(c.results))
	if end < len(c.results) || c.retry {
		o.Set("id", id)
	}
	if c.retry && end < len(c.results) {
		o.Set("nextBatchId", strconv.Itoa(c.batch+1))
	}
	if c.count != nil {
		o.Set("count", c.count)
	}
	o.Set("cached", false)
	o.Set("extra", value.New("warnings", []any{}, "stats", value.New("writesExecuted", 0, "writesIgnored", 0,
		"scannedFull", len(c.results), "scannedIndex", 0, "filtered", 0, "httpRequests", 0, "executionTime", 0.0001, "peakMemoryUsage", 32768)))
	o.Set("error", false)
	o.Set("code", code)
	c.last = value.JSON(o)
	return c.last
}

func nextBatch(r *request) error {
	c, ok := r.cursors.get(r.vars["id"], 0)
	if !ok || c.db != r.db {
		return fail(1600)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := r.vars["batch"]; b != "" {
		n, err := strconv.Atoi(b)
		switch {
		case err != nil || !c.retry:
			return fail(10, "the cursor does not allow retries")
		case n == c.batch:
			return r.send(200, "application/json; charset=utf-8", c.last)
		case n != c.batch+1 || c.next >= len(c.results):
			return fail(1600, "batch id not found")
		}
	}
	body := c.answer(r.vars["id"], 200)
	if c.next >= len(c.results) && !c.retry {
		r.cursors.remove(r.vars["id"])
	}
	return r.send(200, "application/json; charset=utf-8", body)
}

func deleteCursor(r *request) error {
	if c, ok := r.cursors.get(r.vars["id"], 0); !ok || c.db != r.db {
		return fail(1600)
	}
	r.cursors.remove(r.vars["id"])
	return r.ok(202, value.New("id", r.vars["id"]))
}

// explain parses and checks bind parameters; there is no plan to speak of.
func explain(r *request, o *value.Object) error {
	q, err := aql.Parse(o.String("query"))
	if err != nil {
		return err
	}
	for b := range q.Binds {
		if !o.Object("bindVars").Has(b) {
			return &aql.BindError{Message: "no value specified for declared bind parameter '" + b + "'"}
		}
	}
	nodes, rules := []any{}, []any{}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		if usesVectorIndex(tx, d, o.String("query")) {
			nodes, rules = append(nodes, value.New("type", "EnumerateNearVectorNode")), append(rules, "use-vector-index")
		}
		return r.ok(200, value.New("plan", value.New("nodes", nodes, "rules", rules, "collections", []any{}, "variables", []any{},
			"estimatedCost", 1, "estimatedNrItems", 1), "warnings", []any{}, "stats", &value.Object{}, "cacheable", true))
	})
}
