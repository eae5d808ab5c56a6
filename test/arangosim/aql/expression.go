package aql

import (
	"strconv"
	"strings"
)

// levels are the binary operators by rising precedence.
var levels = [][]string{
	{"||", "OR"}, {"&&", "AND"}, {"==", "!="}, {"IN", "NOT IN", "LIKE"},
	{"<=", ">=", "<", ">"}, {".."}, {"+", "-"}, {"*", "/", "%"},
}

var sameOperator = map[string]string{"OR": "||", "AND": "&&"}

func (p *parser) expression() (any, error) {
	cond, err := p.level(0)
	if err != nil || !p.accept("?") {
		return cond, err
	}
	if p.accept(":") {
		no, err := p.expression()
		return ternary{cond, cond, no}, err
	}
	yes, err := p.expression()
	if err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	no, err := p.expression()
	return ternary{cond, yes, no}, err
}

func (p *parser) level(n int) (any, error) {
	if n == len(levels) {
		return p.unary()
	}
	x, err := p.level(n + 1)
	if err != nil {
		return nil, err
	}
	for {
		op := p.operator(levels[n])
		if op == "" {
			return x, nil
		}
		y, err := p.level(n + 1)
		if err != nil {
			return nil, err
		}
		if same, ok := sameOperator[op]; ok {
			op = same
		}
		x = binary{op, x, y}
	}
}

// operator takes one of the operators, "" when none follows.
func (p *parser) operator(ops []string) string {
	for _, op := range ops {
		first, second, two := strings.Cut(op, " ")
		if !p.peek().is(first) {
			continue
		}
		if two {
			if !p.tokens[p.i+1].is(second) {
				continue
			}
			p.i++
		}
		p.i++
		return op
	}
	return ""
}

func (p *parser) unary() (any, error) {
	for _, op := range []string{"!", "NOT", "-", "+"} {
		if p.accept(op) {
			x, err := p.unary()
			if op == "NOT" {
				op = "!"
			}
			return unary{op, x}, err
		}
	}
	return p.postfix()
}

func (p *parser) postfix() (any, error) {
	x, err := p.primary()
	if err != nil {
		return nil, err
	}
	return p.tail(x)
}

// tail reads .a [x] [*] [? …] behind an expression.
func (p *parser) tail(x any) (any, error) {
	for {
		switch {
		case p.accept("."):
			if t := p.peek(); t.kind == tokenBind {
				p.i++
				p.binds[t.text] = true
				x = access{x, bind{t.text}}
				continue
			}
			n, err := p.identifier()
			if err != nil {
				return nil, err
			}
			x = access{x, literal{n}}
		case p.accept("["):
			if p.accept("*") {
				if err := p.expect("]"); err != nil {
					return nil, err
				}
				tail, err := p.tail(current{})
				return expand{x, tail}, err
			}
			if p.accept("?") {
				if err := p.expect("FILTER"); err != nil {
					return nil, err
				}
				f, err := p.expression()
				if err != nil {
					return nil, err
				}
				if err := p.expect("]"); err != nil {
					return nil, err
				}
				x = inline{x, f}
				continue
			}
			k, err := p.expression()
			if err != nil {
				return nil, err
			}
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			x = access{x, k}
		default:
			return x, nil
		}
	}
}

func (p *parser) primary() (any, error) {
	t := p.next()
	switch t.kind {
	case tokenString:
		return literal{t.text}, nil
	case tokenNumber:
		if n, err := strconv.ParseInt(t.text, 10, 64); err == nil {
			return literal{n}, nil
		}
		f, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			return nil, &ParseError{"numeric literal out of range"}
		}
		return literal{f}, nil
	case tokenBind:
		p.binds[t.text] = true
		return bind{t.text}, nil
	case tokenCollection:
		p.binds["@"+t.text] = true
		return collection{t.text}, nil
	case tokenQuoted:
		return name{t.text}, nil
	case tokenWord:
		return p.word(t)
	}
	switch t.text {
	case "(":
		return p.parenthesis()
	case "[":
		items, err := p.until("]")
		return list{items}, err
	case "{":
		return p.object()
	}
	if t.kind != tokenEnd {
		p.i--
	}
	return nil, p.unexpected()
}

func (p *parser) word(t token) (any, error) {
	switch strings.ToUpper(t.text) {
	case "NULL":
		return literal{nil}, nil
	case "TRUE":
		return literal{true}, nil
	case "FALSE":
		return literal{false}, nil
	case "CURRENT":
		return current{}, nil
	}
	full := t.text
	for p.peek().is("::") && p.tokens[p.i+1].kind == tokenWord {
		full += "::" + p.tokens[p.i+1].text
		p.i += 2
	}
	if p.accept("(") {
		args, err := p.until(")")
		return call{strings.ToUpper(full), args}, err
	}
	return name{full}, nil
}

func (p *parser) parenthesis() (any, error) {
	if p.peek().is("FOR") || p.peek().is("LET") || p.peek().is("RETURN") {
		q, err := p.query()
		if err != nil {
			return nil, err
		}
		return subquery{q}, p.expect(")")
	}
	x, err := p.expression()
	if err != nil {
		return nil, err
	}
	return x, p.expect(")")
}

func (p *parser) until(end string) ([]any, error) {
	var items []any
	for {
		if p.accept(end) {
			return items, nil
		}
		if len(items) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
			if p.accept(end) {
				return items, nil
			}
		}
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, x)
	}
}

// object reads {a: x, "b": y, [n]: z, shorthand}.
func (p *parser) object() (any, error) {
	o := object{}
	for {
		if p.accept("}") {
			return o, nil
		}
		if len(o.members) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
			if p.accept("}") {
				return o, nil
			}
		}
		t := p.next()
		m := member{name: t.text}
		var err error
		switch {
		case t.is("["):
			if m.name, err = p.expression(); err == nil {
				err = p.expect("]")
			}
		case t.kind == tokenBind:
			p.binds[t.text] = true
			m.name = bind{t.text}
		case t.kind == tokenWord || t.kind == tokenQuoted:
			m.value = name{t.text}
		case t.kind != tokenString:
			p.i--
			return nil, p.unexpected()
		}
		if err != nil {
			return nil, err
		}
		if p.accept(":") {
			if m.value, err = p.expression(); err != nil {
				return nil, err
			}
		} else if m.value == nil {
			return nil, p.unexpected()
		}
		o.members = append(o.members, m)
	}
}
