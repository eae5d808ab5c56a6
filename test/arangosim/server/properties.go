package server

import (
	"fmt"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/aql"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// createCollection makes a collection of what a client sent: unknown
// attributes are dropped, absent ones get the server's defaults.
func (s *Server) createCollection(tx *store.Tx, d *store.Database, o *value.Object) (*store.Collection, error) {
	name := o.String("name")
	if err := collectionName(name, o.Bool("isSystem", false)); err != nil {
		return nil, err
	}
	if tx.Collection(d, name) != nil || tx.Entry(d, "views", name) != nil {
		return nil, fail(1207, "duplicate name")
	}
	id := tx.NewTick()
	props := value.New("id", id, "name", name, "type", o.Int("type", 2), "status", 3, "statusString", "loaded",
		"cid", id, "planId", id, "deleted", false, "isSystem", o.Bool("isSystem", false),
		"globallyUniqueId", s.uniqueID(d, id, name), "version", 9,
		"usesRevisionsAsDocumentIds", true, "syncByRevision", o.Bool("syncByRevision", true),
		"waitForSync", o.Bool("waitForSync", false), "cacheEnabled", o.Bool("cacheEnabled", false),
		"isSmart", o.Bool("isSmart", false), "isSmartChild", o.Bool("isSmartChild", false), "isDisjoint", o.Bool("isDisjoint", false),
		"internalValidatorType", o.Int("internalValidatorType", 0))
	keys, err := keyOptions(o.Object("keyOptions"))
	if err != nil {
		return nil, err
	}
	props.Set("keyOptions", keys)
	props.Set("allowUserKeys", keys.Bool("allowUserKeys", true))
	props.Set("schema", nil)
	if schema := o.Object("schema"); schema != nil && len(schema.Members) > 0 {
		props.Set("schema", schema)
	}
	if s.atLeast(3, 10, 0) {
		values, err := computedValues(o.Get("computedValues"))
		if err != nil {
			return nil, err
		}
		props.Set("computedValues", values)
	}
	for _, n := range []string{"smartJoinAttribute", "smartGraphAttribute"} {
		if v := o.String(n); v != "" {
			props.Set(n, v)
		}
	}
	if err := s.sharding(tx, d, o, props); err != nil {
		return nil, err
	}
	indexes := []any{primaryIndex(id, name)}
	if props.Int("type", 2) == 3 {
		indexes = append(indexes, edgeIndex(name))
	}
	props.Set("indexes", indexes)
	return tx.CreateCollection(d, props)
}

func (s *Server) uniqueID(d *store.Database, id, name string) string {
	switch {
	case strings.HasPrefix(name, "_"):
		return name
	case s.isCluster():
		return "c" + id + "/"
	}
	return "h" + fmt.Sprintf("%X", 0x1A2B3C4D) + d.ID + "/" + id
}

// sharding fills in what concerns shards. A single server keeps the numbers and has no shards.
func (s *Server) sharding(tx *store.Tx, d *store.Database, o, props *value.Object) error {
	system := strings.HasPrefix(props.String("name"), "_")
	rf := defaultTo(o.Get("replicationFactor"), defaultTo(d.Props.Get("replicationFactor"), int64(1)))
	wc := defaultTo(o.Get("writeConcern"), defaultTo(o.Get("minReplicationFactor"), defaultTo(d.Props.Get("writeConcern"), int64(1))))
	shards := o.Int("numberOfShards", 1)
	if shards < 1 || shards > 1000 {
		return fail(10, "invalid number of shards")
	}
	keys := value.StringList(o.Get("shardKeys"))
	if len(keys) == 0 {
		keys = []string{"_key"}
	}
	strategy := o.String("shardingStrategy")
	if strategy == "" {
		strategy = "hash"
	}
	if system && s.isCluster() && !o.Has("replicationFactor") {
		rf = int64(2)
	}
	like := o.String("distributeShardsLike")
	var prototype *store.Collection
	if like != "" && s.isCluster() {
		if prototype = tx.Collection(d, like); prototype == nil {
			return &Error{Code: 400, Num: 1486, Message: "collection must have a distributeShardsLike attribute naming an existing collection: " + like}
		}
		like = prototype.Name()
		shards, rf, wc = prototype.Props.Int("numberOfShards", 1), prototype.Props.Get("replicationFactor"), prototype.Props.Get("writeConcern")
	}
	if rf == "satellite" || rf == int64(0) {
		if !s.features() {
			return fail(10, "satellite collections need the Enterprise Edition")
		}
		rf, wc, shards = "satellite", int64(1), 1
	}
	if n, ok := value.Float(rf); ok && s.isCluster() {
		if w, _ := value.Float(wc); n < 1 || n > 10 || w > n {
			return fail(10, "bad value for replicationFactor or writeConcern")
		}
	}
	props.Set("numberOfShards", shards).Set("replicationFactor", rf).Set("writeConcern", wc).Set("minReplicationFactor", wc)
	props.Set("shardKeys", value.Strings(keys...)).Set("shardingStrategy", strategy)
	props.Set("shards", &value.Object{})
	if like != "" {
		props.Set("distributeShardsLike", like)
	}
	if s.isCluster() {
		props.Set("shards", s.placeShards(tx, int(shards), rf, prototype))
	}
	return nil
}

// keyOptions checks a key generator; lastValue is kept when given, as the generators' constructors do.
func keyOptions(o *value.Object) (*value.Object, error) {
	if o == nil {
		o = &value.Object{}
	}
	kind := o.String("type")
	if kind == "" {
		kind = "traditional"
	}
	out := value.New("type", kind, "allowUserKeys", o.Bool("allowUserKeys", true))
	switch kind {
	case "traditional", "padded":
		out.Set("lastValue", o.Int("lastValue", 0))
	case "autoincrement":
		offset, increment := o.Int("offset", 0), o.Int("increment", 1)
		if increment < 1 || increment > 65535 || offset < 0 {
			return nil, fail(1232, "invalid key generator: increment or offset out of range").withCode(400)
		}
		out.Set("increment", increment).Set("offset", offset).Set("lastValue", o.Int("lastValue", 0))
	case "uuid":
	default:
		return nil, fail(1232, "invalid key generator: %s", kind).withCode(400)
	}
	return out, nil
}

// computedValues checks and completes the definitions.
func computedValues(v any) (any, error) {
	items, _ := v.([]any)
	out := []any{}
	for _, item := range items {
		o, ok := item.(*value.Object)
		if !ok || o.String("name") == "" || strings.HasPrefix(o.String("name"), "_") {
			return nil, fail(10, "invalid 'computedValues' entry: invalid 'name' attribute")
		}
		if !o.Has("overwrite") {
			return nil, fail(10, "invalid 'computedValues' entry: invalid 'overwrite' attribute")
		}
		if _, err := aql.Parse(o.String("expression")); err != nil {
			return nil, fail(10, "invalid 'computedValues' entry: %v", err)
		}
		on := value.StringList(o.Get("computeOn"))
		if len(on) == 0 {
			on = []string{"insert", "update", "replace"}
		}
		out = append(out, value.New("name", o.String("name"), "expression", o.String("expression"), "computeOn", value.Strings(on...),
			"overwrite", o.Bool("overwrite", false), "failOnWarning", o.Bool("failOnWarning", false), "keepNull", o.Bool("keepNull", true)))
	}
	return out, nil
}

// properties is what GET properties shows.
func (s *Server) properties(c *store.Collection) *value.Object {
	names := []string{"id", "name", "type", "status", "statusString", "isSystem", "globallyUniqueId", "waitForSync", "cacheEnabled",
		"schema", "computedValues", "syncByRevision", "usesRevisionsAsDocumentIds", "isSmartChild", "isDisjoint", "internalValidatorType"}
	if s.isCluster() || s.atLeast(3, 12, 0) {
		names = append(names, "numberOfShards", "shardKeys", "replicationFactor", "writeConcern", "minReplicationFactor",
			"shardingStrategy", "isSmart", "smartGraphAttribute", "smartJoinAttribute", "distributeShardsLike")
	}
	out := c.Props.Keep(names...)
	return out.Set("keyOptions", c.Props.Get("keyOptions"))
}

// setProperties is PUT properties: what is given changes, the rest stays.
func setProperties(r *request, o *value.Object) error {
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.vars["c"], writeDB)
		if err != nil {
			return err
		}
		return r.changeProperties(tx, c, o)
	})
	if err != nil {
		return err
	}
	return getProperties(r)
}

