package arangodb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// layout is everything but the documents: what the server knows of its databases.
type layout struct {
	databases map[string]*database
}

type database struct {
	name        string
	def         []byte // canonical
	collections map[string]*collection
	views       map[string][]byte
	analyzers   map[string][]byte // by name without database
	tasks       map[string][]byte
}

type collection struct {
	name    string
	id      string
	def     []byte // canonical; nil for the server's own collections
	params  object
	indexes map[string][]byte   // canonical, by name
	ids     map[string]string   // of indexes, by name
	shards  map[string][]string // name to servers, the leader first; empty on a single server
	last    string              // last value of the key generator; empty: it has none
}

const (
	guardCollection = "_cso_backup" // the product's own, in systemDB: in no backup, digest or difference
	usersCollection = "_users"
	ownAccounts     = "cso-backup-" // accounts of attempts
)

// The server's own collections whose documents are no data of anybody's: they are
// written without pause, or are read and written through an interface of their own.
var skipped = []string{"_analyzers", "_frontend", "_routing", "_modules", "_fishbowl", "_configuration"}

// server's own collections: made by the server in every database, never dropped.
var systemCollections = []string{
	usersCollection, "_graphs", "_aqlfunctions", "_apps", "_appbundles", "_jobs", "_queues", "_analyzers", "_frontend",
	"_statistics", "_statistics15", "_statisticsRaw", "_pregel_queries", "_iresearch_analyzers",
}

func serverOwned(name string) bool {
	return slices.Contains(systemCollections, name) || slices.Contains(skipped, name) || strings.HasPrefix(name, "_statistics")
}

// hidden says whether a collection is in no backup.
func hidden(db, name string) bool {
	return slices.Contains(skipped, name) || strings.HasPrefix(name, "_statistics") || db == systemDB && name == guardCollection ||
		name == usersCollection
}

// Attributes that say how the server holds a thing, not what it is.
var (
	transientParams = []string{"id", "planId", "cid", "globallyUniqueId", "shards", "shadowCollections", "deleted", "version", "status", "statusString",
		"tempObjectId", "objectId", "allowUserKeys", "minReplicationFactor", "internalValidatorType", "isSmartChild", "usesRevisionsAsDocumentIds",
		"syncByRevision", "isBuilding", "count", "name", "doCompact", "isVolatile", "journalSize", "indexBuckets", "path", "maximalSize",
		"numberOfInitialDocuments", "checksum", "cacheSize"}
	transientIndex = []string{"id", "isNewlyCreated", "selectivityEstimate", "objectId", "tempObjectId", "figures", "inBackground", "progress", "error",
		"code", "trainingState", "errorMessage"}
	transientView = []string{"id", "globallyUniqueId", "planId", "deleted", "isSystem", "name", "cid"}
	clusterParams = []string{"numberOfShards", "replicationFactor", "writeConcern", "shardKeys", "shardingStrategy", "distributeShardsLike",
		"smartJoinAttribute", "isDisjoint", "isSmart", "smartGraphAttribute"}
)

// inventory is the server's answer for one database.
type inventory struct {
	Collections []struct {
		Parameters json.RawMessage   `json:"parameters"`
		Indexes    []json.RawMessage `json:"indexes"`
	} `json:"collections"`
	Views      []json.RawMessage `json:"views"`
	Properties json.RawMessage   `json:"properties"`
}

// readLayout reads the definitions. On a single server they come under the
// view's batch, and are nevertheless those of now: the server keeps no old ones.
func (v *view) readLayout(ctx context.Context, parallel int) (*layout, error) {
	var names struct{ Result []string }
	if err := v.c.get(ctx, systemDB, "/_api/database", nil, &names); err != nil {
		return nil, fmt.Errorf("list databases: %w", v.s.hint(err))
	}
	l := &layout{databases: map[string]*database{}}
	for _, n := range names.Result {
		l.databases[n] = &database{name: n}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, parallel))
	for _, d := range l.databases {
		g.Go(func() error {
			if err := v.readDatabase(ctx, d); err != nil {
				return fmt.Errorf("database %s: %w", d.name, err)
			}
			return nil
		})
	}
	err := g.Wait()
	return l, err
}

func (v *view) readDatabase(ctx context.Context, d *database) error {
	d.collections, d.views, d.analyzers, d.tasks = map[string]*collection{}, map[string][]byte{}, map[string][]byte{}, map[string][]byte{}
	var inv inventory
	if v.s.cluster {
		if err := v.c.get(ctx, d.name, "/_api/replication/clusterInventory", map[string]string{"includeSystem": "true"}, &inv); err != nil {
			return err
		}
	} else {
		q := map[string]string{"includeSystem": "true", "includeFoxxQueues": "true", "batchId": v.batches[""].id}
		if err := v.c.get(ctx, d.name, "/_api/replication/inventory", q, &inv); err != nil {
			return v.lost(err)
		}
	}
	if err := d.define(inv.Properties); err != nil {
		return err
	}
	for _, c := range inv.Collections {
		if err := d.addCollection(c.Parameters, c.Indexes); err != nil {
			return err
		}
	}
	for _, raw := range inv.Views {
		o, err := parseObject(raw)
		if err != nil {
			return err
		}
		d.views[o.str("name")] = o.without(transientView...).text()
	}
	if err := v.readAnalyzers(ctx, d); err != nil {
		return err
	}
	return v.readTasks(ctx, d)
}

