package server_test

import (
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// A schema refuses documents as its level says, and never sees system
// attributes. Source: Concepts, Data structure, "Schema validation".
func TestSchemaLevels(t *testing.T) {
	s, _ := start(t, server.Config{})
	const rule = `"rule":{"type":"object","properties":{"n":{"type":"array","items":{"type":"number","maximum":6}}},"additionalProperties":{"type":"string"},"required":["n"]}`
	const good, bad = `{"_key":"k","n":[1,6],"text":"t"}`, `{"_key":"k","n":[7]}`
	for _, c := range []struct {
		level                                          string
		insert, change, changeInvalid, insertWithExtra bool // whether a bad document is taken
	}{
		{"none", true, true, true, true},
		{"new", false, true, true, false},
		{"moderate", false, false, true, false},
		{"strict", false, false, false, false},
	} {
		t.Run(c.level, func(t *testing.T) {
			s.t = t
			name := "c" + c.level
			s.ok("POST", "/_api/collection", `{"name":"`+name+`"}`)
			s.ok("POST", "/_api/document/"+name, `{"_key":"invalid","n":[7]}`)
			s.ok("PUT", "/_api/collection/"+name+"/properties", `{"schema":{`+rule+`,"level":"`+c.level+`","message":"no good"}}`)
			taken := func(what, method, path, body string, want bool) {
				t.Helper()
				a := s.do(method, "/_api/document/"+name+path, body)
				if (a.code < 300) != want || !want && (a.code != 400 || a.get("errorNum") != 1620.0 || a.str("errorMessage") != "no good") {
					t.Errorf("%s: %d %s, want it taken: %t", what, a.code, a.body, want)
				}
			}
			taken("a bad new document", "POST", "", bad, c.insert)
			taken("an extra attribute", "POST", "", `{"n":[],"extra":5}`, c.insertWithExtra)
			taken("a good document", "POST", "?overwriteMode=replace", good, true)
			taken("a good document made bad", "PATCH", "/k", `{"n":[7]}`, c.change)
			taken("a bad document changed", "PATCH", "/invalid", `{"n":[8]}`, c.changeInvalid)
			s.ok("PUT", "/_api/collection/"+name+"/properties", `{"schema":null}`)
			taken("a bad document once the schema is gone", "PATCH", "/invalid", `{"n":[9]}`, true)
		})
	}
}

// Keywords of JSON Schema draft 4, each with a value that it takes and one that it refuses.
func TestSchemaKeywords(t *testing.T) {
	s, _ := start(t, server.Config{})
	s.ok("POST", "/_api/collection", `{"name":"c"}`)
	for _, c := range [][3]string{
		{`"type":"integer"`, `5`, `5.5`},
		{`"type":["string","null"]`, `null`, `1`},
		{`"type":"boolean"`, `false`, `"false"`},
		{`"enum":["a",2,{"b":[]}]`, `{"b":[]}`, `"b"`},
		{`"minimum":3`, `3`, `2.9`},
		{`"minLength":2,"maxLength":3`, `"äöü"`, `"äöüß"`},
		{`"pattern":"^a+$"`, `"aa"`, `"ab"`},
		{`"minItems":1`, `[0]`, `[]`},
		{`"maxProperties":1`, `{"a":1}`, `{"a":1,"b":2}`},
		{`"additionalProperties":false,"properties":{"a":{}}`, `{"a":1}`, `{"b":1}`},
		{`"allOf":[{"minimum":1},{"maximum":2}]`, `2`, `3`},
		{`"anyOf":[{"type":"string"},{"type":"array"}]`, `[]`, `{}`},
		{`"oneOf":[{"minimum":1},{"minimum":5}]`, `3`, `6`},
		{`"not":{"type":"string"}`, `1`, `""`},
	} {
		s.ok("PUT", "/_api/collection/c/properties", `{"schema":{"rule":{"properties":{"v":{`+c[0]+`}}}}}`)
		s.ok("POST", "/_api/document/c", `{"v":`+c[1]+`}`)
		s.refused(400, 1620, "POST", "/_api/document/c", `{"v":`+c[2]+`}`)
	}
}

// A vector index needs documents first, until 3.12.10. Source: the driver's
// CreateVectorIndexOptions (collection_indexes.go); Release notes of 3.12.9 and 3.12.10.
func TestVectorIndexNeedsDocuments(t *testing.T) {
	const index = `{"type":"vector","fields":["v"],"params":{"metric":"l2","dimension":2,"nLists":2}`
	for _, version := range []string{"3.12.6", "3.12.9", "3.12.10"} {
		t.Run(version, func(t *testing.T) {
			s, _ := start(t, server.Config{Version: version})
			s.ok("POST", "/_api/collection", `{"name":"c"}`)
			s.ok("POST", "/_api/document/c", `{"v":[0,1]}`)
			path := "/_api/index?collection=c"
			newest := version == "3.12.10"
			if a := s.do("POST", path, index+"}"); (a.code < 300) != newest || newest && a.str("trainingState") != "unusable" {
				t.Errorf("too few documents: %d %s", a.code, a.body)
			}
			if a := s.do("POST", path, index+`,"inBackground":true}`); (a.code < 300) != (version != "3.12.6") {
				t.Errorf("too few documents, in the background: %d %s", a.code, a.body)
			}
			s.ok("POST", "/_api/document/c", `{"v":[1,1]}`)
			a := s.ok("POST", path, index+"}")
			if state := a.str("trainingState"); version == "3.12.6" && state != "" || version != "3.12.6" && state != "ready" {
				t.Errorf("with enough documents: %s", a.body)
			}
		})
	}
}
