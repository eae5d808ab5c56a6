package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// ClientTLS returns the configuration with which the client called name (for example [Operator], or [Worker] of a VM)
// connects to the Temporal server: TLS 1.3, server name [ServerName], trusting only ca of dir.
func ClientTLS(dir, name string) (*tls.Config, error) {
	return clientTLS(dir, name, ServerName)
}

// GatewayTLS is ClientTLS for the store gateway, [GatewayName].
func GatewayTLS(dir, name string) (*tls.Config, error) {
	return clientTLS(dir, name, GatewayName)
}

func clientTLS(dir, name, server string) (*tls.Config, error) {
	cert, pool, err := load(dir, name, CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: server, RootCAs: pool, Certificates: []tls.Certificate{cert},
	}, nil
}

// ServerTLS returns the configuration of a gRPC server that shows the certificate name and admits only clients with a
// certificate of the authority ca: TLS 1.3, client certificate required and verified.
func ServerTLS(dir, name, ca string) (*tls.Config, error) {
	cert, pool, err := load(dir, name, ca)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"},
	}, nil
}

// InternodeTLS returns the configuration with which the Temporal server connects to its own inner ports.
func InternodeTLS(dir string) (*tls.Config, error) {
	cert, pool, err := load(dir, Internode, InternodeCA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: InternodeName, RootCAs: pool, Certificates: []tls.Certificate{cert},
	}, nil
}

func load(dir, name, ca string) (tls.Certificate, *x509.CertPool, error) {
	unlock, err := lock(dir, false)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	defer unlock()
	cert, err := tls.LoadX509KeyPair(certFile(dir, name), keyFile(dir, name))
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("load the certificate %s: %w; on the installer-vm any command makes it, "+
			"on another VM copy it from there", name, err)
	}
	authority, err := loadCert(dir, ca)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("load the certificate authority %s: %w", ca, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return cert, pool, nil
}
