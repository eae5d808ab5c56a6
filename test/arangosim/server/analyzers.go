package server

import (
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Analyzers are documents of _analyzers, as on the real server; built-in ones are not stored.

var builtin = []string{"identity", "text_de", "text_en", "text_es", "text_fi", "text_fr", "text_it", "text_nl", "text_no", "text_pt", "text_ru", "text_sv", "text_zh"}

func builtinAnalyzer(name string) *value.Object {
	features := value.Strings("frequency", "norm")
	if name == "identity" {
		return value.New("name", name, "type", "identity", "properties", &value.Object{}, "features", features)
	}
	return value.New("name", name, "type", "text", "properties", value.New("locale", strings.TrimPrefix(name, "text_"), "case", "lower",
		"stopwords", []any{}, "accent", false, "stemming", true), "features", value.Strings("frequency", "norm", "position"))
}

// shownAnalyzer is an analyzer as the API answers it: its name carries the database.
func shownAnalyzer(d *store.Database, o *value.Object) *value.Object {
	return value.New("name", d.Name+"::"+o.String("name"), "type", o.String("type"), "properties", o.Get("properties"), "features", o.Get("features"))
}

func findAnalyzer(tx *store.Tx, d *store.Database, name string) (*store.Database, *value.Object, error) {
	if db, short, ok := strings.Cut(name, "::"); ok {
		name = short
		if db == "" {
			db = store.SystemDatabase
		}
		if d = tx.Database(db); d == nil {
			return nil, nil, fail(1228)
		}
	}
	raw := tx.Get(tx.Collection(d, "_analyzers"), name)
	if raw == nil {
		return d, nil, fail(1202)
	}
	return d, value.MustObject(raw), nil
}

func listAnalyzers(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		out := []any{}
		for _, n := range builtin {
			out = append(out, builtinAnalyzer(n))
		}
		for _, db := range []string{store.SystemDatabase, d.Name} {
			other := tx.Database(db)
			tx.Each(tx.Collection(other, "_analyzers"), func(raw []byte) bool {
				out = append(out, shownAnalyzer(other, value.MustObject(raw)))
				return true
			})
			if d.Name == store.SystemDatabase {
				break
			}
		}
		return r.result(200, out)
	})
}

func getAnalyzer(r *request) error {
	for _, n := range builtin {
		if n == r.vars["a"] {
			return r.ok(200, builtinAnalyzer(n))
		}
	}
	return r.view(func(tx *store.Tx, d *store.Database) error {
		at, a, err := findAnalyzer(tx, d, r.vars["a"])
		if err != nil {
			return err
		}
		return r.ok(200, shownAnalyzer(at, a))
	})
}

func createAnalyzer(r *request, o *value.Object) error {
	name := o.String("name")
	if i := strings.LastIndex(name, "::"); i >= 0 {
		name = name[i+2:]
	}
	if !validKey(name) || strings.Trim(name[:1], "0123456789_") == "" {
		return fail(10, "invalid characters in analyzer name '%s'", name)
	}
	props, err := r.analyzerProperties(o.String("type"), o.Object("properties"))
	if err != nil {
		return err
	}
	features := o.Array("features")
	if features == nil {
		features = []any{}
	}
	var out *value.Object
	code := 201
	err = r.update(func(tx *store.Tx, d *store.Database) error {
		if _, old, err := findAnalyzer(tx, d, name); err == nil {
			if old.String("type") != o.String("type") || value.Compare(old.Get("properties"), props) != 0 || value.Compare(old.Get("features"), features) != 0 {
				return fail(10, "name collision detected while registering an arangosearch analyzer: '%s'", name)
			}
			code, out = 200, shownAnalyzer(d, old)
			return nil
		}
		doc := value.New("_key", name, "name", name, "type", o.String("type"), "properties", props, "features", features, "revision", 1)
		out = shownAnalyzer(d, doc)
		w := r.newWriter(tx, tx.Collection(d, "_analyzers"), writeOptions{mode: "conflict", keepNull: true})
		_, err := w.insert(doc)
		return err
	})
	if err != nil {
		return err
	}
	return r.ok(code, out)
}

