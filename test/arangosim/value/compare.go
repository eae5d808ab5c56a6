package value

import (
	"sort"
	"strings"
)

// Compare orders values as AQL does: null < bool < number < string < array < object.
func Compare(a, b any) int {
	if x, y := rank(a), rank(b); x != y {
		return x - y
	}
	switch a := a.(type) {
	case bool:
		switch bb := b.(bool); {
		case a == bb:
			return 0
		case bb:
			return -1
		}
		return 1
	case string:
		return strings.Compare(a, b.(string))
	case []any:
		return compareLists(a, b.([]any))
	case *Object:
		return compareObjects(a, b.(*Object))
	}
	return compareNumbers(a, b)
}

func rank(v any) int {
	switch v.(type) {
	case nil:
		return 0
	case bool:
		return 1
	case string:
		return 3
	case []any:
		return 4
	case *Object:
		return 5
	}
	return 2
}

func compareNumbers(a, b any) int {
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
	}
	x, _ := Float(a)
	y, _ := Float(b)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func compareLists(a, b []any) int {
	for i := range max(len(a), len(b)) {
		var x, y any
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if c := Compare(x, y); c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

// compareObjects goes through all attribute names of both in sorted order; absent counts as null.
func compareObjects(a, b *Object) int {
	names := map[string]bool{}
	for _, o := range []*Object{a, b} {
		for _, m := range o.Members {
			names[m.Name] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	sort.Strings(sorted)
	for _, n := range sorted {
		if c := Compare(a.Get(n), b.Get(n)); c != 0 {
			return c
		}
	}
	return 0
}
