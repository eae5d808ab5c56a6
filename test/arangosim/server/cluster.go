package server

import (
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// onlyCluster answers 501 outside a cluster.
func onlyCluster(h handler) handler {
	return func(r *request) error {
		if !r.isCluster() {
			return fail(1475, "this API is only available in a cluster").withCode(501)
		}
		return h(r)
	}
}

func clusterEndpoints(r *request) error {
	out := []any{}
	for _, n := range r.nodes {
		if n.role == roleCoordinator && n.up() {
			out = append(out, value.New("endpoint", tcp(n.url())))
		}
	}
	return r.ok(200, value.New("endpoints", out))
}

func clusterHealth(r *request) error {
	out := &value.Object{}
	for _, n := range r.nodes {
		state, sync := "GOOD", "SERVING"
		if !n.up() {
			state, sync = "FAILED", "UNCLEAR"
		} else if !n.inSync() {
			state, sync = "GOOD", "STARTUP"
		}
		o := value.New("Endpoint", tcp(n.url()), "Engine", "rocksdb", "Version", r.cfg.Version, "Host", "localhost")
		switch n.role {
		case roleAgent:
			o.Set("Role", "Agent").Set("Status", state).Set("Leader", n.id).Set("Leading", true).Set("CanBeDeleted", false)
		default:
			role := map[string]string{roleCoordinator: "Coordinator", rolePrimary: "DBServer"}[n.role]
			o.Set("Role", role).Set("ShortName", n.name).Set("Status", state).Set("SyncStatus", sync).
				Set("LastAckedTime", timestamp()).Set("Timestamp", timestamp()).Set("CanBeDeleted", !n.up())
		}
		out.Set(n.id, o)
	}
	return r.ok(200, value.New("ClusterId", "00000000-0000-4000-8000-simulated", "Health", out))
}

// moveShard is done before the answer; the real server works in the background.
func moveShard(r *request, o *value.Object) error {
	if err := r.move(o.String("database"), o.String("collection"), o.String("shard"), o.String("fromServer"), o.String("toServer")); err != nil {
		return err
	}
	return r.jobDone(202)
}

func (r *request) jobDone(code int) error {
	var id string
	if err := r.store.Update(func(tx *store.Tx) error { id = tx.NewTick(); return nil }); err != nil {
		return err
	}
	return r.ok(code, value.New("id", id))
}

func resignLeadership(r *request, o *value.Object) error {
	n := r.nodeByID(o.String("server"))
	if n == nil {
		return fail(404, "unknown server")
	}
	if err := r.demote(n.id); err != nil {
		return err
	}
	return r.jobDone(202)
}

// maintenance is the supervision's switch, and that of single DB servers.
type maintenance struct {
	mu      sync.Mutex
	until   time.Time
	servers map[string]time.Time
}

// maintenanceOn is how long "on" lasts (the documentation says one hour).
const maintenanceOn = time.Hour

func setMaintenance(r *request) error {
	v, err := r.any()
	if err != nil {
		return err
	}
	r.maintenance.mu.Lock()
	defer r.maintenance.mu.Unlock()
	switch v {
	case "on":
		r.maintenance.until = time.Now().Add(maintenanceOn)
		return r.ok(200, value.New("warning", "Cluster supervision deactivated. It will be reactivated automatically in 60 minutes unless this call is repeated until then."))
	case "off":
		r.maintenance.until = time.Time{}
		return r.ok(200, value.New("warning", "Cluster supervision reactivated."))
	}
	return fail(10, "state string should be 'on' or 'off'")
}

func getMaintenance(r *request) error {
	r.maintenance.mu.Lock()
	defer r.maintenance.mu.Unlock()
	mode := "Normal"
	if time.Now().Before(r.maintenance.until) {
		mode = "Maintenance"
	}
	return r.result(200, mode)
}

// serverMaintenance is that of one DB server: shown only while it is on.
func serverMaintenance(r *request) error {
	n := r.nodeByID(r.vars["server"])
	if n == nil || n.role != rolePrimary {
		return fail(404, "unknown DB server")
	}
	r.maintenance.mu.Lock()
	defer r.maintenance.mu.Unlock()
	if r.http.Method == "PUT" {
		o, err := r.object()
		if err != nil {
			return err
		}
		if r.maintenance.servers == nil {
			r.maintenance.servers = map[string]time.Time{}
		}
		if o.String("mode") == "maintenance" {
			r.maintenance.servers[n.id] = time.Now().Add(time.Duration(o.Int("timeout", 3600)) * time.Second)
		} else {
			delete(r.maintenance.servers, n.id)
		}
		return r.ok(200, value.New())
	}
	until, ok := r.maintenance.servers[n.id]
	if !ok || time.Now().After(until) {
		return r.ok(200, value.New())
	}
	return r.result(200, value.New("Mode", "maintenance", "Until", until.UTC().Format(time.RFC3339)))
}

func collectionShards(r *request) error {
	if !r.isCluster() {
		return fail(9)
	}
	return r.show(func(_ *store.Tx, c *store.Collection, out *value.Object) error {
		if r.flag("details", false) {
			out.Set("shards", c.Props.Get("shards"))
			return nil
		}
		out.Set("shards", value.Strings(c.Shards()...))
		return nil
	})
}

func responsibleShard(r *request, o *value.Object) error {
	if !r.isCluster() {
		return fail(9)
	}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], readDB)
		if err != nil {
			return err
		}
		return r.ok(200, value.New("shardId", c.ShardOf(o)))
	})
}

func cutID(id string) (collection, key string, ok bool) { return strings.Cut(id, "/") }
