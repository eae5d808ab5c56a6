package mariadb

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A row of the text protocol is, byte for byte, the value of a record. So
// large results are not taken through database/sql, which parses and copies
// every cell, but read as packets from the driver's own network connection
// while the driver is idle (https://mariadb.com/kb/en/result-set-packets/).
// Over TLS the connection below the encryption belongs to the driver alone,
// and rows come through it.

// driverConn is what every connection of the driver can do.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
}

// link is a connection of the driver together with the network connection
// below it; wire is nil when that cannot be used.
type link struct {
	driverConn
	wire net.Conn
	wide bool // widen was called
	gone bool
}

// IsValid is false after a result was left half read.
func (l *link) IsValid() bool { return !l.gone && l.driverConn.IsValid() }

// wireKey is the context key under which dial leaves the network connection.
type wireKey struct{}

// dial opens network connections and tells whoever asks in the context.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if to, ok := ctx.Value(wireKey{}).(*net.Conn); ok && err == nil {
		*to = c
	}
	return c, err
}

const (
	packetMax  = 1<<24 - 1 // payload after which a packet goes on in the next one
	wireBuffer = 256 << 10 // bytes of one reader, more only for a longer row
	rowMax     = 1 << 30   // the server's own limit of max_allowed_packet
)

var wireBuffers = sync.Pool{New: func() any { b := make([]byte, wireBuffer); return &b }}

// packets reads packets off a connection. A payload is valid until the next call.
type packets struct {
	from net.Conn
	buf  []byte // unread bytes are buf[r:w]
	r, w int
	long []byte // payload that came in several packets
}

func (p *packets) fill(n int) error {
	if p.w-p.r >= n {
		return nil
	}
	if p.r > 0 {
		copy(p.buf, p.buf[p.r:p.w])
		p.w -= p.r
		p.r = 0
	}
	if n > len(p.buf) {
		grown := make([]byte, n+wireBuffer)
		copy(grown, p.buf[:p.w])
		p.buf = grown
	}
	m, err := io.ReadAtLeast(p.from, p.buf[p.w:], n-p.w)
	p.w += m
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next gives the payload of the next packet.
func (p *packets) next() ([]byte, error) {
	payload, err := p.one()
	if err != nil || len(payload) < packetMax {
		return payload, err
	}
	p.long = append(p.long[:0], payload...)
	for len(payload) == packetMax {
		if payload, err = p.one(); err != nil {
			return nil, err
		}
		if len(p.long)+len(payload) > rowMax {
			return nil, fmt.Errorf("a row of more than %d bytes: %w", rowMax, plugins.ErrData)
		}
		p.long = append(p.long, payload...)
	}
	return p.long, nil
}

func (p *packets) one() ([]byte, error) {
	if err := p.fill(4); err != nil {
		return nil, err
	}
	n := int(p.buf[p.r]) | int(p.buf[p.r+1])<<8 | int(p.buf[p.r+2])<<16
	if err := p.fill(4 + n); err != nil {
		return nil, err
	}
	payload := p.buf[p.r+4 : p.r+4+n : p.r+4+n]
	p.r += 4 + n
	return payload, nil
}

// rows runs a query and gives each row as it stands in its packet. The row is
// valid during the call only. An error of each ends the reading, not the
// connection: the rest of the result is read and thrown away.
func (l *link) rows(ctx context.Context, query string, each func(row []byte) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	buf := wireBuffers.Get().(*[]byte)
	defer wireBuffers.Put(buf)
	p := &packets{from: l.wire, buf: *buf}
	// A deadline in the past makes the pending read return when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = l.wire.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() || lost(err) {
			l.gone = true
		}
	}()
	if !l.wide {
		if err = l.widen(ctx, p); err != nil {
			return err
		}
	}
	var failed error
	err = l.result(p, query, func(row []byte) {
		if failed == nil {
			failed = each(row)
		}
	})
	if err == nil {
		err = failed
	}
	if cause := ctx.Err(); cause != nil && err != nil {
		l.gone = true
		return cause
	}
	return err
}

// widen makes the server send in large stretches. It sends when its buffer of
// net_buffer_length (16 KiB) is full, and this buffer grows to the length of
// the longest command it has received.
func (l *link) widen(ctx context.Context, p *packets) error {
	l.wide = true
	limit, err := rawRow(ctx, l.driverConn, "SELECT @@max_allowed_packet")
	if err != nil || limit[0] == nil {
		return err
	}
	if n, err := strconv.Atoi(*limit[0]); err != nil || n < 2*wireBuffer {
		return nil
	}
	return l.result(p, "DO 0"+strings.Repeat(" ", wireBuffer-8), func([]byte) {})
}

// result is one command and its whole answer.
func (l *link) result(p *packets, query string, each func(row []byte)) error {
	if err := l.command(query); err != nil {
		return err
	}
	head, err := p.next()
	if err != nil {
		return wireError(err)
	}
	switch {
	case len(head) == 0 || head[0] == 0xFB:
		return fmt.Errorf("answer of the server: %w", mysql.ErrMalformPkt)
	case head[0] == 0xFF:
		return serverError(head)
	case head[0] == 0:
		return nil // no result
	}
	columns, rest, err := countOf(head)
	if err != nil {
		return err
	}
	if len(rest) == 0 || rest[0] == 1 { // 0: descriptions are left out
		for range columns {
			if _, err := p.next(); err != nil {
				return wireError(err)
			}
		}
	}
	for first := true; ; first = false {
		row, err := p.next()
		switch {
		case err != nil:
			return wireError(err)
		case len(row) > 0 && row[0] == 0xFF:
			return serverError(row)
		case len(row) == 5 && row[0] == 0xFE && first:
			continue // the end of the descriptions, from a server that cannot leave it out; that of the rows follows
		case len(row) > 0 && row[0] == 0xFE && len(row) < packetMax: // a cell that begins so is longer
			return nil
		default:
			each(row)
		}
	}
}

// countOf takes the number of columns off the head of a result.
func countOf(head []byte) (n int, rest []byte, err error) {
	switch {
	case head[0] < 251:
		return int(head[0]), head[1:], nil
	case head[0] == 0xFC && len(head) >= 3:
		return int(binary.LittleEndian.Uint16(head[1:])), head[3:], nil
	}
	return 0, nil, fmt.Errorf("answer of the server: %w", mysql.ErrMalformPkt)
}

// serverError is the error in an ERR packet.
func serverError(p []byte) error {
	e := &mysql.MySQLError{Number: 2027, Message: "malformed packet"}
	if len(p) >= 3 {
		e.Number, e.Message = binary.LittleEndian.Uint16(p[1:]), string(p[3:])
	}
	if len(p) >= 9 && p[3] == '#' {
		copy(e.SQLState[:], p[4:9])
		e.Message = string(p[9:])
	}
	return e
}

// wireError is what the driver itself would have said, with the cause.
func wireError(err error) error { return fmt.Errorf("%w: %w", mysql.ErrInvalidConn, err) }

// command sends COM_QUERY.
func (l *link) command(query string) error {
	out := make([]byte, 0, len(query)+16)
	for seq, rest := byte(0), append([]byte{3}, query...); ; seq++ {
		n := min(len(rest), packetMax)
		out = append(out, byte(n), byte(n>>8), byte(n>>16), seq)
		out = append(out, rest[:n]...)
		if rest = rest[n:]; n < packetMax {
			break
		}
	}
	if _, err := l.wire.Write(out); err != nil {
		return wireError(err)
	}
	return nil
}
