package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// errBadConn makes database/sql close a connection instead of pooling it.
var errBadConn = driver.ErrBadConn

// Backup pins and copies at once.
func (s *session) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p, err := s.pin(ctx, parallel(run), run.Operation == plugins.OpSafety)
	if err != nil {
		return plugins.Report{}, fmt.Errorf("pin %s: %w", s.member.Name, err)
	}
	defer p.release()
	return p.Backup(ctx, run, w)
}

// Backup writes all artifacts of the view.
func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	return p.backup(ctx, run, &copier{w: w})
}

// backup is Backup by a prepared copier.
func (p *pin) backup(ctx context.Context, run plugins.Run, c *copier) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: p.s.version, Position: p.info.Position, Consistency: p.consistency(), Warnings: slices.Clone(p.warnings)}
	if len(p.locked) > 0 {
		rep.Warnings = append(rep.Warnings, "writers had to wait while large tables without transactions were copied: "+brief(p.locked)+"; InnoDB tables need no such lock")
	}
	p.mu.Lock()
	gone := p.released
	p.mu.Unlock()
	if gone {
		return rep, fmt.Errorf("%w: it was released", plugins.ErrPinLost)
	}
	defs := p.catalog.sorted()
	records := make([]record, 0, len(defs))
	for _, o := range defs {
		k, v, err := o.record()
		if err != nil {
			return rep, err
		}
		records = append(records, record{k, v})
	}
	c.pin, c.run = p, run
	for _, a := range []struct {
		name    string
		records []record
	}{{definitionsArtifact, records}, {accountsArtifact, p.accounts}} {
		if err := c.write(ctx, a.name, plugins.Ordered, a.records); err != nil {
			return rep, err
		}
	}
	if err := c.tables(ctx); err != nil {
		return rep, pinned(ctx, err)
	}
	rep.Artifacts, rep.Records, rep.Bytes = int(c.artifacts.Load()), c.rows.Load(), c.bytes.Load()
	rep.Inexact = p.catalog.inexact()
	return rep, nil
}

func (p *pin) consistency() string {
	s := "one snapshot of the whole server (" + p.wayOf + ")"
	if len(p.spooled) > 0 {
		s += fmt.Sprintf("; %d tables without transactions read while commits waited", len(p.spooled))
	}
	if len(p.locked) > 0 {
		s += fmt.Sprintf("; %d large tables without transactions kept from writers until they were copied: %s", len(p.locked), brief(p.locked))
	}
	return s
}

// inexact names what of this very data a restore does not bring back exactly.
func (c *catalog) inexact() []plugins.Inexact {
	var history []string
	for _, t := range c.tables {
		if t.versioned && !t.history() {
			history = append(history, t.schema+"."+t.name)
		}
	}
	if len(history) == 0 {
		return nil
	}
	slices.Sort(history)
	return []plugins.Inexact{{What: "history of " + brief(history), Why: "its periods are transaction numbers of this server, which no statement can write; the current rows are exact"}}
}

// brief joins names, at most ten of them.
func brief(names []string) string {
	if len(names) > 10 {
		return strings.Join(names[:10], ", ") + fmt.Sprintf(" and %d more", len(names)-10)
	}
	return strings.Join(names, ", ")
}

// copier writes the artifacts of one pin.
type copier struct {
	pin       *pin
	run       plugins.Run
	w         plugins.ArtifactWriter
	unordered map[string]bool // written without keys, as the backup that they are compared with has them
	artifacts atomic.Int64
	rows      atomic.Int64
	bytes     atomic.Int64
	total     int64
	splits    []*split // tables that are read in ranges
	// sums takes what is to be known of tables, when they are not to be stored; see sum.go.
	sums func(name string, form plugins.Form, r rangeSum)
	// pieces are those of the artifact that a table is compared with; nil: only its digest is wanted.
	pieces func(name string) []plugins.PieceInfo
}

// tables copies all tables, the largest first, those under read locks before all others.
func (c *copier) tables(ctx context.Context) error {
	var locked, rest []*tableInfo
	for name, t := range c.pin.catalog.tables {
		switch {
		case !t.rows:
		case t.transactional || c.pin.spooled[name] != nil:
			rest = append(rest, t)
		default:
			locked = append(locked, t)
		}
		c.total += t.bytes
	}
	// Only the connection that holds the locks may read there: others queue behind waiting writers.
	if err := c.each(ctx, locked, []*sql.Conn{c.pin.lock}); err != nil {
		return err
	}
	if err := c.pin.unlock(ctx); err != nil {
		return err
	}
	return c.each(ctx, rest, c.pin.conns)
}

