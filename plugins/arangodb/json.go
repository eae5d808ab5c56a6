package arangodb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var errNotObject = errors.New("not a JSON object")

// document is one document as the server wrote it.
type document struct {
	key  []byte
	rev  []byte // text of _rev without quotes
	body []byte // the text without _id, which follows from the collection, and _rev, which the server gives out
}

// parseDocument takes a document apart without touching how its numbers,
// strings and attributes are written. The document's slices point into text
// or into buf, which is grown and returned in body.
func parseDocument(text, buf []byte) (document, error) {
	d := document{body: append(buf[:0], '{')}
	i := space(text, 0)
	if i >= len(text) || text[i] != '{' {
		return d, errNotObject
	}
	i = space(text, i+1)
	for first := true; ; first = false {
		if i < len(text) && text[i] == '}' && first {
			break
		}
		start := i
		name, next, err := jsonString(text, i)
		if err != nil {
			return d, err
		}
		i = space(text, next)
		if i >= len(text) || text[i] != ':' {
			return d, fmt.Errorf("no colon at byte %d", i)
		}
		i = space(text, i+1)
		at := i
		if i, err = skipValue(text, i); err != nil {
			return d, err
		}
		keep := true
		switch string(name) {
		case `_id`:
			keep = false
		case `_rev`:
			keep = false
			d.rev = bytes.Trim(text[at:i], `"`)
		case `_key`:
			if d.key, err = unquote(text[at:i]); err != nil {
				return d, err
			}
		}
		if keep {
			if len(d.body) > 1 {
				d.body = append(d.body, ',')
			}
			d.body = append(d.body, text[start:i]...)
		}
		i = space(text, i)
		if i >= len(text) {
			return d, errNotObject
		}
		if text[i] == '}' {
			break
		}
		if text[i] != ',' {
			return d, fmt.Errorf("no comma at byte %d", i)
		}
		i = space(text, i+1)
	}
	if space(text, i+1) != len(text) {
		return d, fmt.Errorf("more than one value in a line")
	}
	d.body = append(d.body, '}')
	if len(d.key) == 0 {
		return d, errors.New("no _key")
	}
	return d, nil
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// jsonString returns the raw text between the quotes of the string at i, and where it ends.
func jsonString(b []byte, i int) ([]byte, int, error) {
	if i >= len(b) || b[i] != '"' {
		return nil, i, fmt.Errorf("no string at byte %d", i)
	}
	for j := i + 1; j < len(b); j++ {
		switch b[j] {
		case '\\':
			j++
		case '"':
			return b[i+1 : j], j + 1, nil
		}
	}
	return nil, i, fmt.Errorf("string at byte %d has no end", i)
}

func unquote(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != '"' {
		return nil, errors.New("_key is not a string")
	}
	if bytes.IndexByte(b, '\\') < 0 {
		return b[1 : len(b)-1], nil
	}
	var s string
	err := json.Unmarshal(b, &s)
	return []byte(s), err
}

// skipValue returns where the value at i ends.
func skipValue(b []byte, i int) (int, error) {
	if i >= len(b) {
		return i, errNotObject
	}
	switch b[i] {
	case '"':
		_, next, err := jsonString(b, i)
		return next, err
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				_, next, err := jsonString(b, i)
				if err != nil {
					return i, err
				}
				i = next
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1, nil
				}
			}
			i++
		}
		return i, errNotObject
	}
	j := i
	for j < len(b) && bytes.IndexByte([]byte(",}] \t\r\n"), b[j]) < 0 {
		j++
	}
	if j == i {
		return i, fmt.Errorf("no value at byte %d", i)
	}
	return j, nil
}

// object is a definition: its attributes by name, numbers as written.
type object map[string]any

// parseObject reads a definition.
func parseObject(b []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var o object
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("definition: %w: %w", plugins.ErrData, err)
	}
	if o == nil {
		return nil, fmt.Errorf("definition: %w: %w", plugins.ErrData, errNotObject)
	}
	return o, nil
}

// text is the canonical form of a definition: attributes in the order of their names.
func (o object) text() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any(o)); err != nil {
		panic(err) // a value that was decoded from JSON can be encoded
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func (o object) str(name string) string { s, _ := o[name].(string); return s }

func (o object) flag(name string) bool { b, _ := o[name].(bool); return b }

func (o object) number(name string) string {
	n, _ := o[name].(json.Number)
	return n.String()
}

func (o object) sub(name string) object {
	m, _ := o[name].(map[string]any)
	return m
}

// without is a copy that lacks some attributes.
func (o object) without(names ...string) object {
	out := object{}
	for k, v := range o {
		out[k] = v
	}
	for _, n := range names {
		delete(out, n)
	}
	return out
}