func (s *Server) changeProperties(tx *store.Tx, c *store.Collection, o *value.Object) error {
	for _, n := range []string{"waitForSync", "cacheEnabled"} {
		if b, ok := o.Get(n).(bool); ok {
			c.Props.Set(n, b)
		}
	}
	if v, ok := o.Lookup("schema"); ok {
		if schema, _ := v.(*value.Object); schema != nil && len(schema.Members) > 0 {
			c.Props.Set("schema", schema)
		} else {
			c.Props.Set("schema", nil)
		}
	}
	if v, ok := o.Lookup("computedValues"); ok && s.atLeast(3, 10, 0) {
		values, err := computedValues(v)
		if err != nil {
			return err
		}
		c.Props.Set("computedValues", values)
	}
	wc := defaultTo(o.Get("writeConcern"), o.Get("minReplicationFactor"))
	rf := o.Get("replicationFactor")
	if s.isCluster() && c.Props.String("distributeShardsLike") == "" && (rf != nil || wc != nil) {
		n, isNumber := value.Float(defaultTo(rf, c.Props.Get("replicationFactor")))
		w, _ := value.Float(defaultTo(wc, c.Props.Get("writeConcern")))
		if isNumber && (n < 1 || n > 10 || w > n) {
			return fail(10, "bad value for replicationFactor or writeConcern")
		}
		if isNumber {
			c.Props.Set("replicationFactor", int64(n))
			s.resizeShards(tx, c, int(n))
		}
		c.Props.Set("writeConcern", int64(w)).Set("minReplicationFactor", int64(w))
	}
	tx.SaveCollection(c)
	return nil
}
