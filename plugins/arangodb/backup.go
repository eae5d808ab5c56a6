package arangodb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Names of artifacts.
const (
	databasesName   = "databases"  // name of a database: its options
	accountsName    = "accounts"   // name of a user: its record, hash and grants included
	countersName    = "generators" // DATABASE/COLLECTION: last value of the key generator; volatile
	structurePrefix = "structure/" // DATABASE: definitions
	documentsPrefix = "documents/" // DATABASE/COLLECTION: documents by key
)

func documentsName(db, coll string) string { return documentsPrefix + db + "/" + coll }

// writer writes the artifacts of one view.
type writer struct {
	v     *view
	run   plugins.Run
	w     plugins.ArtifactWriter
	pin   string
	l     *layout
	marks map[string]string // identities taken before the view, by artifact

	mu    sync.Mutex
	rep   plugins.Report
	bytes atomic.Int64
}

// backup writes everything the view holds.
func (v *view) backup(ctx context.Context, run plugins.Run, pin string, marks map[string]string, w plugins.ArtifactWriter) (plugins.Report, error) {
	l, err := v.readLayout(ctx, run.Parallel)
	if err != nil {
		return plugins.Report{}, ended(ctx, err)
	}
	x := &writer{v: v, run: run, w: w, pin: pin, l: l, marks: marks}
	x.rep = plugins.Report{ServerVersion: v.s.version.text, Position: v.position(), Consistency: v.words, Warnings: v.warn}
	err = x.all(ctx)
	x.rep.Bytes = x.bytes.Load()
	return x.rep, ended(ctx, err)
}

func (v *view) position() string {
	var p []string
	for _, n := range sortedKeys(v.batches) {
		if n == "" {
			return "tick " + v.batches[n].tick
		}
		p = append(p, n+" "+v.batches[n].tick)
	}
	return "ticks " + strings.Join(p, ", ")
}

func (x *writer) all(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, x.run.Parallel))
	dbs := map[string][]byte{}
	last := map[string][]byte{}
	for n, d := range x.l.databases {
		dbs[n] = d.def
		for cn, c := range d.collections {
			if c.last != "" && !hidden(n, cn) {
				last[n+"/"+cn] = []byte(c.last)
			}
		}
	}
	mode := map[string]string{"mode": x.v.s.mode(), "version": x.v.s.version.text,
		"_rev": "not kept: the server gives out new ones, and one kept from elsewhere could clash within a shard"}
	g.Go(func() error { return x.small(ctx, plugins.Artifact{Name: databasesName, Attributes: mode}, dbs) })
	g.Go(func() error { return x.small(ctx, plugins.Artifact{Name: countersName, Volatile: true}, last) })
	g.Go(func() error {
		users, err := x.v.readAccounts(ctx, x.l)
		if err != nil {
			return err
		}
		return x.small(ctx, plugins.Artifact{Name: accountsName}, users)
	})
	for _, n := range sortedKeys(x.l.databases) {
		d := x.l.databases[n]
		g.Go(func() error { return x.small(ctx, plugins.Artifact{Name: structurePrefix + n}, d.records()) })
		for _, cn := range sortedKeys(d.collections) {
			if hidden(n, cn) {
				continue
			}
			g.Go(func() error { return x.collection(ctx, n, d.collections[cn]) })
		}
	}
	return g.Wait()
}

func (s *session) mode() string {
	if s.cluster {
		return "cluster"
	}
	return "single"
}

// small writes an artifact that is held in memory.
func (x *writer) small(ctx context.Context, a plugins.Artifact, records map[string][]byte) error {
	a.Form, a.Pin = plugins.Ordered, x.pin
	rw, err := x.w.Create(ctx, a)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", a.Name, err)
	}
	defer rw.Abort()
	for _, k := range sortedKeys(records) {
		if err := rw.Put([]byte(k), records[k]); err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
		x.bytes.Add(int64(len(k) + len(records[k])))
	}
	if err := rw.Commit(); err != nil {
		return fmt.Errorf("artifact %s: %w", a.Name, err)
	}
	x.count(int64(len(records)))
	return nil
}

func (x *writer) count(records int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rep.Artifacts++
	x.rep.Records += records
}

