// Package all lists the plugins of this program: one line each.
package all

import (
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/arangodb"
	"github.com/csobackup/cso_backupnrestore/plugins/cassandra"
	"github.com/csobackup/cso_backupnrestore/plugins/certificates"
	"github.com/csobackup/cso_backupnrestore/plugins/elasticsearch"
	"github.com/csobackup/cso_backupnrestore/plugins/etcd"
	"github.com/csobackup/cso_backupnrestore/plugins/mariadb"
	"github.com/csobackup/cso_backupnrestore/plugins/secrets"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper"
)

// Registry holds every plugin.
func Registry() (*plugins.Registry, error) {
	return plugins.NewRegistry(
		mariadb.New(),
		etcd.New(),
		zookeeper.New(),
		cassandra.New(),
		arangodb.New(),
		elasticsearch.New(),
		secrets.New(),
		certificates.New(),
	)
}
