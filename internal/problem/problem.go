// Package problem holds the catalogue of failures an operator can meet: a
// code, the exit status of the command, and a hint that says what to do. It
// imports the standard library only, so that every layer can speak it.
package problem

import (
	"errors"
	"fmt"
)

// Code names a class of failure; docs/errors.md explains each.
type Code string

const (
	Failed      Code = "failed"         // the operation failed
	Warnings    Code = "warnings"       // finished, with warnings or AMBER
	Unreachable Code = "unreachable"    // Temporal or a worker does not answer
	Unhealthy   Code = "unhealthy"      // refused: a component is not healthy
	NoBackup    Code = "no-such-backup" // name or prefix selects nothing
	Busy        Code = "busy"           // another operation is running
	Key         Code = "key"            // identity wrong, lost or missing
	Integrity   Code = "integrity"      // stored data is damaged or forged
	Confirm     Code = "confirm"        // something would be lost for good and --confirm is missing
	Held        Code = "held"           // failed and the estate stays in maintenance
	Usage       Code = "usage"          // what was typed cannot be meant
	Detached    Code = "detached"       // the command let go, the operation runs on
	Cancelled   Code = "cancelled"      // somebody cancelled the operation
)

var exits = map[Code]int{
	Failed: 1, Warnings: 3, Unreachable: 4, Unhealthy: 5, NoBackup: 10, Busy: 11, Key: 12,
	Integrity: 13, Confirm: 14, Held: 15, Usage: 64, Detached: 130, Cancelled: 1,
}

// Exit is the exit status of a code; an unknown code is a failure.
func (c Code) Exit() int {
	if n, ok := exits[c]; ok {
		return n
	}
	return 1
}

// Codes lists all codes with their exit status.
func Codes() map[Code]int {
	out := make(map[Code]int, len(exits))
	for c, n := range exits {
		out[c] = n
	}
	return out
}

// Problem is a failure to be shown to an operator: what happened, and what to do.
type Problem struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	cause   error
}

func (p *Problem) Error() string { return p.Message }

// Unwrap gives the cause, if there is one.
func (p *Problem) Unwrap() error { return p.cause }

// New makes a problem from a message.
func New(code Code, hint, format string, args ...any) *Problem {
	err := fmt.Errorf(format, args...)
	return &Problem{Code: code, Message: err.Error(), Hint: hint, cause: err}
}

// As finds the problem in an error chain; any other error is Failed.
func As(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return &Problem{Code: p.Code, Message: err.Error(), Hint: p.Hint, cause: err}
	}
	return &Problem{Code: Failed, Message: err.Error(), cause: err}
}
