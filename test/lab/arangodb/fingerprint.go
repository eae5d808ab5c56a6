package arangodb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// What the server gives out by itself, and no restore can give back.
var given = []string{"id", "_id", "_rev", "globallyUniqueId", "planId", "code", "error", "status", "statusString", "isNewlyCreated", "selectivityEstimate",
	"figures", "created", "shards", "cid", "objectId", "tempObjectId", "count"}

// The server's own collections whose documents are somebody's data.
var systemCollections = []string{"_graphs", "_aqlfunctions", "_apps", "_appbundles", "_jobs", "_queues"}

// printer collects lines "kind<TAB>object<TAB>value".
type printer struct {
	*client
	lines []string
}

func (p *printer) add(kind, name string, value any) {
	p.lines = append(p.lines, fmt.Sprintf("%s\t%q\t%s", kind, name, value))
}

// Fingerprint lists everything a client can see of documents, definitions and accounts. A large document stands as its hash.
func (e *Engine) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) error {
	c, err := dial(members[0])
	if err != nil {
		return err
	}
	defer c.close()
	p := &printer{client: c}
	dbs, err := c.databases(ctx)
	if err != nil {
		return err
	}
	for _, db := range dbs {
		p.add("database", db, "")
		for _, step := range []func(context.Context, string) error{p.collections, p.definitions} {
			if err := step(ctx, db); err != nil {
				return err
			}
		}
	}
	if err := p.users(ctx, members[0]); err != nil {
		return err
	}
	slices.Sort(p.lines)
	_, err = io.WriteString(w, strings.Join(p.lines, "\n")+"\n")
	return err
}

func (p *printer) collections(ctx context.Context, db string) error {
	all, err := p.list(ctx, in(db, "/_api/collection"), "result")
	if err != nil {
		return err
	}
	for _, o := range all {
		name := text(o, "name")
		if o["isSystem"] == true && !slices.Contains(systemCollections, name) {
			continue
		}
		err := p.each(ctx, db, name, func(raw json.RawMessage) error {
			key, value, err := canonical(raw)
			if err == nil {
				p.add("document", db+"/"+name+"/"+key, value)
			}
			return err
		})
		if err != nil {
			return err
		}
		if o["isSystem"] == true {
			continue
		}
		var properties object
		if err := p.call(ctx, "GET", in(db, "/_api/collection/"+esc(name)+"/properties"), nil, &properties); err != nil {
			return err
		}
		if k, ok := properties["keyOptions"].(object); ok {
			delete(k, "lastValue")
		}
		p.add("collection", db+"/"+name, sorted(properties))
		indexes, err := p.list(ctx, in(db, "/_api/index?collection="+name), "indexes")
		if err != nil {
			return err
		}
		for _, x := range indexes {
			if t := text(x, "type"); t != "primary" && t != "edge" {
				p.add("index", db+"/"+name+"/"+text(x, "name"), sorted(x))
			}
		}
	}
	return nil
}

func (p *printer) definitions(ctx context.Context, db string) error {
	views, err := p.list(ctx, in(db, "/_api/view"), "result")
	if err != nil {
		return err
	}
	for _, v := range views {
		var properties object
		if err := p.call(ctx, "GET", in(db, "/_api/view/"+esc(text(v, "name"))+"/properties"), nil, &properties); err != nil {
			return err
		}
		p.add("view", db+"/"+text(v, "name"), sorted(properties))
	}
	for _, x := range []struct{ kind, path, key, name string }{
		{"analyzer", "/_api/analyzer", "result", "name"},
		{"graph", "/_api/gharial", "graphs", "name"},
		{"function", "/_api/aqlfunction", "result", "name"},
		{"task", "/_api/tasks", "", "id"},
	} {
		all, err := p.list(ctx, in(db, x.path), x.key)
		if err != nil {
			return err
		}
		for _, o := range all {
			name := text(o, x.name)
			if x.kind == "analyzer" && !strings.HasPrefix(name, db+"::") || x.kind == "task" && o["database"] != db {
				continue
			}
			if f, ok := o["features"].([]any); ok {
				slices.SortFunc(f, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
			p.add(x.kind, db+"/"+name, sorted(o))
		}
	}
	return nil
}

// users: attributes, grants at every level, and whether the password that Fill gave opens the account.
func (p *printer) users(ctx context.Context, m engine.Member) error {
	all, err := p.list(ctx, in(systemDB, "/_api/user"), "result")
	if err != nil {
		return err
	}
	for _, u := range all {
		name := text(u, "user")
		var grants struct{ Result object }
		if err := p.call(ctx, "GET", in(systemDB, "/_api/user/"+esc(name)+"/database?full=true"), nil, &grants); err != nil {
			return err
		}
		for _, g := range grants.Result {
			if o, ok := g.(object); ok {
				if cs, ok := o["collections"].(object); ok {
					for c := range cs {
						if strings.HasPrefix(c, "_") || c == engine.LedgerName { // the server's, the product's and the ledger's own
							delete(cs, c)
						}
					}
				}
			}
		}
		var opens []int64
		for seed := range int64(passwords) {
			c := dialAs(m, name, Password(name, seed))
			err := c.call(ctx, "GET", in(systemDB, "/_api/user/"+esc(name)), nil, nil)
			c.close()
			if err == nil {
				opens = append(opens, seed)
			} else if !refused(err, 401, 403) {
				return err
			}
		}
		p.add("user", name, fmt.Sprintf("%s %s opened by %v", sorted(u), sorted(grants.Result), opens))
	}
	return nil
}

// sorted is a definition with its attributes in order, without what the server gives out.
func sorted(o object) string {
	for _, k := range given {
		delete(o, k)
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // what was decoded from JSON can be encoded
	}
	return string(b)
}

// canonical is a document as written: numbers and the order of attributes kept, _id and _rev left out. A long one is hashed.
func canonical(raw json.RawMessage) (key, value string, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return "", "", fmt.Errorf("a document: %w", err)
	}
	var out bytes.Buffer
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return "", "", fmt.Errorf("a document: %w", err)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return "", "", fmt.Errorf("a document: %w", err)
		}
		if name == "_id" || name == "_rev" {
			continue
		}
		if name == "_key" {
			if err := json.Unmarshal(v, &key); err != nil {
				return "", "", fmt.Errorf("a document: %w", err)
			}
		}
		fmt.Fprintf(&out, "%q:", name)
		if err := json.Compact(&out, v); err != nil {
			return "", "", fmt.Errorf("a document: %w", err)
		}
		out.WriteByte(',')
	}
	if key == "" {
		return "", "", errors.New("a document has no _key")
	}
	if out.Len() > 400 {
		return key, fmt.Sprintf("%d bytes %x", out.Len(), sha256.Sum256(out.Bytes())), nil
	}
	return key, out.String(), nil
}
