// Package pki makes and keeps the certificates with which the parts of the product prove who they are
// to each other: the command line, the workers, and the embedded Temporal server.
//
// One directory holds everything (normally $STATE/pki, mode 0700, files 0600). There are two certificate
// authorities. "ca" signs the server and all clients; a client's role is the one organizational unit of its
// subject. "internode-ca" signs only what the Temporal server uses towards itself: its inner ports grant
// everything to everyone who gets in, so no client's certificate may open them.
//
// A directory with ca.crt but without ca.key belongs to a VM that was given its certificate: nothing is made
// there, only checked.
package pki

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	// ServerName is the DNS name in the Temporal server's certificate; clients verify it whatever address they dial.
	ServerName = "cso-temporald"
	// GatewayName is the DNS name in the store gateway's certificate.
	GatewayName = "cso-store-gateway"
	// InternodeName is the DNS name in the certificate of the Temporal server's inner ports.
	InternodeName = "internode"

	// CA and InternodeCA are the names of the two authorities, for [ServerTLS].
	CA          = "ca"
	InternodeCA = "internode-ca"

	// Server, Internode, Control, Operator, UI and Gateway are the names of the certificates that every installation has.
	Server    = "server"
	Internode = "internode"
	Control   = "control"
	Operator  = "operator"
	UI        = "ui"
	Gateway   = "gateway"
)

const (
	caLife      = 10 * 365 * 24 * time.Hour
	leafLife    = 5 * 365 * 24 * time.Hour
	renewBefore = 180 * 24 * time.Hour
	// A VM restored from a snapshot can have a clock that is behind; a certificate must not be "not yet valid" there.
	backdate = 24 * time.Hour

	// TokenKeySize is the length of the key that signs task tokens, in bytes.
	TokenKeySize = 32
	tokenKeyFile = "token.key"
	revokedFile  = "revoked"
	lockFile     = ".lock"
)

var vmName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckVM returns an error if vm cannot name a VM. A name is 1 to 63 characters of a-z, 0-9 and "-", starts with a
// letter or digit and does not end in "-ctl", because VM "a-ctl" would own the task queue cso-vm-a-ctl of VM "a".
func CheckVM(vm string) error {
	if !vmName.MatchString(vm) || strings.HasSuffix(vm, "-ctl") {
		return fmt.Errorf("VM name %q: use 1 to 63 characters of a-z, 0-9 and \"-\", starting with a letter or digit and not ending in \"-ctl\"", vm)
	}
	return nil
}

// Worker returns the name of the certificate of the worker on vm.
func Worker(vm string) string { return "worker-" + vm }

func certFile(dir, name string) string { return filepath.Join(dir, name+".crt") }
func keyFile(dir, name string) string  { return filepath.Join(dir, name+".key") }
