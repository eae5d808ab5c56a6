package server

import (
	"fmt"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Vector indexes are trained on the documents that are there: until 3.12.9 one
// cannot be made without, in 3.12.9 it can in the background, from 3.12.10 on
// it can always and says that it is unusable (the driver's IndexesTraining
// notes and the release notes of 3.12.9 and 3.12.10).

func (s *Server) vectorDefinition(c *store.Collection, tx *store.Tx, o, def *value.Object) (*value.Object, error) {
	params := o.Object("params")
	if params == nil || len(o.Array("fields")) != 1 {
		return nil, fail(10, "vector indexes need one field and params")
	}
	metric := params.String("metric")
	if metric != "cosine" && metric != "l2" && metric != "innerProduct" || params.Int("dimension", 0) < 1 {
		return nil, fail(10, "vector indexes need params metric and dimension")
	}
	out := value.New("dimension", params.Int("dimension", 0), "metric", metric)
	if err := s.vectorLists(params, out); err != nil {
		return nil, err
	}
	out.Set("trainingIterations", defaultTo(params.Get("trainingIterations"), int64(25))).
		Set("defaultNProbe", defaultTo(params.Get("defaultNProbe"), int64(1)))
	for _, n := range []string{"factory", "numberOfDocsPerCentroid"} {
		if v := params.Get(n); v != nil && v != "" {
			out.Set(n, v)
		}
	}
	def.Set("params", out)
	if s.atLeast(3, 12, 7) {
		if stored := o.Array("storedValues"); len(stored) > 0 {
			def.Set("storedValues", stored)
		}
	}
	later := s.atLeast(3, 12, 10) || s.atLeast(3, 12, 9) && o.Bool("inBackground", false)
	if have, need := vectorDocuments(tx, c.Shards(), def), listsOf(def); !later && have < need {
		return nil, fail(10, "vector index: %d documents to train on, nLists needs %d", have, need).withCode(500)
	}
	return def, nil
}

// vectorLists checks nLists: a number, and from 3.12.10 on also nothing or a rule that follows the number of documents.
func (s *Server) vectorLists(params, out *value.Object) error {
	given, ok := params.Lookup("nLists")
	rule := params.Object("nLists")
	switch {
	case !ok && s.atLeast(3, 12, 10):
		return nil
	case rule != nil && s.atLeast(3, 12, 10):
		if !strings.HasPrefix(rule.String("strategy"), "auto") || rule.Int("multiplier", 1) < 1 || rule.Int("minNLists", 1) < 1 {
			return fail(10, "vector index: nLists needs a strategy and positive numbers")
		}
	case params.Int("nLists", 0) < 1:
		return fail(10, "vector indexes need a positive nLists")
	}
	out.Set("nLists", given)
	return nil
}

// listsOf is how many documents the training needs at least.
func listsOf(index *value.Object) int64 {
	params := index.Object("params")
	if rule := params.Object("nLists"); rule != nil {
		return rule.Int("minNLists", 1)
	}
	return params.Int("nLists", 1)
}

// vectorDocuments counts the documents that have the indexed attribute.
func vectorDocuments(tx *store.Tx, shards []string, index *value.Object) int64 {
	path := strings.Split(value.StringList(index.Get("fields"))[0], ".")
	var n int64
	for _, shard := range shards {
		tx.Scan(shard, 0, func(_ uint64, doc []byte) bool {
			if list, ok := value.Path(value.MustObject(doc), path...).([]any); ok && len(list) > 0 {
				n++
			}
			return true
		})
	}
	return n
}

// training is what the API shows of an index's state, and of each shard's when details are asked for.
func (s *Server) training(tx *store.Tx, c *store.Collection, index, out *value.Object, details bool) {
	if index.String("type") != "vector" || !s.atLeast(3, 12, 9) {
		return
	}
	state := func(shards []string) (string, string) {
		have, need := vectorDocuments(tx, shards, index), listsOf(index)
		if have < need {
			return "unusable", fmt.Sprintf("%d documents to train on, %d are needed", have, need)
		}
		return "ready", ""
	}
	now, text := state(c.Shards())
	out.Set("trainingState", now)
	if text != "" {
		out.Set("errorMessage", text)
	}
	if !details || !s.atLeast(3, 12, 10) {
		return
	}
	all := value.New()
	for _, shard := range c.Shards() {
		now, text := state([]string{shard})
		one := value.New("trainingState", now, "resolvedNLists", listsOf(index))
		if text != "" {
			one.Set("error", text)
		}
		all.Set(shard, one)
	}
	out.Set("shards", all)
}

// usesVectorIndex tells whether a query asks for near vectors and an index for them exists.
func usesVectorIndex(tx *store.Tx, d *store.Database, query string) bool {
	if !strings.Contains(query, "APPROX_NEAR_") {
		return false
	}
	for _, c := range tx.Collections(d) {
		for _, i := range c.Indexes() {
			if i.String("type") == "vector" {
				return true
			}
		}
	}
	return false
}
