package activities

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// unknownTries is how often a failure of unknown kind, or of the disk, is tried.
const unknownTries = 3

// PinLost is the error type by which the workflow knows that all units must be pinned again.
const PinLost problem.Code = "pin-lost"

type verdict struct {
	err   error
	code  problem.Code
	hint  string
	final bool // trying again cannot help
}

// verdicts maps kinds of failure to what the operator is told; the first match counts.
var verdicts = []verdict{
	{plugins.ErrPinLost, PinLost, "", true},
	{plugins.ErrFenced, problem.Busy, "a newer operation has taken over; see `cso_backupnrestore status`", true},
	{keys.ErrIdentity, problem.Key, "put the copy of the identity back as keys/identity in the state directory of the installer-vm", true},
	{keys.ErrKeys, problem.Key, "put the key file back from your copy; see `cso_backupnrestore doctor`", true},
	{manifest.ErrFormat, problem.Failed, "the backup is not damaged: use the version that wrote it", true},
	{manifest.ErrTampered, problem.Integrity, "do not restore from it; use another backup", true},
	{store.ErrInUse, problem.Busy, "an older attempt is still letting go of it", false},
	{store.ErrSealed, problem.Failed, "start it again: each backup has a timestamp of its own", true},
	{store.ErrNoSuchBackup, problem.NoBackup, "see `cso_backupnrestore list`", true},
	{store.ErrIncomplete, problem.NoBackup, "choose a complete one: `cso_backupnrestore list`", true},
	{plugins.ErrCorrupt, problem.Integrity, "see `cso_backupnrestore verify`; the next backup stores damaged pieces anew", true},
	{plugins.ErrAuth, problem.Unhealthy, "correct the credentials that the estate file points to", true},
	{plugins.ErrConfig, problem.Failed, "correct the estate file, then `cso_backupnrestore doctor`", true},
	{plugins.ErrVersion, problem.Failed, "the message names both versions; restore onto a server of the version that the backup was taken from", true},
	{plugins.ErrUnsupported, problem.Failed, "the documentation of the component says what it can do", true},
	{plugins.ErrData, problem.Failed, "mend what the message names in the database, then try again", true},
	{plugins.ErrSpace, problem.Failed, "free some space", false},
	{syscall.ENOSPC, problem.Failed, "free some space", false},
	{syscall.EROFS, problem.Failed, "the file system is mounted read-only: mount it writable", true},
	{plugins.ErrUnavailable, problem.Unhealthy, "start the server, then `cso_backupnrestore healthcheck`", false},
	{fs.ErrPermission, problem.Failed, "the worker must be able to read and write there", true},
}

// told turns an error into one that the engine and the operator understand:
// its type is the problem's code, its first detail the problem. Cancellation
// stays what it is.
func told(ctx context.Context, err error) error {
	var cancelled *temporal.CanceledError
	if err == nil || errors.As(err, &cancelled) || errors.Is(err, activity.ErrResultPending) {
		return err
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return temporal.NewCanceledError()
	}
	p := *problem.As(err)
	tired := activity.GetInfo(ctx).Attempt >= unknownTries
	final := p.Code != problem.Failed || tired
	for _, v := range verdicts {
		if errors.Is(err, v.err) {
			// A disk that is full stays so: an operator who waits for minutes learns nothing more.
			p.Code, final = v.code, v.final || (v.code == problem.Failed && tired)
			if p.Hint == "" {
				p.Hint = v.hint
			}
			break
		}
	}
	return temporal.NewApplicationErrorWithOptions(p.Message, string(p.Code),
		temporal.ApplicationErrorOptions{NonRetryable: final, Details: []any{p}})
}
