package gateway

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// failures says how each kind of failure travels; the first match counts.
// Both sides read it: the server to answer, the client to give the kind back.
var failures = []struct {
	kind   error
	name   string // on the wire
	status int
	code   problem.Code
	hint   string
}{
	{ErrRefused, "refused", http.StatusForbidden, problem.Failed, "use the certificate of the VM whose unit it is"},
	{ErrSession, "session", http.StatusGone, problem.Busy, "begin the unit again"},
	{plugins.ErrFenced, "fenced", http.StatusConflict, problem.Busy, "a newer operation has taken over; see `cso_backupnrestore status`"},
	{plugins.ErrPinLost, "pin-lost", http.StatusConflict, problem.Failed, "pin all units again"},
	{store.ErrExists, "exists", http.StatusConflict, problem.Failed, "go on with the piece that is there"},
	{store.ErrSealed, "sealed", http.StatusConflict, problem.Failed, "nothing is added to a complete backup: make a new one"},
	{store.ErrFinished, "finished", http.StatusConflict, problem.Failed, "the unit is stored: go on with the next"},
	{store.ErrInUse, "in-use", http.StatusLocked, problem.Busy, "an older attempt is still letting go of it: try again"},
	{plugins.ErrSpace, "space", http.StatusInsufficientStorage, problem.Failed, "free some space under the backup root"},
	{manifest.ErrName, "name", http.StatusBadRequest, problem.Usage, "use the names of the estate file and of the backup"},
	{plugins.ErrCorrupt, "corrupt", http.StatusUnprocessableEntity, problem.Integrity, "send it again"},
	{plugins.ErrData, "data", http.StatusUnprocessableEntity, problem.Failed, "worker and gateway must be of one version"},
	{keys.ErrKeys, "keys", http.StatusServiceUnavailable, problem.Key, "run `cso_backupnrestore setup` on the installer-vm"},
	{plugins.ErrNotFound, "not-found", http.StatusNotFound, problem.NoBackup, "see `cso_backupnrestore list`"},
}

// failure is an error on the wire.
type failure struct {
	Kind    string       `json:"kind"`
	Code    problem.Code `json:"code"`
	Message string       `json:"message"`
	Hint    string       `json:"hint,omitempty"`
	// Piece is what is stored, when kind is exists.
	Piece *manifest.Piece `json:"piece,omitempty"`
}

// existing is a refusal to replace a piece; the piece that stays goes with it.
type existing struct {
	error
	piece manifest.Piece
}

func (e existing) Unwrap() error { return e.error }

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	who, _ := role(r.TLS, s.Revoked)
	s.log(r, who, err)
	out, status := failure{Kind: "failed", Code: problem.Failed, Message: err.Error()}, http.StatusInternalServerError
	if notFound(err) {
		err = errors.Join(plugins.ErrNotFound, err)
	}
	for _, f := range failures {
		if errors.Is(err, f.kind) {
			out.Kind, out.Code, out.Hint, status = f.name, f.code, f.hint, f.status
			break
		}
	}
	if e := (existing{}); errors.As(err, &e) {
		out.Piece = &e.piece
	}
	b, merr := json.Marshal(out)
	if merr != nil {
		b = []byte(`{"kind":"failed"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b) //nolint:errcheck // the caller is gone
}

// told is an error of the other side, in its words and of its kind.
type told struct {
	failure
	kind error
}

func (t told) Error() string { return t.Message }
func (t told) Unwrap() error { return t.kind }

// asError gives a failure its kind back.
func (f failure) asError() error {
	t := told{f, plugins.ErrUnavailable}
	for _, k := range failures {
		if k.name == f.Kind {
			t.kind = k.kind
		}
	}
	return problem.New(f.Code, f.Hint, "store gateway: %w", t)
}
