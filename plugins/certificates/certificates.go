// Package certificates protects the system certificates and their keys: files
// and directories of every VM, named by the member option `paths`.
package certificates

import (
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/files"
)

// New returns the plugin.
func New() plugins.Plugin { return files.New("certificates", "system certificates") }
