package mariadb

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// view makes a view from what is there; what fails comes again in brokenViews.
func (f *forwarder) view(ctx context.Context, want, _ *object) error {
	if err := f.createView(ctx, want); err != nil {
		if lost(err) || ctx.Err() != nil {
			return err
		}
		f.broken = append(f.broken, want)
	}
	return nil
}

func (f *forwarder) createView(ctx context.Context, o *object) error {
	return f.inSession(ctx, o, "", text(strings.Replace(string(o.DDL), "CREATE ", "CREATE OR REPLACE ", 1)))
}

// brokenViews makes the views that failed: first again and again, for views
// on views; then those that are broken in the backup too, from placeholders
// that have every column the view's text could mean.
func (f *forwarder) brokenViews(ctx context.Context) error {
	for len(f.broken) > 0 {
		var still []*object
		for _, o := range f.broken {
			if err := f.createView(ctx, o); err != nil {
				if lost(err) || ctx.Err() != nil {
					return err
				}
				still = append(still, o)
			}
		}
		if len(still) == len(f.broken) {
			break
		}
		f.broken = still
	}
	var failed error
	for len(f.broken) > 0 {
		o := f.nextBroken()
		if err := f.fromPlaceholders(ctx, o); err != nil {
			failed = err
		}
	}
	return failed
}

// nextBroken takes a view on which no other one of the list is built: making
// a view from placeholders takes away the views it is built on.
func (f *forwarder) nextBroken() *object {
	at := slices.IndexFunc(f.broken, func(o *object) bool {
		return !slices.ContainsFunc(f.broken, func(p *object) bool {
			relations, _, _ := references(string(p.DDL), p)
			return p != o && slices.Contains(relations, [2]string{o.Schema, o.Name})
		})
	})
	o := f.broken[max(at, 0)]
	f.broken = slices.DeleteFunc(f.broken, func(p *object) bool { return p == o })
	return o
}

// aside is the schema in which tables wait while a placeholder has their name.
func (x *restorer) aside() string { return fmt.Sprintf("_cso_%d_aside", x.run.Epoch) }

// fromPlaceholders makes one broken view. Every relation its text names is
// replaced by a table of the same name for the moment of its creation.
func (f *forwarder) fromPlaceholders(ctx context.Context, o *object) (err error) {
	relations, functions, columns := references(string(o.DDL), o)
	db := f.x.w.db
	if _, err := db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+q(f.x.aside())+" CHARACTER SET utf8mb4"); err != nil {
		return err
	}
	defer func() {
		if e := f.x.putBack(context.WithoutCancel(ctx), f.x.aside()); err == nil {
			err = e
		}
	}()
	var made []string
	defer func() {
		for _, stmt := range made {
			if _, e := db.ExecContext(context.WithoutCancel(ctx), stmt); e != nil && err == nil {
				err = e
			}
		}
	}()
	for i, r := range relations {
		name := qq(r[0], r[1])
		kind, e := value(ctx, db, "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA="+lit(r[0])+" AND TABLE_NAME="+lit(r[1]))
		if e != nil {
			return e
		}
		switch kind {
		case "":
			if n, e := value(ctx, db, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME="+lit(r[0])); e != nil {
				return e
			} else if n == "0" {
				if _, e := db.ExecContext(ctx, "CREATE DATABASE "+q(r[0])); e != nil {
					return e
				}
				made = append(made, "DROP DATABASE "+q(r[0]))
			}
		case "VIEW":
			if _, e := db.ExecContext(ctx, "DROP VIEW "+name); e != nil {
				return e
			}
			again := f.x.a.want.objects[(&object{Kind: kindView, Schema: r[0], Name: r[1]}).id()]
			if again != nil && !slices.Contains(f.broken, again) {
				f.broken = append(f.broken, again)
			}
		default:
			if err := f.moveAside(ctx, i, r); err != nil {
				return err
			}
		}
		if f.x.a.want.objects[(&object{Kind: kindView, Schema: r[0], Name: r[1]}).id()] != nil {
			// The text the server makes of a column depends on whether it comes from a table or a view.
			if _, e := db.ExecContext(ctx, "CREATE VIEW "+name+" AS SELECT 1 AS "+strings.Join(columns, ", 1 AS ")); e != nil {
				return fmt.Errorf("make a placeholder for %s: %w", o.label(), e)
			}
			made = append([]string{"DROP VIEW " + name}, made...)
			continue
		}
		if _, e := db.ExecContext(ctx, "CREATE TABLE "+name+" ("+strings.Join(columns, " INT, ")+" INT) ENGINE=MyISAM COMMENT='"+placeholder+"'"); e != nil {
			return fmt.Errorf("make a placeholder for %s: %w", o.label(), e)
		}
		made = append([]string{"DROP TABLE " + name}, made...)
	}
	for _, fn := range functions {
		name := qq(fn[0], fn[1])
		if n, e := value(ctx, db, "SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA="+lit(fn[0])+" AND ROUTINE_NAME="+lit(fn[1])); e != nil {
			return e
		} else if n != "0" {
			continue
		}
		if _, e := db.ExecContext(ctx, "CREATE FUNCTION "+name+"() RETURNS INT RETURN 1"); e != nil {
			continue // not a function's name after all
		}
		made = append([]string{"DROP FUNCTION " + name}, made...)
	}
	return f.createView(ctx, o)
}

