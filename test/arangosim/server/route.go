package server

import (
	"strings"
)

// access is the right that a route demands.
type access int

const (
	anyone   access = iota // no authentication at all
	signedIn               // any valid user
	readDB                 // read in the database of the path
	writeDB                // write in the database of the path
	admin                  // write in _system
)

type route struct {
	method  string
	parts   []string
	access  access
	handler handler
}

type routes map[string][]*route

// add registers "METHOD /path/{variable}"; {rest...} takes all that follows.
func (rs routes) add(level access, pattern string, h handler) {
	method, path, _ := strings.Cut(pattern, " ")
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	rs[parts[0]] = append(rs[parts[0]], &route{method, parts, level, h})
}

// find answers the route and its variables, or whether another method would have matched.
func (r *request) find() (*route, map[string]string, bool) {
	methodKnown := false
	for _, rt := range r.routes[r.path[0]] {
		vars, ok := match(rt.parts, r.path)
		if !ok {
			continue
		}
		if rt.method == r.http.Method {
			return rt, vars, true
		}
		methodKnown = true
	}
	return nil, nil, methodKnown
}

func match(parts, path []string) (map[string]string, bool) {
	vars := map[string]string{}
	for i, p := range parts {
		if strings.HasSuffix(p, "...}") {
			vars[p[1:len(p)-4]] = strings.Join(path[min(i, len(path)):], "/")
			return vars, true
		}
		if i >= len(path) {
			return nil, false
		}
		if strings.HasPrefix(p, "{") {
			vars[p[1:len(p)-1]] = path[i]
		} else if p != path[i] {
			return nil, false
		}
	}
	return vars, len(parts) == len(path)
}
