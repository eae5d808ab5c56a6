package mariadb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// keyKind is how a column's value becomes bytes that sort as the engine sorts.
type keyKind int

const (
	keySigned   keyKind = iota // decimal text of a signed integer
	keyUnsigned                // decimal text of an unsigned integer
	keyDecimal                 // decimal text of a DECIMAL
	keyBytes                   // bytes compared as such; also dates, whose text sorts by time
	keyWeights                 // the collation's sort weights, padded with spaces
)

// keyPart is one column of a record's key.
type keyPart struct {
	column columnInfo
	kind   keyKind
	index  int // of the cell in the row; <0: to be selected apart, see expr
	pad    []byte
}

// expr is what must be selected apart for the key: sort weights.
func (k keyPart) expr() string {
	if k.kind == keyWeights {
		return "WEIGHT_STRING(" + q(k.column.name) + ")"
	}
	return k.column.readExpr()
}

// keyParts says how an index's columns make a key; ok is false when the
// engine's order of some type cannot be had bytewise (FLOAT, TIME, UUID, TEXT, …).
func (t *tableInfo) keyParts(ix indexInfo, values []columnInfo) ([]keyPart, bool) {
	if !ix.usable {
		return nil, false
	}
	names := ix.columns
	if t.history() { // history rows repeat the key and differ in their end
		for _, c := range values {
			if c.generated == "ROW END" && !slices.Contains(names, c.name) {
				names = append(slices.Clone(names), c.name)
			}
		}
	}
	parts := make([]keyPart, 0, len(names))
	for _, n := range names {
		k := keyPart{index: slices.IndexFunc(values, func(c columnInfo) bool { return c.name == n })}
		if k.index >= 0 {
			k.column = values[k.index]
		} else if i := slices.IndexFunc(t.columns, func(c columnInfo) bool { return c.name == n }); i >= 0 {
			k.column = t.columns[i]
		} else {
			return nil, false
		}
		switch c := k.column; c.dataType {
		case "tinyint", "smallint", "mediumint", "int", "bigint":
			k.kind = keySigned
			if strings.Contains(c.columnType, "unsigned") {
				k.kind = keyUnsigned
			}
		case "enum", "set", "bit", "year":
			k.kind = keyUnsigned
		case "date", "datetime", "timestamp", "binary", "varbinary":
			k.kind = keyBytes
		case "decimal":
			k.kind = keyDecimal
		case "char", "varchar":
			pad, ok := padOf(c.charset, c.collation)
			if !ok {
				return nil, false
			}
			k.kind, k.pad = keyWeights, pad
			k.index = -1
		default:
			return nil, false
		}
		parts = append(parts, k)
	}
	return parts, len(parts) > 0
}

// padOf is the weight of a space in a collation (measured with
// WEIGHT_STRING(' ') on 10.11); none for NO PAD collations, which end where
// they end. Others than these are not read in order.
func padOf(charset, collation string) ([]byte, bool) {
	nopad := strings.Contains(collation, "_nopad_")
	collation = strings.Replace(collation, "_nopad_", "_", 1)
	var pad []byte
	switch {
	case strings.HasSuffix(collation, "_bin"):
		switch charset {
		case "utf8mb4", "utf8mb3":
			pad = []byte{0, 0, 0x20}
			if charset == "utf8mb3" {
				pad = pad[1:]
			}
		case "latin1", "ascii", "latin2", "latin5", "latin7", "cp1250", "cp1251", "koi8r":
			pad = []byte{0x20}
		default:
			return nil, false
		}
	case strings.HasSuffix(collation, "_general_ci") && (charset == "utf8mb4" || charset == "utf8mb3" || charset == "ucs2"):
		pad = []byte{0, 0x20}
	case collation == "latin1_swedish_ci", strings.HasPrefix(collation, "latin1_general_c"), collation == "ascii_general_ci":
		pad = []byte{0x20}
	case strings.HasSuffix(collation, "_unicode_ci") && strings.HasPrefix(charset, "utf8"):
		pad = []byte{0x02, 0x09}
	case strings.HasSuffix(collation, "_unicode_520_ci") && strings.HasPrefix(charset, "utf8"):
		pad = []byte{0x02, 0x0A}
	default:
		return nil, false
	}
	if nopad {
		return nil, true
	}
	return pad, true
}

// errOrder: the rows did not come in the order of the encoded keys. The table
// is then written Unordered; it cannot be wrong, only less well deduplicated.
var errOrder = errors.New("rows not in the order of their keys")

// appendKey encodes the key of a row.
func appendKey(dst []byte, parts []keyPart, cells [][]byte) ([]byte, error) {
	for _, k := range parts {
		c := cells[k.index]
		if c == nil {
			return nil, fmt.Errorf("key column %q is NULL: %w", k.column.name, errOrder)
		}
		switch k.kind {
		case keySigned:
			n, err := strconv.ParseInt(string(c), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("key column %q: %w: %w", k.column.name, plugins.ErrData, err)
			}
			dst = binary.BigEndian.AppendUint64(dst, uint64(n)^1<<63)
		case keyUnsigned:
			n, err := strconv.ParseUint(string(c), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("key column %q: %w: %w", k.column.name, plugins.ErrData, err)
			}
			dst = binary.BigEndian.AppendUint64(dst, n)
		case keyDecimal:
			dst = appendDecimal(dst, c, k.column.precision-k.column.scale)
		case keyBytes:
			dst = appendEscaped(dst, c)
		case keyWeights:
			if k.pad == nil {
				dst = appendEscaped(dst, c)
			} else {
				dst = appendPadded(dst, c, k.pad)
			}
		}
	}
	return dst, nil
}

// appendEscaped writes bytes so that a shorter string sorts before its extensions.
func appendEscaped(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			break
		}
		dst = append(dst, b[:i]...)
		dst = append(dst, 0, 0xFF)
		b = b[i+1:]
	}
	dst = append(dst, b...)
	return append(dst, 0, 1)
}

// appendPadded writes weights so that strings sort as if they went on with
// spaces for ever (PAD SPACE). Eight weights at a time, each group preceded by
// 1, 2 or 3: what follows is below, equal to or above spaces.
func appendPadded(dst, w, pad []byte) []byte {
	n := len(pad)
	for len(w) >= n && bytes.Equal(w[len(w)-n:], pad) {
		w = w[:len(w)-n]
	}
	for len(w) > 0 {
		mark := byte(3)
		for i := 0; i < len(w); i += n {
			if c := bytes.Compare(w[i:min(i+n, len(w))], pad); c != 0 {
				if c < 0 {
					mark = 1
				}
				break
			}
		}
		dst = append(dst, mark)
		g := min(8*n, len(w))
		dst = append(dst, w[:g]...)
		for i := g; i < 8*n; i += n {
			dst = append(dst, pad...)
		}
		w = w[g:]
	}
	return append(dst, 2)
}

// appendDecimal writes a DECIMAL's text with its integer part padded to width
// digits; negative numbers are complemented.
func appendDecimal(dst, c []byte, width int) []byte {
	neg := len(c) > 0 && c[0] == '-'
	if neg {
		c = c[1:]
	}
	whole := len(c)
	if i := bytes.IndexByte(c, '.'); i >= 0 {
		whole = i
	}
	start := len(dst) + 1
	if neg {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
	}
	for range width - whole {
		dst = append(dst, '0')
	}
	dst = append(dst, c...)
	if neg {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}
