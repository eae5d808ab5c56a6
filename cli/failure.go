package cli

import (
	"errors"

	"go.temporal.io/sdk/temporal"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// failure turns how a run ended into a problem. Our own failures are
// application errors whose type is a code and whose first detail is the problem.
func failure(err error) error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		app, ok := e.(*temporal.ApplicationError) //nolint:errorlint // every level of the chain is looked at
		if !ok {
			continue
		}
		code := problem.Code(app.Type())
		if _, known := problem.Codes()[code]; !known {
			continue
		}
		var p problem.Problem
		if app.HasDetails() && app.Details(&p) == nil && p.Message != "" {
			return problem.New(code, p.Hint, "%s", p.Message)
		}
		return problem.New(code, "", "%s", app.Message())
	}
	var (
		cancelled  *temporal.CanceledError
		terminated *temporal.TerminatedError
		timeout    *temporal.TimeoutError
		app        *temporal.ApplicationError
	)
	switch {
	case errors.As(err, &app):
		return problem.New(problem.Failed, "details are in the Web UI and in the log of cso-backup-worker", "%s", app.Message())
	case errors.As(err, &cancelled):
		return problem.New(problem.Cancelled, "", "the operation was cancelled")
	case errors.As(err, &terminated):
		return problem.New(problem.Failed, "the control worker cleans up within a minute; look: cso_backupnrestore status", "the operation was terminated from outside")
	case errors.As(err, &timeout):
		return problem.New(problem.Failed, "cso_backupnrestore healthcheck", "the operation ran out of time: %s", timeout.Error())
	}
	return problem.New(problem.Failed, "", "%s", err.Error())
}
