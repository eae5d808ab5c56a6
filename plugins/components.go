package plugins

import "slices"

// DefaultInstance is the name of an instance when none is given.
const DefaultInstance = "central"

// Component is a kind of thing to protect: one row of the only table in
// which components are named.
type Component struct {
	Name     string
	Aliases  []string // accepted on the command line
	Database bool     // can be chosen with -t and is part of '*'; the others come along with '*'
	Order    int      // restores run in ascending order, equal ones in parallel
	Last     bool     // switched last, after all digests: files that other parts use to log in
}

// Components is the table, in restore order.
var Components = []Component{
	{Name: "zookeeper", Database: true, Order: 1},
	{Name: "etcd", Database: true, Order: 1},
	{Name: "mariadb", Database: true, Order: 2},
	{Name: "cassandra", Database: true, Order: 3},
	{Name: "arangodb", Aliases: []string{"arrangodb"}, Database: true, Order: 4},
	{Name: "elasticsearch", Database: true, Order: 5},
	{Name: "secrets", Order: 9, Last: true},
	{Name: "certificates", Order: 9, Last: true},
}

// Lookup finds a component by name or alias.
func Lookup(name string) (Component, bool) {
	i := slices.IndexFunc(Components, func(c Component) bool {
		return c.Name == name || slices.Contains(c.Aliases, name)
	})
	if i < 0 {
		return Component{}, false
	}
	return Components[i], true
}
