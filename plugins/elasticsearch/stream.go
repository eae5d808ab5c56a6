package elasticsearch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// stream reads JSON as it arrives, one value at a time, and gives the values' bytes as
// the server sent them: a page of search hits is never held as a whole.
type stream struct {
	r   *bufio.Reader
	buf []byte // of the last value
}

var errJSON = errors.New("answer is no JSON as expected")

func newStream(r io.Reader) *stream { return &stream{r: bufio.NewReaderSize(r, 256<<10)} }

// peek is the next byte that is not white space.
func (s *stream) peek() (byte, error) {
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return 0, err
		}
		if b != ' ' && b != '\n' && b != '\t' && b != '\r' {
			return b, s.r.UnreadByte()
		}
	}
}

func (s *stream) take(want byte) error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	if b != want {
		return fmt.Errorf("%w: %q where %q must be", errJSON, b, want)
	}
	_, err = s.r.ReadByte()
	return err
}

// list calls each for every element or member between open and end.
func (s *stream) list(open, end byte, each func() error) error {
	if err := s.take(open); err != nil {
		return err
	}
	if b, err := s.peek(); err != nil {
		return err
	} else if b == end {
		return s.take(end)
	}
	for {
		if err := each(); err != nil {
			return err
		}
		b, err := s.peek()
		if err != nil {
			return err
		}
		if b == end {
			return s.take(end)
		}
		if err := s.take(','); err != nil {
			return err
		}
	}
}

// object calls each with the name of every member; each consumes the value.
func (s *stream) object(each func(name string) error) error {
	return s.list('{', '}', func() error {
		raw, err := s.value()
		if err != nil {
			return err
		}
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return fmt.Errorf("%w: %w", errJSON, err)
		}
		if err := s.take(':'); err != nil {
			return err
		}
		return each(name)
	})
}

// array calls each before every element; each consumes it.
func (s *stream) array(each func() error) error { return s.list('[', ']', each) }

// value reads the next value whole. Its bytes are valid until the next call.
func (s *stream) value() ([]byte, error) {
	if _, err := s.peek(); err != nil {
		return nil, err
	}
	s.buf = s.buf[:0]
	var e extent
	for {
		if _, err := s.r.Peek(1); err != nil {
			if err == io.EOF && e.bare && len(s.buf) > 0 {
				return s.buf, nil
			}
			return nil, err
		}
		b, _ := s.r.Peek(s.r.Buffered())
		n, done := e.scan(b)
		s.buf = append(s.buf, b[:n]...)
		_, _ = s.r.Discard(n)
		if done {
			return s.buf, nil
		}
	}
}

// extent finds the end of a value that arrives in parts.
type extent struct {
	depth   int
	text    bool // inside a string
	escaped bool // after a backslash
	bare    bool // a number, true, false or null
}

// scan says how many bytes of b belong to the value, and whether it ends there.
func (e *extent) scan(b []byte) (int, bool) {
	for i := 0; i < len(b); i++ {
		if e.escaped {
			e.escaped = false
			continue
		}
		if e.text {
			// Jump to what can end the string: most bytes of an answer lie in strings.
			j := bytes.IndexByte(b[i:], '"')
			if j < 0 {
				j = len(b) - i
			}
			if k := bytes.IndexByte(b[i:i+j], '\\'); k >= 0 {
				i += k
				e.escaped = true
				continue
			}
			if i += j; i >= len(b) {
				return len(b), false
			}
			e.text = false
			if e.depth == 0 {
				return i + 1, true
			}
			continue
		}
		switch c := b[i]; {
		case e.bare:
			if c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ':' {
				return i, true
			}
		case c == '"':
			e.text = true
		case c == '{' || c == '[':
			e.depth++
		case c == '}' || c == ']':
			if e.depth--; e.depth == 0 {
				return i + 1, true
			}
		case e.depth == 0:
			e.bare = true
		}
	}
	return len(b), false
}

// members calls each with every member of an object that is held whole.
func members(b []byte, each func(name, value []byte) error) error {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return fmt.Errorf("%w: no object", errJSON)
	}
	for i++; ; {
		i = skipSpace(b, i)
		if i < len(b) && b[i] == '}' {
			return nil
		}
		name, next, ok := nextValue(b, i)
		if !ok || len(name) < 2 || name[0] != '"' {
			return errJSON
		}
		i = skipSpace(b, next)
		if i >= len(b) || b[i] != ':' {
			return errJSON
		}
		value, next, ok := nextValue(b, skipSpace(b, i+1))
		if !ok {
			return errJSON
		}
		if err := each(name[1:len(name)-1], value); err != nil {
			return err
		}
		i = skipSpace(b, next)
		if i < len(b) && b[i] == ',' {
			i++
		}
	}
}

func nextValue(b []byte, i int) (value []byte, next int, ok bool) {
	if i >= len(b) {
		return nil, 0, false
	}
	var e extent
	n, done := e.scan(b[i:])
	if !done {
		return nil, 0, false
	}
	return b[i : i+n], i + n, true
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// canonical is the JSON value with sorted keys and no white space; numbers keep their digits.
func canonical(b []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("%w: %w", errJSON, err)
	}
	return encode(v)
}

// encode writes a decoded value canonically.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