const placeholder = "cso_backupnrestore placeholder"

// moveAside renames a table away, its triggers dropped (they come again in
// the next pass); its name there says where it belongs.
func (f *forwarder) moveAside(ctx context.Context, i int, r [2]string) error {
	db := f.x.w.db
	triggers, err := column(ctx, db, "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA="+lit(r[0])+" AND EVENT_OBJECT_TABLE="+lit(r[1]))
	if err != nil {
		return err
	}
	for _, t := range triggers {
		if _, err := db.ExecContext(ctx, "DROP TRIGGER "+qq(r[0], t)); err != nil {
			return err
		}
	}
	waiting := fmt.Sprintf("t%d", i)
	if _, err := f.x.s.local.ExecContext(ctx, "REPLACE INTO "+journalTable+" VALUES ("+lit("aside/"+waiting)+","+lit(tableArtifact(r[0], r[1]))+")"); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "RENAME TABLE "+qq(r[0], r[1])+" TO "+qq(f.x.aside(), waiting))
	return err
}

// putBack renames tables that wait aside to their places, whoever put them
// there, and removes the placeholders.
func (x *restorer) putBack(ctx context.Context, schema string) error {
	waiting, err := column(ctx, x.w.db, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA="+lit(schema))
	if err != nil {
		return err
	}
	for _, w := range waiting {
		name, err := value(ctx, x.w.db, "SELECT value FROM "+journalTable+" WHERE name="+lit("aside/"+w))
		if err != nil {
			return err
		}
		s, t, ok := splitArtifact(name)
		if !ok {
			continue
		}
		comment, err := value(ctx, x.w.db, "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA="+lit(s)+" AND TABLE_NAME="+lit(t))
		if err != nil {
			return err
		}
		if comment == placeholder {
			if _, err := x.w.db.ExecContext(ctx, "DROP TABLE "+qq(s, t)); err != nil {
				return err
			}
		}
		if _, err := x.w.db.ExecContext(ctx, "RENAME TABLE "+qq(schema, w)+" TO "+qq(s, t)); err != nil {
			return fmt.Errorf("put %s.%s back: %w", s, t, err)
		}
	}
	if _, err := x.s.local.ExecContext(ctx, "DELETE FROM "+journalTable+" WHERE name LIKE 'aside/%'"); err != nil {
		return err
	}
	_, err = x.w.db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+q(schema))
	return err
}

// references finds in a view's text, which the server has normalised, the
// qualified relations, the functions it calls and every name that could be a column.
func references(ddl string, self *object) (relations, functions [][2]string, columns []string) {
	add := func(list [][2]string, a, b string) [][2]string {
		if p := [2]string{a, b}; !slices.Contains(list, p) {
			return append(list, p)
		}
		return list
	}
	seen := map[string]bool{}
	type word struct {
		name string
		dot  bool // followed by a dot
		call bool // followed by an opening parenthesis
		from bool // stands where a relation stands
	}
	var words []word
	last := ""
	for i := 0; i < len(ddl); i++ {
		switch c := ddl[i]; {
		case c == '\'' || c == '"':
			i = skipQuoted(ddl, i)
			last = ""
		case c == '`':
			end := skipQuoted(ddl, i)
			w := word{name: strings.ReplaceAll(ddl[i+1:end], "``", "`"), from: relationFollows(last)}
			if rest := ddl[min(end+1, len(ddl)):]; strings.HasPrefix(rest, ".") {
				w.dot = true
			} else if strings.HasPrefix(rest, "(") {
				w.call = true
			}
			words = append(words, w)
			i = end
			if !w.dot {
				last = ""
			}
		default:
			last += string(c)
			if len(last) > 40 {
				last = last[len(last)-40:]
			}
		}
	}
	for i, w := range words {
		if key := strings.ToLower(w.name); !seen[key] && w.name != "" {
			seen[key] = true
			columns = append(columns, q(w.name))
		}
		if w.call && (i == 0 || !words[i-1].dot) {
			functions = add(functions, self.Schema, w.name)
		}
		if w.dot && i+1 < len(words) && !words[i+1].dot && (i == 0 || !words[i-1].dot) {
			n := words[i+1]
			switch {
			case w.name == self.Schema && n.name == self.Name:
			case n.call:
				functions = add(functions, w.name, n.name)
			case w.from:
				relations = add(relations, w.name, n.name)
			}
		}
	}
	if len(columns) == 0 {
		columns = []string{"`c`"}
	}
	return relations, functions, columns
}

// relationFollows says whether the text before a name ends where a relation is expected.
func relationFollows(before string) bool {
	t := strings.TrimRight(strings.ToLower(before), " (")
	return strings.HasSuffix(t, "from") || strings.HasSuffix(t, "join")
}
