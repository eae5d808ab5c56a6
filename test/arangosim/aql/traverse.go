package aql

import (
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// walker follows edges depth first, as a traversal does by default; an edge occurs once on a path.
type walker struct {
	r         *run
	edges     []string
	direction string
	low, high int64
	visit     func(vertices, edges []any) error
}

func (r *run) traverse(c *forClause, s *scope, next sink) error {
	w := &walker{r: r, direction: c.walk.direction}
	for _, bound := range []struct {
		x  any
		to *int64
	}{{c.walk.low, &w.low}, {c.walk.high, &w.high}} {
		v, err := r.eval(bound.x, s)
		if err != nil {
			return err
		}
		*bound.to = int64(number(v))
	}
	start, err := r.eval(c.walk.start, s)
	if err != nil {
		return err
	}
	id := text(start)
	if o, ok := start.(*value.Object); ok {
		id = o.String("_id")
	}
	if c.walk.graph != nil {
		g, err := r.eval(c.walk.graph, s)
		if err != nil {
			return err
		}
		if w.edges, err = r.source.EdgesOf(text(g)); err != nil {
			return err
		}
	}
	for _, e := range c.walk.edges {
		switch e := e.(type) {
		case name:
			w.edges = append(w.edges, e.name)
		case collection:
			w.edges = append(w.edges, r.binds.String("@"+e.name))
		default:
			return fmt.Errorf("AQL: edge collection expected in the traversal")
		}
	}
	w.visit = func(vertices, edges []any) error {
		inner := s.with(c.vars[0], vertices[len(vertices)-1])
		if len(c.vars) > 1 {
			var last any
			if len(edges) > 0 {
				last = edges[len(edges)-1]
			}
			inner = inner.with(c.vars[1], last)
		}
		if len(c.vars) > 2 {
			inner = inner.with(c.vars[2], value.New("vertices", append([]any(nil), vertices...), "edges", append([]any(nil), edges...)))
		}
		return next.push(inner)
	}
	return w.walk([]any{asValue(r.source.Document(id))}, nil, id, 0)
}

func (w *walker) walk(vertices, edges []any, at string, depth int64) error {
	if err := w.r.ctx.Err(); err != nil {
		return err
	}
	if depth >= w.low {
		if err := w.visit(vertices, edges); err != nil {
			return err
		}
	}
	if depth >= w.high {
		return nil
	}
	for _, c := range w.edges {
		err := w.r.source.Each(c, func(e *value.Object) error {
			for _, used := range edges {
				if used.(*value.Object).String("_id") == e.String("_id") {
					return nil
				}
			}
			for _, to := range w.follow(e, at) {
				err := w.walk(append(vertices, asValue(w.r.source.Document(to))), append(edges, e), to, depth+1)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// follow answers where an edge leads from a vertex.
func (w *walker) follow(e *value.Object, at string) []string {
	var out []string
	if w.direction != "INBOUND" && e.String("_from") == at {
		out = append(out, e.String("_to"))
	}
	if w.direction != "OUTBOUND" && e.String("_to") == at {
		out = append(out, e.String("_from"))
	}
	return out
}
