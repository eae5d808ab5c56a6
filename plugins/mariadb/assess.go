package mariadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// assessment is what a restore has to do.
type assessment struct {
	want      *catalog // of the backup: objects only
	artifacts map[string]plugins.ArtifactInfo
	live      *catalog
	load      []*object                       // tables whose rows must be loaded: changed or missing
	same      []string                        // artifacts whose rows are equal
	extra     []*object                       // base tables that are not in the backup
	steps     []string                        // definitions that differ otherwise, as labels
	diffs     map[string]*difference          // where tables of load differ, by artifact, if that is known
	left      []string                        // shadow schemas of restores that were not finished
	told      map[string]plugins.ArtifactInfo // what run.Live says is on the server
}

func (a *assessment) nothing() bool {
	return len(a.load)+len(a.extra)+len(a.steps)+len(a.live.lost)+len(a.left) == 0
}

// readWant reads the definitions of a backup.
func readWant(ctx context.Context, r plugins.ArtifactReader) (*catalog, error) {
	records, err := readRecords(ctx, r, definitionsArtifact)
	if err != nil {
		return nil, fmt.Errorf("read the definitions of the backup: %w", err)
	}
	c := &catalog{objects: make(map[string]*object, len(records))}
	for _, rec := range records {
		o, err := parseObject(rec.key, rec.value)
		if err != nil {
			return nil, err
		}
		c.objects[o.id()] = o
	}
	return c, nil
}

// assess compares live data with the backup, table by table, and changes nothing.
func (s *session) assess(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (*assessment, error) {
	a := &assessment{artifacts: map[string]plugins.ArtifactInfo{}, diffs: map[string]*difference{}}
	var err error
	if a.want, err = readWant(ctx, r); err != nil {
		return nil, err
	}
	for _, i := range r.Artifacts() {
		a.artifacts[i.Name] = i
	}
	if run.Live != nil {
		a.told = map[string]plugins.ArtifactInfo{}
		for _, i := range run.Live.Artifacts() {
			a.told[i.Name] = i
		}
	}
	conns, release, err := s.readers(ctx, parallel(run))
	if err != nil {
		return nil, err
	}
	defer release()
	if a.live, err = readCatalog(ctx, queriers(conns)); err != nil {
		return nil, err
	}
	if err := a.live.details(ctx, conns[0], nil); err != nil {
		return nil, err
	}
	var check []*object
	for _, o := range a.want.sorted() {
		l := a.live.objects[o.id()]
		if !o.hasRows() {
			if l == nil || !o.equal(l) {
				a.steps = append(a.steps, o.label())
			}
			continue
		}
		if _, ok := a.artifacts[o.artifact()]; !ok {
			return nil, fmt.Errorf("the backup has no rows for table %s.%s: %w", o.Schema, o.Name, plugins.ErrCorrupt)
		}
		if l == nil || l.base() != o.base() {
			a.load = append(a.load, o)
			continue
		}
		check = append(check, o)
		if !o.equal(l) {
			a.steps = append(a.steps, o.label())
		}
	}
	for _, o := range a.live.sorted() {
		if a.want.objects[o.id()] != nil {
			continue
		}
		if o.Kind == kindTable {
			a.extra = append(a.extra, o)
		} else {
			a.steps = append(a.steps, o.label())
		}
	}
	if a.left, err = s.leftovers(ctx); err != nil {
		return nil, err
	}
	return a, a.compareRows(ctx, run, r, conns, check)
}

// readers opens n connections of the session's pool.
func (s *session) readers(ctx context.Context, n int) ([]*sql.Conn, func(), error) {
	var conns []*sql.Conn
	var close []func() error
	release := func() {
		for _, f := range close {
			_ = f() // back into the pool
		}
	}
	for range n {
		c, err := s.db.Conn(ctx)
		if err != nil {
			release()
			return nil, nil, err
		}
		conns, close = append(conns, c), append(close, c.Close)
	}
	return conns, release, nil
}

// compareRows digests tables and sorts them into same and load.
func (a *assessment) compareRows(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, conns []*sql.Conn, check []*object) error {
	slices.SortStableFunc(check, func(x, y *object) int {
		return int(min(max(a.artifacts[y.artifact()].Bytes-a.artifacts[x.artifact()].Bytes, -1), 1))
	})
	var total int64
	for _, o := range check {
		total += a.artifacts[o.artifact()].Bytes
	}
	var mu sync.Mutex
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range conns {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(check) {
					return nil
				}
				o := check[i]
				info := a.artifacts[o.artifact()]
				t := a.live.tables[o.artifact()]
				equal, diff, known, err := a.toldTable(ctx, run.Live, r, info)
				if err == nil && !known {
					equal, diff, err = compareTable(ctx, c, t, r, info)
				}
				if err != nil {
					return fmt.Errorf("compare table %s.%s: %w", o.Schema, o.Name, err)
				}
				run.Report(plugins.Status{Phase: "digest", Item: info.Name, Bytes: done.Add(info.Bytes), Total: total})
				mu.Lock()
				if equal {
					a.same = append(a.same, info.Name)
				} else {
					a.load = append(a.load, o)
					a.diffs[info.Name] = diff
				}
				mu.Unlock()
			}
		})
	}
	return g.Wait()
}

