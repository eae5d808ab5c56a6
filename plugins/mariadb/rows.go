package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func itoa(i int) string { return strconv.Itoa(i) }

// rowSource gives the rows of one query as the text protocol carries them.
// The cells (nil: NULL) are valid until the next call; io.EOF at the end.
type rowSource interface {
	Next() ([][]byte, error)
}

// driverRows is the row source of the driver's own connections.
type driverRows struct {
	rows  driver.Rows
	dest  []driver.Value
	cells [][]byte
	text  []byte
}

func newDriverRows(r driver.Rows) *driverRows {
	n := len(r.Columns())
	return &driverRows{rows: r, dest: make([]driver.Value, n), cells: make([][]byte, n)}
}

// Next reads one row.
func (d *driverRows) Next() ([][]byte, error) {
	if err := d.rows.Next(d.dest); err != nil {
		return nil, err
	}
	d.text = d.text[:0]
	for i, v := range d.dest {
		switch x := v.(type) {
		case nil:
			d.cells[i] = nil
		case []byte:
			if d.cells[i] = x; x == nil {
				d.cells[i] = []byte{}
			}
		default:
			start := len(d.text)
			d.text = appendCell(d.text, v)
			d.cells[i] = d.text[start:len(d.text):len(d.text)]
		}
	}
	return d.cells, nil
}

// appendCell writes a value as the server's text protocol had it. The driver
// parses integers only; no query here selects a float.
func appendCell(dst []byte, v driver.Value) []byte {
	switch x := v.(type) {
	case []byte:
		return append(dst, x...)
	case string:
		return append(dst, x...)
	case int64:
		return strconv.AppendInt(dst, x, 10)
	case uint64:
		return strconv.AppendUint(dst, x, 10)
	default:
		return fmt.Append(dst, x)
	}
}

// readRows runs the plan's query on a connection and hands over each record.
// The slices are valid during the call only.
func readRows(ctx context.Context, conn *sql.Conn, p rowPlan, put func(key, value []byte) error) error {
	return conn.Raw(func(dc any) error {
		rows, err := dc.(driver.QueryerContext).QueryContext(ctx, p.query, nil)
		if err != nil {
			return err
		}
		defer rows.Close()
		return eachRecord(newDriverRows(rows), p, put)
	})
}

func eachRecord(src rowSource, p rowPlan, put func(key, value []byte) error) error {
	var key, last, val []byte
	first := true
	for {
		cells, err := src.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		val = appendRow(val[:0], cells[:len(p.columns)])
		if len(p.key) > 0 {
			if key, err = appendKey(key[:0], p.key, cells); err != nil {
				return err
			}
			if !first && bytes.Compare(key, last) <= 0 {
				return errOrder
			}
			first = false
			last = append(last[:0], key...)
		}
		if err := put(key, val); err != nil {
			return err
		}
	}
}

// appendRow writes cells as a text-protocol row: length-encoded strings, 0xFB for NULL.
func appendRow(dst []byte, cells [][]byte) []byte {
	for _, c := range cells {
		switch n := len(c); {
		case c == nil:
			dst = append(dst, 0xFB)
			continue
		case n < 251:
			dst = append(dst, byte(n))
		case n < 1<<16:
			dst = append(dst, 0xFC, byte(n), byte(n>>8))
		case n < 1<<24:
			dst = append(dst, 0xFD, byte(n), byte(n>>8), byte(n>>16))
		default:
			dst = binary.LittleEndian.AppendUint64(append(dst, 0xFE), uint64(n))
		}
		dst = append(dst, c...)
	}
	return dst
}

// nextCell takes the first cell off a row.
func nextCell(row []byte) (cell, rest []byte, null bool, err error) {
	bad := fmt.Errorf("row ends early: %w", plugins.ErrCorrupt)
	if len(row) == 0 {
		return nil, nil, false, bad
	}
	var n uint64
	skip := 1
	switch c := row[0]; c {
	case 0xFB:
		return nil, row[1:], true, nil
	case 0xFC:
		skip = 3
	case 0xFD:
		skip = 4
	case 0xFE:
		skip = 9
	default:
		n = uint64(c)
	}
	if len(row) < skip {
		return nil, nil, false, bad
	}
	for i := skip - 1; i > 0; i-- {
		n = n<<8 | uint64(row[i])
	}
	if uint64(len(row)-skip) < n {
		return nil, nil, false, bad
	}
	end := skip + int(n)
	return row[skip:end], row[end:], false, nil
}

// appendTSV rewrites a stored row as a line for LOAD DATA.
func appendTSV(dst, row []byte, columns int) ([]byte, error) {
	for i := range columns {
		cell, rest, null, err := nextCell(row)
		if err != nil {
			return nil, err
		}
		row = rest
		if i > 0 {
			dst = append(dst, '\t')
		}
		if null {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = appendTSVCell(dst, cell)
	}
	if len(row) > 0 {
		return nil, fmt.Errorf("row has more than %d columns: %w", columns, plugins.ErrCorrupt)
	}
	return append(dst, '\n'), nil
}

// escapes marks the bytes that LOAD DATA would take as separators or escapes.
var escapes = [256]byte{0: '0', '\t': 't', '\n': 'n', '\\': '\\'}

func appendTSVCell(dst, c []byte) []byte {
	start := 0
	for i, b := range c {
		if e := escapes[b]; e != 0 {
			dst = append(dst, c[start:i]...)
			dst = append(dst, '\\', e)
			start = i + 1
		}
	}
	return append(dst, c[start:]...)
}
