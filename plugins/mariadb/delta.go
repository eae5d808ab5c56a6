package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A table of which few rows differ is not loaded anew. The differing stretches
// are read on both sides and compared row by row; rows to go, rows to come and
// rows to be others are loaded into three tables, and one transaction takes the
// first away, puts the second in, changes the third, reads them back and commits. Killed
// before the commit, the old rows are whole; after it, the new ones. Whatever
// does not fit this (see deltaFits), or turns out otherwise than expected,
// takes the way over a shadow of the whole table.

const (
	deltaLimit = 128 << 20 // bytes of rows changed in one transaction, at most
	deltaShare = 10        // and at most the table's bytes divided by this
	deltaBatch = 4 << 20   // bytes of rows held here before they are loaded
)

var (
	errTooMuch = errors.New("too many rows differ")
	errStale   = errors.New("the table is not as it was when it was compared")
)

// deltaFits says whether rows of a live table can be changed one by one.
func (a *assessment) deltaFits(o *object) bool {
	t, d := a.live.tables[o.artifact()], a.diffs[o.artifact()]
	if t == nil || d == nil || t.versioned || !strings.EqualFold(t.engine, "InnoDB") {
		return false
	}
	p := t.plan(false)
	return len(p.key) > 0 && p.keyColumns() != nil
}

func (s *session) deltaMax(info plugins.ArtifactInfo) int64 {
	limit := int64(deltaLimit)
	if s.wsrep {
		limit = loadChunk // the other nodes of a cluster stand still while they apply a transaction
	}
	return min(limit, info.Bytes/deltaShare)
}

// delta is the change of one table.
type delta struct {
	l    *tableLoad
	live string
	plan rowPlan
	cut  deltaSide
	add  deltaSide
	set  deltaSide
	was  plugins.Digest // of the rows that set changes
	held int64          // bytes of them
	max  int64
	// apart: a row is changed by taking it away and putting the other one in. Two rows may exchange
	// what another unique key holds.
	apart bool
	mu    sync.Mutex // of put
}

// deltaSide is a table with the rows to go, to come or to be.
type deltaSide struct {
	name   string
	sum    plugins.Digest
	bytes  int64
	lines  []byte
	queued int64 // rows in lines
}

// prepare finds the rows and loads them beside the live table.
func (d *delta) prepare(ctx context.Context) error {
	x, o := d.l.x, d.l.o
	t := x.a.live.tables[o.artifact()]
	diff := x.a.diffs[o.artifact()]
	d.live, d.plan, d.max = qq(o.Schema, o.Name), t.plan(false), x.s.deltaMax(d.l.info)
	d.l.table = t
	ddl, ok := splitTable(string(o.DDL))
	if !ok {
		return errTooMuch
	}
	ddl = ddl.bare()
	d.apart = ddl.uniqueKeys() > 1 || len(d.assigned()) == 0
	for _, s := range []struct {
		side *deltaSide
		kind string
	}{{&d.cut, "cut"}, {&d.add, "add"}, {&d.set, "set"}} {
		s.side.name = deltaTable(x.run.Epoch, s.kind, d.l.number)
		if err := d.make(ctx, ddl, s.side.name); err != nil {
			return fmt.Errorf("make %s: %w", s.side.name, err)
		}
	}
	to, err := x.w.side.Conn(ctx)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := d.spans(ctx, to, diff); err != nil {
		return err
	}
	for _, s := range []*deltaSide{&d.cut, &d.add, &d.set} {
		if err := d.flush(ctx, to, s); err != nil {
			return err
		}
	}
	// What is there, with what comes, is what shall be there, with what goes.
	have, want := diff.live, d.l.info.Digest
	have.Merge(d.add.sum)
	have.Merge(d.set.sum)
	want.Merge(d.cut.sum)
	want.Merge(d.was)
	if have != want {
		return errStale
	}
	return nil
}

var charsetOption = regexp.MustCompile(`^\) ENGINE=.*?( DEFAULT CHARSET=\w+(?: COLLATE=\w+)?)`)

// make makes a table for rows to go or to come. Where Aria can have it, that
// takes no number of InnoDB's counter, and what is known of all other tables
// stays known; see known.go.
func (d *delta) make(ctx context.Context, t createTable, name string) error {
	if m := charsetOption.FindStringSubmatch(t.tail); m != nil && !d.l.x.s.wsrep {
		plain := t
		plain.tail = ") ENGINE=Aria TRANSACTIONAL=0" + m[1]
		_, err := d.l.x.w.side.ExecContext(ctx, renameTo(plain.String(), name))
		if err == nil || number(err) == 0 {
			return err
		}
	}
	_, err := d.l.x.w.side.ExecContext(ctx, renameTo(t.String(), name))
	return err
}

