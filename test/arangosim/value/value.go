// Package value is JSON as ArangoDB keeps it in VelocyPack: attribute order is
// the order of insertion (the server sets dumpAttributesInIndexOrder to
// false), whole numbers within 64 bits stay integers, every other number is an
// IEEE double and is written in its shortest form, strings are UTF-8, an
// attribute name occurs once and nesting ends at 200 levels.
//
// A value is nil, bool, int64, uint64 (only above the largest int64), float64,
// string, []any or *Object.
package value

// Member is one attribute of an object.
type Member struct {
	Name  string
	Value any
}

// Object is a JSON object that keeps the order of its attributes.
type Object struct{ Members []Member }

// New makes an object of alternating names and values.
func New(pairs ...any) *Object {
	o := &Object{Members: make([]Member, 0, len(pairs)/2)}
	for i := 0; i+1 < len(pairs); i += 2 {
		o.Members = append(o.Members, Member{pairs[i].(string), pairs[i+1]})
	}
	return o
}

// Lookup answers the attribute and whether it exists.
func (o *Object) Lookup(name string) (any, bool) {
	if o == nil {
		return nil, false
	}
	for i := range o.Members {
		if o.Members[i].Name == name {
			return o.Members[i].Value, true
		}
	}
	return nil, false
}

// Get answers the attribute, nil when absent.
func (o *Object) Get(name string) any {
	v, _ := o.Lookup(name)
	return v
}

// Has tells whether the attribute exists, null included.
func (o *Object) Has(name string) bool {
	_, ok := o.Lookup(name)
	return ok
}

// String answers a string attribute, "" when it is absent or something else.
func (o *Object) String(name string) string {
	s, _ := o.Get(name).(string)
	return s
}

// Bool answers a boolean attribute, otherwise the default.
func (o *Object) Bool(name string, otherwise bool) bool {
	if b, ok := o.Get(name).(bool); ok {
		return b
	}
	return otherwise
}

// Int answers a numeric attribute, otherwise the default.
func (o *Object) Int(name string, otherwise int64) int64 {
	if f, ok := Float(o.Get(name)); ok {
		return int64(f)
	}
	return otherwise
}

// Object answers an object attribute, nil when it is absent or something else.
func (o *Object) Object(name string) *Object {
	s, _ := o.Get(name).(*Object)
	return s
}

// Array answers an array attribute, nil when it is absent or something else.
func (o *Object) Array(name string) []any {
	s, _ := o.Get(name).([]any)
	return s
}

// Set replaces the attribute where it stands, or appends it.
func (o *Object) Set(name string, v any) *Object {
	for i := range o.Members {
		if o.Members[i].Name == name {
			o.Members[i].Value = v
			return o
		}
	}
	o.Members = append(o.Members, Member{name, v})
	return o
}

// Default appends the attribute unless it exists.
func (o *Object) Default(name string, v any) *Object {
	if !o.Has(name) {
		o.Set(name, v)
	}
	return o
}

// Delete removes the attributes.
func (o *Object) Delete(names ...string) *Object {
	kept := o.Members[:0]
next:
	for _, m := range o.Members {
		for _, n := range names {
			if m.Name == n {
				continue next
			}
		}
		kept = append(kept, m)
	}
	o.Members = kept
	return o
}

// Keep answers a copy with the named attributes only, in the given order.
func (o *Object) Keep(names ...string) *Object {
	out := &Object{}
	for _, n := range names {
		if v, ok := o.Lookup(n); ok {
			out.Members = append(out.Members, Member{n, v})
		}
	}
	return out
}

// Clone copies deeply: changing the copy leaves the original alone.
func Clone(v any) any {
	switch v := v.(type) {
	case *Object:
		return v.Clone()
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = Clone(v[i])
		}
		return out
	}
	return v
}

// Clone copies deeply.
func (o *Object) Clone() *Object {
	if o == nil {
		return nil
	}
	out := &Object{Members: make([]Member, len(o.Members))}
	for i, m := range o.Members {
		out.Members[i] = Member{m.Name, Clone(m.Value)}
	}
	return out
}

// Merge writes the patch over the base as PATCH of a document does: attributes
// keep their place, new ones are appended. With mergeObjects sub-objects merge
// in turn; without keepNull an attribute patched with null goes away.
func Merge(base, patch *Object, keepNull, mergeObjects bool) *Object {
	out := base.Clone()
	for _, m := range patch.Members {
		sub, isObject := m.Value.(*Object)
		switch old := out.Object(m.Name); {
		case m.Value == nil && !keepNull:
			out.Delete(m.Name)
		case isObject && mergeObjects && old != nil:
			out.Set(m.Name, Merge(old, sub, keepNull, mergeObjects))
		case isObject && !keepNull:
			out.Set(m.Name, WithoutNulls(sub))
		default:
			out.Set(m.Name, Clone(m.Value))
		}
	}
	return out
}

// WithoutNulls copies an object without its null attributes, at every level.
func WithoutNulls(o *Object) *Object {
	out := &Object{}
	for _, m := range o.Members {
		if m.Value == nil {
			continue
		}
		if sub, ok := m.Value.(*Object); ok {
			m.Value = WithoutNulls(sub)
		}
		out.Members = append(out.Members, m)
	}
	return out
}

// Float answers any number as a double.
func Float(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// Path follows attribute names into nested objects; absent is nil.
func Path(v any, names ...string) any {
	for _, n := range names {
		o, ok := v.(*Object)
		if !ok {
			return nil
		}
		v = o.Get(n)
	}
	return v
}

// Strings makes an array value of strings.
func Strings(list ...string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// StringList answers the strings of an array value; others are left out.
func StringList(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
