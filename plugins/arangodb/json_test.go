package arangodb

import (
	"encoding/json"
	"testing"
)

func TestParseDocumentKeepsTheText(t *testing.T) {
	for _, c := range []struct{ in, key, rev, body string }{
		{`{"_key":"a","_id":"c/a","_rev":"_x1","n":1.0,"m":1e+300}`, "a", "_x1", `{"_key":"a","n":1.0,"m":1e+300}`},
		{`{"z":{"b":1,"a":[1,{"_id":"kept"}]},"_rev":"r","_id":"c/k","_key":"k"}`, "k", "r", `{"z":{"b":1,"a":[1,{"_id":"kept"}]},"_key":"k"}`},
		{` { "_key" : "s p" , "t" : "\"}{,\\" , "_id":"x" } `, "s p", "", `{"_key" : "s p","t" : "\"}{,\\"}`},
		{`{"_key":"\u0061b","u":18446744073709551615}`, "ab", "", `{"_key":"\u0061b","u":18446744073709551615}`},
		{`{"_id":"c/e","_key":"e"}`, "e", "", `{"_key":"e"}`},
	} {
		d, err := parseDocument([]byte(c.in), nil)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if string(d.key) != c.key || string(d.rev) != c.rev || string(d.body) != c.body {
			t.Errorf("%s: key %q, rev %q, body %s", c.in, d.key, d.rev, d.body)
		}
	}
	for _, bad := range []string{``, `{`, `[]`, `{"a":1}`, `{"_key":1}`, `{"_key":"a"`, `{"_key":"a"}{}`, `{"_key":"a",}`, `{"_key":"a" "b":1}`, `{"_key":"a","b":}`, `{"_key":"a","b":[1}`} {
		if d, err := parseDocument([]byte(bad), nil); err == nil {
			t.Errorf("%s was taken for %s", bad, d.body)
		}
	}
}

// FuzzParseDocument: whatever the text, no panic; what is taken and is JSON stays the same JSON but for _id and _rev.
func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"_key":"a","_id":"c/a","_rev":"_x1","n":[1.0,{"b":"\""}]}`))
	f.Add([]byte(`{"_key":"a","b":{"c":[[[]]]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parseDocument(text, nil)
		if err != nil || !json.Valid(text) {
			return
		}
		if !json.Valid(d.body) {
			t.Fatalf("%q became %q", text, d.body)
		}
		var a, b map[string]json.RawMessage
		if json.Unmarshal(text, &a) != nil || json.Unmarshal(d.body, &b) != nil {
			return
		}
		for k, v := range b {
			if string(a[k]) != string(v) {
				t.Fatalf("%q: attribute %q became %q", text, k, v)
			}
		}
	})
}
