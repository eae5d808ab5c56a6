package workflows

import (
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// fail is a failure the operator sees: its type is the problem's code.
func fail(code problem.Code, hint, format string, args ...any) error {
	return ended(problem.Problem{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func ended(p problem.Problem) error {
	return temporal.NewApplicationErrorWithOptions(p.Message, string(p.Code),
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{p}})
}

// Problem reads the problem out of a failed activity or workflow; any other
// error is problem.Failed.
func Problem(err error) problem.Problem {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		var p problem.Problem
		if app.HasDetails() && app.Details(&p) == nil && p.Code != "" {
			return p
		}
		return problem.Problem{Code: problem.Failed, Message: app.Message()}
	}
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) {
		return problem.Problem{Code: problem.Unreachable, Message: "no answer in time (" + timeout.TimeoutType().String() + ")",
			Hint: "is the worker running there? systemctl status cso-backup-worker"}
	}
	if cancelled(err) {
		return problem.Problem{Code: problem.Cancelled, Message: "cancelled"}
	}
	return problem.Problem{Code: problem.Failed, Message: err.Error()}
}

// cause is the message without the engine's own wrapping.
func cause(err error) string { return Problem(err).Message }

// wrap keeps the problem and says what was being done; cancellation stays what it is.
func wrap(err error, format string, args ...any) error {
	if err == nil || cancelled(err) {
		return err
	}
	p := Problem(err)
	p.Message = joined(fmt.Sprintf(format, args...), p.Message)
	return ended(p)
}

// joined puts what was done before what went wrong. Plugins name their target
// themselves: it is not said twice.
func joined(doing, wrong string) string {
	if first, rest, ok := strings.Cut(wrong, ": "); ok && (doing == first || strings.HasSuffix(doing, " "+first)) {
		wrong = rest
	}
	return doing + ": " + wrong
}

// sentence joins at most five reasons.
func sentence(s []string) string {
	const most = 5
	if n := len(s) - most; n > 0 {
		return strings.Join(s[:most], "; ") + fmt.Sprintf("; and %d more", n)
	}
	return strings.Join(s, "; ")
}
