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
	return readRecordsOf(ctx, conn, p, func(_ *recordMaker, k, v []byte) error { return put(k, v) })
}

// readRecordsOf is readRows with a view of the cells the record was made of.
func readRecordsOf(ctx context.Context, conn *sql.Conn, p rowPlan, put func(m *recordMaker, key, value []byte) error) error {
	m := recordMaker{plan: p, cells: make([][]byte, p.cells), ends: make([]int, p.cells)}
	each := func(row []byte) error {
		k, v, err := m.record(row)
		if err != nil {
			return err
		}
		return put(&m, k, v)
	}
	return conn.Raw(func(dc any) error {
		l := dc.(*link)
		if l.wire != nil {
			return l.rows(ctx, p.query, each)
		}
		return l.driverRows(ctx, p.query, each)
	})
}

// driverRows is rows through the driver, for connections whose packets only it can read.
func (l *link) driverRows(ctx context.Context, query string, each func(row []byte) error) error {
	rows, err := l.QueryContext(ctx, query, nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	dest := make([]driver.Value, len(rows.Columns()))
	var row, cell []byte
	for {
		if err := rows.Next(dest); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		row = row[:0]
		for _, v := range dest {
			if v == nil {
				row = append(row, 0xFB)
				continue
			}
			cell = appendCell(cell[:0], v)
			row = appendCellOf(row, cell)
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// recordMaker makes records of the rows of one plan.
type recordMaker struct {
	plan  rowPlan
	cells [][]byte
	ends  []int  // where each cell ends in the row
	value []byte // a value that is not as the row has it
	key   []byte
	last  []byte
	begun bool
}

// record gives the record of a row: the value is the stretch of the row that
// holds the stored columns; what follows was selected for the key.
func (m *recordMaker) record(row []byte) (key, value []byte, err error) {
	rest := row
	for i := range m.cells {
		if m.cells[i], rest, _, err = nextCell(rest); err != nil {
			return nil, nil, err
		}
		m.ends[i] = len(row) - len(rest)
	}
	end := 0
	if n := len(m.plan.columns); n > 0 {
		end = m.ends[n-1]
	}
	if value = row[:end:end]; len(m.plan.points) > 0 {
		if value, err = m.numbers(value); err != nil {
			return nil, nil, err
		}
	}
	if len(m.plan.key) == 0 {
		return nil, value, nil
	}
	m.key, m.last = m.last[:0], m.key
	if m.key, err = appendKey(m.key, m.plan.key, m.cells); err != nil {
		return nil, nil, err
	}
	if m.begun && bytes.Compare(m.key, m.last) <= 0 {
		return nil, nil, errOrder
	}
	m.begun = true
	return m.key, value, nil
}

// numbers is the value with the text of the numbers that were selected as points.
func (m *recordMaker) numbers(row []byte) ([]byte, error) {
	m.value = m.value[:0]
	from := 0
	for _, i := range m.plan.points {
		c := m.cells[i]
		if c == nil {
			continue
		}
		x, ok := pointed(c)
		if !ok {
			return nil, fmt.Errorf("column %q came as %d bytes instead of a point: %w", m.plan.columns[i].name, len(c), plugins.ErrData)
		}
		// A point is shorter than 251 bytes, so one byte of length stands before it; so is a number.
		m.value = append(m.value, row[from:m.ends[i]-len(c)-1]...)
		length := len(m.value)
		m.value = appendDouble(append(m.value, 0), x)
		m.value[length] = byte(len(m.value) - length - 1)
		from = m.ends[i]
	}
	return append(m.value, row[from:]...), nil
}

// appendCellOf writes a cell that is not NULL as the text protocol does: a length-encoded string.
func appendCellOf(dst, c []byte) []byte {
	switch n := len(c); {
	case n < 251:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = append(dst, 0xFC, byte(n), byte(n>>8))
	case n < 1<<24:
		dst = append(dst, 0xFD, byte(n), byte(n>>8), byte(n>>16))
	default:
		dst = binary.LittleEndian.AppendUint64(append(dst, 0xFE), uint64(n))
	}
	return append(dst, c...)
}

var errShortRow = fmt.Errorf("row ends early: %w", plugins.ErrCorrupt)

// nextCell takes the first cell off a row; it is nil for NULL only.
func nextCell(row []byte) (cell, rest []byte, null bool, err error) {
	if len(row) == 0 {
		return nil, nil, false, errShortRow
	}
	n, skip := uint64(row[0]), 1
	if n > 250 {
		switch n {
		case 0xFB:
			return nil, row[1:], true, nil
		case 0xFC:
			skip = 3
		case 0xFD:
			skip = 4
		case 0xFE:
			skip = 9
		default:
			return nil, nil, false, errShortRow
		}
		if len(row) < skip {
			return nil, nil, false, errShortRow
		}
		n = 0
		for i := skip - 1; i > 0; i-- {
			n = n<<8 | uint64(row[i])
		}
	}
	if uint64(len(row)-skip) < n {
		return nil, nil, false, errShortRow
	}
	end := skip + int(n)
	return row[skip:end:end], row[end:], false, nil
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
