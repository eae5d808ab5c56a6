package arangodb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	putBytes    = 2 << 20 // of documents are sent in one request; a larger document goes by itself
	putCount    = 5000
	removeCount = 10_000
)

// collectionTask makes the documents of one collection equal to the backup.
type collectionTask struct {
	*applier
	w        *structure
	db, name string
	live     *collection           // nil: there is none
	want     *collection           // of the backup
	info     *plugins.ArtifactInfo // nil: the backup holds no documents of it
	look     bool                  // compare only

	es      []expiry
	now     time.Time
	changes int64
	puts    bytes.Buffer
	n       int
	removes []string
	stuck   []spool.Ref // documents that a unique index refused: those in their way are still to be written
	keys    []string    // of stuck
	sp      *spool.Spool
}

// work returns how many documents differed.
func (t *collectionTask) work(ctx context.Context, v *view) (int64, error) {
	live := t.live
	if t.w.fresh[t.db+"/"+t.name] {
		live = nil
	}
	var lr *liveRecords
	if live != nil {
		if same, err := t.unread(ctx, v, live); same || err != nil {
			return 0, err
		}
		var err error
		lr, err = v.readLive(ctx, t.db, live, t.run)
		defer lr.close()
		if err != nil {
			return 0, err
		}
		if t.info != nil && lr.digest != t.info.Digest {
			if err := t.note(documentsName(t.db, t.name), "changed", lr.digest.String()); err != nil {
				return 0, err
			}
		}
	}
	t.now, t.sp = time.Now(), spool.New(t.run.Scratch, 1<<20)
	defer func() { _ = t.sp.Close() }()
	if t.want != nil {
		t.es = t.want.expiries()
	}
	err := diffDocuments(ctx, lr, t.info, t.r, func(c change) error { return t.take(ctx, c) })
	if err == nil {
		err = t.flush(ctx)
	}
	if err == nil {
		err = t.unstick(ctx)
	}
	if err == nil && t.info != nil {
		t.run.Report(plugins.Status{Phase: "load", Item: t.info.Name, Bytes: t.bytes.Load()})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rep.Records += t.changes
	return t.changes, err
}

// unread says that the documents are known to be equal: by the safety backup, or because the server vouches for
// them, as the collection's identity is that of the backup.
func (t *collectionTask) unread(ctx context.Context, v *view, live *collection) (bool, error) {
	if t.info != nil && t.told[t.info.Name] == t.info.Digest && t.told != nil {
		return true, nil
	}
	if t.info == nil || t.info.Identity == "" || t.look {
		return false, nil
	}
	return v.unchanged(ctx, t.db, live, t.info.Identity)
}

// unchanged compares a collection's identity of now with that of a backup.
func (v *view) unchanged(ctx context.Context, db string, c *collection, identity string) (bool, error) {
	m, err := v.mark(ctx, db, c)
	if err != nil || m == "" {
		return false, err
	}
	now, err := v.identity(ctx, db, c, m)
	return err == nil && now == identity, err
}

func (t *collectionTask) take(ctx context.Context, c change) error {
	if c.how == '+' && lapsed(c.body, t.es, t.now) {
		return nil
	}
	t.changes++
	if t.look {
		return nil
	}
	if c.how == '-' || c.how == '~' && t.shardedByOther() {
		t.removes = append(t.removes, string(c.key))
		if len(t.removes) >= removeCount || c.how == '~' {
			if err := t.remove(ctx); err != nil {
				return err
			}
		}
	}
	if c.how == '-' {
		return nil
	}
	if t.n > 0 && (t.puts.Len()+len(c.body) > putBytes || t.n >= putCount) {
		if err := t.put(ctx); err != nil {
			return err
		}
	}
	if t.n > 0 {
		t.puts.WriteByte(',')
	}
	t.puts.Write(c.body)
	t.n++
	t.bytes.Add(int64(len(c.body)))
	return nil
}

// shardedByOther: a document with another value of the shard key lives on another shard, and replacing it there
// would make a second one.
func (t *collectionTask) shardedByOther() bool {
	if !t.s.cluster || t.want == nil {
		return false
	}
	keys, _ := t.want.params["shardKeys"].([]any)
	return len(keys) > 0 && (len(keys) > 1 || keys[0] != "_key")
}

// query for writing documents. Where keys are not for users to choose, only a restore may give them: the one
// undocumented parameter of this path (isRestore, as the vendor's driver knows it).
func (t *collectionTask) query() map[string]string {
	q := map[string]string{"overwriteMode": "replace", "silent": "true", "refillIndexCaches": "false"}
	if t.want != nil {
		if allow, ok := t.want.params.sub("keyOptions")["allowUserKeys"].(bool); ok && !allow || t.shardedByOther() {
			q["isRestore"] = "true"
		}
	}
	return q
}

func (t *collectionTask) flush(ctx context.Context) error {
	if err := t.remove(ctx); err != nil {
		return err
	}
	return t.put(ctx)
}

func (t *collectionTask) put(ctx context.Context) error {
	if t.n == 0 {
		return nil
	}
	if err := t.w.suspend(ctx, t.db, t.name); err != nil {
		return err
	}
	body := make([]byte, 0, t.puts.Len()+2)
	body = append(append(append(body, '['), t.puts.Bytes()...), ']')
	t.puts.Reset()
	t.n = 0
	return t.send(ctx, body, true)
}

// send writes documents. The server answers for each that it refuses.
func (t *collectionTask) send(ctx context.Context, body []byte, patient bool) error {
	if done, err := t.nativeData(ctx, body); done || err != nil {
		return err
	}
	q := call{method: "POST", db: t.db, path: "/_api/document/" + esc(t.name), query: t.query(), body: json.RawMessage(body)}
	a, err := t.write(ctx, q)
	if err != nil {
		return err
	}
	if a.header.Get("X-Arango-Error-Codes") == "" && !bytes.Contains(a.body, []byte(`"error":true`)) {
		return nil
	}
	// Once more, and not silent: one answer for each document, in their order. Replacing twice does no harm.
	q.query["silent"] = "false"
	if a, err = t.write(ctx, q); err != nil {
		return err
	}
	var answers []struct {
		Error    bool
		ErrorNum int
		Message  string `json:"errorMessage"`
	}
	if err := a.decode(&answers); err != nil {
		return err
	}
	var docs []json.RawMessage
	if err := json.Unmarshal(body, &docs); err != nil || len(docs) != len(answers) {
		return fmt.Errorf("%d answers to %d documents: %w", len(answers), len(docs), plugins.ErrData)
	}
	for i, x := range answers {
		switch {
		case !x.Error:
		case x.ErrorNum == errUnique && patient:
			d, err := parseDocument(docs[i], nil)
			if err != nil {
				return err
			}
			ref, err := t.sp.Put(docs[i])
			if err != nil {
				return err
			}
			t.stuck, t.keys = append(t.stuck, ref), append(t.keys, string(d.key))
		default:
			err := &apiError{what: "write a document into " + t.db + "/" + t.name, status: 400, num: x.ErrorNum, msg: x.Message}
			if !t.spoiled(err) {
				return err
			}
		}
	}
	return nil
}

// unstick removes the live versions of all documents that were refused, and then writes them: what they
// refused each other is then free.
func (t *collectionTask) unstick(ctx context.Context) error {
	if len(t.stuck) == 0 {
		return nil
	}
	t.removes = append(t.removes, t.keys...)
	if err := t.remove(ctx); err != nil {
		return err
	}
	var buf []byte
	for _, ref := range t.stuck {
		d, err := t.sp.Get(ref, &buf)
		if err != nil {
			return err
		}
		if err := t.send(ctx, append(append([]byte{'['}, d...), ']'), false); err != nil {
			return err
		}
	}
	return nil
}

func (t *collectionTask) remove(ctx context.Context) error {
	if len(t.removes) == 0 {
		return nil
	}
	keys := t.removes
	t.removes = nil
	_, err := t.write(ctx, call{method: "DELETE", db: t.db, path: "/_api/document/" + esc(t.name), query: map[string]string{"silent": "true", "ignoreRevs": "true"}, body: keys})
	return err
}

// touch writes a document with a key and removes it.
func (t *collectionTask) touch(ctx context.Context, key string) error {
	if err := t.w.suspend(ctx, t.db, t.name); err != nil {
		return err
	}
	doc := object{"_key": key}
	if n, _ := t.want.params["type"].(json.Number); n == "3" {
		doc["_from"], doc["_to"] = t.name+"/"+key, t.name+"/"+key
	}
	// A document that is there has already moved the generator, and must not be replaced.
	q := call{method: "POST", db: t.db, path: "/_api/document/" + esc(t.name), body: doc, query: t.query()}
	delete(q.query, "overwriteMode")
	if _, err := t.write(ctx, q); numbered(err, errUnique) || t.spoiled(err) {
		return nil
	} else if err != nil {
		return err
	}
	t.removes = []string{key}
	return t.remove(ctx)
}

// behind says whether a generator stands before another value.
func behind(live, want string) bool {
	w, ok := new(big.Int).SetString(want, 10)
	if !ok {
		return false
	}
	l, ok := new(big.Int).SetString(live, 10)
	return !ok || l.Cmp(w) < 0
}

// generatedKey is the key that a generator gives at a value: a decimal number, or 16 hexadecimal digits.
func generatedKey(kind, value string) (string, error) {
	if kind != "padded" {
		return value, nil
	}
	n, ok := new(big.Int).SetString(value, 10)
	if !ok {
		return "", fmt.Errorf("value %q: %w", value, plugins.ErrData)
	}
	s := n.Text(16)
	return strings.Repeat("0", max(0, 16-len(s))) + s, nil
}
