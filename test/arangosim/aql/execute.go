package aql

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Source is the data that a query runs over.
type Source interface {
	// Each goes through a collection or view; an unknown name is an error.
	Each(name string, f func(*value.Object) error) error
	// Document answers a document by collection/key, nil when there is none.
	Document(id string) *value.Object
	// EdgesOf names the edge collections of a graph.
	EdgesOf(graph string) ([]string, error)
	// Write does INSERT, UPDATE, REPLACE or REMOVE and answers the old and new document.
	Write(op, collection string, doc, with, options any) (before, after *value.Object, err error)
}

type run struct {
	ctx    context.Context
	source Source
	binds  *value.Object
}

// errStop ends the loops above a LIMIT that has enough.
var errStop = errors.New("limit reached")

// Run executes the query; f gets the results in order, which need not be kept before f returns.
func (q *Query) Run(ctx context.Context, source Source, binds *value.Object, f func(any) error) error {
	if binds == nil {
		binds = &value.Object{}
	}
	for b := range q.Binds {
		if !binds.Has(b) {
			return &BindError{fmt.Sprintf("no value specified for declared bind parameter '%s'", b)}
		}
	}
	for _, m := range binds.Members {
		if !q.Binds[m.Name] {
			return &BindError{fmt.Sprintf("bind parameter '%s' was not declared in the query", m.Name)}
		}
	}
	r := &run{ctx: ctx, source: source, binds: binds}
	return r.execute(q, nil, f)
}

// BindError is a missing or superfluous bind parameter (errors 1551 and 1552).
type BindError struct{ Message string }

func (e *BindError) Error() string { return "AQL: " + e.Message }

// sink takes the rows of a clause.
type sink interface {
	push(s *scope) error
	done() error
}

func (r *run) execute(q *Query, outer *scope, f func(any) error) error {
	var chain sink = &emitter{}
	for i := len(q.clauses) - 1; i >= 0; i-- {
		chain = r.sink(q.clauses[i], chain, f)
	}
	if err := chain.push(outer); err != nil && err != errStop {
		return err
	}
	return chain.done()
}

type emitter struct{}

func (*emitter) push(*scope) error { return nil }
func (*emitter) done() error       { return nil }

// step is a clause that handles each row by itself.
type step struct {
	next sink
	f    func(s *scope) error
}

func (s *step) push(sc *scope) error { return s.f(sc) }
func (s *step) done() error          { return s.next.done() }

func (r *run) sink(clause any, next sink, f func(any) error) sink {
	switch c := clause.(type) {
	case *forClause:
		return &step{next, func(s *scope) error { return r.loop(c, s, next) }}
	case *filterClause:
		return &step{next, func(s *scope) error {
			v, err := r.eval(c.cond, s)
			if err != nil || !truth(v) {
				return err
			}
			return next.push(s)
		}}
	case *letClause:
		return &step{next, func(s *scope) error {
			v, err := r.eval(c.x, s)
			if err != nil {
				return err
			}
			return next.push(s.with(c.name, v))
		}}
	case *limitClause:
		return r.limit(c, next)
	case *sortClause:
		return &sorter{r: r, keys: c.keys, next: next}
	case *collectClause:
		return &collector{r: r, c: c, next: next, index: map[string]int{}}
	case *returnClause:
		seen := map[string]bool{}
		return &step{next, func(s *scope) error {
			v, err := r.eval(c.x, s)
			if err != nil {
				return err
			}
			if c.distinct {
				k := string(value.JSON(v))
				if seen[k] {
					return nil
				}
				seen[k] = true
			}
			return f(v)
		}}
	case *writeClause:
		return &step{next, func(s *scope) error { return r.write(c, s, next) }}
	}
	panic(fmt.Sprintf("clause of type %T", clause))
}

func (r *run) limit(c *limitClause, next sink) sink {
	seen := int64(0)
	return &step{next, func(s *scope) error {
		offset, err := r.eval(c.offset, s)
		if err != nil {
			return err
		}
		count, err := r.eval(c.count, s)
		if err != nil {
			return err
		}
		first, last := int64(number(offset)), int64(number(offset))+int64(number(count))
		if seen >= last {
			return errStop
		}
		seen++
		if seen <= first {
			return nil
		}
		if err := next.push(s); err != nil {
			return err
		}
		if seen == last {
			return errStop
		}
		return nil
	}}
}