// toldTable is compareTable without reading the table: live is a backup of
// what is on the server. known is false when it does not have the table.
func (a *assessment) toldTable(ctx context.Context, live, r plugins.ArtifactReader, info plugins.ArtifactInfo) (equal bool, diff *difference, known bool, err error) {
	was, ok := a.told[info.Name]
	if !ok || was.Form != info.Form {
		return false, nil, false, nil
	}
	if was.Digest == info.Digest || info.Form != plugins.Ordered {
		return was.Digest == info.Digest, nil, true, nil
	}
	pieces, err := r.Pieces(ctx, info.Name)
	if err != nil {
		return false, nil, false, err
	}
	have, err := live.Pieces(ctx, info.Name)
	if err != nil {
		return false, nil, false, err
	}
	d := tellTable(pieces, have)
	d.told = live
	return false, &d, true, nil
}

// compareTable says whether a table's rows are those of its artifact, and
// where not, if they come in the order of the artifact's keys.
func compareTable(ctx context.Context, c *sql.Conn, t *tableInfo, r plugins.ArtifactReader, info plugins.ArtifactInfo) (bool, *difference, error) {
	keyed := info.Form == plugins.Ordered && len(t.plan(false).key) > 0
	if !keyed || info.Bytes < deferFrom { // to read a small table once more is cheaper than the index of an equal one
		d, err := digestTable(ctx, c, t, qq(t.schema, t.name), info)
		if err != nil || d == info.Digest || !keyed {
			return d == info.Digest, nil, err
		}
	}
	pieces, err := r.Pieces(ctx, info.Name)
	if err != nil {
		return false, nil, err
	}
	d, ordered, err := scanTable(ctx, c, t, pieces)
	if err != nil || !ordered {
		return false, nil, err
	}
	return d.live == info.Digest, &d, nil
}

// hasRows says whether the object is a table with an artifact of its own.
func (o *object) hasRows() bool {
	return o.Kind == kindTable && !rowlessEngines[strings.ToUpper(o.Type)]
}

func (o *object) artifact() string { return tableArtifact(o.Schema, o.Name) }

// base is a table's definition without its foreign keys, which are put in
// order after the rows.
func (o *object) base() string {
	t, ok := splitTable(string(o.DDL))
	if !ok {
		return string(o.DDL)
	}
	t, _ = t.cutForeignKeys()
	return t.String()
}

// equal compares everything the backup holds of an object.
func (o *object) equal(p *object) bool {
	return string(o.DDL) == string(p.DDL) && o.Type == p.Type && o.Table == p.Table && o.Order == p.Order && o.Auto == p.Auto && o.Next == p.Next && o.Round == p.Round &&
		o.SQLMode == p.SQLMode && o.Client == p.Client && o.Connection == p.Connection && o.Database == p.Database && o.TimeZone == p.TimeZone
}

