// Package all lists the plugins of this program: one line each.
package all

import "github.com/csobackup/cso_backupnrestore/plugins"

// Registry holds every plugin.
func Registry() (*plugins.Registry, error) {
	return plugins.NewRegistry()
}
