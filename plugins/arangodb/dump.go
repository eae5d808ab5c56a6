package arangodb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	firstChunk = 1 << 20
	lastChunk  = 16 << 20
	maxLine    = 256 << 20 // the server takes documents of 16 MiB as it stores them; as text they may be longer
	dumpTries  = 4
)

// errBroken is a dump answer that breaks off.
var errBroken = errors.New("the dump breaks off")

// read reads a collection in order of its keys; value says what to keep of each document (valid until its
// next call). Shards are read on their own: what happens to one does not disturb the others.
func (v *view) read(ctx context.Context, db string, c *collection, run plugins.Run, value func(document) ([]byte, error)) (*stream, error) {
	shards := c.shards
	if len(shards) == 0 {
		if v.s.cluster {
			return nil, fmt.Errorf("%s/%s has no shards of its own (a smart edge collection), and its hidden parts are not read: %w by this version", db, c.name, plugins.ErrUnsupported)
		}
		shards = map[string][]string{c.name: {""}}
	}
	out := &stream{}
	if ps := v.takeDumps(documentsName(db, c.name)); len(ps) > 0 {
		s, err := v.fetch(ctx, ps, run, value)
		if err != nil {
			return nil, err
		}
		out.parts = []*sorter{s}
		if err := out.begin(); err != nil {
			out.close()
			return nil, err
		}
		return out, nil
	}
	names := sortedKeys(shards)
	parts := make([]*sorter, len(names))
	g, gctx := errgroup.WithContext(ctx)
	for i, name := range names {
		g.Go(func() error {
			select {
			case v.slots <- struct{}{}:
				defer func() { <-v.slots }()
			case <-gctx.Done():
				return gctx.Err()
			}
			s, err := v.shard(gctx, db, name, shards[name], run, value)
			if err == nil && len(names) > 1 {
				err = s.rest()
			}
			parts[i] = s
			return err
		})
	}
	err := g.Wait()
	for _, s := range parts {
		if s != nil {
			out.parts = append(out.parts, s)
		}
	}
	if err == nil {
		err = out.begin()
	}
	if err != nil {
		out.close()
		return nil, ended(ctx, err)
	}
	return out, nil
}

// shard reads one collection of a server, or one shard from the first of its servers that can give it:
// all in-sync servers of a shard held the same documents when the view was taken.
func (v *view) shard(ctx context.Context, db, name string, servers []string, run plugins.Run, value func(document) ([]byte, error)) (*sorter, error) {
	var all []error
	for _, server := range servers {
		b := v.batches[server]
		if b == nil {
			all = append(all, fmt.Errorf("shard %s: no batch on %s", name, server))
			continue
		}
		if server != "" && b.gone.Load() {
			all = append(all, fmt.Errorf("shard %s: %s does not answer: %w", name, server, plugins.ErrUnavailable))
			continue
		}
		for try := 1; ; try++ {
			s := newSorter(run.Scratch)
			err := v.dump(ctx, db, name, b, func(d document) error {
				val, err := value(d)
				if err != nil {
					return err
				}
				return s.add(d.key, val)
			})
			if err == nil {
				return s, nil
			}
			s.close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if errors.Is(err, errBroken) && try < dumpTries {
				// The server may have gone on past what did not arrive; at the end of a dump it forgets how far it was.
				derr := v.dump(ctx, db, name, b, nil)
				if derr == nil {
					continue
				}
				b.gone.Store(errors.Is(derr, plugins.ErrUnavailable))
			}
			all = append(all, err)
			break
		}
	}
	err := v.lost(errors.Join(all...))
	if v.s.cluster || errors.Is(err, errBroken) {
		err = fmt.Errorf("%w: no server of %s can give it as it was: %w", plugins.ErrPinLost, name, err)
	}
	return nil, err
}

// dump reads a collection or shard from where the server stands to the end. Without put it only goes there.
func (v *view) dump(ctx context.Context, db, name string, b *batch, put func(document) error) error {
	chunk := firstChunk
	var r lineReader
	for {
		q := b.query(map[string]string{"collection": name, "batchId": b.id, "chunkSize": strconv.Itoa(chunk), "ticks": "false",
			"useEnvelope": "false", "flush": "false"})
		// A request whose answer is lost is not sent again: the server would go on with what follows.
		h, err := v.c.stream(ctx, call{method: "GET", db: db, path: "/_api/replication/dump", query: q, once: put != nil})
		if err != nil {
			if errors.Is(err, plugins.ErrUnavailable) {
				err = fmt.Errorf("%w: %w", errBroken, err)
			}
			return fmt.Errorf("dump %s/%s: %w", db, name, ended(ctx, err))
		}
		if h.status != 204 {
			err = r.documents(h.body, put)
		}
		_ = h.body.Close()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (put != nil || !errors.Is(err, errBroken)):
			return fmt.Errorf("dump %s/%s: %w", db, name, err)
		}
		// Whoever only goes to the end does not need the documents.
		if (err == nil || put == nil) && (h.status == 204 || h.header.Get("x-arango-replication-checkmore") != "true") {
			return nil
		}
		chunk = min(chunk*2, lastChunk)
	}
}

// lineReader reads documents, one a line; its buffers are used again.
type lineReader struct {
	in   *bufio.Reader
	line []byte
	body []byte
}

// documents hands on every document; an answer that breaks off, or ends within a line, is errBroken.
func (r *lineReader) documents(body io.Reader, put func(document) error) error {
	if r.in == nil {
		r.in = bufio.NewReaderSize(body, 256<<10)
	} else {
		r.in.Reset(body)
	}
	for {
		line, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 || put == nil {
			continue
		}
		d, err := parseDocument(line, r.body)
		if err != nil {
			return fmt.Errorf("a document of the dump: %w: %w", plugins.ErrData, err)
		}
		r.body = d.body
		if err := put(d); err != nil {
			return err
		}
	}
}

func (r *lineReader) next() ([]byte, error) {
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		if err == nil && len(r.line) == 0 {
			return part, nil
		}
		r.line = append(r.line, part...)
		switch {
		case err == nil:
			return r.line, nil
		case errors.Is(err, bufio.ErrBufferFull) && len(r.line) < maxLine:
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("a line of more than %d bytes: %w", maxLine, plugins.ErrData)
		case errors.Is(err, io.EOF) && len(r.line) == 0:
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("%w: %w", errBroken, err)
		}
	}
}
