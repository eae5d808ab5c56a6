package server_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

func (s sim) control(action, node string) {
	s.t.Helper()
	s.ok("POST", "/_sim/"+action, map[string]string{"server": node})
}

// status is what the health report says of a server.
func (s sim) status(id, what string) any {
	s.t.Helper()
	return s.ok("GET", "/_admin/cluster/health", nil).get("Health", id, what)
}

// Coordinators are equal: what one took, another answers, and the loss of one
// is seen in health and endpoints. Source: HTTP API, Cluster, "Health",
// "Endpoints"; Deploy, Architecture, "Coordinators are stateless".
func TestFailoverBetweenCoordinators(t *testing.T) {
	one, running := start(t, server.Config{Mode: "cluster", Coordinators: 3})
	urls := running.Endpoints()
	if len(urls) != 3 {
		t.Fatalf("endpoints %v", urls)
	}
	two := one.at(urls[1])
	one.ok("POST", "/_api/collection", `{"name":"c","numberOfShards":3,"replicationFactor":2}`)
	one.insert("c", 30)
	id := one.ok("GET", "/_admin/server/id", nil).str("id")
	db := one.dbServers()[0]
	batch := one.batch("?DBserver=" + db)
	token := one.ok("POST", "/_open/auth", map[string]string{"username": "root", "password": rootPassword}).str("jwt")

	two.control("kill", id)
	if a := one.do("GET", "/_api/version", nil); a.err == nil {
		t.Errorf("the killed coordinator answers %d", a.code)
	}
	if n := two.ok("GET", "/_api/collection/c/count", nil).get("count"); n != 30.0 {
		t.Errorf("the second coordinator counts %v", n)
	}
	// The batch lives on its DB server, a token on none.
	two.ok("PUT", "/_api/replication/batch/"+batch+"?DBserver="+db, `{"ttl":60}`)
	bearer := two
	bearer.token = token
	bearer.ok("GET", "/_api/version", nil)
	if two.status(id, "Status") != "FAILED" {
		t.Errorf("health of the killed coordinator: %v", two.status(id, "Status"))
	}
	if list, _ := two.ok("GET", "/_api/cluster/endpoints", nil).get("endpoints").([]any); len(list) != 2 {
		t.Errorf("endpoints while one is down: %v", list)
	}
	two.ok("POST", "/_api/document/c", `{"_key":"later"}`)
	two.control("revive", id)
	one.ok("GET", "/_api/document/c/later", nil)
}

// A leader that dies is replaced by a follower; back again, it is out of sync
// for a while and then follows. Source: Deploy, Cluster, "Automatic failover";
// HTTP API, Replication, clusterInventory (allInSync).
func TestFollowersKilledAndBroughtBack(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"two","replicationFactor":2}`)
	s.ok("POST", "/_api/collection", `{"name":"strict","replicationFactor":3,"writeConcern":3}`)
	s.ok("POST", "/_api/collection", `{"name":"alone","numberOfShards":3,"replicationFactor":1}`)
	s.insert("two", 40)
	s.insert("alone", 40)
	var shard string
	var holders []string
	for shard, holders = range s.shards("two") {
	}
	leader, follower := holders[0], holders[1]
	batch := s.batch("?DBserver=" + leader)

	s.control("kill", leader)
	if now := s.shards("two")[shard]; now[0] != follower {
		t.Errorf("after the leader's death %v serve, want %s in front", now, follower)
	}
	s.refused(503, 1478, "GET", "/_api/replication/dump?collection="+shard+"&batchId="+batch+"&DBserver="+leader, nil)
	if n := len(s.dump(s.batch("?DBserver="+follower), shard, "&DBserver="+follower)); n != 40 {
		t.Errorf("the new leader dumps %d documents, want 40", n)
	}
	s.ok("POST", "/_api/document/two", `{"_key":"later"}`)
	s.refused(403, 1004, "POST", "/_api/document/strict", `{}`)
	if a := s.do("PUT", "/_api/document/alone?onlyget=true", `["k1"]`); a.code != 503 {
		t.Errorf("a shard without any living server: %d %s", a.code, a.body)
	}
	if s.status(leader, "Status") != "FAILED" || s.status(follower, "Status") != "GOOD" {
		t.Errorf("health: %v and %v", s.status(leader, "Status"), s.status(follower, "Status"))
	}
	inSync := func(name string) any {
		return collectionsOf(t, s.ok("GET", "/_api/replication/clusterInventory", nil))[name]["allInSync"]
	}
	if inSync("two") != false {
		t.Error("all in sync although a server is dead")
	}
	s.control("revive", leader)
	eventually(t, "the server is in sync again", func() bool { return inSync("two") == true && s.status(leader, "SyncStatus") == "SERVING" })
	if now := s.shards("two")[shard]; now[0] != follower || !slices.Contains(now, leader) {
		t.Errorf("after its return %v serve, want %s in front and %s behind", now, follower, leader)
	}
	s.ok("POST", "/_api/document/strict", `{}`)
	if n := s.ok("GET", "/_api/collection/alone/count", nil).get("count"); n != 40.0 {
		t.Errorf("after the return %v documents, want 40", n)
	}
	// Its batches died with it.
	s.refused(404, 400, "GET", "/_api/replication/dump?collection="+shard+"&batchId="+batch+"&DBserver="+leader, nil)
}

// A moved shard is dumped from its new server, and no more from the old one.
// Source: HTTP API, Cluster, "Move shard", "Resign leadership".
func TestLeaderMoved(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"p","replicationFactor":1}`)
	s.ok("POST", "/_api/collection", `{"name":"like","distributeShardsLike":"p"}`)
	s.insert("p", 25)
	var shard string
	var holders []string
	for shard, holders = range s.shards("p") {
	}
	from := holders[0]
	to := s.dbServers()[0]
	if to == from {
		to = s.dbServers()[1]
	}
	a := s.do("POST", "/_admin/cluster/moveShard", map[string]any{"database": "_system", "collection": "p", "shard": shard, "fromServer": from, "toServer": to})
	if a.code != 202 || a.str("id") == "" {
		t.Fatalf("moveShard: %d %s", a.code, a.body)
	}
	if now := s.shards("p")[shard]; !slices.Equal(now, []string{to}) {
		t.Errorf("after the move on %v, want %s", now, to)
	}
	for _, now := range s.shards("like") {
		if now[0] != to {
			t.Errorf("the collection sharded alike stayed on %v", now)
		}
	}
	s.refused(400, 400, "GET", "/_api/replication/dump?collection="+shard+"&batchId="+s.batch("?DBserver="+from)+"&DBserver="+from, nil)
	if n := len(s.dump(s.batch("?DBserver="+to), shard, "&DBserver="+to)); n != 25 {
		t.Errorf("%d documents on the new server, want 25", n)
	}
}

// Every document is in the shard that the coordinator names for it. Source:
// HTTP API, Collections, "Get the responsible shard for a document".
func TestResponsibleShardHoldsTheDocument(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"c","numberOfShards":4,"replicationFactor":1,"shardKeys":["region"]}`)
	for i := range 40 {
		s.ok("POST", "/_api/document/c", fmt.Sprintf(`{"region":"r%d"}`, i%10))
	}
	used := 0
	for shard, holders := range s.shards("c") {
		part := s.dump(s.batch("?DBserver="+holders[0]), shard, "&DBserver="+holders[0])
		for _, o := range part {
			if got := s.ok("PUT", "/_api/collection/c/responsibleShard", o).str("shardId"); got != shard {
				t.Errorf("%v is in %s, named %s", o, shard, got)
			}
		}
		if len(part) > 0 {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%d shards used", used)
	}
}
