//go:build tools

// Package etcd37 pins the etcd release that the lab builds when asked for
// etcd 3.7. It is a module of its own so that the product does not carry a server.
package etcd37

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/etcdutl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
