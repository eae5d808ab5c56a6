package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/go-sql-driver/mysql"
)

// A history row whose period is empty or runs backwards (two changes at one
// time, a clock set back) cannot be inserted: the server refuses its
// row_start. It arises again the way it arose: the row is inserted and deleted
// under the session's own clock, before all other rows.

// instantGroup bounds how many such rows are written at once.
const instantGroup = 1000

// period finds the columns of the system period in a stored row.
type period struct{ start, end int }

func (t *tableInfo) period() *period {
	if !t.history() {
		return nil
	}
	p := &period{-1, -1}
	for i, c := range t.stored() {
		switch c.generated {
		case "ROW START":
			p.start = i
		case "ROW END":
			p.end = i
		}
	}
	return p
}

// of gives the row's period as text, whose order is the order of time.
func (p *period) of(row []byte) (start, end []byte, err error) {
	for i := 0; i <= max(p.start, p.end); i++ {
		cell, rest, _, err := nextCell(row)
		if err != nil {
			return nil, nil, err
		}
		if i == p.start {
			start = cell
		}
		if i == p.end {
			end = cell
		}
		row = rest
	}
	return start, end, nil
}

// odd says whether the row is one that cannot be inserted.
func (p *period) odd(row []byte) (bool, error) {
	start, end, err := p.of(row)
	return bytes.Compare(start, end) >= 0, err
}

// instants writes the odd rows of the artifact into the empty shadow.
func (l *tableLoad) instants(ctx context.Context, name string) error {
	r, err := l.x.r.Open(ctx, l.info.Name)
	if err != nil {
		return err
	}
	defer r.Close()
	p := l.table.period()
	var lines []byte
	var count int64
	var start, end string
	var conn *sql.Conn
	flush := func() error {
		if count == 0 {
			return nil
		}
		if conn == nil {
			if conn, err = l.x.w.db.Conn(ctx); err != nil {
				return err
			}
		}
		if err := l.instant(ctx, conn, name, start, end, lines); err != nil {
			return err
		}
		l.x.rows.Add(count)
		lines, count = lines[:0], 0
		return nil
	}
	defer func() {
		if conn != nil {
			_ = conn.Raw(func(any) error { return errBadConn }) // its clock was set
			conn.Close()
		}
	}()
	for {
		_, row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		s, e, err := p.of(row)
		if err != nil {
			return err
		}
		if bytes.Compare(s, e) < 0 {
			continue
		}
		if count == instantGroup || len(lines) > 4<<20 || string(s) != start || string(e) != end {
			if err := flush(); err != nil {
				return err
			}
			start, end = string(s), string(e)
		}
		if lines, err = appendTSV(lines, row, len(l.table.stored())); err != nil {
			return err
		}
		count++
	}
}

func (l *tableLoad) instant(ctx context.Context, conn *sql.Conn, name, start, end string, lines []byte) error {
	pl := l.table.planAs(name, true)
	pl.skipPeriod = true
	reader, err := readerName()
	if err != nil {
		return err
	}
	mysql.RegisterReaderHandler(reader, func() io.Reader { return bytes.NewReader(lines) })
	defer mysql.DeregisterReaderHandler(reader)
	for _, stmt := range []string{
		"SET SESSION timestamp=UNIX_TIMESTAMP(" + lit(start) + ")", pl.loadStatement(reader, name),
		"SET SESSION timestamp=UNIX_TIMESTAMP(" + lit(end) + ")", "DELETE FROM " + name,
	} {
		if _, err := conn.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("write history rows of no length: %w", err)
		}
	}
	return nil
}
