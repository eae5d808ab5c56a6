package aql

// An expression is one of these.
type (
	literal struct{ v any }
	// name is a variable, or the name of a collection or view where a FOR loops over it.
	name struct{ name string }
	bind struct{ name string }
	// collection is @@x, replaced by its bind value.
	collection struct{ name string }
	list       struct{ items []any }
	object     struct{ members []member }
	member     struct{ name, value any } // name is a string or an expression
	access     struct{ base, key any }   // base.key and base[key]
	expand     struct{ base, tail any }  // base[*]tail; tail refers to current
	inline     struct{ base, filter any }
	current    struct{} // the element of an expansion, and CURRENT
	unary      struct {
		op string
		x  any
	}
	binary struct {
		op   string
		x, y any
	}
	ternary struct{ cond, yes, no any }
	call    struct {
		name string
		args []any
	}
	subquery struct{ q *Query }
)

// A clause of a query is one of these.
type (
	forClause struct {
		vars    []string // one, or vertex, edge, path
		in      any
		search  any
		options any
		walk    *traversal
	}
	traversal struct {
		low, high any
		direction string
		start     any
		graph     any
		edges     []any
	}
	filterClause struct{ cond any }
	letClause    struct {
		name string
		x    any
	}
	sortClause struct{ keys []sortKey }
	sortKey    struct {
		x    any
		desc bool
	}
	limitClause   struct{ offset, count any }
	collectClause struct {
		groups    []letClause
		countInto string
		into      string
	}
	returnClause struct {
		x        any
		distinct bool
	}
	writeClause struct {
		op      string // INSERT UPDATE REPLACE REMOVE
		x, with any
		in      any
		options any
	}
)

// Query is a parsed query.
type Query struct {
	clauses []any
	// Binds are the names of all bind parameters, collections with their @.
	Binds map[string]bool
}

// Writes tells whether the query changes data.
func (q *Query) Writes() bool {
	for _, c := range q.clauses {
		if _, ok := c.(*writeClause); ok {
			return true
		}
	}
	return false
}
