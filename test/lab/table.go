package lab

import (
	"github.com/csobackup/cso_backupnrestore/test/lab/arangodb"
	"github.com/csobackup/cso_backupnrestore/test/lab/cassandra"
	"github.com/csobackup/cso_backupnrestore/test/lab/elasticsearch"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/etcd"
	"github.com/csobackup/cso_backupnrestore/test/lab/files"
	"github.com/csobackup/cso_backupnrestore/test/lab/mariadb"
	"github.com/csobackup/cso_backupnrestore/test/lab/zookeeper"
)

const central = "central"

// entry is one kind of server the lab can start.
type entry struct {
	engine  engine.Engine
	cluster bool // --members applies: its servers form a cluster
	process bool // there is a server process to kill, freeze and control
	perVM   bool // its estate member carries the VM's name
}

// engines is the lab's table of kinds. versions choose other than Debian's.
func engines(versions map[string]string) map[string]entry {
	return map[string]entry{
		"mariadb":       {engine: mariadb.New(), process: true},
		"etcd":          {engine: etcd.New(versions["etcd"]), cluster: true, process: true},
		"zookeeper":     {engine: zookeeper.New(), cluster: true, process: true},
		"cassandra":     {engine: cassandra.New(versions["cassandra"]), cluster: true, process: true},
		"elasticsearch": {engine: elasticsearch.New(versions["elasticsearch"]), cluster: true, process: true},
		"arangodb":      {engine: arangodb.New(versions["arangodb"]), cluster: true, process: true}, // simulated
		"secrets":       {engine: files.New("secrets"), perVM: true},
		"certificates":  {engine: files.New("certificates"), perVM: true},
	}
}

// DefaultComponents are what a lab gets when none are named, in start order.
func DefaultComponents() []string {
	return []string{"mariadb", "etcd", "zookeeper", "cassandra", "elasticsearch", "arangodb", "secrets", "certificates"}
}

// QuickComponents are those of the default whose servers are there within two
// seconds; Cassandra and Elasticsearch take ten and more.
func QuickComponents() []string {
	return []string{"mariadb", "etcd", "zookeeper", "arangodb", "secrets", "certificates"}
}
