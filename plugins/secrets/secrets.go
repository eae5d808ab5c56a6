// Package secrets protects the encrypted passwords of the product: files and
// directories of every VM, named by the member option `paths`.
package secrets

import (
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/files"
)

// New returns the plugin.
func New() plugins.Plugin { return files.New("secrets", "encrypted passwords") }
