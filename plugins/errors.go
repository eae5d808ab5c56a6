package plugins

import "errors"

// Kinds of failure, to be wrapped with context and what to do. The product
// maps them to exit codes and retry decisions; all others are retried.
var (
	ErrUnsupported = errors.New("not supported")
	ErrVersion     = errors.New("version not compatible")           // not retried
	ErrAuth        = errors.New("credentials refused")              // not retried
	ErrUnavailable = errors.New("not reachable")                    // retried
	ErrPinLost     = errors.New("pinned view lost")                 // all units are pinned again
	ErrFenced      = errors.New("a newer operation has taken over") // not retried, nothing was written
	ErrCorrupt     = errors.New("stored data is damaged")           // not retried
	ErrSpace       = errors.New("not enough free space")            // retried a few times
	ErrNotFound    = errors.New("not found")
	ErrConfig      = errors.New("configuration is wrong") // not retried
	ErrData        = errors.New("data cannot be handled") // not retried
)