// collection writes the documents of one collection in order of their keys.
func (x *writer) collection(ctx context.Context, db string, c *collection) error {
	a := plugins.Artifact{Name: documentsName(db, c.name), Form: plugins.Ordered, Pin: x.pin}
	if m := x.marks[a.Name]; m != "" {
		now, err := x.v.mark(ctx, db, c)
		if err != nil {
			return err
		}
		// Equal before and after the view was taken: then it holds for the view.
		if m == now {
			if c.def == nil && strings.HasSuffix(now, " 0") {
				return nil // one of the server's own without documents is as good as none
			}
			if a.Identity, err = x.v.identity(ctx, db, c, now); err != nil {
				return err
			}
			same, err := x.w.Reuse(ctx, a)
			if err != nil || same {
				if same {
					x.count(0)
				}
				return err
			}
		}
	}
	st, err := x.v.read(ctx, db, c, x.run, func(d document) ([]byte, error) {
		x.run.Report(plugins.Status{Phase: "copy", Item: a.Name, Bytes: x.bytes.Add(int64(len(d.key) + len(d.body)))})
		return d.body, nil
	})
	if err != nil {
		return err
	}
	defer st.close()
	var rw plugins.RecordWriter
	n := int64(0)
	for ; ; n++ {
		key, value, err := st.read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
		if rw == nil {
			if rw, err = x.w.Create(ctx, a); err != nil {
				return fmt.Errorf("artifact %s: %w", a.Name, err)
			}
			defer rw.Abort()
		}
		if err := rw.Put(key, value); err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
	}
	if rw == nil {
		if c.def == nil {
			return nil // one of the server's own without documents is as good as none
		}
		if rw, err = x.w.Create(ctx, a); err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
		defer rw.Abort()
	}
	if err := rw.Commit(); err != nil {
		return fmt.Errorf("artifact %s: %w", a.Name, err)
	}
	x.count(n)
	return nil
}

// mark is a word of the server that changes with every write into the collection:
// https://docs.arango.ai/arangodb/stable/develop/http-api/collections/#get-the-collection-revision-id.
// Behind it stands the number of documents. Empty: the server has none.
func (v *view) mark(ctx context.Context, db string, c *collection) (string, error) {
	var r struct{ Revision json.RawMessage }
	err := v.c.get(ctx, db, "/_api/collection/"+esc(c.name)+"/revision", nil, &r)
	if errors.Is(err, plugins.ErrNotFound) || err == nil && len(r.Revision) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var n struct{ Count int64 }
	if err := v.c.get(ctx, db, "/_api/collection/"+esc(c.name)+"/count", nil, &n); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s %d", c.id, r.Revision, n.Count), nil
}

// identity proves what documents a collection holds: the server's mark, and the root of its revision
// tree, or in a cluster its checksum over all keys and revisions.
func (v *view) identity(ctx context.Context, db string, c *collection, mark string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q ", db, mark)
	if v.s.cluster {
		var r struct{ Checksum json.RawMessage }
		err := v.c.get(ctx, db, "/_api/collection/"+esc(c.name)+"/checksum", map[string]string{"withRevisions": "true"}, &r)
		if errors.Is(err, plugins.ErrNotFound) || numbered(err, 9, 1470) || statused(err, 501, 405, 400) || err == nil && len(r.Checksum) == 0 {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		h.Write(r.Checksum)
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	var t struct{ Hash, Count json.RawMessage }
	err := v.c.get(ctx, db, "/_api/replication/revisions/tree", map[string]string{"collection": c.name, "batchId": v.batches[""].id, "onlyPopulated": "true"}, &t)
	if err == nil && len(t.Hash) > 0 {
		fmt.Fprintf(h, "%s %s", t.Hash, t.Count)
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return "", nil // a collection without a tree, from before 3.8: it is read whole
}

// takeMarks reads the marks of all collections, before a view is taken.
func (s *session) takeMarks(ctx context.Context, parallel int) (map[string]string, error) {
	v := &view{s: s, c: s.c}
	var names struct{ Result []string }
	if err := s.c.get(ctx, systemDB, "/_api/database", nil, &names); err != nil {
		return nil, fmt.Errorf("list databases: %w", s.hint(err))
	}
	out := map[string]string{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, parallel))
	for _, db := range names.Result {
		var list struct {
			Result []struct{ Name, ID, GloballyUniqueID string }
		}
		if err := s.c.get(ctx, db, "/_api/collection", nil, &list); err != nil {
			if errors.Is(err, plugins.ErrNotFound) {
				continue
			}
			return nil, errors.Join(err, g.Wait())
		}
		for _, e := range list.Result {
			if hidden(db, e.Name) {
				continue
			}
			c := &collection{name: e.Name, id: e.ID}
			if e.GloballyUniqueID != "" {
				c.id = e.GloballyUniqueID
			}
			g.Go(func() error {
				m, err := v.mark(ctx, db, c)
				if err != nil && !errors.Is(err, plugins.ErrNotFound) {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				out[documentsName(db, c.name)] = m
				return nil
			})
		}
	}
	err := g.Wait()
	return out, err
}
