package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"
)

// A large table is read by the connection that copies it range after range of
// its key. A connection that has no table left reads ranges ahead of it, of
// the same snapshot, into memory; one goroutine alone writes the artifact, in
// the order of the keys.

const (
	splitFrom  = 64 << 20  // bytes from which a table is read in ranges
	splitRange = 8 << 20   // bytes of one range, if keys are spread evenly
	batchSize  = 256 << 10 // bytes of records that are handed over at once
	aheadLimit = 8 << 20   // bytes of one range that wait for their turn
)

// errStopped ends reading ahead for a table that is read otherwise after all.
var errStopped = errors.New("nobody waits for these rows")

var batches = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// split is one table that is read in ranges.
type split struct {
	t        *tableInfo
	column   string
	unsigned bool
	low      uint64 // smallest value of the column, as the two's complement where it is signed
	step     uint64
	ranges   int

	room *semaphore.Weighted // ranges read ahead and not yet written
	ctx  context.Context     // ends with the table's copy
	end  context.CancelFunc

	mu    sync.Mutex
	next  int            // first range that nobody reads
	ahead map[int]*ahead // ranges read ahead

	sums []rangeSum // where only the digest is wanted; see sum.go
	busy sync.WaitGroup
	err  error // of a range
}

// ahead is a range on its way.
type ahead struct {
	batches chan *bytes.Buffer
	held    *semaphore.Weighted // bytes
	err     error               // valid when batches is closed
}

// splitBy says how to read a table in ranges for n connections; nil: it is not worth it, or not possible.
func splitBy(ctx context.Context, conn *sql.Conn, t *tableInfo, n int) (*split, error) {
	p := t.plan(false)
	if n < 2 || t.bytes < splitFrom || !t.transactional || t.versioned || len(p.key) == 0 {
		return nil, nil
	}
	c := p.key[0].column
	if !slices.Contains([]string{"tinyint", "smallint", "mediumint", "int", "bigint"}, c.dataType) {
		return nil, nil
	}
	rows, err := table(ctx, conn, "SELECT MIN("+q(c.name)+")+0,MAX("+q(c.name)+")+0 FROM "+qq(t.schema, t.name))
	if err != nil || len(rows) == 0 || rows[0][0] == "" {
		return nil, err
	}
	s := &split{t: t, column: q(c.name), unsigned: p.key[0].kind == keyUnsigned}
	low, err := s.parse(rows[0][0])
	if err != nil {
		return nil, err
	}
	high, err := s.parse(rows[0][1])
	if err != nil {
		return nil, err
	}
	span := high - low
	ranges := min(uint64(t.bytes/splitRange), span)
	if ranges < 2 {
		return nil, nil
	}
	s.low, s.step, s.ranges, s.sums = low, span/ranges, int(ranges), make([]rangeSum, ranges)
	s.begin(ctx, n)
	return s, nil
}

func (s *split) begin(ctx context.Context, n int) {
	s.room, s.ahead = semaphore.NewWeighted(int64(n)), map[int]*ahead{}
	s.ctx, s.end = context.WithCancel(ctx)
}

