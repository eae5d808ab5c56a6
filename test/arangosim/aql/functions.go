package aql

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// UnknownFunctionError names a function that does not exist here (error 1540).
type UnknownFunctionError struct{ Name string }

func (e *UnknownFunctionError) Error() string {
	return fmt.Sprintf("AQL: usage of unknown function '%s()'", e.Name)
}

func (r *run) call(x call, s *scope) (any, error) {
	args := make([]any, len(x.args))
	for i := range x.args {
		var err error
		if args[i], err = r.eval(x.args[i], s); err != nil {
			return nil, err
		}
	}
	if x.name == "SLEEP" {
		return nil, r.sleep(args)
	}
	if x.name == "DOCUMENT" {
		if len(args) == 2 {
			return asValue(r.source.Document(text(args[0]) + "/" + text(args[1]))), nil
		}
		return asValue(r.source.Document(text(arg(args, 0)))), nil
	}
	f, ok := functions[x.name]
	if !ok {
		return nil, &UnknownFunctionError{x.name}
	}
	return f(args), nil
}

// sleep ends early when the query is killed or its client is gone.
func (r *run) sleep(args []any) error {
	t := time.NewTimer(time.Duration(number(arg(args, 0)) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func arg(args []any, i int) any {
	if i < len(args) {
		return args[i]
	}
	return nil
}

var functions = map[string]func(args []any) any{
	"SUM":              sum,
	"LENGTH":           length,
	"COUNT":            length,
	"CONCAT":           func(a []any) any { return join("", a) },
	"CONCAT_SEPARATOR": func(a []any) any { return join(text(arg(a, 0)), a[min(1, len(a)):]) },
	"DATE_NOW":         func([]any) any { return time.Now().UnixMilli() },
	"DISTANCE":         distance,
	"LOWER":            func(a []any) any { return strings.ToLower(text(arg(a, 0))) },
	"UPPER":            func(a []any) any { return strings.ToUpper(text(arg(a, 0))) },
	"TO_STRING":        func(a []any) any { return text(arg(a, 0)) },
	"TO_NUMBER":        func(a []any) any { return number(arg(a, 0)) },
	"IS_NULL":          func(a []any) any { return arg(a, 0) == nil },
	"HAS":              has,
	"MERGE":            merge,
	"UNSET":            unset,
	"KEEP":             keep,
	"NGRAM_MATCH":      ngramMatch,
	"APPROX_NEAR_COSINE": func(a []any) any {
		return cosine(arg(a, 0), arg(a, 1))
	},
}

func sum(a []any) any {
	items, _ := arg(a, 0).([]any)
	var total any = int64(0)
	for _, v := range items {
		total = arithmetic("+", total, v)
	}
	return total
}

func length(a []any) any {
	switch v := arg(a, 0).(type) {
	case []any:
		return int64(len(v))
	case *value.Object:
		return int64(len(v.Members))
	case string:
		return int64(len([]rune(v)))
	}
	return int64(0)
}

func join(separator string, args []any) any {
	var parts []string
	for _, v := range args {
		items, isList := v.([]any)
		if !isList {
			items = []any{v}
		}
		for _, e := range items {
			if e != nil {
				parts = append(parts, text(e))
			}
		}
	}
	return strings.Join(parts, separator)
}

// distance is the great circle's length in metres.
func distance(a []any) any {
	const earth = 6371000.785
	rad := func(i int) float64 { return number(arg(a, i)) * math.Pi / 180 }
	lat1, lon1, lat2, lon2 := rad(0), rad(1), rad(2), rad(3)
	h := math.Pow(math.Sin((lat2-lat1)/2), 2) + math.Cos(lat1)*math.Cos(lat2)*math.Pow(math.Sin((lon2-lon1)/2), 2)
	return 2 * earth * math.Asin(math.Min(1, math.Sqrt(h)))
}

func has(a []any) any {
	o, _ := arg(a, 0).(*value.Object)
	return o.Has(text(arg(a, 1)))
}

func merge(a []any) any {
	out := &value.Object{}
	for _, v := range a {
		if o, ok := v.(*value.Object); ok {
			for _, m := range o.Members {
				out.Set(m.Name, m.Value)
			}
		}
	}
	return out
}

func names(a []any) []string {
	var out []string
	for _, v := range a {
		if items, ok := v.([]any); ok {
			out = append(out, value.StringList(items)...)
		} else {
			out = append(out, text(v))
		}
	}
	return out
}

func unset(a []any) any {
	o, ok := arg(a, 0).(*value.Object)
	if !ok {
		return nil
	}
	return o.Clone().Delete(names(a[1:])...)
}

func keep(a []any) any {
	o, ok := arg(a, 0).(*value.Object)
	if !ok {
		return nil
	}
	return o.Keep(names(a[1:])...)
}

// ngramMatch compares pairs of letters (a 2-gram analyzer, whatever its name).
func ngramMatch(a []any) any {
	grams := func(s string) map[string]bool {
		out := map[string]bool{}
		for i := 0; i+2 <= len(s); i++ {
			out[strings.ToLower(s[i:i+2])] = true
		}
		return out
	}
	attribute, target := grams(text(arg(a, 0))), grams(text(arg(a, 1)))
	threshold := 0.7
	if f, ok := value.Float(arg(a, 2)); ok {
		threshold = f
	}
	hits := 0
	for g := range target {
		if attribute[g] {
			hits++
		}
	}
	return len(target) > 0 && float64(hits)/float64(len(target)) >= threshold
}

func cosine(x, y any) any {
	a, _ := x.([]any)
	b, _ := y.([]any)
	if len(a) == 0 || len(a) != len(b) {
		return nil
	}
	var dot, na, nb float64
	for i := range a {
		u, v := number(a[i]), number(b[i])
		dot, na, nb = dot+u*v, na+u*u, nb+v*v
	}
	if na == 0 || nb == 0 {
		return nil
	}
	return dot / math.Sqrt(na*nb)
}