// analyzerDefaults are what the server adds to the properties of each type.
var analyzerDefaults = map[string]*value.Object{
	"identity":          value.New(),
	"delimiter":         value.New("delimiter", ""),
	"multi_delimiter":   value.New("delimiters", []any{}),
	"stem":              value.New("locale", ""),
	"norm":              value.New("locale", "", "case", "none", "accent", true),
	"ngram":             value.New("min", 0, "max", 0, "preserveOriginal", false, "streamType", "binary", "startMarker", "", "endMarker", ""),
	"text":              value.New("locale", "", "case", "lower", "accent", false, "stemming", true),
	"aql":               value.New("queryString", "", "collapsePositions", false, "keepNull", true, "batchSize", 10, "memoryLimit", 1048576, "returnType", "string"),
	"pipeline":          value.New("pipeline", []any{}),
	"stopwords":         value.New("stopwords", []any{}, "hex", false),
	"collation":         value.New("locale", ""),
	"geojson":           value.New("type", "shape", "options", nil),
	"geopoint":          value.New("latitude", []any{}, "longitude", []any{}, "options", nil),
	"geo_s2":            value.New("type", "shape", "options", nil, "format", "latLngDouble"),
	"segmentation":      value.New("case", "lower", "break", "alpha", "graphic", false),
	"classification":    value.New("model_location", "", "top_k", 1, "threshold", 0.99),
	"nearest_neighbors": value.New("model_location", "", "top_k", 1),
	"minhash":           value.New("analyzer", nil, "numHashes", 1),
	"wildcard":          value.New("ngramSize", 3),
}

func (s *Server) analyzerProperties(kind string, given *value.Object) (*value.Object, error) {
	defaults, ok := analyzerDefaults[kind]
	if !ok || (kind == "geo_s2" || kind == "minhash") && !s.features() || (kind == "multi_delimiter" || kind == "wildcard") && !s.atLeast(3, 12, 0) {
		return nil, fail(10, "unknown analyzer type '%s'", kind)
	}
	out := &value.Object{}
	for _, m := range defaults.Members {
		if v, ok := given.Lookup(m.Name); ok {
			out.Set(m.Name, v)
			continue
		}
		if m.Name == "options" {
			m.Value = value.New("maxCells", 20, "minLevel", 4, "maxLevel", 23)
		}
		if m.Value != nil {
			out.Set(m.Name, value.Clone(m.Value))
		}
	}
	if given != nil {
		for _, m := range given.Members {
			out.Default(m.Name, m.Value)
		}
	}
	if kind == "collation" { // ICU's canonical name has no encoding: en_US.utf-8 becomes en_US
		locale, _, _ := strings.Cut(out.String("locale"), ".")
		out.Set("locale", locale)
	}
	if o := given.Object("options"); o != nil {
		out.Set("options", o.Clone().Default("maxCells", 20).Default("minLevel", 4).Default("maxLevel", 23))
	}
	return out, nil
}

func removeAnalyzer(r *request) error {
	name := r.vars["a"]
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		at, a, err := findAnalyzer(tx, d, name)
		if err != nil {
			return err
		}
		if !r.flag("force", false) && analyzerUsed(tx, at, a.String("name")) {
			return fail(18, "analyzer in-use while removing arangosearch analyzer '%s'", name)
		}
		return tx.Delete(tx.Collection(at, "_analyzers"), a.String("_key"))
	})
	if err != nil {
		return err
	}
	return r.ok(200, value.New("name", name))
}

func analyzerUsed(tx *store.Tx, d *store.Database, name string) bool {
	for _, v := range tx.Entries(d, "views") {
		if strings.Contains(string(value.JSON(v.Get("links"))), `"`+name+`"`) {
			return true
		}
	}
	return false
}