func (s *split) parse(v string) (uint64, error) {
	if s.unsigned {
		return strconv.ParseUint(v, 10, 64)
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return uint64(n), err
}

// bound is the first value of a range.
func (s *split) bound(i int) string {
	v := s.low + s.step*uint64(i)
	if s.unsigned {
		return strconv.FormatUint(v, 10)
	}
	return strconv.FormatInt(int64(v), 10)
}

// plan reads one range.
func (s *split) plan(i int) rowPlan {
	var where []string
	if i > 0 {
		where = append(where, s.column+">="+s.bound(i))
	}
	if i < s.ranges-1 {
		where = append(where, s.column+"<"+s.bound(i+1))
	}
	return s.t.planAs(qq(s.t.schema, s.t.name)+" WHERE "+strings.Join(where, " AND "), false)
}

// read hands over all records of the table in the order of their keys.
func (s *split) read(ctx context.Context, conn *sql.Conn, put func(key, value []byte) error) error {
	var last []byte
	for i := range s.ranges {
		s.mu.Lock()
		a := s.ahead[i]
		delete(s.ahead, i)
		s.next = max(s.next, i+1)
		s.mu.Unlock()
		first := true
		each := func(k, v []byte) error {
			if first && bytes.Compare(k, last) <= 0 && last != nil {
				return errOrder
			}
			first = false
			last = append(last[:0], k...)
			return put(k, v)
		}
		var err error
		if a == nil {
			err = readRows(ctx, conn, s.plan(i), each)
		} else {
			err = a.read(each)
			s.room.Release(1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read takes the records of a range that another connection reads.
func (a *ahead) read(each func(k, v []byte) error) error {
	for b := range a.batches {
		rest := b.Bytes()
		for len(rest) > 0 {
			k, n := binary.Uvarint(rest)
			v, m := binary.Uvarint(rest[n:])
			rest = rest[n+m:]
			if err := each(rest[:k:k], rest[k:k+v:k+v]); err != nil {
				return err
			}
			rest = rest[k+v:]
		}
		a.held.Release(weight(b))
		if b.Cap() <= 2*batchSize {
			b.Reset()
			batches.Put(b)
		}
	}
	return a.err
}

func weight(b *bytes.Buffer) int64 { return int64(min(b.Len(), aheadLimit)) }

// help reads one range ahead of the connection that copies the table; false: there is none left.
func (s *split) help(ctx context.Context, conn *sql.Conn) (bool, error) {
	if err := s.room.Acquire(s.ctx, 1); err != nil || s.ctx.Err() != nil {
		return false, ctx.Err()
	}
	s.mu.Lock()
	i := s.next
	if i >= s.ranges {
		s.mu.Unlock()
		s.room.Release(1)
		return false, nil
	}
	a := &ahead{batches: make(chan *bytes.Buffer, aheadLimit/batchSize+1), held: semaphore.NewWeighted(aheadLimit)}
	s.ahead[i], s.next = a, i+1
	s.mu.Unlock()
	b := batches.Get().(*bytes.Buffer)
	send := func() error {
		if err := a.held.Acquire(s.ctx, weight(b)); err != nil {
			return errStopped
		}
		a.batches <- b // has room: all but the last are of batchSize at least
		b = batches.Get().(*bytes.Buffer)
		return nil
	}
	var head [2 * binary.MaxVarintLen64]byte
	a.err = readRows(ctx, conn, s.plan(i), func(k, v []byte) error {
		n := binary.PutUvarint(head[:], uint64(len(k)))
		n += binary.PutUvarint(head[n:], uint64(len(v)))
		b.Write(head[:n])
		b.Write(k)
		b.Write(v)
		if b.Len() >= batchSize {
			return send()
		}
		return nil
	})
	if a.err == nil && b.Len() > 0 {
		a.err = send()
	}
	err := a.err
	close(a.batches)
	if errors.Is(err, errStopped) || errors.Is(err, errOrder) { // the table's own reader decides
		return true, nil
	}
	return true, err
}

// help reads ahead for every table that is still being copied.
func (c *copier) help(ctx context.Context, conn *sql.Conn) error {
	for _, s := range c.splits {
		for {
			help := s.help
			if c.sums != nil {
				help = func(ctx context.Context, conn *sql.Conn) (bool, error) { return s.sum(ctx, conn, c), nil }
			}
			if more, err := help(ctx, conn); err != nil {
				return err
			} else if !more {
				break
			}
		}
	}
	return nil
}

// cut decides which tables of a list are read in ranges.
func (c *copier) cut(ctx context.Context, list []*tableInfo, conns []*sql.Conn) error {
	for _, t := range list {
		name := tableArtifact(t.schema, t.name)
		if c.unordered[name] || c.pin.spooled[name] != nil {
			continue
		}
		if k, ok := c.recall(t, name); ok && (c.sums != nil || k.diff == nil || k.mostly()) {
			continue
		}
		s, err := splitBy(ctx, conns[0], t, len(conns))
		if err != nil {
			return err
		}
		if s != nil {
			c.splits = append(c.splits, s)
		}
	}
	return nil
}

// whole ends reading ahead for a table that is not read in ranges after all.
func (c *copier) whole(t *tableInfo) {
	for _, s := range c.splits {
		if s.t == t {
			s.end()
		}
	}
}

// read hands over the records of a table, by ranges if it is read so.
func (c *copier) read(ctx context.Context, conn *sql.Conn, p rowPlan, put func(key, value []byte) error) error {
	i := slices.IndexFunc(c.splits, func(s *split) bool { return s.t == p.table })
	if i < 0 || len(p.key) == 0 {
		return readRows(ctx, conn, p, put)
	}
	defer c.splits[i].end()
	return c.splits[i].read(ctx, conn, put)
}
