package main

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

func clusterInfo(t *testing.T, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := workflowservice.NewWorkflowServiceClient(conn).GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	return err
}

func TestWhoGetsIn(t *testing.T) {
	operator := shared.tls(t, pki.Operator)
	anonymous := operator.Clone()
	anonymous.Certificates = nil
	old := operator.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	foreignDir := filepath.Join(t.TempDir(), "pki")
	if err := pki.Ensure(foreignDir); err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.ClientTLS(foreignDir, pki.Operator)
	if err != nil {
		t.Fatal(err)
	}
	foreign.RootCAs = operator.RootCAs // it trusts us; we must not trust it
	inner, err := pki.InternodeTLS(filepath.Join(shared.state, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	inner.RootCAs, inner.ServerName = operator.RootCAs, pki.ServerName
	// The server's certificate has another name inside; an attacker would not mind, so neither does this client.
	reckless := operator.Clone()
	reckless.InsecureSkipVerify = true

	for _, c := range []struct {
		what   string
		port   int
		config *tls.Config
		ok     bool
	}{
		{"operator", 0, operator, true},
		{"no certificate", 0, anonymous, false},
		{"TLS 1.2", 0, old, false},
		{"operator of another installation", 0, foreign, false},
		{"internode certificate on the frontend", 0, inner, false},
		{"operator on internal-frontend", 1, reckless, false},
		{"operator on history", 2, reckless, false},
		{"operator on matching", 3, reckless, false},
	} {
		conn, err := dial(net.JoinHostPort(loopback, strconv.Itoa(shared.port+c.port)), c.config)
		if err != nil {
			t.Fatal(err)
		}
		err = clusterInfo(t, conn)
		conn.Close()
		if c.ok && err != nil || !c.ok && status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	plain, err := grpc.NewClient("passthrough:///"+shared.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := clusterInfo(t, plain); status.Code(err) != codes.Unavailable {
		t.Errorf("plaintext: %v", err)
	}
	if err := clusterInfo(t, shared.admin(t)); err != nil {
		t.Errorf("the inner port must work with the inner certificate, or the refusals above prove nothing: %v", err)
	}
}

func TestRevokedAtTheNextCall(t *testing.T) {
	certs := filepath.Join(shared.state, "pki")
	if err := pki.Ensure(certs, "vm-taken"); err != nil {
		t.Fatal(err)
	}
	system := func(conn *grpc.ClientConn) error {
		_, err := workflowservice.NewWorkflowServiceClient(conn).GetSystemInfo(short(t), &workflowservice.GetSystemInfoRequest{})
		return err
	}
	taken, other := shared.conn(t, "worker-vm-taken"), shared.conn(t, "worker-vm-a")
	wantAllowed(t, "before", system(taken))
	if err := pki.Revoke(certs, "worker-vm-taken"); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "the next call on the open connection", system(taken), "revoked")
	wantRefusal(t, "a new connection", system(shared.conn(t, "worker-vm-taken")), "revoked")
	wantAllowed(t, "everyone else", system(other))
	if err := pki.Ensure(certs, "vm-taken"); err != nil {
		t.Fatal(err)
	}
	wantAllowed(t, "with the new certificate", system(shared.conn(t, "worker-vm-taken")))
	wantRefusal(t, "still with the old one", system(taken), "revoked")
}

func TestTokenSignature(t *testing.T) {
	s := tokenSigner{key: []byte(strings.Repeat("k", pki.TokenKeySize))}
	token := []byte("a task token")
	signed := s.sign("worker:a", token)
	flipped := append([]byte{}, signed...)
	flipped[0] ^= 1
	for _, c := range []struct {
		what, role string
		token      []byte
		ok         bool
	}{
		{"own", "worker:a", signed, true},
		{"another role's", "worker:b", signed, false},
		{"unsigned", "worker:a", token, false},
		{"changed", "worker:a", flipped, false},
		{"cut", "worker:a", signed[:len(signed)-1], false},
		{"longer", "worker:a", append(append([]byte{}, signed...), 0), false},
		{"empty", "worker:a", nil, false},
		{"another key's", "worker:a", tokenSigner{key: []byte("other")}.sign("worker:a", token), false},
	} {
		if got := s.verify(c.role, c.token); got != c.ok {
			t.Errorf("%s: verify = %v", c.what, got)
		}
	}
	if len(s.sign("worker:a", nil)) != 0 {
		t.Error("an empty poll answer must stay empty")
	}
}
