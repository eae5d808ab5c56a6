package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// forwardPasses: an object may need another one that comes later, or lose
// something when another one is replaced (a package's body, say).
const forwardPasses = 4

// forward makes every definition equal to the backup's. It reads what the
// server has, changes what differs, and looks again, so it can be killed and
// started anywhere.
func (x *restorer) forward(ctx context.Context) error {
	var failed error
	for range forwardPasses {
		conns, release, err := x.s.readers(ctx, parallel(x.run))
		if err != nil {
			return err
		}
		live, err := readCatalog(ctx, queriers(conns))
		release()
		if err != nil {
			return err
		}
		x.a.live = live
		diff := x.differing()
		if len(diff) == 0 {
			return nil
		}
		if failed, err = x.apply(ctx, diff); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	var names []string
	for _, o := range x.differing() {
		want, live := x.a.want.objects[o.id()], x.a.live.objects[o.id()]
		if want != nil && live != nil && want.sameText(live) {
			continue // a counter that somebody else moves; Compare tells who
		}
		names = append(names, o.label())
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("definitions differ after the restore: %s: %w: run the restore again; if it stays so, report it", brief(names), plugins.ErrData)
}

// differing lists the objects whose live definition is missing, extra or another.
func (x *restorer) differing() []*object {
	var out []*object
	for id, o := range x.a.want.objects {
		if l := x.a.live.objects[id]; l == nil || !o.equal(l) {
			out = append(out, o)
		}
	}
	for id, l := range x.a.live.objects {
		if x.a.want.objects[id] == nil {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *object) int { return strings.Compare(a.id(), b.id()) })
	return out
}

// apply changes what differs, in an order in which most things are there when
// they are needed. What fails is returned in failed and tried in the next pass.
func (x *restorer) apply(ctx context.Context, diff []*object) (failed, err error) {
	conn, err := x.w.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := x.guard(ctx, conn); err != nil {
		return nil, err
	}
	f := &forwarder{x: x, conn: conn, triggers: map[string]bool{}}
	steps := []struct {
		kind string
		run  func(ctx context.Context, want, live *object) error
	}{
		{"", f.dropExtra},
		{kindSchema, f.schema},
		{kindSequence, func(ctx context.Context, want, live *object) error { return x.sequence(ctx, want, live) }},
		{kindTable, f.table},
		{kindPlugin, func(ctx context.Context, want, _ *object) error { return x.exec(ctx, want, string(want.DDL)) }},
		{kindUDF, func(ctx context.Context, want, _ *object) error { return x.exec(ctx, want, string(want.DDL)) }},
		{kindRoutine, f.routine},
		{kindView, f.view},
		{kindTrigger, f.trigger},
		{kindEvent, f.event},
	}
	for _, st := range steps {
		for _, o := range diff {
			want, live := x.a.want.objects[o.id()], x.a.live.objects[o.id()]
			if (st.kind == "") != (want == nil) || (st.kind != "" && o.Kind != st.kind) {
				continue
			}
			if err := st.run(ctx, want, live); err != nil {
				if ctx.Err() != nil || lost(err) {
					return nil, err
				}
				failed = err
			}
		}
	}
	if err := f.brokenViews(ctx); err != nil {
		failed = err
	}
	return failed, nil
}

// forwarder applies definitions over one connection.
type forwarder struct {
	x        *restorer
	conn     *sql.Conn
	triggers map[string]bool // tables whose triggers were made anew
	broken   []*object       // views that cannot be made from what is there
}

// sequence makes a sequence anew and sets its position and cycle.
func (x *restorer) sequence(ctx context.Context, o, _ *object) error {
	name := qq(o.Schema, o.Name)
	stmt := strings.Replace(rename(string(o.DDL), o.Schema, o.Name), "CREATE SEQUENCE", "CREATE OR REPLACE SEQUENCE", 1)
	if err := x.exec(ctx, o, stmt); err != nil {
		return err
	}
	// RESTART also goes below the start value, which SETVAL does not; only SETVAL
	// sets the cycle, and can say that the last value is used up.
	statements := []string{
		"SELECT SETVAL(" + name + "," + o.Next + ",0," + o.Round + ")",
		"SELECT SETVAL(" + name + ", IF(increment>0, maximum_value, minimum_value), 1, " + o.Round + ") FROM " + name,
	}
	if o.Round == "0" {
		statements[0] = "ALTER SEQUENCE " + name + " RESTART WITH " + o.Next
	}
	for _, stmt := range statements {
		_, failed := table(ctx, x.w.db, stmt)
		now := &object{Kind: o.Kind, Schema: o.Schema, Name: o.Name}
		if err := now.define(ctx, x.w.db); err != nil {
			return err
		}
		if now.Next == o.Next && now.Round == o.Round {
			return nil
		}
		if lost(failed) {
			return failed
		}
	}
	return fmt.Errorf("set %s to %s: the server does not take it: %w", o.label(), o.Next, plugins.ErrData)
}

// sameText compares definitions without counters and positions.
func (o *object) sameText(p *object) bool {
	c := *o
	c.Auto, c.Next, c.Round = p.Auto, p.Next, p.Round
	return c.equal(p)
}

func (f *forwarder) dropExtra(ctx context.Context, _, o *object) error {
	kind := map[string]string{kindSchema: "DATABASE", kindTable: "TABLE", kindSequence: "SEQUENCE", kindView: "VIEW",
		kindTrigger: "TRIGGER", kindRoutine: o.Type, kindEvent: "EVENT", kindUDF: "FUNCTION", kindPlugin: "PLUGIN"}[o.Kind]
	name := q(o.Name)
	if o.Schema != "" {
		if o.Schema != "mysql" && f.x.a.want.objects[(&object{Kind: kindSchema, Name: o.Schema}).id()] == nil {
			return nil // goes with its schema
		}
		name = qq(o.Schema, o.Name)
	}
	if o.Kind == kindRoutine {
		return f.dropRoutine(ctx, o)
	}
	verb := "DROP "
	if o.Kind == kindPlugin {
		verb = "UNINSTALL "
	}
	return f.x.exec(ctx, o, verb+kind+" IF EXISTS "+name)
}

func (f *forwarder) schema(ctx context.Context, want, live *object) error {
	if live == nil {
		return f.x.exec(ctx, want, string(want.DDL))
	}
	ddl := string(want.DDL)
	i := strings.IndexByte(ddl, '`')
	options := ddl[skipQuoted(ddl, i)+1:]
	if !strings.Contains(options, "COMMENT ") {
		options += " COMMENT ''"
	}
	return f.x.exec(ctx, want, "ALTER DATABASE "+q(want.Name)+options)
}

// table makes tables without rows of their own, and puts foreign keys and
// counters of the others in order.
func (f *forwarder) table(ctx context.Context, want, live *object) error {
	name := qq(want.Schema, want.Name)
	if !want.hasRows() {
		if err := f.x.exec(ctx, want, "DROP TABLE IF EXISTS "+name); err != nil {
			return err
		}
		if err := f.x.dropNamesake(ctx, want); err != nil {
			return err
		}
		// In its schema: a MRG_MyISAM table names the tables below it without theirs.
		return f.inSession(ctx, want, "", want.DDL)
	}
	if live != nil && live.base() != want.base() {
		if fix := keysInOrder(live, want); fix != "" {
			return f.x.exec(ctx, want, "ALTER TABLE "+name+" "+fix)
		}
	}
	if live == nil || live.base() != want.base() {
		return fmt.Errorf("restore %s: %w: its definition changed while the restore ran", want.label(), plugins.ErrData)
	}
	_, have := foreignKeys(live)
	_, need := foreignKeys(want)
	var drop, add []string
	for _, fk := range have {
		if !slices.Contains(need, fk) {
			drop = append(drop, "DROP FOREIGN KEY "+q(constraintName(fk)))
		}
	}
	for _, fk := range need {
		if !slices.Contains(have, fk) {
			add = append(add, "ADD "+qualifyReference(fk, want.Schema))
		}
	}
	for _, clauses := range [][]string{drop, add} {
		if len(clauses) > 0 {
			if err := f.x.exec(ctx, want, "ALTER TABLE "+name+" "+strings.Join(clauses, ", ")); err != nil {
				return err
			}
		}
	}
	if want.Auto != live.Auto {
		counter := want.Auto
		if counter == "" {
			counter = "1"
		}
		return f.x.exec(ctx, want, "ALTER TABLE "+name+" AUTO_INCREMENT="+counter)
	}
	return nil
}

// keysInOrder is the ALTER TABLE that makes the plain keys of live those of
// want, names and order included; empty when more than those differ. An index
// that the server made for a foreign key is replaced, under another name, when
// the foreign key is made anew (measured on 10.11).
func keysInOrder(live, want *object) string {
	l, _ := foreignKeys(live)
	w, _ := foreignKeys(want)
	l, have := l.cutKeys()
	w, need := w.cutKeys()
	if l.String() != w.String() || len(have)+len(need) == 0 {
		return ""
	}
	var clauses []string
	for _, k := range have {
		clauses = append(clauses, "DROP "+k[:skipQuoted(k, len("KEY "))+1])
	}
	for _, k := range need {
		clauses = append(clauses, "ADD "+k)
	}
	return strings.Join(clauses, ", ")
}

func foreignKeys(o *object) (createTable, []string) {
	t, _ := splitTable(string(o.DDL))
	return t.cutForeignKeys()
}

// inSession runs a statement as the object's author ran it: in its schema,
// with its sql_mode, character sets and time zone.
func (f *forwarder) inSession(ctx context.Context, o *object, extra string, stmt text) (err error) {
	if _, err := f.conn.ExecContext(ctx, "USE "+q(o.Schema)); err != nil {
		return fmt.Errorf("restore %s: %w", o.label(), err)
	}
	undo, err := f.databaseCollation(ctx, o)
	if err != nil {
		return fmt.Errorf("restore %s: %w", o.label(), err)
	}
	set := "SET SESSION sql_mode=" + lit(o.SQLMode)
	if o.Client != "" {
		set += ", character_set_client=" + o.Client + ", collation_connection=" + o.Connection
	}
	if o.TimeZone != "" {
		set += ", time_zone=" + lit(o.TimeZone)
	}
	if _, err = f.conn.ExecContext(ctx, set+extra); err == nil {
		_, err = f.conn.ExecContext(ctx, string(stmt))
		if n := number(err); n == erNeedTrust || n == erNeedTrustTrigger {
			// The binary log wants to know what functions do; these were accepted once already.
			err = f.x.s.trusting(ctx, func() error {
				_, err := f.conn.ExecContext(ctx, string(stmt))
				return err
			})
		}
	}
	if _, e := f.conn.ExecContext(ctx, "SET SESSION character_set_client=utf8mb4, collation_connection=utf8mb4_general_ci, timestamp=DEFAULT, time_zone='+00:00', sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"); err == nil {
		err = e
	}
	if e := undo(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", o.label(), err)
	}
	return nil
}

// databaseCollation lends the schema the collation it had when the object was
// made: the server stores it with the object and takes it from nowhere else.
func (f *forwarder) databaseCollation(ctx context.Context, o *object) (undo func() error, err error) {
	undo = func() error { return nil }
	if o.Database == "" {
		return undo, nil
	}
	now, err := value(ctx, f.conn, "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME="+lit(o.Schema))
	if err != nil || now == o.Database {
		return undo, err
	}
	alter := func(c string) error {
		_, err := f.conn.ExecContext(ctx, "ALTER DATABASE "+q(o.Schema)+" COLLATE "+c)
		return err
	}
	return func() error { return alter(now) }, alter(o.Database)
}

func (f *forwarder) routine(ctx context.Context, want, live *object) error {
	if live != nil {
		if err := f.dropRoutine(ctx, want); err != nil {
			return err
		}
	}
	return f.inSession(ctx, want, "", want.DDL)
}

// dropRoutine drops a routine; packages are known in ORACLE mode only.
func (f *forwarder) dropRoutine(ctx context.Context, o *object) error {
	drop := &object{Kind: o.Kind, Schema: o.Schema, Name: o.Name, Type: o.Type}
	if strings.HasPrefix(o.Type, "PACKAGE") {
		drop.SQLMode = "ORACLE"
	}
	return f.inSession(ctx, drop, "", text("DROP "+o.Type+" IF EXISTS "+qq(o.Schema, o.Name)))
}

// trigger makes all triggers of the table anew, in their order, which is the
// order of creation.
func (f *forwarder) trigger(ctx context.Context, want, _ *object) error {
	id := tableArtifact(want.Schema, want.Table)
	if f.triggers[id] {
		return nil
	}
	f.triggers[id] = true
	var list []*object
	for _, o := range f.x.a.want.objects {
		if o.Kind == kindTrigger && o.Schema == want.Schema && o.Table == want.Table {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *object) int {
		if a.Order != b.Order {
			return a.Order - b.Order
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, o := range list {
		if err := f.x.exec(ctx, o, "DROP TRIGGER IF EXISTS "+qq(o.Schema, o.Name)); err != nil {
			return err
		}
	}
	for _, o := range list {
		if err := f.inSession(ctx, o, "", o.DDL); err != nil {
			return err
		}
	}
	return nil
}

var eventEnds = regexp.MustCompile(` ON SCHEDULE (AT '|.* ENDS ')`)

// event makes an event; the scheduler is off until PostHook.
func (f *forwarder) event(ctx context.Context, want, _ *object) error {
	if err := f.x.exec(ctx, want, "DROP EVENT IF EXISTS "+qq(want.Schema, want.Name)); err != nil {
		return err
	}
	extra := ""
	if eventEnds.Match(want.DDL) {
		extra = ", timestamp=1" // the server refuses an event whose time has passed
	}
	return f.inSession(ctx, want, extra, want.DDL)
}
