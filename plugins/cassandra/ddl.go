package cassandra

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// changes is how the definitions of a live schema differ from those wanted.
type changes struct {
	drop    []element   // keyspaces, views, indexes, tables, aggregates, functions, types: in this order
	alter   []element   // keyspaces with other replication
	create  bool        // something is missing, or will be
	rebuilt []tableName // tables and views that will be empty
	extra   int         // of drop: what the backup does not know
	names   struct{ add, change, remove []string }
}

func (c changes) any() bool    { return len(c.drop)+len(c.alter) > 0 || c.create }
func (c changes) removed() int { return c.extra }

// changes compares definitions; s is wanted.
func (s schema) changes(live schema) changes {
	var c changes
	for _, ks := range live.keyspaces() {
		if _, ok := s[ks]; !ok {
			c.drop = append(c.drop, live[ks][0])
			c.extra++
			c.names.remove = append(c.names.remove, schemaArtifact(ks))
		}
	}
	for _, ks := range s.keyspaces() {
		have, ok := live[ks]
		switch {
		case !ok:
			c.create = true
			c.rebuild(s, ks)
			c.names.add = append(c.names.add, schemaArtifact(ks))
			continue
		case reflect.DeepEqual(have, s[ks]):
			continue
		}
		c.names.change = append(c.names.change, schemaArtifact(ks))
		if s.needsRebuild(live, ks) {
			c.drop = append([]element{have[0]}, c.drop...)
			c.create = true
			c.rebuild(s, ks)
			continue
		}
		if s[ks][0].Statement != have[0].Statement {
			c.alter = append(c.alter, s[ks][0])
			c.rebuild(s, ks)
		}
		c.within(s, live, ks)
	}
	order := []string{kindKeyspace, kindView, kindIndex, kindTable, kindAggregate, kindFunction, kindType}
	slices.SortStableFunc(c.drop, func(a, b element) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
	return c
}

func (c *changes) rebuild(s schema, ks string) {
	for _, e := range s[ks] {
		if e.holdsData() {
			c.rebuilt = append(c.rebuilt, tableName{ks, e.plain()})
		}
	}
}

// needsRebuild says whether a type, function or aggregate is another one: what uses it would have to go first.
func (s schema) needsRebuild(live schema, ks string) bool {
	for _, e := range s[ks] {
		switch e.Kind {
		case kindType, kindFunction, kindAggregate:
			if is := live.find(ks, e.Kind, e.Name); is != nil && is.Statement != e.Statement {
				return true
			}
		}
	}
	return false
}

// within compares the objects of one keyspace.
func (c *changes) within(s, live schema, ks string) {
	gone := map[string]bool{} // tables that are dropped
	for _, e := range live[ks] {
		if e.Kind != kindTable {
			continue
		}
		if must := s.find(ks, kindTable, e.Name); must == nil || must.Statement != e.Statement {
			gone[e.plain()] = true
		}
	}
	for _, e := range live[ks] {
		if e.Kind == kindKeyspace {
			continue
		}
		must := s.find(ks, e.Kind, e.Name)
		if must == nil {
			c.extra++
		}
		same := must != nil && must.Statement == e.Statement
		switch e.Kind {
		case kindView:
			if !same || gone[e.Table] {
				c.drop = append(c.drop, e)
			}
		case kindIndex:
			if !same && !gone[e.Table] {
				c.drop = append(c.drop, e)
			}
		default:
			if !same {
				c.drop = append(c.drop, e)
			}
		}
	}
	for _, e := range s[ks] {
		is := live.find(ks, e.Kind, e.Name)
		lost := is == nil || is.Statement != e.Statement && e.Kind != kindKeyspace || e.Table != "" && gone[e.Table]
		if !lost {
			continue
		}
		c.create = true
		if e.holdsData() {
			c.rebuilt = append(c.rebuilt, tableName{ks, e.plain()})
		}
	}
}

// dropStatement removes a definition.
func dropStatement(e element) string {
	ks := quote(e.Keyspace)
	switch e.Kind {
	case kindKeyspace:
		return "DROP KEYSPACE IF EXISTS " + ks
	case kindView:
		return "DROP MATERIALIZED VIEW IF EXISTS " + ks + "." + e.Name
	default:
		return "DROP " + strings.ToUpper(e.Kind) + " IF EXISTS " + ks + "." + signature(e.Name)
	}
}

var frozen = regexp.MustCompile(`\bfrozen<`)

// signature is a function's name as statements take it: types in it are not frozen.
func signature(name string) string {
	for {
		at := frozen.FindStringIndex(name)
		if at == nil {
			return name
		}
		depth, end := 1, at[1]
		for end < len(name) && depth > 0 {
			switch name[end] {
			case '<':
				depth++
			case '>':
				depth--
			}
			end++
		}
		name = name[:at[0]] + name[at[1]:end-1] + name[end:]
	}
}

// statements of one definition: a table with dropped columns takes several. Bodies of functions hold semicolons.
func (e element) statements() []string {
	if e.Kind != kindTable {
		return []string{e.Statement}
	}
	var out []string
	for q := range strings.SplitSeq(e.Statement, ";\n") {
		if q = strings.TrimSpace(q); q != "" {
			out = append(out, q)
		}
	}
	return out
}

// maxAhead is how many definitions the leader's node makes before all nodes must have agreed: they hear of each at once,
// but tell that they have by gossip, a second later. What waits too long for a slow node would be lost on the way to it.
const maxAhead = 8

// define makes the definitions as wanted and the tables empty, all that the leader does once.
func (s *session) define(ctx context.Context, run plugins.Run, c *claim, want schema, replace []tableName) error {
	live, err := s.readSchema(ctx)
	if err != nil {
		return err
	}
	ahead := 0 // statements that other nodes may not have heard of
	settle := func() error {
		ahead = 0
		return s.settled(ctx)
	}
	do := func(what, q string) error {
		if err := c.check(ctx); err != nil {
			return err
		}
		run.Report(plugins.Status{Phase: "define", Item: what})
		if err := s.c.Query(q).WithContext(ctx).Exec(); err != nil {
			return s.cfg.wrap(ctx, what, err)
		}
		if ahead++; ahead < maxAhead {
			return nil
		}
		return settle()
	}
	ch := want.changes(live)
	for pending := ch.drop; len(pending) > 0; { // types and functions can use each other: what is in use waits
		var wait []element
		var last error
		for _, e := range pending {
			err := do("drop "+e.Kind+" "+e.Keyspace+"."+e.Name, dropStatement(e))
			switch {
			case err == nil:
			case e.Kind == kindType || e.Kind == kindFunction || e.Kind == kindAggregate:
				wait, last = append(wait, e), err
			default:
				return err
			}
		}
		if len(wait) == len(pending) {
			return last
		}
		pending = wait
	}
	for _, e := range ch.alter {
		if err := do("alter keyspace "+e.Keyspace, "ALTER"+strings.TrimPrefix(e.Statement, "CREATE")); err != nil {
			return err
		}
	}
	if err := settle(); err != nil { // TRUNCATE needs all nodes
		return err
	}
	if live, err = s.readSchema(ctx); err != nil {
		return err
	}
	for _, t := range replace {
		if e := live.table(t); e != nil && e.Kind == kindTable {
			if err := do("truncate "+t.String(), "TRUNCATE TABLE "+t.cql()); err != nil {
				return err
			}
		}
	}
	var indexes []element
	for _, ks := range want.keyspaces() {
		for _, e := range want[ks] {
			if live.find(ks, e.Kind, e.Name) != nil {
				continue
			}
			for _, q := range e.statements() {
				if err := do("create "+e.Kind+" "+e.Keyspace+"."+e.Name, q); err != nil {
					return err
				}
			}
			if e.Kind == kindIndex {
				indexes = append(indexes, e)
			}
		}
	}
	if err := settle(); err != nil {
		return err
	}
	if err := s.built(ctx, indexes); err != nil {
		return err
	}
	if live, err = s.readSchema(ctx); err != nil {
		return err
	}
	if !reflect.DeepEqual(map[string][]element(live), map[string][]element(want)) && len(live)+len(want) > 0 {
		return fmt.Errorf("%s: the definitions are not as in the backup after they were made: %w: %s", s.cfg.target, plugins.ErrData, firstDifference(want, live))
	}
	return nil
}

func firstDifference(want, live schema) string {
	for _, ks := range want.keyspaces() {
		for _, e := range want[ks] {
			if is := live.find(ks, e.Kind, e.Name); is == nil || is.Statement != e.Statement {
				return e.Kind + " " + ks + "." + e.Name
			}
		}
	}
	return "something else was made meanwhile: stop whoever changes the schema"
}

// built waits until indexes that were made over existing rows are complete.
func (s *session) built(ctx context.Context, indexes []element) error {
	for _, e := range indexes {
		for {
			var n int
			if err := s.c.Query(`SELECT count(*) FROM system."IndexInfo" WHERE table_name = ? AND index_name = ?`, e.Keyspace, e.plain()).WithContext(ctx).Scan(&n); err != nil {
				return s.cfg.wrap(ctx, "ask for the state of indexes", err)
			}
			if n > 0 {
				break
			}
			if err := plugins.Sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}
