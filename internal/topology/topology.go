// Package topology turns an estate into units: what has to be done once per
// cluster, what on every VM, and which VM does it.
package topology

import (
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// Units lists the units of an estate in component order. A component that
// this program has no plugin for is an error: a backup without it would not
// be one of everything.
func Units(e *config.Estate, r *plugins.Registry) ([]workflows.Unit, error) {
	var out []workflows.Unit
	for _, in := range e.Instances {
		p, err := r.Get(in.Component)
		if err != nil {
			return nil, err
		}
		if p.Info().Scope == plugins.ScopeCluster {
			out = append(out, workflows.Unit{Component: in.Component, Instance: in.Name, Member: workflows.ClusterMember, VM: in.Members[0].VM})
			continue
		}
		for _, m := range in.Members {
			out = append(out, workflows.Unit{Component: in.Component, Instance: in.Name, Member: m.Name, VM: m.VM})
		}
	}
	slices.SortStableFunc(out, func(a, b workflows.Unit) int {
		x, _ := plugins.Lookup(a.Component)
		y, _ := plugins.Lookup(b.Component)
		if x.Order != y.Order {
			return x.Order - y.Order
		}
		return strings.Compare(a.String(), b.String())
	})
	return out, nil
}

// Reindexable keeps the units whose derived data can be rebuilt.
func Reindexable(units []workflows.Unit, r *plugins.Registry) []workflows.Unit {
	var out []workflows.Unit
	for _, u := range units {
		if p, err := r.Get(u.Component); err == nil && p.Info().Reindexes {
			out = append(out, u)
		}
	}
	return out
}

// VMs lists the VMs that the units are on, sorted, once each.
func VMs(units []workflows.Unit) []string {
	var out []string
	for _, u := range units {
		out = append(out, u.VM)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
