package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"

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
	at        stamp                           // of the point at which tables are read; none: no such point
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
// With still set, tables are read at one point, and what is known of that point is not read again.
func (s *session) assess(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, still bool) (*assessment, error) {
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
	if still {
		a.at = s.still(ctx, conns)
		defer moving(conns)
	}
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
	return a, a.compareRows(ctx, s, run, r, conns, check)
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

// compareRows sorts tables into same and load.
func (a *assessment) compareRows(ctx context.Context, s *session, run plugins.Run, r plugins.ArtifactReader, conns []*sql.Conn, check []*object) error {
	verdict := func(o *object, equal bool, d *difference) {
		if name := o.artifact(); equal {
			a.same = append(a.same, name)
		} else {
			a.load = append(a.load, o)
			a.diffs[name] = d
		}
	}
	var read []*object
	for _, o := range check {
		info := a.artifacts[o.artifact()]
		if k, ok := s.known.of(a.at, info.Name, info.Form); ok && (k.digest == info.Digest || k.want == info.Digest) {
			verdict(o, k.digest == info.Digest, k.diff)
			continue
		}
		if was, ok := a.told[info.Name]; ok {
			s.known.told(was, a.live.tables[info.Name])
		}
		equal, diff, known, err := a.toldTable(ctx, run.Live, r, info)
		if err != nil {
			return fmt.Errorf("compare table %s.%s: %w", o.Schema, o.Name, err)
		}
		if known {
			verdict(o, equal, diff)
		} else {
			read = append(read, o)
		}
	}
	// To read a small table once more is cheaper than the index of an equal one.
	small, err := a.look(ctx, s, run, r, conns, read, func(i plugins.ArtifactInfo) bool { return i.Bytes >= deferFrom }, verdict)
	if err != nil {
		return err
	}
	_, err = a.look(ctx, s, run, r, conns, small, func(plugins.ArtifactInfo) bool { return true }, verdict)
	return err
}

// look reads tables, those that indexed chooses with the index of their
// artifact. It gives back those that differ and would have needed it.
func (a *assessment) look(ctx context.Context, s *session, run plugins.Run, r plugins.ArtifactReader, conns []*sql.Conn, list []*object,
	indexed func(plugins.ArtifactInfo) bool, verdict func(*object, bool, *difference)) (again []*object, err error) {
	tables, objects := make([]*tableInfo, len(list)), map[string]*object{}
	pieces, unordered := map[string][]plugins.PieceInfo{}, map[string]bool{}
	for i, o := range list {
		info := a.artifacts[o.artifact()]
		tables[i], objects[info.Name] = a.live.tables[info.Name], o
		unordered[info.Name] = info.Form == plugins.Unordered
		if !unordered[info.Name] && len(tables[i].plan(false).key) > 0 && indexed(info) {
			if pieces[info.Name], err = r.Pieces(ctx, info.Name); err != nil {
				return nil, err
			}
			if len(pieces[info.Name]) == 0 { // an empty artifact; all live rows are in its place
				pieces[info.Name] = []plugins.PieceInfo{{}}
			}
		}
	}
	var mu sync.Mutex
	return again, s.survey(ctx, run, conns, tables, unordered, func(name string) []plugins.PieceInfo { return pieces[name] },
		func(name string, form plugins.Form, sum rangeSum) {
			mu.Lock()
			defer mu.Unlock()
			info := a.artifacts[name]
			equal := sum.digest == info.Digest && form == info.Form
			var d *difference
			switch {
			case form != info.Form || equal: // rows that came in no order are others; see also stream
			case pieces[name] != nil:
				d = differ(pieces[name], sum)
			case form == plugins.Ordered:
				again = append(again, objects[name])
				return
			}
			k := knownTable{form: form, digest: sum.digest, want: info.Digest, diff: d}
			if p := pieces[name]; info.Records > 0 && len(p) <= maxStitched {
				k.pieces = p
			}
			s.known.note(a.at, a.live.tables[name], name, k)
			verdict(objects[name], equal, d)
		})
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
	a, err := s.assess(ctx, run, r, true)
	if err != nil && ctx.Err() == nil { // a table that was changed meanwhile cannot be read at a point before
		a, err = s.assess(ctx, run, r, false)
	}
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