func (c *copier) each(ctx context.Context, list []*tableInfo, conns []*sql.Conn) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *tableInfo) int {
		if a.bytes != b.bytes {
			return int(min(max(b.bytes-a.bytes, -1), 1))
		}
		return strings.Compare(tableArtifact(a.schema, a.name), tableArtifact(b.schema, b.name))
	})
	var next atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	if err := c.cut(ctx, list, conns); err != nil {
		return err
	}
	for _, conn := range conns {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return c.help(ctx, conn)
				}
				if err := c.table(ctx, conn, list[i]); err != nil {
					return fmt.Errorf("copy table %s.%s: %w", list[i].schema, list[i].name, err)
				}
			}
		})
	}
	return g.Wait()
}

// table writes one table, unordered when its rows turn out not to come in key order.
func (c *copier) table(ctx context.Context, conn *sql.Conn, t *tableInfo) error {
	name := tableArtifact(t.schema, t.name)
	if rows, ok := c.pin.spooled[name]; ok {
		form := plugins.Unordered
		if c.pin.forms[name] && !c.unordered[name] {
			form = plugins.Ordered
		}
		if form == plugins.Unordered {
			rows = slices.Clone(rows)
			for i := range rows {
				rows[i].key = nil
			}
		}
		return c.write(ctx, name, form, rows)
	}
	done, err := c.known(ctx, t, name)
	if !done && err == nil {
		done, err = c.stitch(ctx, conn, t, name)
	}
	if done || err != nil {
		c.whole(t) // nobody reads what others would read ahead
		return err
	}
	err = c.stream(ctx, conn, name, t.plan(c.unordered[name]))
	if errors.Is(err, errOrder) {
		c.run.Log.Debug("rows not in key order, written unordered", "table", t.schema+"."+t.name)
		err = c.stream(ctx, conn, name, t.plan(true))
	}
	return err
}

func (c *copier) artifact(name string, form plugins.Form) plugins.Artifact {
	a := plugins.Artifact{Name: name, Form: form, Pin: c.pin.info.ID}
	if name == definitionsArtifact {
		a.Attributes = map[string]string{attrVersion: c.pin.s.version, attrCase: c.pin.s.lowerCase}
	}
	return a
}

// Attributes of the definitions artifact: what the restore's server is compared with.
const (
	attrVersion = "serverVersion"
	attrCase    = "lowerCaseTableNames"
)

func (c *copier) stream(ctx context.Context, conn *sql.Conn, name string, p rowPlan) error {
	if c.sums != nil {
		return c.look(ctx, conn, name, p)
	}
	form := plugins.Unordered
	if len(p.key) > 0 {
		form = plugins.Ordered
	}
	w, err := c.w.Create(ctx, c.artifact(name, form))
	if err != nil {
		return err
	}
	defer w.Abort()
	var n, size, seen int64
	err = c.read(ctx, conn, p, func(k, v []byte) error {
		n++
		size += int64(len(k) + len(v))
		if size-seen > 1<<20 {
			c.progress(name, size-seen)
			seen = size
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return w.Put(k, v)
	})
	if err != nil {
		c.bytes.Add(-seen)
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	c.progress(name, size-seen)
	c.rows.Add(n)
	c.artifacts.Add(1)
	return nil
}

func (c *copier) write(ctx context.Context, name string, form plugins.Form, rows []record) error {
	w, err := c.w.Create(ctx, c.artifact(name, form))
	if err != nil {
		return err
	}
	defer w.Abort()
	var size int64
	for _, r := range rows {
		if err := w.Put(r.key, r.value); err != nil {
			return err
		}
		size += int64(len(r.key) + len(r.value))
	}
	if err := w.Commit(); err != nil {
		return err
	}
	c.progress(name, size)
	c.rows.Add(int64(len(rows)))
	c.artifacts.Add(1)
	return nil
}

func (c *copier) progress(item string, n int64) {
	phase := "copy"
	if c.sums != nil {
		phase = "digest"
	}
	c.run.Report(plugins.Status{Phase: phase, Item: item, Bytes: c.bytes.Add(n), Total: c.total})
}

func sameRecords(a, b []record) bool {
	return slices.EqualFunc(a, b, func(x, y record) bool { return bytes.Equal(x.key, y.key) && bytes.Equal(x.value, y.value) })
}
