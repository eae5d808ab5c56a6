// Package all lists the plugins of this program: one line each.
package all

import (
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/certificates"
	"github.com/csobackup/cso_backupnrestore/plugins/mariadb"
	"github.com/csobackup/cso_backupnrestore/plugins/secrets"
)

// Registry holds every plugin.
func Registry() (*plugins.Registry, error) {
	return plugins.NewRegistry(
		mariadb.New(),
		secrets.New(),
		certificates.New(),
	)
}
