package server

import (
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// indexDefinition checks what a client sent and fills in the server's defaults, by type.
func (s *Server) indexDefinition(tx *store.Tx, c *store.Collection, o *value.Object) (*value.Object, error) {
	kind := o.String("type")
	fields := o.Array("fields")
	def := value.New("fields", fields, "id", "", "name", o.String("name"), "sparse", o.Bool("sparse", false), "type", kind, "unique", o.Bool("unique", false))
	if kind != "inverted" {
		if len(fields) == 0 || len(value.StringList(fields)) != len(fields) {
			return nil, fail(10, "index fields must be an array of strings")
		}
	}
	switch kind {
	case "persistent", "hash", "skiplist":
		def.Set("deduplicate", o.Bool("deduplicate", true)).Set("estimates", o.Bool("estimates", true))
		if s.atLeast(3, 10, 0) {
			def.Set("cacheEnabled", o.Bool("cacheEnabled", false))
			if stored := o.Array("storedValues"); len(stored) > 0 {
				def.Set("storedValues", stored)
			}
		}
		def.Set("selectivityEstimate", 1)
	case "ttl":
		if len(fields) != 1 {
			return nil, fail(10, "ttl indexes need exactly one field")
		}
		def.Set("sparse", true).Set("unique", false).Set("estimates", false).Set("expireAfter", defaultTo(o.Get("expireAfter"), int64(0)))
	case "geo", "geo1", "geo2":
		def.Set("type", "geo").Set("sparse", true).Set("unique", false).Set("geoJson", o.Bool("geoJson", false)).
			Set("legacyPolygons", o.Bool("legacyPolygons", false)).Set("maxNumCoverCells", 8).Set("worstIndexedLevel", 17).Set("bestIndexedLevel", 4)
	case "fulltext":
		def.Set("sparse", true).Set("unique", false).Set("minLength", defaultTo(o.Get("minLength"), int64(2)))
	case "zkd", "mdi", "mdi-prefixed":
		if err := s.multidimensional(kind, o, def); err != nil {
			return nil, err
		}
	case "inverted":
		if !s.atLeast(3, 10, 0) {
			return nil, fail(10, "invalid index type")
		}
		return s.invertedDefinition(tx, c, o)
	case "vector":
		if !s.atLeast(3, 12, 4) {
			return nil, fail(10, "invalid index type")
		}
		return s.vectorDefinition(c, tx, o, def)
	default:
		return nil, fail(10, "invalid index type")
	}
	return def, nil
}

func (s *Server) multidimensional(kind string, o, def *value.Object) error {
	if kind != "zkd" && !s.atLeast(3, 12, 0) || o.String("fieldValueTypes") != "double" {
		return fail(10, "multi-dimensional indexes need fieldValueTypes double")
	}
	def.Set("fieldValueTypes", "double").Set("estimates", o.Bool("estimates", !o.Bool("unique", false)))
	if kind == "mdi-prefixed" {
		if len(o.Array("prefixFields")) == 0 {
			return fail(10, "mdi-prefixed indexes need prefixFields")
		}
		def.Set("prefixFields", o.Get("prefixFields"))
	}
	if stored := o.Array("storedValues"); len(stored) > 0 {
		def.Set("storedValues", stored)
	}
	def.Set("selectivityEstimate", 1)
	return nil
}

var defaultFeatures = []string{"frequency", "norm"}

// invertedDefinition fills in an inverted index as the server echoes it.
func (s *Server) invertedDefinition(_ *store.Tx, _ *store.Collection, o *value.Object) (*value.Object, error) {
	if len(o.Array("fields")) == 0 && !o.Bool("includeAllFields", false) {
		return nil, fail(10, "inverted indexes need fields or includeAllFields")
	}
	analyzer := o.String("analyzer")
	if analyzer == "" {
		analyzer = "identity"
	}
	features := o.Get("features")
	if len(o.Array("features")) == 0 {
		features = value.Strings(defaultFeatures...)
		if analyzer == "identity" {
			features = value.Strings("frequency", "norm")
		}
	}
	fields := []any{}
	for _, f := range o.Array("fields") {
		field, err := invertedField(f)
		if err != nil {
			return nil, err
		}
		fields = append(fields, field)
	}
	def := value.New("analyzer", analyzer, "cleanupIntervalStep", defaultTo(o.Get("cleanupIntervalStep"), int64(2)),
		"commitIntervalMsec", defaultTo(o.Get("commitIntervalMsec"), int64(1000)),
		"consolidationIntervalMsec", defaultTo(o.Get("consolidationIntervalMsec"), int64(1000)),
		"consolidationPolicy", s.consolidation(o.Object("consolidationPolicy")),
		"features", features, "fields", fields, "id", "", "name", o.String("name"),
		"includeAllFields", o.Bool("includeAllFields", false), "trackListPositions", o.Bool("trackListPositions", false),
		"searchField", o.Bool("searchField", false), "sparse", true, "type", "inverted", "unique", false, "version", 1,
		"storedValues", storedValues(o.Array("storedValues")), "primarySort", primarySort(o.Object("primarySort")),
		"writebufferActive", defaultTo(o.Get("writebufferActive"), int64(0)), "writebufferIdle", defaultTo(o.Get("writebufferIdle"), int64(64)),
		"writebufferSizeMax", defaultTo(o.Get("writebufferSizeMax"), int64(33554432)))
	for _, n := range []string{"parallelism", "cache", "primaryKeyCache", "optimizeTopK"} {
		if v, ok := o.Lookup(n); ok && v != nil && v != false {
			def.Set(n, v)
		}
	}
	return def, nil
}

func invertedField(f any) (any, error) {
	switch f := f.(type) {
	case string:
		return value.New("name", f), nil
	case *value.Object:
		if f.String("name") == "" {
			return nil, fail(10, "inverted index: a field needs a name")
		}
		out := &value.Object{}
		for _, m := range f.Members {
			if m.Value == nil || m.Value == false || m.Value == "" {
				continue
			}
			if m.Name == "nested" {
				nested := []any{}
				for _, n := range f.Array("nested") {
					field, err := invertedField(n)
					if err != nil {
						return nil, err
					}
					nested = append(nested, field)
				}
				m.Value = nested
			}
			out.Set(m.Name, m.Value)
		}
		return out, nil
	}
	return nil, fail(10, "inverted index: malformed field")
}

// storedValues: a list of attributes or of objects, shown as objects.
func storedValues(list []any) []any {
	out := []any{}
	for _, v := range list {
		switch v := v.(type) {
		case string:
			out = append(out, value.New("fields", value.Strings(v), "compression", "lz4"))
		case []any:
			out = append(out, value.New("fields", v, "compression", "lz4"))
		case *value.Object:
			o := v.Clone().Default("compression", "lz4")
			if o.Get("cache") == false {
				o.Delete("cache")
			}
			out = append(out, o)
		}
	}
	return out
}

func primarySort(o *value.Object) *value.Object {
	out := value.New("fields", []any{}, "compression", "lz4")
	if o == nil {
		return out
	}
	fields := []any{}
	for _, f := range o.Array("fields") {
		if e, ok := f.(*value.Object); ok {
			asc := e.Bool("asc", true)
			if d := e.String("direction"); d != "" {
				asc = strings.EqualFold(d, "asc")
			}
			fields = append(fields, value.New("field", e.String("field"), "asc", asc))
		}
	}
	out.Set("fields", fields)
	if c := o.String("compression"); c != "" {
		out.Set("compression", c)
	}
	if o.Bool("cache", false) {
		out.Set("cache", true)
	}
	return out
}
