package cassandra

import (
	"context"
	"errors"
	"io"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var errNotYet = errors.New("the lab cannot fill, wreck or fingerprint this component yet: start it only")

// Fill is not there yet.
func (e *Engine) Fill(context.Context, []engine.Member, int64, string) error { return errNotYet }

// Wreck is not there yet.
func (e *Engine) Wreck(context.Context, []engine.Member, int64) error { return errNotYet }

// Fingerprint is not there yet.
func (e *Engine) Fingerprint(context.Context, []engine.Member, io.Writer) error { return errNotYet }
