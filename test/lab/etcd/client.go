package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

const (
	dialTimeout = 5 * time.Second
	// maintenanceKey is CSO's own maintenance switch.
	maintenanceKey = "/lb/maintenance"
)

// dial connects as root to one or several members of an instance.
func dial(members ...engine.Member) (*clientv3.Client, error) {
	config, err := clientTLS(members[0])
	if err != nil {
		return nil, err
	}
	password, err := os.ReadFile(members[0].Options["password_file"])
	if err != nil {
		return nil, fmt.Errorf("read root's password: %w", err)
	}
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, endpoint(m))
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: dialTimeout,
		Username:    "root",
		Password:    string(password),
		TLS:         config,
		Logger:      zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", members[0].Name, err)
	}
	return c, nil
}

// clientTLS trusts the instance's CA only.
func clientTLS(m engine.Member) (*tls.Config, error) {
	pem, err := os.ReadFile(m.Options["ca_file"])
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA file holds no certificate: remove the lab and start it anew")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// unimplemented recognises a call that an older server does not know.
func unimplemented(err error) bool { return status.Code(err) == codes.Unimplemented }

// doneBefore recognises that a change to users and roles was made by an earlier run.
func doneBefore(err error) bool {
	for _, e := range []error{rpctypes.ErrUserNotFound, rpctypes.ErrUserAlreadyExist, rpctypes.ErrRoleNotFound, rpctypes.ErrRoleAlreadyExist,
		rpctypes.ErrRoleNotGranted, rpctypes.ErrPermissionNotGranted} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
