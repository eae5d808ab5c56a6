package mariadb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	loadChunk  = 32 << 20 // bytes of one LOAD DATA, which is one transaction
	rangeChunk = 64 << 20 // a larger table is loaded by several connections
	deferFrom  = 8 << 20  // from this size secondary keys are added after the rows
)

// load makes the shadow of every table to be replaced and proves its digest.
func (x *restorer) load(ctx context.Context) error {
	list := slices.Clone(x.a.load)
	slices.SortStableFunc(list, func(a, b *object) int {
		return int(min(max(x.a.artifacts[b.artifact()].Bytes-x.a.artifacts[a.artifact()].Bytes, -1), 1))
	})
	for i, schema := range x.schemas {
		if !slices.ContainsFunc(list, func(o *object) bool { return o.Schema == schema && !x.a.deltaFits(o) }) {
			continue
		}
		if err := x.makeShadow(ctx, shadowSchema(x.run.Epoch, i)); err != nil {
			return err
		}
	}
	// What a killed attempt of this run has left; almost always nothing.
	left := map[string]bool{}
	rows, err := table(ctx, x.s.db, "SELECT TABLE_SCHEMA,TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA LIKE "+lit(fmt.Sprintf(`\_cso\_%d\_new\_%%`, x.run.Epoch)))
	if err != nil {
		return err
	}
	for _, r := range rows {
		left[tableArtifact(r[0], r[1])] = true
	}
	n := parallel(x.run)
	if inPlace(x.run) {
		n = 1
	}
	conns := make(chan struct{}, parallel(x.run)) // statements in flight
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n + 1)
	for i, o := range list {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			l := &tableLoad{x: x, o: o, number: i, info: x.a.artifacts[o.artifact()], shadow: x.shadow(o), slots: conns}
			l.left = left[tableArtifact(l.shadow, o.Name)]
			if err := x.table(ctx, l); err != nil {
				return fmt.Errorf("load table %s.%s: %w", o.Schema, o.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// table makes ready what publish needs for one table: the few rows that
// differ, or a shadow of it all.
func (x *restorer) table(ctx context.Context, l *tableLoad) error {
	if x.a.deltaFits(l.o) {
		d := &delta{l: l}
		err := l.in(ctx, func() error { return d.prepare(ctx) })
		if err == nil {
			x.mu.Lock()
			x.deltas = append(x.deltas, d)
			x.mu.Unlock()
			return nil
		}
		if !errors.Is(err, errTooMuch) && !errors.Is(err, errStale) {
			return err
		}
		x.run.Log.Debug("the whole table is loaded", "table", l.o.Schema+"."+l.o.Name, "why", err)
		return x.wholeAfterAll(ctx, l)
	}
	return x.whole(ctx, l)
}

// wholeAfterAll is whole for a table of which single rows were to be changed.
func (x *restorer) wholeAfterAll(ctx context.Context, l *tableLoad) error {
	l.table = nil
	if err := x.makeShadow(ctx, l.shadow); err != nil {
		return err
	}
	return x.whole(ctx, l)
}

func (x *restorer) makeShadow(ctx context.Context, schema string) error {
	if _, err := x.w.db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+q(schema)+" CHARACTER SET utf8mb4"); err != nil {
		return fmt.Errorf("make a shadow schema: %w", err)
	}
	return nil
}

// whole loads a shadow of the table, to be swapped in.
func (x *restorer) whole(ctx context.Context, l *tableLoad) error {
	if err := l.run(ctx); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.swap = append(x.swap, l.o)
	return nil
}

// shadow is the schema in which an object's new table is made.
func (x *restorer) shadow(o *object) string {
	i, _ := slices.BinarySearch(x.schemas, o.Schema)
	return shadowSchema(x.run.Epoch, i)
}

func (x *restorer) old(o *object) string {
	i, _ := slices.BinarySearch(x.schemas, o.Schema)
	return oldSchema(x.run.Epoch, i)
}

// tableLoad loads one table.
type tableLoad struct {
	x      *restorer
	o      *object
	number int // among those to be loaded
	info   plugins.ArtifactInfo
	shadow string
	slots  chan struct{}
	left   bool // a shadow of an earlier attempt is there
	table  *tableInfo

	mu       sync.Mutex
	warnings []string
}

// in runs f while it holds one of the slots for statements in flight.
func (l *tableLoad) in(ctx context.Context, f func() error) error {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.slots }()
	return f()
}

func (l *tableLoad) run(ctx context.Context) error {
	name := qq(l.shadow, l.o.Name)
	if inPlace(l.x.run) {
		if err := l.x.dropLive(ctx, l.o); err != nil {
			return err
		}
	}
	ready := false
	if l.left {
		if err := l.in(ctx, func() (err error) { ready, err = l.reuse(ctx, name); return err }); err != nil {
			return err
		}
	}
	if !ready {
		t, ok := splitTable(string(l.o.DDL))
		if !ok {
			return fmt.Errorf("its definition cannot be read: %w", plugins.ErrCorrupt)
		}
		t, _ = t.cutForeignKeys()
		var keys []string
		if l.info.Bytes >= deferFrom && strings.EqualFold(l.o.Type, "InnoDB") {
			t, keys = t.cutKeys()
		}
		if err := l.in(ctx, func() error { return l.create(ctx, t, name) }); err != nil {
			return err
		}
		if l.table.history() {
			if err := l.in(ctx, func() error { return l.instants(ctx, name) }); err != nil {
				return err
			}
		}
		if err := l.rows(ctx, name); err != nil {
			return err
		}
		if err := l.finish(ctx, name, keys); err != nil {
			return err
		}
	}
	if inPlace(l.x.run) {
		return l.x.publishOne(ctx, l.o)
	}
	return nil
}

// describe reads the columns of the shadow; false: there is none.
func (l *tableLoad) describe(ctx context.Context) (bool, error) {
	rows, err := table(ctx, l.x.s.db, "SELECT TABLE_TYPE,ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA="+lit(l.shadow)+" AND TABLE_NAME="+lit(l.o.Name))
	if err != nil || len(rows) == 0 {
		return false, err
	}
	l.table = &tableInfo{schema: l.shadow, name: l.o.Name, engine: strings.ToUpper(rows[0][1]), versioned: rows[0][0] == "SYSTEM VERSIONED", rows: true}
	c := &catalog{tables: map[string]*tableInfo{tableArtifact(l.shadow, l.o.Name): l.table}}
	return true, c.details(ctx, l.x.s.db, []*tableInfo{l.table})
}

// reuse says whether an earlier attempt of this run has already made the shadow.
func (l *tableLoad) reuse(ctx context.Context, name string) (bool, error) {
	ok, err := l.describe(ctx)
	if err != nil || !ok {
		return false, err
	}
	if ok, err = l.matches(ctx); err != nil || ok {
		return ok, err
	}
	_, err = l.x.w.db.ExecContext(ctx, "DROP TABLE "+name)
	return false, err
}

// matches compares the shadow's definition and digest with the backup's.
func (l *tableLoad) matches(ctx context.Context) (bool, error) {
	if ok, err := l.defined(ctx); err != nil || !ok {
		return false, err
	}
	return l.equal(ctx)
}

// defined compares the shadow's definition with the backup's.
func (l *tableLoad) defined(ctx context.Context) (bool, error) {
	have := &object{Kind: kindTable, Schema: l.shadow, Name: l.o.Name}
	if err := have.define(ctx, l.x.s.db); err != nil {
		return false, err
	}
	return have.base() == l.o.base(), nil
}

// equal compares the shadow's digest with the backup's.
func (l *tableLoad) equal(ctx context.Context) (bool, error) {
	// Whoever has a connection left helps; there is one at least, because this is a statement in flight.
	conns, release, err := l.x.s.readers(ctx, parallel(l.x.run))
	if err != nil {
		return false, err
	}
	defer release()
	l.table.bytes, l.table.transactional = l.info.Bytes, l.table.innodb()
	same := false
	err = l.x.s.survey(ctx, plugins.Run{Log: l.x.run.Log, Operation: l.x.run.Operation}, conns, []*tableInfo{l.table},
		map[string]bool{tableArtifact(l.shadow, l.o.Name): l.info.Form == plugins.Unordered}, nil,
		func(_ string, form plugins.Form, sum rangeSum) {
			same = form == l.info.Form && sum.digest == l.info.Digest
		})
	return same, err
}

func (l *tableLoad) create(ctx context.Context, t createTable, name string) error {
	stmt := rename(t.String(), l.shadow, l.o.Name)
	// ARCHIVE refuses rows below its counter; it gets its counter in forward.
	if l.o.Auto != "" && !strings.EqualFold(l.o.Type, "ARCHIVE") {
		stmt = withAuto(stmt, l.o.Auto)
	}
	if _, err := l.x.w.db.ExecContext(ctx, stmt); err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	ok, err := l.describe(ctx)
	if err == nil && !ok {
		err = fmt.Errorf("%s disappeared: %w", name, plugins.ErrFenced)
	}
	return err
}

// rows loads all rows, a large ordered table over several connections.
func (l *tableLoad) rows(ctx context.Context, name string) error {
	if l.info.Form != plugins.Ordered || l.info.Bytes < rangeChunk || !strings.EqualFold(l.o.Type, "InnoDB") {
		return l.in(ctx, func() error {
			r, err := l.x.r.Open(ctx, l.info.Name)
			if err != nil {
				return err
			}
			return l.stream(ctx, r, name)
		})
	}
	pieces, err := l.x.r.Pieces(ctx, l.info.Name)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for from := 0; from < len(pieces); {
		to := from
		for size := int64(0); to < len(pieces) && size < loadChunk; to++ {
			size += pieces[to].Bytes
		}
		first := from
		g.Go(func() error {
			return l.in(ctx, func() error {
				r, err := l.x.r.OpenPieces(ctx, l.info.Name, first, to)
				if err != nil {
					return err
				}
				return l.stream(ctx, r, name)
			})
		})
		from = to
	}
	return g.Wait()
}

// stream loads the records of r, in transactions of loadChunk bytes.
func (l *tableLoad) stream(ctx context.Context, r plugins.RecordReader, name string) error {
	defer r.Close()
	conn, err := l.x.w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	src := &tsvReader{r: r, columns: len(l.table.stored()), period: l.table.period()}
	reader, err := readerName()
	if err != nil {
		return err
	}
	mysql.RegisterReaderHandler(reader, func() io.Reader { return src })
	defer mysql.DeregisterReaderHandler(reader)
	stmt := l.table.planAs(name, true).loadStatement(reader, name)
	for !src.end {
		src.chunk = 0
		res, err := conn.ExecContext(ctx, stmt)
		if src.err != nil {
			return src.err // why the stream ended, not how the server saw it
		}
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != src.rows {
			l.note(ctx, conn, fmt.Sprintf("%d of %d rows stored", n, src.rows))
		}
		l.x.rows.Add(src.rows)
		l.x.run.Report(plugins.Status{Phase: "load", Item: l.info.Name, Bytes: l.x.bytes.Add(src.bytes), Total: l.x.total})
		src.rows, src.bytes = 0, 0
	}
	return nil
}

// readerName is a name for the driver's table of readers, which is global.
func readerName() (string, error) {
	var id [8]byte
	_, err := rand.Read(id[:])
	return "cso-" + hex.EncodeToString(id[:]), err
}

func (l *tableLoad) note(ctx context.Context, conn *sql.Conn, what string) {
	rows, err := table(ctx, conn, "SHOW WARNINGS LIMIT 3")
	if err != nil {
		return // the digest decides; this is only its explanation
	}
	for _, r := range rows {
		what += "; server error " + r[1]
	}
	l.mu.Lock()
	l.warnings = append(l.warnings, what)
	l.mu.Unlock()
}

// finish adds the keys left out and compares the shadow with the backup. The
// server sorts keys in one thread, and where it leaves the rows where they
// are (NOCOPY), they are compared meanwhile.
func (l *tableLoad) finish(ctx context.Context, name string, keys []string) error {
	if len(keys) == 0 {
		return l.in(ctx, func() error { return l.prove(ctx, l.matches) })
	}
	add := "ALTER TABLE " + name + " ADD " + strings.Join(keys, ", ADD ")
	added, same := false, false
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := l.x.w.db.ExecContext(gctx, add+", ALGORITHM=NOCOPY")
		if added = err == nil; err != nil && number(err) == 0 {
			return fmt.Errorf("add keys: %w", err)
		}
		return nil // refused: it is done below, without haste
	})
	g.Go(func() error {
		return l.in(gctx, func() (err error) { same, err = l.equal(gctx); return err })
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if added {
		return l.prove(ctx, func(ctx context.Context) (bool, error) {
			ok, err := l.defined(ctx)
			return ok && same, err
		})
	}
	if _, err := l.x.w.db.ExecContext(ctx, add); err != nil {
		return fmt.Errorf("add keys: %w", err)
	}
	return l.in(ctx, func() error { return l.prove(ctx, l.matches) })
}

// prove fails unless the shadow matches the backup.
func (l *tableLoad) prove(ctx context.Context, matches func(context.Context) (bool, error)) error {
	ok, err := matches(ctx)
	if err == nil && !ok {
		err = fmt.Errorf("the loaded copy is not equal to the backup (%s): %w: nothing was published", strings.Join(l.warnings, "; "), plugins.ErrData)
	}
	return err
}

// tsvReader turns records into lines for LOAD DATA, up to loadChunk bytes at a time.
type tsvReader struct {
	r       plugins.RecordReader
	columns int
	period  *period // not nil: rows that instants has written are left out
	buf     []byte
	off     int
	chunk   int // bytes since the statement began
	rows    int64
	bytes   int64
	end     bool
	err     error
}

// Read gives the next bytes of lines; io.EOF at the end of a chunk.
func (t *tsvReader) Read(p []byte) (int, error) {
	for t.off == len(t.buf) {
		if t.err != nil {
			return 0, t.err
		}
		if t.end || t.chunk >= loadChunk {
			return 0, io.EOF
		}
		t.buf, t.off = t.buf[:0], 0
		for len(t.buf) < 64<<10 && !t.end {
			k, v, err := t.r.Next()
			if errors.Is(err, io.EOF) {
				t.end = true
				break
			}
			if err == nil && t.period != nil {
				var odd bool
				if odd, err = t.period.odd(v); odd {
					continue
				}
			}
			if err == nil {
				t.buf, err = appendTSV(t.buf, v, t.columns)
			}
			if err != nil {
				t.err = err
				return 0, err
			}
			t.rows++
			t.bytes += int64(len(k) + len(v))
		}
		t.chunk += len(t.buf)
	}
	n := copy(p, t.buf[t.off:])
	t.off += n
	return n, nil
}
