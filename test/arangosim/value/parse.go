package value

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// nestingLimit is the server's (VelocyPackHelper.cpp: nestingLimit 200+1, exclusive).
const nestingLimit = 200

// Parse reads exactly one JSON value.
func Parse(b []byte) (any, error) {
	p := parser{b: b}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i != len(b) {
		return nil, p.fail("expecting EOF")
	}
	return v, nil
}

// ParseObject reads exactly one JSON object.
func ParseObject(b []byte) (*Object, error) {
	v, err := Parse(b)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*Object)
	if !ok {
		return nil, fmt.Errorf("expecting a JSON object")
	}
	return o, nil
}

// MustObject reads an object that was written by Append; anything else is a broken database file.
func MustObject(b []byte) *Object {
	o, err := ParseObject(b)
	if err != nil {
		panic(fmt.Sprintf("stored object unreadable: %v", err))
	}
	return o
}

type parser struct {
	b []byte
	i int
}

func (p *parser) fail(what string) error { return fmt.Errorf("%s at position %d", what, p.i) }

func (p *parser) space() {
	for p.i < len(p.b) && (p.b[p.i] == ' ' || p.b[p.i] == '\n' || p.b[p.i] == '\t' || p.b[p.i] == '\r') {
		p.i++
	}
}

func (p *parser) value(depth int) (any, error) {
	p.space()
	if p.i >= len(p.b) {
		return nil, p.fail("expecting item")
	}
	switch c := p.b[p.i]; {
	case c == '{':
		return p.object(depth + 1)
	case c == '[':
		return p.array(depth + 1)
	case c == '"':
		return p.str()
	case c == 't':
		return true, p.word("true")
	case c == 'f':
		return false, p.word("false")
	case c == 'n':
		return nil, p.word("null")
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	return nil, p.fail("value expected")
}

func (p *parser) word(w string) error {
	if len(p.b)-p.i < len(w) || string(p.b[p.i:p.i+len(w)]) != w {
		return p.fail(w + " expected")
	}
	p.i += len(w)
	return nil
}

func (p *parser) object(depth int) (any, error) {
	if depth > nestingLimit {
		return nil, p.fail("too deep nesting in Array/Object")
	}
	p.i++
	o := &Object{}
	for first := true; ; first = false {
		p.space()
		if p.i >= len(p.b) {
			return nil, p.fail("object not closed")
		}
		if p.b[p.i] == '}' && first {
			p.i++
			return o, nil
		}
		if p.b[p.i] != '"' {
			return nil, p.fail("attribute name expected")
		}
		name, err := p.str()
		if err != nil {
			return nil, err
		}
		p.space()
		if p.i >= len(p.b) || p.b[p.i] != ':' {
			return nil, p.fail("':' expected")
		}
		p.i++
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		o.Members = append(o.Members, Member{name, v})
		p.space()
		if p.i >= len(p.b) {
			return nil, p.fail("object not closed")
		}
		p.i++
		switch p.b[p.i-1] {
		case ',':
		case '}':
			return o, unique(o)
		default:
			return nil, p.fail("'}' or ',' expected")
		}
	}
}

// unique refuses an attribute name that occurs twice (checkAttributeUniqueness of the server's request options).
func unique(o *Object) error {
	if len(o.Members) > 16 {
		seen := make(map[string]bool, len(o.Members))
		for _, m := range o.Members {
			if seen[m.Name] {
				return fmt.Errorf("duplicate attribute name")
			}
			seen[m.Name] = true
		}
		return nil
	}
	for i := range o.Members {
		for j := range i {
			if o.Members[i].Name == o.Members[j].Name {
				return fmt.Errorf("duplicate attribute name")
			}
		}
	}
	return nil
}

func (p *parser) array(depth int) (any, error) {
	if depth > nestingLimit {
		return nil, p.fail("too deep nesting in Array/Object")
	}
	p.i++
	list := []any{}
	for {
		p.space()
		if p.i < len(p.b) && p.b[p.i] == ']' && len(list) == 0 {
			p.i++
			return list, nil
		}
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		p.space()
		if p.i >= len(p.b) {
			return nil, p.fail("array not closed")
		}
		p.i++
		switch p.b[p.i-1] {
		case ',':
		case ']':
			return list, nil
		default:
			return nil, p.fail("']' or ',' expected")
		}
	}
}

// number keeps whole numbers within 64 bits as integers; all else is a double.
func (p *parser) number() (any, error) {
	start, whole := p.i, true
scan:
	for ; p.i < len(p.b); p.i++ {
		switch c := p.b[p.i]; {
		case c >= '0' && c <= '9' || c == '-' && p.i == start:
		case c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-':
			whole = false
		default:
			break scan
		}
	}
	text := string(p.b[start:p.i])
	digits := text
	if digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' || digits[len(digits)-1] == '.' || digits[0] == '.' {
		return nil, p.fail("scanned number malformed")
	}
	if whole {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, p.fail("numeric value out of bounds")
	}
	return f, nil
}

func (p *parser) str() (string, error) {
	p.i++
	start := p.i
	for p.i < len(p.b) && p.b[p.i] != '"' && p.b[p.i] != '\\' && p.b[p.i] >= 0x20 {
		p.i++
	}
	if p.i < len(p.b) && p.b[p.i] == '"' {
		s := string(p.b[start:p.i])
		p.i++
		if !utf8.ValidString(s) {
			return "", p.fail("invalid UTF-8 sequence")
		}
		return s, nil
	}
	out := append([]byte(nil), p.b[start:p.i]...)
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			p.i++
			if !utf8.Valid(out) {
				return "", p.fail("invalid UTF-8 sequence")
			}
			return string(out), nil
		case c < 0x20:
			return "", p.fail("unexpected control character")
		case c != '\\':
			out = append(out, c)
			p.i++
		default:
			var err error
			if out, err = p.escape(out); err != nil {
				return "", err
			}
		}
	}
	return "", p.fail("unfinished string")
}

var simpleEscapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (p *parser) escape(out []byte) ([]byte, error) {
	if p.i+1 >= len(p.b) {
		return nil, p.fail("unfinished escape")
	}
	c := p.b[p.i+1]
	if plain, ok := simpleEscapes[c]; ok {
		p.i += 2
		return append(out, plain), nil
	}
	if c != 'u' {
		return nil, p.fail("invalid escape")
	}
	r, err := p.hex()
	if err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(r) && p.i+1 < len(p.b) && p.b[p.i] == '\\' && p.b[p.i+1] == 'u' {
		back := p.i
		low, err := p.hex()
		if err != nil {
			return nil, err
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return utf8.AppendRune(out, pair), nil
		}
		p.i = back
	}
	return utf8.AppendRune(out, r), nil
}

// hex reads \uXXXX.
func (p *parser) hex() (rune, error) {
	if p.i+6 > len(p.b) {
		return 0, p.fail("unfinished \\uXXXX")
	}
	n, err := strconv.ParseUint(string(p.b[p.i+2:p.i+6]), 16, 32)
	if err != nil {
		return 0, p.fail("illegal \\uXXXX")
	}
	p.i += 6
	return rune(n), nil
}
