package arangodb

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// stored is what a backup says of everything but documents.
type stored struct {
	layout
	mode, version string
	infos         map[string]plugins.ArtifactInfo
	last          map[string][]byte
}

// readStored reads the definitions of a backup.
func readStored(ctx context.Context, r plugins.ArtifactReader) (*stored, error) {
	s := &stored{layout: layout{databases: map[string]*database{}}, infos: map[string]plugins.ArtifactInfo{}}
	for _, a := range r.Artifacts() {
		s.infos[a.Name] = a
	}
	a, ok := s.infos[databasesName]
	if !ok {
		return nil, fmt.Errorf("the backup lists no databases: %w", plugins.ErrData)
	}
	s.mode, s.version = a.Attributes["mode"], a.Attributes["version"]
	dbs, err := readSmall(ctx, r, databasesName)
	if err != nil {
		return nil, err
	}
	for n, def := range dbs {
		d := &database{name: n, def: def, collections: map[string]*collection{}, views: map[string][]byte{}, analyzers: map[string][]byte{}, tasks: map[string][]byte{}}
		s.databases[n] = d
		recs, err := readSmall(ctx, r, structurePrefix+n)
		if err != nil {
			return nil, err
		}
		for _, k := range sortedKeys(recs) { // collections come before their indexes
			if err := d.take(k, recs[k]); err != nil {
				return nil, fmt.Errorf("database %s: %w", n, err)
			}
		}
	}
	for name := range s.infos {
		db, coll, ok := splitDocuments(name)
		if !ok {
			continue
		}
		d := s.databases[db]
		if d == nil {
			return nil, fmt.Errorf("artifact %s is of no database of the backup: %w", name, plugins.ErrData)
		}
		if d.collections[coll] == nil { // one of the server's own
			d.collections[coll] = &collection{name: coll, params: object{}, indexes: map[string][]byte{}}
		}
	}
	s.last, err = readSmall(ctx, r, countersName)
	return s, err
}

// splitDocuments takes the name of an artifact of documents apart. Neither name holds a slash.
func splitDocuments(name string) (db, coll string, ok bool) {
	rest, ok := strings.CutPrefix(name, documentsPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// item is one definition that differs.
type item struct {
	db, kind, name string // kind: database, analyzer, collection, index (name: COLLECTION/INDEX), task, view
	how            string // missing, changed, extra: of the live data
	live, want     []byte
}

func (i item) String() string { return i.db + " " + i.kind + " " + i.name }

func (i item) artifact() string {
	if i.kind == "database" {
		return databasesName
	}
	return structurePrefix + i.db
}

// differ compares the definitions.
func (s *session) differ(live *layout, want *stored) []item {
	same := want.mode == s.mode()
	var out []item
	for _, n := range union(live.databases, want.databases) {
		l, w := live.databases[n], want.databases[n]
		switch {
		case l == nil:
			out = append(out, item{db: n, kind: "database", how: "missing", want: w.def})
			l = &database{name: n}
		case w == nil:
			out = append(out, item{db: n, kind: "database", how: "extra", live: l.def})
			continue
		case same && !bytes.Equal(l.def, w.def):
			out = append(out, item{db: n, kind: "database", how: "changed", live: l.def, want: w.def})
		}
		lr, wr := l.records(), w.records()
		for _, k := range union(lr, wr) {
			kind, name, _ := strings.Cut(k, "/")
			a, b := lr[k], wr[k]
			it := item{db: n, kind: kind, name: name, live: a, want: b, how: "changed"}
			switch {
			case a == nil:
				it.how = "missing"
			case b == nil:
				it.how = "extra"
			case bytes.Equal(a, b), kind == "collection" && !same && bytes.Equal(portable(a), portable(b)):
				continue
			}
			out = append(out, it)
		}
	}
	return out
}

// portable is the definition of a collection without what only a cluster has.
func portable(def []byte) []byte {
	o, err := parseObject(def)
	if err != nil {
		return def
	}
	return o.without(clusterParams...).text()
}

func union[T any](a, b map[string]T) []string {
	out := sortedKeys(a)
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// Properties of a collection that can be changed:
// https://docs.arango.ai/arangodb/stable/develop/http-api/collections/#change-the-properties-of-a-collection.
var mutableParams = []string{"waitForSync", "cacheEnabled", "schema", "computedValues", "replicationFactor", "writeConcern"}

// changeable says whether a collection can be made like want without making it anew.
func changeable(live, want []byte, same bool) bool {
	l, err1 := parseObject(live)
	w, err2 := parseObject(want)
	if err1 != nil || err2 != nil {
		return false
	}
	l, w = l.without(mutableParams...), w.without(mutableParams...)
	if !same {
		l, w = l.without(clusterParams...), w.without(clusterParams...)
	}
	return bytes.Equal(l.text(), w.text())
}
