package plugins

import (
	"fmt"
	"slices"
	"strings"
)

// Registry holds the plugins a process can use. It is an ordinary value,
// filled in plugins/all.
type Registry struct{ byName map[string]Plugin }

// NewRegistry registers the plugins; two of one name, or a name that is not
// in the component table, is an error of the program.
func NewRegistry(ps ...Plugin) (*Registry, error) {
	r := &Registry{byName: map[string]Plugin{}}
	for _, p := range ps {
		n := p.Info().Component
		if _, ok := Lookup(n); !ok {
			return nil, fmt.Errorf("plugin %q has no row in the component table", n)
		}
		if _, ok := r.byName[n]; ok {
			return nil, fmt.Errorf("plugin %q is registered twice", n)
		}
		r.byName[n] = p
	}
	return r, nil
}

// Get finds a plugin by component name; ErrUnsupported when this build has none.
func (r *Registry) Get(component string) (Plugin, error) {
	p, ok := r.byName[component]
	if !ok {
		return nil, fmt.Errorf("component %q: %w by this version, which knows %s", component, ErrUnsupported, strings.Join(r.Names(), ", "))
	}
	return p, nil
}

// Names lists the registered components, sorted.
func (r *Registry) Names() []string {
	out := make([]string, 0, len(r.byName))
	for n := range r.byName {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
