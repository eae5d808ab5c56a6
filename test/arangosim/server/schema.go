package server

import (
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Schema rules: the part of JSON Schema draft 4 that needs no other document.
// Unknown keywords allow everything. System attributes are invisible to rules.
// Every write is checked, those of a restore included: a client that relies on
// the server's leniency there would find out too late.

// validate checks a document that is about to be stored; old is nil for a new one.
// Source: Concepts, Data structure, "Schema validation" (levels).
func validate(c *store.Collection, doc, old *value.Object) error {
	schema := c.Props.Object("schema")
	if schema == nil {
		return nil
	}
	rule := schema.Get("rule")
	level := schema.String("level")
	switch {
	case level == "none", level == "new" && old != nil,
		level == "moderate" && old != nil && !matches(rule, withoutSystem(old)),
		matches(rule, withoutSystem(doc)):
		return nil
	}
	message := schema.String("message")
	if message == "" {
		message = "schema validation failed"
	}
	return fail(1620, "%s", message)
}

func withoutSystem(doc *value.Object) *value.Object {
	return doc.Clone().Delete("_key", "_id", "_rev", "_from", "_to")
}

// matches tells whether a value satisfies a rule.
func matches(rule, v any) bool {
	o, ok := rule.(*value.Object)
	if !ok {
		return rule != false
	}
	for _, m := range o.Members {
		if !keyword(o, m.Name, m.Value, v) {
			return false
		}
	}
	return true
}

func keyword(rule *value.Object, name string, want, v any) bool {
	switch name {
	case "type":
		if list, ok := want.([]any); ok {
			return slices.ContainsFunc(list, func(t any) bool { return hasType(t, v) })
		}
		return hasType(want, v)
	case "enum":
		list, _ := want.([]any)
		return slices.ContainsFunc(list, func(x any) bool { return value.Compare(x, v) == 0 })
	case "allOf", "anyOf", "oneOf":
		return combined(name, want, v)
	case "not":
		return !matches(want, v)
	}
	switch v := v.(type) {
	case *value.Object:
		return objectKeyword(rule, name, want, v)
	case []any:
		return arrayKeyword(name, want, v)
	case string:
		if name == "pattern" {
			text, _ := want.(string)
			re, err := regexp.Compile(text)
			return err != nil || re.MatchString(v)
		}
		return within(name, "minLength", "maxLength", want, float64(utf8.RuneCountInString(v)))
	}
	if f, ok := value.Float(v); ok {
		return within(name, "minimum", "maximum", want, f)
	}
	return true
}

func hasType(name, v any) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case []any:
		return name == "array"
	case *value.Object:
		return name == "object"
	case float64:
		return name == "number" || name == "integer" && v == float64(int64(v))
	}
	return name == "number" || name == "integer"
}

func combined(name string, want, v any) bool {
	list, _ := want.([]any)
	n := 0
	for _, rule := range list {
		if matches(rule, v) {
			n++
		}
	}
	switch name {
	case "allOf":
		return n == len(list)
	case "anyOf":
		return n > 0
	}
	return n == 1
}

func objectKeyword(rule *value.Object, name string, want any, v *value.Object) bool {
	switch name {
	case "required":
		return !slices.ContainsFunc(value.StringList(want), func(n string) bool { return !v.Has(n) })
	case "properties":
		properties, _ := want.(*value.Object)
		for _, m := range v.Members {
			if sub, ok := properties.Lookup(m.Name); ok && !matches(sub, m.Value) {
				return false
			}
		}
		return true
	case "additionalProperties":
		known := rule.Object("properties")
		for _, m := range v.Members {
			if !known.Has(m.Name) && !matches(want, m.Value) {
				return false
			}
		}
		return true
	}
	return within(name, "minProperties", "maxProperties", want, float64(len(v.Members)))
}

func arrayKeyword(name string, want any, v []any) bool {
	if name == "items" {
		if _, ok := want.(*value.Object); !ok {
			return true
		}
		return !slices.ContainsFunc(v, func(x any) bool { return !matches(want, x) })
	}
	return within(name, "minItems", "maxItems", want, float64(len(v)))
}

// within checks a number against the limit that a keyword names, if it is one of the two.
func within(name, low, high string, want any, got float64) bool {
	limit, ok := value.Float(want)
	switch {
	case !ok:
		return true
	case name == low:
		return got >= limit
	case name == high:
		return got <= limit
	}
	return true
}
