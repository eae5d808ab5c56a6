package server

import (
	"slices"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// A shard's documents are kept once, whatever the number of its replicas: the
// list of servers says who leads, who follows and so who answers. A follower
// therefore never lags in content; it can only be out of sync in the reports.

func (s *Server) dbServers() []*node {
	var out []*node
	for _, n := range s.nodes {
		if n.role == rolePrimary {
			out = append(out, n)
		}
	}
	return out
}

// inSync tells whether a server lives and has caught up since it came back.
func (n *node) inSync() bool { return n.up() && time.Now().UnixMilli() >= n.inSyncAt.Load() }

// servers answers who holds a shard, the leader first.
func servers(c *store.Collection, shard string) []string {
	return value.StringList(c.Props.Object("shards").Get(shard))
}

func (s *Server) holds(c *store.Collection, shard, server string) bool {
	return slices.Contains(servers(c, shard), server)
}

// placeShards spreads new shards over the DB servers, or as the prototype's are.
func (s *Server) placeShards(tx *store.Tx, shards int, rf any, prototype *store.Collection) *value.Object {
	ids := []string{}
	if len(s.nodes) == 0 { // the system database is made before the listeners
		nodes, err := s.plan()
		if err == nil {
			for _, n := range nodes {
				if n.role == rolePrimary {
					ids = append(ids, n.id)
				}
			}
		}
	}
	for _, n := range s.dbServers() {
		if n.up() {
			ids = append(ids, n.id)
		}
	}
	replicas := len(ids)
	if n, ok := value.Float(rf); ok {
		replicas = min(int(n), len(ids))
	}
	out := &value.Object{}
	first := int(tx.Tick())
	for i := range shards {
		name := "s" + tx.NewTick()
		var list []string
		if prototype != nil {
			list = servers(prototype, prototype.Shards()[i%len(prototype.Shards())])
		} else {
			for k := range replicas {
				list = append(list, ids[(first+i+k)%len(ids)])
			}
		}
		out.Set(name, value.Strings(list...))
	}
	return out
}

// resizeShards adds or takes away followers until each shard has n replicas.
func (s *Server) resizeShards(tx *store.Tx, c *store.Collection, n int) {
	s.changeShards(tx, c, func(_ string, list []string) []string {
		for _, db := range s.dbServers() {
			if len(list) < n && !slices.Contains(list, db.id) {
				list = append(list, db.id)
			}
		}
		return list[:min(n, len(list))]
	})
}

// changeShards rewrites the lists of servers of a collection's shards; collections that are sharded like it follow.
func (s *Server) changeShards(tx *store.Tx, c *store.Collection, f func(shard string, list []string) []string) {
	shards := c.Props.Object("shards")
	for i, m := range shards.Members {
		shards.Members[i].Value = value.Strings(f(m.Name, value.StringList(m.Value))...)
	}
	tx.SaveCollection(c)
	for _, other := range tx.Collections(c.Database) {
		if other.Props.String("distributeShardsLike") != c.Name() {
			continue
		}
		for i := range other.Props.Object("shards").Members {
			other.Props.Object("shards").Members[i].Value = shards.Members[i%len(shards.Members)].Value
		}
		tx.SaveCollection(other)
	}
}

// allInSync tells whether every replica of every shard has caught up.
func (s *Server) allInSync(c *store.Collection) bool {
	for _, shard := range c.Shards() {
		for _, id := range servers(c, shard) {
			if n := s.nodeByID(id); n == nil || !n.inSync() {
				return false
			}
		}
	}
	return true
}

// reachable refuses a collection of which some shard has no living leader.
func (s *Server) reachable(c *store.Collection) error {
	if !s.isCluster() {
		return nil
	}
	for _, shard := range c.Shards() {
		list := servers(c, shard)
		if len(list) == 0 {
			return fail(1478)
		}
		if n := s.nodeByID(list[0]); n == nil || !n.up() {
			return fail(1478)
		}
	}
	return nil
}

// writeConcern refuses writes to shards with too few replicas in sync: they are read-only.
func (s *Server) writeConcern(c *store.Collection) error {
	if err := s.reachable(c); err != nil || !s.isCluster() {
		return err
	}
	want := c.Props.Int("writeConcern", 1)
	for _, shard := range c.Shards() {
		alive := int64(0)
		for _, id := range servers(c, shard) {
			if n := s.nodeByID(id); n != nil && n.inSync() {
				alive++
			}
		}
		if alive < want {
			return fail(1004, "read only: write concern not fulfilled")
		}
	}
	return nil
}

// eachShard rewrites all shards of all databases.
func (s *Server) eachShard(f func(shard string, list []string) []string) error {
	return s.store.Update(func(tx *store.Tx) error {
		for _, d := range tx.Databases() {
			for _, c := range tx.Collections(d) {
				if c.Props.String("distributeShardsLike") == "" || tx.Collection(d, c.Props.String("distributeShardsLike")) == nil {
					s.changeShards(tx, c, f)
				}
			}
		}
		return nil
	})
}

// demote takes the leadership from a server wherever another replica is in sync.
func (s *Server) demote(server string) error {
	return s.eachShard(func(_ string, list []string) []string {
		if len(list) < 2 || list[0] != server {
			return list
		}
		for i, id := range list[1:] {
			if n := s.nodeByID(id); n != nil && n.inSync() {
				out := []string{id}
				out = append(out, list[1:i+1]...)
				out = append(out, list[i+2:]...)
				return append(out, server)
			}
		}
		return list
	})
}

// kill ends a server as kill -9 would: connections break, its batches are gone, followers take over.
func (s *Server) kill(n *node) error {
	n.down.Store(true)
	if n.role != rolePrimary {
		return nil
	}
	var lost []string
	s.batches.each(func(id string, b *batch) {
		if b.server == n.id {
			lost = append(lost, id)
		}
	})
	for _, id := range lost {
		s.batches.remove(id)
	}
	lost = nil
	s.dumps.each(func(id string, p *parallelDump) {
		if p.server == n.id {
			lost = append(lost, id)
		}
	})
	for _, id := range lost {
		s.dumps.remove(id)
	}
	return s.demote(n.id)
}

// revive brings a killed server back; it follows, and is in sync after a while.
func (s *Server) revive(n *node) {
	n.inSyncAt.Store(time.Now().Add(s.cfg.Resync).UnixMilli())
	n.down.Store(false)
}

// move puts a shard's replica onto another server.
func (s *Server) move(db, collection, shard, from, to string) error {
	return s.store.Update(func(tx *store.Tx) error {
		d := tx.Database(db)
		if d == nil {
			return fail(1228)
		}
		c := tx.Collection(d, collection)
		if c == nil {
			return fail(1203)
		}
		if !slices.Contains(c.Shards(), shard) || !s.holds(c, shard, from) || s.nodeByID(to) == nil {
			return fail(10, "shard or server not found")
		}
		position := slices.Index(c.Shards(), shard)
		if like := c.Props.String("distributeShardsLike"); like != "" {
			if p := tx.Collection(d, like); p != nil {
				c, shard = p, p.Shards()[position%len(p.Shards())]
			}
		}
		s.changeShards(tx, c, func(name string, list []string) []string {
			if name != shard {
				return list
			}
			at := slices.Index(list, from)
			if other := slices.Index(list, to); other >= 0 {
				list[at], list[other] = to, from
			} else {
				list[at] = to
			}
			return list
		})
		return nil
	})
}
