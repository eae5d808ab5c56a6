package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// recordReader reads parts one after another. While one is consumed, the next
// is decoded by another goroutine if memory allows.
type recordReader struct {
	u      *UnitReader
	ctx    context.Context
	cancel context.CancelFunc
	a      *manifest.Artifact
	parts  []manifest.Part
	next   int // index of the part after the current one

	cur     *loaded
	left    int64 // of the current part, File only
	scan    recordScanner
	records int64 // of the current part, still to come
	ahead   chan aheadResult
	err     error
}

type aheadResult struct {
	l   *loaded
	err error
}

func (r *recordReader) fail(err error) error {
	r.err = fmt.Errorf("artifact %q: %w", r.a.Name, err)
	return r.err
}

// advance makes the next part current; io.EOF after the last.
func (r *recordReader) advance() error {
	if r.cur != nil {
		r.cur.close()
		r.cur = nil
	}
	if r.next == len(r.parts) {
		return io.EOF
	}
	p := r.parts[r.next]
	var err error
	if r.ahead != nil {
		res := <-r.ahead
		r.ahead = nil
		r.cur, err = res.l, res.err
	} else {
		r.cur, err = r.u.loadPart(r.ctx, p)
	}
	if err != nil {
		r.cur = nil
		return err
	}
	r.next++
	if err := r.cur.seek(p.Offset); err != nil {
		return err
	}
	r.left, r.records = p.Length, p.Records
	r.scan.reset(r.cur, p.Length)
	r.readAhead()
	return nil
}

// readAhead decodes the next part in the background.
func (r *recordReader) readAhead() {
	if r.next == len(r.parts) {
		return
	}
	p := r.parts[r.next]
	ch := make(chan aheadResult, 1)
	r.ahead = ch
	go func() {
		l, err := r.u.loadPart(r.ctx, p)
		ch <- aheadResult{l, err}
	}()
}

// Next returns the next record of an Ordered or Unordered artifact.
func (r *recordReader) Next() (key, value []byte, err error) {
	if r.err != nil {
		return nil, nil, r.err
	}
	if r.a.Form == plugins.File {
		return nil, nil, r.fail(fmt.Errorf("records of a file: %w", plugins.ErrUnsupported))
	}
	for {
		if r.cur != nil {
			key, value, err = r.scan.next()
			if err == nil {
				if r.records--; r.records < 0 {
					return nil, nil, r.fail(fmt.Errorf("more records than listed: %w", plugins.ErrCorrupt))
				}
				return key, value, nil
			}
			if err != io.EOF {
				return nil, nil, r.fail(r.corrupt(err))
			}
			if r.records != 0 {
				return nil, nil, r.fail(fmt.Errorf("%d records fewer than listed: %w", r.records, plugins.ErrCorrupt))
			}
		}
		if err := r.step(); err != nil {
			return nil, nil, err
		}
	}
}

func (r *recordReader) corrupt(err error) error {
	if errors.Is(err, errFraming) {
		return fmt.Errorf("%w: %w", plugins.ErrCorrupt, err)
	}
	return err
}

func (r *recordReader) step() error {
	if r.ctx.Err() != nil {
		return r.fail(context.Cause(r.ctx))
	}
	err := r.advance()
	if err == io.EOF {
		r.err = io.EOF
		return io.EOF
	}
	if err != nil {
		return r.fail(err)
	}
	return nil
}

// Read returns bytes of a File artifact.
func (r *recordReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.a.Form != plugins.File {
		return 0, r.fail(fmt.Errorf("bytes of records: %w", plugins.ErrUnsupported))
	}
	for r.cur == nil || r.left == 0 {
		if err := r.step(); err != nil {
			return 0, err
		}
	}
	n, err := r.cur.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF || (err == nil && n == 0 && len(p) > 0) {
		err = fmt.Errorf("shorter than listed: %w", plugins.ErrCorrupt)
	}
	if err != nil {
		return 0, r.fail(err)
	}
	return n, nil
}

// Close ends the reader and what it does in the background.
func (r *recordReader) Close() error {
	r.cancel()
	if r.ahead != nil {
		if res := <-r.ahead; res.l != nil {
			res.l.close()
		}
		r.ahead = nil
	}
	if r.cur != nil {
		r.cur.close()
		r.cur = nil
	}
	if r.err == nil {
		r.err = fmt.Errorf("artifact %q: reader is closed: %w", r.a.Name, context.Canceled)
	}
	return nil
}
