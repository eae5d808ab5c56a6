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
			return problem.New(code, orUsual(p.Hint, code), "%s", p.Message)
		}
		return problem.New(code, usual[code], "%s", app.Message())
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
	return problem.New(problem.Failed, usual[problem.Failed], "%s", err.Error())
}

// usual is what to do about a failure that says nothing better itself.
var usual = map[problem.Code]string{
	problem.Failed:      "look: cso_backupnrestore status, then the log: journalctl -u cso-backup-worker",
	problem.Unreachable: "cso_backupnrestore doctor",
	problem.Unhealthy:   "see what is sick: cso_backupnrestore healthcheck",
	problem.NoBackup:    "see what there is: cso_backupnrestore list",
	problem.Busy:        "see what runs: cso_backupnrestore status",
	problem.Key:         "cso_backupnrestore doctor",
	problem.Integrity:   "restore from another backup or copy; see cso_backupnrestore list",
	problem.Held:        "see what is half done and how to go on: cso_backupnrestore status",
}

func orUsual(hint string, code problem.Code) string {
	if hint == "" {
		return usual[code]
	}
	return hint
}
