package arangodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Error numbers of the server (lib/Basics/errors.dat of its source).
const (
	errReadOnly       = 1004
	errConflict       = 1200
	errNoDocument     = 1202
	errNoCollection   = 1203 // also views
	errDuplicateName  = 1207
	errUnique         = 1210
	errNoIndex        = 1212
	errNoDatabase     = 1228
	errCursorNotFound = 1600
	errTaskDuplicate  = 1851
	errShardLeader    = 1495 // the shard's leader has changed
	errShardRefused   = 1496
)

// apiError is an answer of the server that says no.
type apiError struct {
	what   string // the request, without its body
	status int    // HTTP
	num    int    // the server's own
	msg    string
}

func (e *apiError) Error() string {
	s := fmt.Sprintf("%s: HTTP %d", e.what, e.status)
	if e.num != 0 {
		s += fmt.Sprintf(", error %d", e.num)
	}
	if e.msg != "" {
		s += ": " + e.msg
	}
	return s
}

// Unwrap gives the answer its kind.
func (e *apiError) Unwrap() error {
	switch {
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden && e.num != errReadOnly:
		return plugins.ErrAuth
	case e.transient():
		return plugins.ErrUnavailable
	case e.status == http.StatusNotFound:
		return plugins.ErrNotFound
	}
	return nil
}

// transient says that the same request may succeed a moment later.
func (e *apiError) transient() bool {
	return e.status == http.StatusServiceUnavailable || e.status == http.StatusBadGateway || e.status == http.StatusGatewayTimeout ||
		e.num == errShardLeader || e.num == errShardRefused
}

func newAPIError(what string, status int, body []byte) *apiError {
	e := &apiError{what: what, status: status}
	var b struct {
		Num int    `json:"errorNum"`
		Msg string `json:"errorMessage"`
	}
	if json.Unmarshal(body, &b) == nil {
		e.num, e.msg = b.Num, b.Msg
	}
	return e
}

// numbered says whether err is an answer with one of these error numbers.
func numbered(err error, nums ...int) bool {
	var e *apiError
	return errors.As(err, &e) && slices.Contains(nums, e.num)
}

// statused says whether err is an answer with one of these HTTP codes.
func statused(err error, codes ...int) bool {
	var e *apiError
	return errors.As(err, &e) && slices.Contains(codes, e.status)
}

// ended is the context's error when it has ended, otherwise err.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
