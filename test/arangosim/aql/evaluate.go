package aql

import (
	"fmt"
	"math"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// scope holds variables; an inner one looks outwards.
type scope struct {
	name  string
	value any
	outer *scope
}

func (s *scope) with(name string, v any) *scope { return &scope{name, v, s} }

func (s *scope) lookup(name string) (any, bool) {
	for ; s != nil; s = s.outer {
		if s.name == name {
			return s.value, true
		}
	}
	return nil, false
}

// currentName cannot be a variable of a query.
const currentName = "\x00current"

func (r *run) eval(x any, s *scope) (any, error) {
	switch x := x.(type) {
	case literal:
		return x.v, nil
	case name:
		if v, ok := s.lookup(x.name); ok {
			return v, nil
		}
		return r.documents(x.name)
	case bind:
		return r.binds.Get(x.name), nil
	case collection:
		return r.documents(r.binds.String("@" + x.name))
	case current:
		v, _ := s.lookup(currentName)
		return v, nil
	case list:
		out := make([]any, len(x.items))
		for i := range x.items {
			var err error
			if out[i], err = r.eval(x.items[i], s); err != nil {
				return nil, err
			}
		}
		return out, nil
	case object:
		return r.object(x, s)
	case access:
		return r.access(x, s)
	case expand:
		return r.expand(x, s)
	case inline:
		return r.inline(x, s)
	case unary:
		return r.unary(x, s)
	case binary:
		return r.binary(x, s)
	case ternary:
		cond, err := r.eval(x.cond, s)
		if err != nil {
			return nil, err
		}
		if truth(cond) {
			return r.eval(x.yes, s)
		}
		return r.eval(x.no, s)
	case call:
		return r.call(x, s)
	case subquery:
		out := []any{}
		err := r.execute(x.q, s, func(v any) error {
			out = append(out, v)
			return nil
		})
		return out, err
	}
	return nil, fmt.Errorf("expression of type %T", x)
}

// documents is a collection used as a value: the array of its documents.
func (r *run) documents(name string) (any, error) {
	out := []any{}
	err := r.source.Each(name, func(doc *value.Object) error {
		out = append(out, doc)
		return nil
	})
	return out, err
}

func (r *run) object(x object, s *scope) (any, error) {
	o := &value.Object{}
	for _, m := range x.members {
		n, ok := m.name.(string)
		if !ok {
			v, err := r.eval(m.name, s)
			if err != nil {
				return nil, err
			}
			n = text(v)
		}
		v, err := r.eval(m.value, s)
		if err != nil {
			return nil, err
		}
		o.Set(n, v)
	}
	return o, nil
}

func (r *run) access(x access, s *scope) (any, error) {
	base, err := r.eval(x.base, s)
	if err != nil {
		return nil, err
	}
	key, err := r.eval(x.key, s)
	if err != nil {
		return nil, err
	}
	switch b := base.(type) {
	case *value.Object:
		return b.Get(text(key)), nil
	case []any:
		f, ok := value.Float(key)
		i := int(f)
		if i < 0 {
			i += len(b)
		}
		if ok && i >= 0 && i < len(b) {
			return b[i], nil
		}
	}
	return nil, nil
}

func (r *run) expand(x expand, s *scope) (any, error) {
	base, err := r.eval(x.base, s)
	if err != nil {
		return nil, err
	}
	items, _ := base.([]any)
	out := make([]any, len(items))
	for i := range items {
		if out[i], err = r.eval(x.tail, s.with(currentName, items[i])); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// inline is the question-mark operator: does any element fulfil the filter?
func (r *run) inline(x inline, s *scope) (any, error) {
	base, err := r.eval(x.base, s)
	if err != nil {
		return nil, err
	}
	items, _ := base.([]any)
	for _, item := range items {
		v, err := r.eval(x.filter, s.with(currentName, item))
		if err != nil {
			return nil, err
		}
		if truth(v) {
			return true, nil
		}
	}
	return false, nil
}

func (r *run) unary(x unary, s *scope) (any, error) {
	v, err := r.eval(x.x, s)
	if err != nil {
		return nil, err
	}
	switch x.op {
	case "!":
		return !truth(v), nil
	case "-":
		if n, ok := v.(int64); ok && n != math.MinInt64 {
			return -n, nil
		}
		return -number(v), nil
	}
	return number(v), nil
}

func (r *run) binary(x binary, s *scope) (any, error) {
	a, err := r.eval(x.x, s)
	if err != nil {
		return nil, err
	}
	if x.op == "&&" && !truth(a) || x.op == "||" && truth(a) {
		return a, nil
	}
	b, err := r.eval(x.y, s)
	if err != nil {
		return nil, err
	}
	switch x.op {
	case "&&", "||":
		return b, nil
	case "==":
		return value.Compare(a, b) == 0, nil
	case "!=":
		return value.Compare(a, b) != 0, nil
	case "<":
		return value.Compare(a, b) < 0, nil
	case "<=":
		return value.Compare(a, b) <= 0, nil
	case ">":
		return value.Compare(a, b) > 0, nil
	case ">=":
		return value.Compare(a, b) >= 0, nil
	case "IN":
		return contains(b, a), nil
	case "NOT IN":
		return !contains(b, a), nil
	case "LIKE":
		return like(text(a), text(b)), nil
	case "..":
		out := []any{}
		for i := int64(number(a)); i <= int64(number(b)); i++ {
			out = append(out, i)
		}
		return out, nil
	}
	return arithmetic(x.op, a, b), nil
}

func arithmetic(op string, a, b any) any {
	i, whole := a.(int64)
	j, wholeToo := b.(int64)
	if whole && wholeToo {
		switch op {
		case "+":
			if n := i + j; (n > i) == (j > 0) {
				return n
			}
		case "-":
			if n := i - j; (n < i) == (j > 0) {
				return n
			}
		case "*":
			if n := i * j; i == 0 || n/i == j {
				return n
			}
		case "%":
			if j != 0 {
				return i % j
			}
		}
	}
	x, y := number(a), number(b)
	var f float64
	switch op {
	case "+":
		f = x + y
	case "-":
		f = x - y
	case "*":
		f = x * y
	case "/":
		f = x / y
	case "%":
		f = math.Mod(x, y)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return f
}

func contains(items, v any) bool {
	all, _ := items.([]any)
	for _, e := range all {
		if value.Compare(e, v) == 0 {
			return true
		}
	}
	return false
}

// like matches % and _.
func like(s, pattern string) bool {
	if pattern == "" {
		return s == ""
	}
	switch pattern[0] {
	case '%':
		for i := 0; i <= len(s); i++ {
			if like(s[i:], pattern[1:]) {
				return true
			}
		}
		return false
	case '_':
		return s != "" && like(s[1:], pattern[1:])
	}
	return s != "" && s[0] == pattern[0] && like(s[1:], pattern[1:])
}

// truth is AQL's conversion to bool.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any, *value.Object:
		return true
	}
	return number(v) != 0
}

// number is AQL's conversion to a number.
func number(v any) float64 {
	switch v := v.(type) {
	case bool:
		if v {
			return 1
		}
		return 0
	case string:
		parsed, err := value.Parse([]byte(strings.TrimSpace(v)))
		if f, ok := value.Float(parsed); err == nil && ok {
			return f
		}
		return 0
	case []any:
		if len(v) == 1 {
			return number(v[0])
		}
		return 0
	}
	f, _ := value.Float(v)
	return f
}

// text is AQL's conversion to a string.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return string(value.JSON(v))
}
