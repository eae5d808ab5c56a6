package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// excluded are collections that replication leaves out (TRI_ExcludeCollectionReplication).
func excluded(name string, system, queues bool) bool {
	if !strings.HasPrefix(name, "_") {
		return false
	}
	switch name {
	case "_jobs", "_queues":
		return !system || !queues
	case "_frontend", "_routing", "_configuration", "_cluster_kickstarter_distributed_lock":
		return true
	}
	return !system || strings.HasPrefix(name, "_statistics") || strings.HasPrefix(name, "_fishbowl")
}

// parameters is a collection's definition as inventories carry it.
func (s *Server) parameters(c *store.Collection) *value.Object {
	out := c.Props.Clone().Delete("indexes")
	if !s.atLeast(3, 10, 0) {
		out.Delete("computedValues")
	}
	return out
}

// secondary are a collection's indexes without the primary and edge index.
func secondary(c *store.Collection) []any {
	out := []any{}
	for _, i := range c.Indexes() {
		if t := i.String("type"); t != "primary" && t != "edge" && t != "arangosearch" {
			out = append(out, i.Clone().Delete("selectivityEstimate"))
		}
	}
	return out
}

func (r *request) collectionsAndViews(tx *store.Tx, d *store.Database, only string, system, queues bool, entry func(c *store.Collection) *value.Object) (collections, views []any) {
	collections, views = []any{}, []any{}
	for _, c := range tx.Collections(d) {
		if only != "" && c.Name() != only || only == "" && excluded(c.Name(), system, queues) {
			continue
		}
		collections = append(collections, entry(c))
	}
	if only == "" {
		for _, v := range tx.Entries(d, "views") {
			views = append(views, v)
		}
	}
	return collections, views
}

func databaseProperties(d *store.Database) *value.Object { return d.Props.Clone() }

// inventory is GET /_api/replication/inventory: the definitions as they are
// now, not as the batch's snapshot holds them (RocksDBReplicationContext::getInventory).
func inventory(r *request) error {
	if r.node.role == roleCoordinator {
		return fail(1475, "replication API is not supported on a coordinator").withCode(501)
	}
	if !r.query.Has("batchId") {
		return fail(1600, "batchId not specified")
	}
	b, ok := r.batches.get(r.query.Get("batchId"), 0)
	if !ok {
		return fail(1600, "context was not found")
	}
	system, queues := r.flag("includeSystem", true), r.flag("includeFoxxQueues", false)
	out := value.New()
	return r.store.View(func(tx *store.Tx) error {
		one := func(d *store.Database) *value.Object {
			collections, views := r.collectionsAndViews(tx, d, r.query.Get("collection"), system, queues, func(c *store.Collection) *value.Object {
				return value.New("indexes", secondary(c), "parameters", r.parameters(c))
			})
			return value.New("properties", databaseProperties(d), "collections", collections, "views", views)
		}
		if r.flag("global", false) {
			if r.db != store.SystemDatabase {
				return fail(11, "global inventory can only be created from within the _system database")
			}
			all := value.New()
			for _, d := range tx.Databases() {
				o := one(d)
				all.Set(d.Name, value.New("id", d.ID, "name", d.Name).Set("properties", o.Get("properties")).
					Set("collections", o.Get("collections")).Set("views", o.Get("views")))
			}
			out.Set("databases", all)
		} else {
			d, err := r.database(tx)
			if err != nil {
				return err
			}
			out = one(d)
		}
		out.Set("state", r.walState(b.tick))
		out.Set("tick", strconv.FormatUint(tx.Tick(), 10))
		return r.reply(200, out)
	})
}

// clusterInventory is GET /_api/replication/clusterInventory, on coordinators only.
func clusterInventory(r *request) error {
	if r.node.role != roleCoordinator {
		return fail(1476, "this API is only available on a coordinator").withCode(403)
	}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		system := r.flag("includeSystem", true)
		collections, views := r.collectionsAndViews(tx, d, "", system, true, func(c *store.Collection) *value.Object {
			return value.New("parameters", r.parameters(c), "indexes", secondary(c), "planVersion", 1,
				"isReady", true, "allInSync", r.allInSync(c))
		})
		return r.reply(200, value.New("properties", databaseProperties(d), "collections", collections, "views", views,
			"tick", strconv.FormatUint(tx.Tick(), 10), "state", "unused"))
	})
}

func timestamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05Z") }

func (s *Server) walState(tick uint64) *value.Object {
	t := strconv.FormatUint(tick, 10)
	return value.New("running", true, "lastLogTick", t, "lastUncommittedLogTick", t, "totalEvents", tick, "time", timestamp())
}
