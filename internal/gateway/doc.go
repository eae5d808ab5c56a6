// Package gateway is the way into the store for workers on other VMs: HTTP/2
// over mutual TLS, on the installer-vm.
//
// Who calls is what the client certificate says (its one organizational unit,
// see internal/pki); a revoked certificate is refused at its next request, also
// on a connection that is open. The rules are few:
//
//   - worker:<vm> adds pieces and the list of a unit of its own VM, to the backup
//     that is being made now, under the claim that is in force; asks which pieces of
//     such a unit exist; and reads such a unit's lists. It reads no piece at all.
//   - control reads the pieces and lists of every unit.
//   - Nobody deletes or replaces anything: there is no request for it.
//
// A worker that sends garbage under a content id spoils its own unit only: a
// piece enters the store by the lists of its own unit, and the control worker
// decodes every new piece before it seals a backup.
//
// The requests, below /v1/NAME/TIMESTAMP/COMPONENT/INSTANCE/MEMBER:
//
//	POST begin           {claim, pin, redo} → {session, fingerprint, past}
//	POST known           {ids} → {pieces}: those that the unit has
//	PUT  pieces/ID       the stored bytes; Cso-Sha256, Cso-Bytes (before compression), Content-Length
//	PUT  unit.json       the list; publishes the unit
//	POST end             lets go of a unit that is not finished
//	GET  pieces/ID       the stored bytes
//	GET  unit.json       the list
//
// All but begin and GET carry the header Cso-Session. An error is a JSON
// document {code, message, hint}.
package gateway

import (
	"errors"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// Bounds of the protocol.
const (
	// MaxKnown is how many content ids one question may ask for.
	MaxKnown   = 4096
	maxRequest = 1 << 20 // bytes of a JSON request but unit.json

	headerSession = "Cso-Session"
	headerSHA256  = "Cso-Sha256"
	headerBytes   = "Cso-Bytes"
	headerCut     = "Cso-Cut"
)

// ErrRefused means that the caller's role may not do this.
var ErrRefused = errors.New("refused by the store gateway")

// ErrSession means that the session is not known any more: a newer attempt
// has taken over, or it was idle too long. What was stored stays.
var ErrSession = errors.New("session with the store gateway has ended")

// Begin begins or resumes a unit.
type Begin struct {
	Claim epoch.Claim `json:"claim"`
	Pin   string      `json:"pin,omitempty"`  // every artifact's; see store.UnitOptions
	Redo  bool        `json:"redo,omitempty"` // store a finished unit again
}

// Begun is the answer to Begin.
type Begun struct {
	Session     string         `json:"session"`
	Fingerprint string         `json:"fingerprint"` // of the recipients in force
	Past        []manifest.Ref `json:"past"`        // backups whose lists of this unit are worth reading, newest first
}

type knownRequest struct {
	IDs []manifest.Hash `json:"ids"`
}

type knownAnswer struct {
	Pieces []manifest.Piece `json:"pieces"`
}
