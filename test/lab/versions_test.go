//go:build versions

package lab

import (
	"fmt"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/lab/cassandra"
	"github.com/csobackup/cso_backupnrestore/test/lab/elasticsearch"
)

// TestVersions has every version of Cassandra, Elasticsearch and OpenSearch
// judged, as one server and as a cluster of three.
func TestVersions(t *testing.T) {
	for _, members := range []int{1, 3} {
		for _, v := range cassandra.Versions() {
			t.Run(fmt.Sprintf("cassandra %s on %d", v, members), func(t *testing.T) {
				judged(t, serverOf(t, "cassandra", v, members), "cassandra-1", cassandraKinds...)
			})
		}
		for _, v := range elasticsearch.Versions() {
			t.Run(fmt.Sprintf("elasticsearch %s on %d", v, members), func(t *testing.T) {
				judged(t, serverOf(t, "elasticsearch", v, members), "elasticsearch-1", elasticsearchKinds...)
			})
		}
	}
}
