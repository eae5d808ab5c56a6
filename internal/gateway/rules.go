package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

// Rules are what the gateway asks the installer-vm.
type Rules struct {
	// Owns says whether a unit is one of this VM's.
	Owns func(vm string, u manifest.UnitID) (bool, error)
	// Open is nil while the backup is being made under the claim; else plugins.ErrFenced or why not.
	Open func(ctx context.Context, ref manifest.Ref, c epoch.Claim) error
}

// action is what a request wants of a unit.
type action string

const (
	add       action = "add to"
	readList  action = "read the list of"
	readPiece action = "read pieces of"
)

// role is who calls, after the certificate.
func role(state *tls.ConnectionState, revoked *pki.Revocations) (string, error) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return "", fmt.Errorf("%w: no client certificate", ErrRefused)
	}
	cert := state.VerifiedChains[0][0]
	if len(cert.Subject.OrganizationalUnit) != 1 {
		return "", fmt.Errorf("%w: the certificate does not name exactly one role (OU)", ErrRefused)
	}
	gone, err := revoked.Contains(cert.SerialNumber)
	if err != nil {
		return "", fmt.Errorf("%w: the list of revoked certificates is unreadable: %w", ErrRefused, err)
	}
	if gone {
		return "", fmt.Errorf("%w: the certificate was revoked", ErrRefused)
	}
	return cert.Subject.OrganizationalUnit[0], nil
}

// may says whether role may do this to the unit; see the package comment.
func (r Rules) may(role string, do action, u manifest.UnitID) error {
	vm, isWorker := strings.CutPrefix(role, "worker:")
	switch {
	case role == pki.Control && do != add:
		return nil
	case !isWorker || pki.CheckVM(vm) != nil || do == readPiece:
		return fmt.Errorf("%w: %s may not %s unit %s", ErrRefused, role, do, u)
	}
	own, err := r.Owns(vm, u)
	if err != nil {
		return fmt.Errorf("whose unit %s is: %w", u, err)
	}
	if !own {
		return fmt.Errorf("%w: %s may not %s unit %s, which is not one of its own", ErrRefused, role, do, u)
	}
	return nil
}