// spans compares all stretches, several at once: rows are told apart faster
// than one goroutine decodes them.
func (d *delta) spans(ctx context.Context, to *sql.Conn, diff *difference) error {
	conns, release, err := d.l.x.s.readers(ctx, min(parallel(d.l.x.run), max(1, len(diff.spans))))
	if err != nil {
		return err
	}
	defer release()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for _, conn := range conns {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < len(diff.spans); i = int(next.Add(1)) - 1 {
				if err := d.span(ctx, conn, to, diff.told, diff.spans[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// span compares one stretch row by row.
func (d *delta) span(ctx context.Context, conn, to *sql.Conn, told plugins.ArtifactReader, sp span) error {
	var theirs plugins.RecordReader = noRecords{}
	if d.l.info.Records > 0 && sp.to > sp.from {
		r, err := d.l.x.r.OpenPieces(ctx, d.l.info.Name, sp.from, sp.to)
		if err != nil {
			return err
		}
		theirs = r
	}
	defer theirs.Close()
	key, value, err := theirs.Next()
	var live plugins.Digest
	step := func(k, v []byte) error {
		if told == nil { // the store has proven what it gives
			live.Add(k, v)
		}
		for err == nil && bytes.Compare(key, k) < 0 {
			if e := d.put(ctx, to, &d.add, key, value); e != nil {
				return e
			}
			key, value, err = theirs.Next()
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil || !bytes.Equal(key, k) {
			return d.put(ctx, to, &d.cut, k, v)
		}
		if !bytes.Equal(value, v) {
			if e := d.turn(ctx, to, k, v, value); e != nil {
				return e
			}
		}
		key, value, err = theirs.Next()
		return nil
	}
	if sp.live.Records > 0 {
		if e := d.rows(ctx, conn, told, sp, step); e != nil {
			return e
		}
	}
	for ; err == nil; key, value, err = theirs.Next() {
		if e := d.put(ctx, to, &d.add, key, value); e != nil {
			return e
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if told == nil && live != sp.live {
		return errStale
	}
	return nil
}

// rows reads the live rows of one stretch.
func (d *delta) rows(ctx context.Context, conn *sql.Conn, told plugins.ArtifactReader, sp span, step func(k, v []byte) error) error {
	if told == nil {
		err := readRows(ctx, conn, d.l.table.planAs(d.live+sp.where(), false), step)
		if errors.Is(err, errOrder) {
			return errStale
		}
		return err
	}
	r, err := told.OpenPieces(ctx, d.l.info.Name, sp.has[0], sp.has[1])
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		k, v, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = step(k, v)
		}
		if err != nil {
			return err
		}
	}
}

// noRecords is the artifact of an empty table.
type noRecords struct{ plugins.RecordReader }

func (noRecords) Next() (key, value []byte, err error) { return nil, nil, io.EOF }
func (noRecords) Close() error                         { return nil }

// turn makes a row another one with the same key.
func (d *delta) turn(ctx context.Context, to *sql.Conn, key, was, is []byte) error {
	if d.apart {
		if err := d.put(ctx, to, &d.cut, key, was); err != nil {
			return err
		}
		return d.put(ctx, to, &d.add, key, is)
	}
	d.mu.Lock()
	d.was.Add(key, was)
	d.held += int64(len(key) + len(was))
	d.mu.Unlock()
	return d.put(ctx, to, &d.set, key, is)
}

func (d *delta) put(ctx context.Context, to *sql.Conn, s *deltaSide, key, value []byte) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.sum.Add(key, value)
	s.bytes += int64(len(key) + len(value))
	if d.cut.bytes+d.add.bytes+d.set.bytes+d.held > d.max {
		return errTooMuch
	}
	if s.lines, err = appendTSV(s.lines, value, len(d.plan.columns)); err != nil {
		return err
	}
	if s.queued++; len(s.lines) >= deltaBatch {
		return d.flush(ctx, to, s)
	}
	return nil
}

func (d *delta) flush(ctx context.Context, to *sql.Conn, s *deltaSide) error {
	if s.queued == 0 {
		return nil
	}
	reader, err := readerName()
	if err != nil {
		return err
	}
	mysql.RegisterReaderHandler(reader, func() io.Reader { return bytes.NewReader(s.lines) })
	defer mysql.DeregisterReaderHandler(reader)
	if _, err := to.ExecContext(ctx, d.plan.loadStatement(reader, s.name)); err != nil {
		return err
	}
	s.lines, s.queued = s.lines[:0], 0
	return nil
}

// apply changes the live table in one transaction. fits is false when the
// table or the server did not do as expected; then nothing has changed.
func (d *delta) apply(ctx context.Context, conn *sql.Conn) (fits bool, err error) {
	x, o := d.l.x, d.l.o
	for _, tr := range x.a.live.sorted() {
		if tr.Kind == kindTrigger && tr.Schema == o.Schema && tr.Table == o.Name { // comes back in forward
			if err := x.exec(ctx, tr, "DROP TRIGGER IF EXISTS "+qq(tr.Schema, tr.Name)); err != nil {
				return false, err
			}
		}
	}
	if err := x.w.check(ctx, conn); err != nil {
		return false, err
	}
	// The rows put in are read back before the commit, and those taken out are counted.
	name, was, is := d.l.info.Name, x.a.diffs[d.l.info.Name].live, d.l.info.Digest
	why := x.s.own(ctx, func(tables map[string]knownTable) {
		if t := tables[name]; t.form == plugins.Ordered && t.digest == was {
			tables[name] = knownTable{form: plugins.Ordered, digest: is}
		} else {
			delete(tables, name)
		}
	}, func() (int64, error) { return d.changes(), d.transact(ctx, conn) })
	if why == nil {
		x.rows.Add(d.changes())
		x.run.Report(plugins.Status{Phase: "load", Item: d.l.info.Name, Bytes: x.bytes.Add(d.cut.bytes + d.add.bytes + d.set.bytes), Total: x.total})
		return true, nil
	}
	if ctx.Err() != nil || lost(why) {
		return false, why
	}
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		return false, err
	}
	if errors.Is(why, plugins.ErrFenced) {
		return false, why
	}
	x.run.Log.Info("changing single rows did not end as expected; the whole table is loaded", "table", o.Schema+"."+o.Name, "why", why)
	return false, nil
}

// changes is the number of rows that go, come or change.
func (d *delta) changes() int64 {
	return d.cut.sum.Records + d.add.sum.Records + d.set.sum.Records
}

// assigned are the columns that a changed row takes over; of the key those
// whose text may differ although they are equal.
func (d *delta) assigned() (out []string) {
	for _, c := range d.plan.columns {
		inKey := slices.ContainsFunc(d.plan.key, func(k keyPart) bool { return k.column.name == c.name })
		if !inKey || strings.Contains(c.dataType, "char") {
			out = append(out, d.live+"."+q(c.name)+"=`d`."+q(c.name))
		}
	}
	return out
}

// transact is the transaction; after an error it is to be rolled back.
func (d *delta) transact(ctx context.Context, conn *sql.Conn) error {
	var on, keys, columns []string
	for _, k := range d.plan.key {
		n := q(k.column.name)
		keys = append(keys, n)
		on = append(on, "`d`."+n+"="+d.live+"."+n)
	}
	for _, c := range d.plan.columns {
		columns = append(columns, q(c.name))
	}
	fields, key := strings.Join(columns, ","), strings.Join(keys, ",")
	if _, err := conn.ExecContext(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	for _, s := range []struct {
		stmt string
		want int64
	}{
		{"DELETE FROM " + d.live + " USING " + d.cut.name + " AS `d` STRAIGHT_JOIN " + d.live + " ON " + strings.Join(on, " AND "), d.cut.sum.Records},
		{"UPDATE " + d.set.name + " AS `d` STRAIGHT_JOIN " + d.live + " ON " + strings.Join(on, " AND ") + " SET " + strings.Join(d.assigned(), ","), d.set.sum.Records},
		{"INSERT INTO " + d.live + " (" + fields + ") SELECT " + fields + " FROM " + d.add.name, d.add.sum.Records},
	} {
		if s.want == 0 {
			continue
		}
		res, err := conn.ExecContext(ctx, s.stmt)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != s.want {
			return fmt.Errorf("%d rows changed, want %d: %w", n, s.want, errStale)
		}
	}
	for _, s := range []*deltaSide{&d.add, &d.set} {
		if s.sum.Records == 0 {
			continue
		}
		var have plugins.Digest
		back := d.l.table.planAs(d.live+" WHERE ("+key+") IN (SELECT "+key+" FROM "+s.name+")", false)
		err := readRows(ctx, conn, back, func(k, v []byte) error { have.Add(k, v); return nil })
		if err != nil {
			return err
		}
		if have != s.sum {
			return fmt.Errorf("the rows put in are not those of the backup: %w", errStale)
		}
	}
	if err := d.l.x.w.check(ctx, conn); err != nil {
		return err
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	return err
}

// bare is the table with only what makes rows what they are and tells them apart.
func (t createTable) bare() createTable {
	t, _ = t.cutForeignKeys()
	t, _ = t.cutKeys()
	t.elements = slices.DeleteFunc(slices.Clone(t.elements), func(e string) bool {
		return strings.HasPrefix(e, "FULLTEXT KEY ") || strings.HasPrefix(e, "SPATIAL KEY ")
	})
	return t
}