// define keeps what a database can be made with: nothing more can be said of it.
func (d *database) define(raw json.RawMessage) error {
	o := object{}
	if len(raw) > 0 && !bytes.Equal(raw, []byte("null")) {
		var err error
		if o, err = parseObject(raw); err != nil {
			return err
		}
	}
	kept := object{}
	if d.name != systemDB {
		for _, n := range []string{"sharding", "replicationFactor", "writeConcern", "replicationVersion"} {
			if x, ok := o[n]; ok && x != nil {
				kept[n] = x
			}
		}
	}
	d.def = kept.text()
	return nil
}

func (d *database) addCollection(params json.RawMessage, indexes []json.RawMessage) error {
	o, err := parseObject(params)
	if err != nil {
		return err
	}
	c := &collection{name: o.str("name"), id: o.str("id"), params: o, indexes: map[string][]byte{}, ids: map[string]string{}, shards: map[string][]string{}}
	if o.flag("deleted") || hiddenSmart(c.name) || d.name == systemDB && c.name == guardCollection {
		return nil
	}
	if g := o.str("globallyUniqueId"); g != "" {
		c.id = g
	}
	c.last = o.sub("keyOptions").number("lastValue")
	for name, servers := range o.sub("shards") {
		list, _ := servers.([]any)
		for _, s := range list {
			if id, _ := s.(string); id != "" {
				c.shards[name] = append(c.shards[name], strings.TrimPrefix(id, "_"))
			}
		}
	}
	if !serverOwned(c.name) {
		def := o.without(transientParams...)
		for k, x := range def { // said or not said, it means the same
			if list, ok := x.([]any); x == nil || ok && len(list) == 0 {
				delete(def, k)
			}
		}
		if k := o.sub("keyOptions"); k != nil {
			def["keyOptions"] = map[string]any(k.without("lastValue"))
		}
		c.def = def.text()
		for _, raw := range indexes {
			x, err := parseObject(raw)
			if err != nil {
				return err
			}
			if t := x.str("type"); t != "primary" && t != "edge" {
				c.indexes[x.str("name")], c.ids[x.str("name")] = x.without(transientIndex...).text(), x.str("id")
			}
		}
	}
	d.collections[c.name] = c
	return nil
}

// hiddenSmart: the collections a smart edge collection consists of; the smart one stands for them.
func hiddenSmart(name string) bool {
	return strings.HasPrefix(name, "_local_") || strings.HasPrefix(name, "_from_") || strings.HasPrefix(name, "_to_")
}

func (v *view) readAnalyzers(ctx context.Context, d *database) error {
	var list struct{ Result []json.RawMessage }
	if err := v.c.get(ctx, d.name, "/_api/analyzer", nil, &list); err != nil {
		return err
	}
	for _, raw := range list.Result {
		o, err := parseObject(raw)
		if err != nil {
			return err
		}
		db, name, custom := strings.Cut(o.str("name"), "::")
		if !custom || db != d.name { // the server's own, or seen from the system database
			continue
		}
		if f, ok := o["features"].([]any); ok {
			slices.SortFunc(f, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		d.analyzers[name] = o.without("name", "error", "code").text()
	}
	return nil
}

func (v *view) readTasks(ctx context.Context, d *database) error {
	a, err := v.c.do(ctx, call{method: "GET", db: d.name, path: "/_api/tasks"})
	if statused(err, 404, 405, 501) {
		return nil // a server without JavaScript
	}
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if err := a.decode(&list); err != nil {
		return err
	}
	for _, raw := range list {
		o, err := parseObject(raw)
		if err != nil {
			return err
		}
		id := o.str("id")
		if o.str("database") != d.name || strings.HasPrefix(id, "statistics-") || strings.HasPrefix(id, "foxx-queue") || id == "" {
			continue
		}
		kept := object{}
		for _, n := range []string{"name", "period", "offset", "command"} {
			if x, ok := o[n]; ok {
				kept[n] = x
			}
		}
		d.tasks[id] = kept.text()
	}
	return nil
}

// sortedKeys are the names in order.
func sortedKeys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// records are the definitions of a database as they stand in its artifact.
func (d *database) records() map[string][]byte {
	out := map[string][]byte{}
	for n, b := range d.analyzers {
		out["analyzer/"+n] = b
	}
	for n, c := range d.collections {
		if c.def == nil {
			continue
		}
		out["collection/"+n] = c.def
		for x, b := range c.indexes {
			out["index/"+n+"/"+x] = b
		}
	}
	for n, b := range d.tasks {
		out["task/"+n] = b
	}
	for n, b := range d.views {
		out["view/"+n] = b
	}
	return out
}

// take is the reverse of records for one of them.
func (d *database) take(key string, value []byte) error {
	kind, name, ok := strings.Cut(key, "/")
	if !ok {
		return fmt.Errorf("definition %q: %w", key, plugins.ErrData)
	}
	value = slices.Clone(value)
	switch kind {
	case "analyzer":
		d.analyzers[name] = value
	case "task":
		d.tasks[name] = value
	case "view":
		d.views[name] = value
	case "collection":
		o, err := parseObject(value)
		if err != nil {
			return err
		}
		d.collections[name] = &collection{name: name, def: value, params: o, indexes: map[string][]byte{}}
	case "index":
		coll, index, ok := strings.Cut(name, "/")
		c := d.collections[coll]
		if !ok || c == nil {
			return fmt.Errorf("index %q of no collection: %w", name, plugins.ErrData)
		}
		c.indexes[index] = value
	default:
		return fmt.Errorf("definition %q is of no known kind: %w: use a newer version of this program", key, plugins.ErrVersion)
	}
	return nil
}