func (r *run) loop(c *forClause, s *scope, next sink) error {
	each := func(v any) error {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		inner := s.with(c.vars[0], v)
		if c.search != nil {
			ok, err := r.eval(c.search, inner)
			if err != nil || !truth(ok) {
				return err
			}
		}
		return next.push(inner)
	}
	if c.walk != nil {
		return r.traverse(c, s, next)
	}
	switch in := c.in.(type) {
	case name:
		if _, isVariable := s.lookup(in.name); !isVariable {
			return r.source.Each(in.name, func(o *value.Object) error { return each(o) })
		}
	case collection:
		return r.source.Each(r.binds.String("@"+in.name), func(o *value.Object) error { return each(o) })
	case binary:
		if in.op == ".." {
			return r.rangeLoop(in, s, each)
		}
	}
	v, err := r.eval(c.in, s)
	if err != nil {
		return err
	}
	items, ok := v.([]any)
	if !ok {
		return fmt.Errorf("AQL: collection or array expected as operand to FOR loop; you provided a value of another type")
	}
	for _, item := range items {
		if err := each(item); err != nil {
			return err
		}
	}
	return nil
}

// rangeLoop counts without making the array.
func (r *run) rangeLoop(in binary, s *scope, each func(any) error) error {
	low, err := r.eval(in.x, s)
	if err != nil {
		return err
	}
	high, err := r.eval(in.y, s)
	if err != nil {
		return err
	}
	for i := int64(number(low)); i <= int64(number(high)); i++ {
		if err := each(i); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) write(c *writeClause, s *scope, next sink) error {
	var target string
	switch in := c.in.(type) {
	case name:
		target = in.name
	case collection:
		target = r.binds.String("@" + in.name)
	}
	values := [3]any{}
	for i, x := range []any{c.x, c.with, c.options} {
		if x == nil {
			continue
		}
		v, err := r.eval(x, s)
		if err != nil {
			return err
		}
		values[i] = v
	}
	before, after, err := r.source.Write(c.op, target, values[0], values[1], values[2])
	if err != nil {
		return err
	}
	return next.push(s.with("OLD", asValue(before)).with("NEW", asValue(after)))
}

func asValue(o *value.Object) any {
	if o == nil {
		return nil
	}
	return o
}

// sorter holds all rows; equal keys keep their order.
type sorter struct {
	r    *run
	keys []sortKey
	next sink
	rows []sortRow
}

type sortRow struct {
	s    *scope
	keys []any
}

func (x *sorter) push(s *scope) error {
	row := sortRow{s: s}
	for _, k := range x.keys {
		v, err := x.r.eval(k.x, s)
		if err != nil {
			return err
		}
		row.keys = append(row.keys, v)
	}
	x.rows = append(x.rows, row)
	return nil
}

func (x *sorter) done() error {
	sort.SliceStable(x.rows, func(i, j int) bool {
		for k := range x.keys {
			if c := value.Compare(x.rows[i].keys[k], x.rows[j].keys[k]); c != 0 {
				return (c < 0) != x.keys[k].desc
			}
		}
		return false
	})
	for _, row := range x.rows {
		if err := x.next.push(row.s); err == errStop {
			break
		} else if err != nil {
			return err
		}
	}
	return x.next.done()
}

// collector groups rows.
type collector struct {
	r      *run
	c      *collectClause
	next   sink
	groups []*group
	index  map[string]int
}

type group struct {
	keys  []any
	count int64
	rows  []any
}

func (x *collector) push(s *scope) error {
	var keys []any
	for _, g := range x.c.groups {
		v, err := x.r.eval(g.x, s)
		if err != nil {
			return err
		}
		keys = append(keys, v)
	}
	id := string(value.JSON(keys))
	i, ok := x.index[id]
	if !ok {
		i = len(x.groups)
		x.index[id] = i
		x.groups = append(x.groups, &group{keys: keys})
	}
	x.groups[i].count++
	if x.c.into != "" {
		row := &value.Object{}
		for v := s; v != nil; v = v.outer {
			row.Default(v.name, v.value)
		}
		x.groups[i].rows = append(x.groups[i].rows, row)
	}
	return nil
}

func (x *collector) done() error {
	if len(x.groups) == 0 && len(x.c.groups) == 0 {
		x.groups = []*group{{}}
	}
	sort.SliceStable(x.groups, func(i, j int) bool { return value.Compare(x.groups[i].keys, x.groups[j].keys) < 0 })
	for _, g := range x.groups {
		var s *scope
		for i, k := range g.keys {
			s = s.with(x.c.groups[i].name, k)
		}
		if x.c.countInto != "" {
			s = s.with(x.c.countInto, g.count)
		}
		if x.c.into != "" {
			s = s.with(x.c.into, g.rows)
		}
		if err := x.next.push(s); err == errStop {
			break
		} else if err != nil {
			return err
		}
	}
	return x.next.done()
}
