package elasticsearch

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestStreamGivesBytesAsSent(t *testing.T) {
	const doc = ` { "a" : [ {"x": "q\"}]\\", "n":1e3, "u":"\u00fc\/" } , 7, "" ,true , [] ],"b":{} , "c": -1.0 } `
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(doc), "byte by byte": iotest.OneByteReader(strings.NewReader(doc))} {
		var got []string
		s := newStream(r)
		err := s.object(func(name string) error {
			got = append(got, name)
			if name == "a" {
				return s.array(func() error {
					b, err := s.value()
					got = append(got, string(b))
					return err
				})
			}
			b, err := s.value()
			got = append(got, string(b))
			return err
		})
		want := []string{"a", `{"x": "q\"}]\\", "n":1e3, "u":"\u00fc\/" }`, "7", `""`, "true", "[]", "b", "{}", "c", "-1.0"}
		if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// FuzzStream: whatever encoding/json takes, members and stream cut alike, and nothing makes them panic or hang.
func FuzzStream(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":"\\","b":[{"c":"}"}]}`, `{"a`, `[1`, `{"a":1,}`, `nul`, `{"a":{"b":2}} x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want map[string]json.RawMessage
		valid := json.Unmarshal(b, &want) == nil && want != nil
		n := 0
		err := members(b, func(_, v []byte) error {
			n++
			if valid && !json.Valid(v) {
				t.Errorf("member %q is no JSON", v)
			}
			return nil
		})
		if valid && (err != nil || n < len(want)) {
			t.Errorf("%d members of %d, %v", n, len(want), err)
		}
		s := newStream(bytes.NewReader(b))
		k := 0
		err = s.object(func(string) error { k++; _, err := s.value(); return err })
		if valid && (err != nil || k != n) {
			t.Errorf("stream found %d members of %d, %v", k, n, err)
		}
	})
}