// Plan says what a restore would do.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	a, err := s.assess(ctx, run, r)
	if err != nil {
		return plugins.Plan{}, classify(ctx, err)
	}
	p := plugins.Plan{Inexact: a.live.inexact()}
	slices.Sort(a.same)
	p.Unchanged = a.same
	for _, o := range a.load {
		if a.live.objects[o.id()] == nil {
			p.Add = append(p.Add, o.artifact())
		} else {
			p.Change = append(p.Change, o.artifact())
		}
		p.Write += a.writes(o)
	}
	for _, l := range a.steps {
		p.Change = append(p.Change, "definition of "+l)
	}
	for _, o := range a.extra {
		p.Remove = append(p.Remove, o.artifact())
	}
	p.Space = s.space(a, run)
	if p.Free, err = s.free(); err != nil {
		p.Warnings = append(p.Warnings, err.Error())
	}
	if p.Free > 0 && p.Space > p.Free {
		p.Refusals = append(p.Refusals, spaceText(p.Space, p.Free))
	}
	if p.Free == 0 {
		p.Warnings = append(p.Warnings, "free space on the server is unknown: give the option data_dir where the worker runs on the server's host")
	}
	more, err := s.refusals(ctx, a)
	p.Refusals = append(p.Refusals, more...)
	return p, classify(ctx, err)
}

// refusals are the reasons for which the server cannot take this restore.
func (s *session) refusals(ctx context.Context, a *assessment) (out []string, err error) {
	if a.nothing() {
		return nil, nil
	}
	from := a.artifacts[definitionsArtifact].Attributes
	if v := from[attrVersion]; majorOf(v) > s.major {
		out = append(out, "the backup is of version "+v+" and the server is older ("+s.version+"): restore to the same or a newer version")
	}
	if v := from[attrCase]; v != "" && v != s.lowerCase {
		out = append(out, "lower_case_table_names is "+s.lowerCase+" here and was "+v+" there: names would not be the same; give the server the backup's setting")
	}
	rows, err := table(ctx, s.db, "SELECT @@GLOBAL.read_only, @@GLOBAL.local_infile")
	if err != nil {
		return nil, err
	}
	if rows[0][0] != "0" {
		out = append(out, "the server is read_only: SET GLOBAL read_only=OFF, or restore to the primary")
	}
	if rows[0][1] != "1" && len(a.load) > 0 {
		out = append(out, "local_infile is off: SET GLOBAL local_infile=ON")
	}
	engines, err := column(ctx, s.db, "SELECT UPPER(ENGINE) FROM information_schema.ENGINES WHERE SUPPORT IN ('YES','DEFAULT')")
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	for _, o := range a.load {
		if e := strings.ToUpper(o.Type); !slices.Contains(engines, e) && !missing[e] {
			missing[e] = true
			out = append(out, "the server has no storage engine "+o.Type+": install its plugin (INSTALL SONAME)")
		}
	}
	return out, nil
}

// inPlace says whether tables are replaced one by one, without a second copy.
func inPlace(run plugins.Run) bool { return run.Options["in-place"] == "yes" }

// writes is roughly how many bytes of rows a table of load takes.
func (a *assessment) writes(o *object) int64 {
	info := a.artifacts[o.artifact()]
	if a.deltaFits(o) {
		if b := a.diffs[info.Name].bytes; b < info.Bytes {
			return b
		}
	}
	return info.Bytes
}

// space estimates the bytes a restore needs beside the live data.
func (s *session) space(a *assessment, run plugins.Run) int64 {
	var n, largest int64
	for _, o := range a.load {
		b := a.writes(o) * 3 / 2
		if t := a.live.tables[o.artifact()]; t != nil && (!a.deltaFits(o) || a.writes(o) > s.deltaMax(a.artifacts[o.artifact()])) {
			b = max(b, t.bytes)
		}
		b += 256 << 10
		n += b
		largest = max(largest, b)
	}
	if inPlace(run) {
		return largest
	}
	return n
}

func spaceText(need, free int64) string {
	return fmt.Sprintf("needs %d MiB on the server's disk and %d MiB are free: free some, or restore with --in-place, which replaces table by table", need>>20+1, free>>20)
}

// digestTable reads a table as the artifact was read and digests it.
func digestTable(ctx context.Context, c *sql.Conn, t *tableInfo, from string, info plugins.ArtifactInfo) (plugins.Digest, error) {
	var d plugins.Digest
	err := readRows(ctx, c, t.planAs(from, info.Form == plugins.Unordered), func(k, v []byte) error {
		d.Add(k, v)
		return nil
	})
	if errors.Is(err, errOrder) {
		return plugins.Digest{Records: -1}, nil // the backup's rows were in order: these are others
	}
	return d, err
}
