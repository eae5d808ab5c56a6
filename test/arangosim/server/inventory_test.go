package server_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

func collectionsOf(t *testing.T, inventory answer) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	list, _ := inventory.get("collections").([]any)
	for _, c := range list {
		o := c.(map[string]any)
		out[o["parameters"].(map[string]any)["name"].(string)] = o
	}
	return out
}

// The inventory carries every property, all indexes but primary and edge, the
// views, and those system collections that replication takes along. Source:
// HTTP API, Replication, "Get a replication inventory"; RestReplicationHandler.cpp
// handleCommandInventory; TRI_ExcludeCollectionReplication in voc-types.
func TestInventorySingle(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"docs","waitForSync":true,"cacheEnabled":true,
		"keyOptions":{"type":"autoincrement","increment":5,"offset":10,"allowUserKeys":true},
		"schema":{"rule":{"type":"object"},"level":"moderate","message":"m"},
		"computedValues":[{"name":"at","expression":"RETURN DATE_NOW()","overwrite":true}]}`)
	s.ok("POST", "/_api/collection", `{"name":"edges","type":3}`)
	s.ok("POST", "/_api/index?collection=docs", `{"type":"persistent","fields":["a","b[*]"],"unique":true,"sparse":true,"name":"ab","storedValues":["c"]}`)
	s.ok("POST", "/_api/index?collection=docs", `{"type":"ttl","fields":["at"],"expireAfter":3600,"name":"end"}`)
	s.ok("POST", "/_api/view", `{"name":"v","type":"arangosearch","links":{"docs":{"includeAllFields":true}}}`)
	for range 3 {
		s.ok("POST", "/_api/document/docs", `{}`)
	}
	s.refused(404, 1600, "GET", "/_api/replication/inventory", nil)
	inv := s.ok("GET", "/_api/replication/inventory?includeSystem=true&includeFoxxQueues=true&batchId="+s.batch(""), nil)
	all := collectionsOf(t, inv)
	docs := all["docs"]["parameters"].(map[string]any)
	for name, want := range map[string]any{"waitForSync": true, "cacheEnabled": true, "type": 2.0, "isSystem": false, "deleted": false} {
		if docs[name] != want {
			t.Errorf("%s of docs is %v, want %v", name, docs[name], want)
		}
	}
	keys, _ := docs["keyOptions"].(map[string]any)
	if keys["type"] != "autoincrement" || keys["increment"] != 5.0 || keys["offset"] != 10.0 || keys["lastValue"] != 20.0 {
		t.Errorf("key options %v, want the last of 10, 15, 20 as lastValue", keys)
	}
	if rule, _ := docs["schema"].(map[string]any); rule["message"] != "m" {
		t.Errorf("schema %v", docs["schema"])
	}
	if v, _ := docs["computedValues"].([]any); len(v) != 1 {
		t.Errorf("computed values %v", docs["computedValues"])
	}
	var types []string
	for _, i := range all["docs"]["indexes"].([]any) {
		types = append(types, i.(map[string]any)["type"].(string))
	}
	if !slices.Equal(types, []string{"persistent", "ttl"}) || len(all["edges"]["indexes"].([]any)) != 0 {
		t.Errorf("indexes %v and %v, want persistent and ttl, and none", types, all["edges"]["indexes"])
	}
	if inv.get("views", 0, "name") != "v" || inv.get("views", 0, "links", "docs") == nil {
		t.Errorf("views %v", inv.get("views"))
	}
	for _, name := range []string{"_users", "_graphs", "_analyzers", "_aqlfunctions", "_apps", "_appbundles", "_jobs", "_queues"} {
		if all[name] == nil {
			t.Errorf("%s is missing among %v", name, slices.Sorted(maps.Keys(all)))
		}
	}
	if all["_statistics"] != nil || all["_frontend"] != nil {
		t.Error("statistics or frontend in the inventory")
	}
	if inv.str("tick") == "" || inv.str("state", "lastLogTick") == "" || inv.get("properties", "name") != "_system" {
		t.Errorf("tick, state, properties: %.300s", inv.body)
	}
	plain := collectionsOf(t, s.ok("GET", "/_api/replication/inventory?includeSystem=false&batchId="+s.batch(""), nil))
	if len(plain) != 2 {
		t.Errorf("without system collections: %v", slices.Sorted(maps.Keys(plain)))
	}
	s.ok("POST", "/_api/database", `{"name":"second"}`)
	global := s.ok("GET", "/_api/replication/inventory?global=true&batchId="+s.batch(""), nil)
	if global.get("databases", "second", "collections") == nil || global.get("databases", "_system", "collections") == nil {
		t.Errorf("global: %.200s", global.body)
	}
	s.refused(501, 1475, "GET", "/_api/cluster/endpoints", nil)
	s.refused(403, 1476, "GET", "/_api/replication/clusterInventory", nil)
}

// The cluster's inventory says which servers hold each shard, and whether all
// of them are in sync. Source: HTTP API, Replication, "Get the cluster
// collections and indexes"; RestReplicationHandler.cpp handleCommandClusterInventory.
func TestInventoryCluster(t *testing.T) {
	s, _ := start(t, server.Config{Mode: "cluster"})
	s.ok("POST", "/_api/collection", `{"name":"p","numberOfShards":3,"replicationFactor":2,"writeConcern":1,"shardKeys":["region"]}`)
	s.ok("POST", "/_api/collection", `{"name":"like","distributeShardsLike":"p","shardKeys":["region"]}`)
	inv := s.ok("GET", "/_api/replication/clusterInventory?includeSystem=true", nil)
	all := collectionsOf(t, inv)
	p := all["p"]["parameters"].(map[string]any)
	shards, _ := p["shards"].(map[string]any)
	known := s.dbServers()
	leaders := map[string]bool{}
	for shard, v := range shards {
		list := v.([]any)
		if len(list) != 2 || !slices.Contains(known, list[0].(string)) || list[0] == list[1] {
			t.Errorf("shard %s on %v", shard, list)
		}
		leaders[list[0].(string)] = true
	}
	if len(shards) != 3 || len(leaders) < 2 {
		t.Errorf("%d shards led by %d servers, want 3 by several", len(shards), len(leaders))
	}
	if p["replicationFactor"] != 2.0 || p["numberOfShards"] != 3.0 || all["p"]["allInSync"] != true || all["p"]["isReady"] != true {
		t.Errorf("parameters %v", p)
	}
	like := all["like"]["parameters"].(map[string]any)
	if like["distributeShardsLike"] != "p" || len(like["shards"].(map[string]any)) != 3 {
		t.Errorf("a collection sharded alike: %v", like)
	}
	s.refused(501, 1475, "GET", "/_api/replication/inventory?batchId=1", nil)
}
