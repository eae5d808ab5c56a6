package value

import (
	"bytes"
	"fmt"
	"math"
	"sort"
	"strconv"
)

// JSON writes a value without white space.
func JSON(v any) []byte { return Append(nil, v) }

// Append writes a value behind b. Besides the package's own types it takes int,
// []string, []*Object, Raw and maps of values (names sorted), which answers are made of.
func Append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case uint64:
		return strconv.AppendUint(b, v, 10)
	case float64:
		return appendDouble(b, v)
	case string:
		return appendString(b, v)
	case Raw:
		return append(b, v...)
	case []any:
		return appendList(b, v)
	case []string:
		return appendList(b, v)
	case []*Object:
		return appendList(b, v)
	case *Object:
		if v == nil {
			return append(b, "null"...)
		}
		b = append(b, '{')
		for i, m := range v.Members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, m.Name), ':')
			b = Append(b, m.Value)
		}
		return append(b, '}')
	case map[string]any:
		names := make([]string, 0, len(v))
		for n := range v {
			names = append(names, n)
		}
		sort.Strings(names)
		o := &Object{}
		for _, n := range names {
			o.Members = append(o.Members, Member{n, v[n]})
		}
		return Append(b, o)
	}
	panic(fmt.Sprintf("value of type %T has no JSON form", v))
}

// Raw is JSON that is written as it stands.
type Raw []byte

func appendList[T any](b []byte, list []T) []byte {
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = Append(b, e)
	}
	return append(b, ']')
}

// appendDouble writes the shortest digits in the layout of fpconv_dtoa, which the server uses.
func appendDouble(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	if f == 0 {
		if math.Signbit(f) {
			return append(b, "-0.0"...)
		}
		return append(b, '0')
	}
	if f < 0 {
		b, f = append(b, '-'), -f
	}
	text := strconv.AppendFloat(nil, f, 'e', -1, 64)
	e := bytes.IndexByte(text, 'e')
	exp, _ := strconv.Atoi(string(text[e+1:]))
	digits := bytes.ReplaceAll(text[:e], []byte("."), nil)
	n := len(digits)
	k := exp - n + 1 // the value is digits × 10^k
	magnitude := max(exp, -exp)
	switch {
	case k >= 0 && magnitude < n+7:
		return append(append(b, digits...), bytes.Repeat([]byte("0"), k)...)
	case k < 0 && (k > -7 || magnitude < 4):
		if n <= -k {
			b = append(append(b, "0."...), bytes.Repeat([]byte("0"), -k-n)...)
			return append(b, digits...)
		}
		b = append(append(b, digits[:n+k]...), '.')
		return append(b, digits[n+k:]...)
	}
	b = append(b, digits[0])
	if n > 1 {
		b = append(append(b, '.'), digits[1:]...)
	}
	b = append(b, 'e')
	if exp >= 0 {
		b = append(b, '+')
	}
	return strconv.AppendInt(b, int64(exp), 10)
}

const hexDigits = "0123456789ABCDEF"

// appendString escapes what JSON demands and nothing else (the server leaves slashes and Unicode alone).
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(b, s[start:]...), '"')
}
