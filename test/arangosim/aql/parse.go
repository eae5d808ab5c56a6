package aql

import (
	"fmt"
	"strings"
)

type parser struct {
	tokens []token
	i      int
	binds  map[string]bool
}

// Parse reads a query.
func Parse(text string) (*Query, error) {
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	if len(tokens) == 1 {
		return nil, &ParseError{"query is empty"}
	}
	p := &parser{tokens: tokens, binds: map[string]bool{}}
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	if p.peek().kind != tokenEnd {
		return nil, p.unexpected()
	}
	q.Binds = p.binds
	return q, nil
}

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if t.kind != tokenEnd {
		p.i++
	}
	return t
}

func (p *parser) accept(word string) bool {
	if p.peek().is(word) {
		p.i++
		return true
	}
	return false
}

func (p *parser) expect(word string) error {
	if !p.accept(word) {
		return p.unexpected()
	}
	return nil
}

func (p *parser) unexpected() error {
	t := p.peek()
	return &ParseError{fmt.Sprintf("syntax error, unexpected %s near position %d", t.text, t.at)}
}

func (p *parser) identifier() (string, error) {
	if t := p.peek(); t.kind == tokenWord || t.kind == tokenQuoted {
		p.i++
		return t.text, nil
	}
	return "", p.unexpected()
}

func (p *parser) query() (*Query, error) {
	q := &Query{}
	for {
		c, err := p.clause()
		if err != nil {
			return nil, err
		}
		if c == nil {
			break
		}
		q.clauses = append(q.clauses, c)
		if _, last := c.(*returnClause); last {
			return q, nil
		}
	}
	if !q.Writes() {
		return nil, p.unexpected()
	}
	return q, nil
}

// clause answers nil where no clause begins.
func (p *parser) clause() (any, error) {
	t := p.peek()
	if t.kind != tokenWord {
		return nil, nil
	}
	word := strings.ToUpper(t.text)
	p.i++
	switch word {
	case "FOR":
		return p.forClause()
	case "FILTER":
		x, err := p.expression()
		return &filterClause{x}, err
	case "LET":
		v, err := p.assignment()
		return &v, err
	case "SORT":
		return p.sortClause()
	case "LIMIT":
		return p.limitClause()
	case "COLLECT":
		return p.collectClause()
	case "RETURN":
		distinct := p.accept("DISTINCT")
		x, err := p.expression()
		return &returnClause{x, distinct}, err
	case "INSERT", "UPDATE", "REPLACE", "REMOVE":
		return p.writeClause(word)
	}
	p.i--
	return nil, nil
}

func (p *parser) assignment() (letClause, error) {
	n, err := p.identifier()
	if err == nil {
		err = p.expect("=")
	}
	if err != nil {
		return letClause{}, err
	}
	x, err := p.expression()
	return letClause{n, x}, err
}

func (p *parser) forClause() (any, error) {
	f := &forClause{}
	for {
		n, err := p.identifier()
		if err != nil {
			return nil, err
		}
		f.vars = append(f.vars, n)
		if !p.accept(",") {
			break
		}
	}
	if err := p.expect("IN"); err != nil {
		return nil, err
	}
	var err error
	if !p.direction() {
		if f.in, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.direction() {
		if f.walk, err = p.traversal(f.in); err != nil {
			return nil, err
		}
	} else if len(f.vars) > 1 {
		return nil, p.unexpected()
	}
	if p.accept("SEARCH") {
		if f.search, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.accept("OPTIONS") {
		if f.options, err = p.primary(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (p *parser) direction() bool {
	t := p.peek()
	return t.is("OUTBOUND") || t.is("INBOUND") || t.is("ANY")
}

func (p *parser) traversal(depth any) (*traversal, error) {
	t := &traversal{direction: strings.ToUpper(p.next().text), low: literal{int64(1)}, high: literal{int64(1)}}
	if depth != nil {
		t.low, t.high = depth, depth
		if r, ok := depth.(binary); ok && r.op == ".." {
			t.low, t.high = r.x, r.y
		}
	}
	var err error
	if t.start, err = p.expression(); err != nil {
		return nil, err
	}
	if p.accept("GRAPH") {
		t.graph, err = p.expression()
		return t, err
	}
	for {
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		t.edges = append(t.edges, e)
		if !p.accept(",") {
			return t, nil
		}
	}
}

func (p *parser) sortClause() (any, error) {
	s := &sortClause{}
	for {
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		k := sortKey{x: x}
		if p.accept("DESC") {
			k.desc = true
		} else {
			p.accept("ASC")
		}
		s.keys = append(s.keys, k)
		if !p.accept(",") {
			return s, nil
		}
	}
}

func (p *parser) limitClause() (any, error) {
	x, err := p.expression()
	if err != nil {
		return nil, err
	}
	l := &limitClause{offset: literal{int64(0)}, count: x}
	if p.accept(",") {
		l.offset = x
		l.count, err = p.expression()
	}
	return l, err
}

func (p *parser) collectClause() (any, error) {
	c := &collectClause{}
	if !p.peek().is("WITH") {
		for {
			g, err := p.assignment()
			if err != nil {
				return nil, err
			}
			c.groups = append(c.groups, g)
			if !p.accept(",") {
				break
			}
		}
	}
	var err error
	switch {
	case p.accept("WITH"):
		if err = p.expect("COUNT"); err == nil {
			err = p.expect("INTO")
		}
		if err == nil {
			c.countInto, err = p.identifier()
		}
	case p.accept("INTO"):
		c.into, err = p.identifier()
	}
	return c, err
}

func (p *parser) writeClause(op string) (any, error) {
	w := &writeClause{op: op}
	var err error
	if w.x, err = p.expression(); err != nil {
		return nil, err
	}
	if p.accept("WITH") {
		if w.with, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if !p.accept("INTO") {
		if err := p.expect("IN"); err != nil {
			return nil, err
		}
	}
	if w.in, err = p.primary(); err != nil {
		return nil, err
	}
	if p.accept("OPTIONS") {
		w.options, err = p.primary()
	}
	return w, err
}
