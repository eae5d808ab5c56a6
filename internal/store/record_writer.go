package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// recordWriter cuts one artifact into pieces. One goroutine uses it; finished
// pieces are compressed and stored by others.
type recordWriter struct {
	u   *UnitWriter
	ctx context.Context
	a   plugins.Artifact

	cur     *build
	first   []byte
	last    []byte
	records int64
	bytes   int64
	digest  plugins.Digest
	hash    hash.Hash // of the stretch of a file
	scratch [2 * binary.MaxVarintLen64]byte

	totalRecords, totalBytes int64
	total                    plugins.Digest
	index                    []byte
	indexHeld                int
	parts                    []*part

	sourced     bool // source was looked for
	source      *manifest.UnitFile
	sourceParts []manifest.Part // of the artifact whose pieces are shared

	mu      sync.Mutex
	failed  error // of a piece in the background
	err     error
	done    bool
	pending sync.WaitGroup
}

type part struct {
	manifest.Part
}

func (w *recordWriter) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("artifact %q: %w", w.a.Name, err)
	}
	return w.err
}

func (w *recordWriter) check() error {
	if w.err != nil {
		return w.err
	}
	if w.done {
		return fmt.Errorf("artifact %q: used after its end: %w", w.a.Name, plugins.ErrData)
	}
	if w.ctx.Err() != nil {
		return w.fail(context.Cause(w.ctx))
	}
	return nil
}

// Put adds one record to an Ordered or Unordered artifact.
func (w *recordWriter) Put(key, value []byte) error {
	if err := w.check(); err != nil {
		return err
	}
	if w.a.Form == plugins.File {
		return w.fail(fmt.Errorf("records in a file: %w", plugins.ErrData))
	}
	if len(key) > manifest.MaxKey || len(key)+len(value) > manifest.MaxRecord {
		return w.fail(fmt.Errorf("a record of %d + %d bytes: %w: at most %d bytes of key and %d in all",
			len(key), len(value), plugins.ErrData, manifest.MaxKey, manifest.MaxRecord))
	}
	size := framedLen(key, value)
	if w.a.Form == plugins.Ordered {
		if w.totalRecords+w.records > 0 && bytes.Compare(key, w.last) <= 0 {
			return w.fail(fmt.Errorf("keys out of order: %w: the plugin must write ascending unique keys", plugins.ErrData))
		}
		if w.records > 0 && (w.u.cutter.before(key, size) || w.cur.size+int64(size) > forcedPiece) {
			if err := w.cut(); err != nil {
				return err
			}
		}
		if w.records == 0 {
			w.first = append(w.first[:0], key...)
		}
		w.last = append(w.last[:0], key...)
	} else if w.records > 0 && w.cur.size+int64(size) > averagePiece {
		if err := w.cut(); err != nil {
			return err
		}
	}
	return w.put(key, value)
}

func (w *recordWriter) put(key, value []byte) error {
	w.digest.Add(key, value)
	k := binary.PutUvarint(w.scratch[:], uint64(len(key)))
	v := k + binary.PutUvarint(w.scratch[k:], uint64(len(value)))
	for _, p := range [...][]byte{w.scratch[:k], key, w.scratch[k:v], value} {
		if err := w.cur.add(p); err != nil {
			return w.fail(err)
		}
	}
	w.records++
	w.bytes += int64(len(key) + len(value))
	w.u.plain.Add(int64(len(key) + len(value)))
	return nil
}

// Write adds bytes to a File artifact.
func (w *recordWriter) Write(p []byte) (int, error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	if w.a.Form != plugins.File {
		return 0, w.fail(fmt.Errorf("bytes among records: %w", plugins.ErrData))
	}
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), plugins.FileCut-int(w.cur.size))
		if w.hash == nil {
			w.hash = newStretchHash(int64(len(w.parts)) * plugins.FileCut)
		}
		w.hash.Write(p[:n])
		if err := w.cur.add(p[:n]); err != nil {
			return 0, w.fail(err)
		}
		w.bytes += int64(n)
		w.u.plain.Add(int64(n))
		if p = p[n:]; w.cur.size == plugins.FileCut {
			if err := w.cutFile(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

// cutFile ends a piece of a File artifact: one record of the digest.
func (w *recordWriter) cutFile() error {
	w.endStretch()
	return w.cut()
}

func (w *recordWriter) endStretch() {
	w.cur.cut, w.cur.sum, w.hash = int64(len(w.parts))+1, [sha256.Size]byte(w.hash.Sum(nil)), nil
	w.records = 1
	w.digest.AddHash(w.cur.sum)
}

func (w *recordWriter) newBuild() *build {
	b := w.u.newBuild()
	b.file, b.dense = w.a.Form == plugins.File, w.a.Dense
	return b
}

// finishPiece notes the piece being built and returns it.
func (w *recordWriter) finishPiece() (*build, *part, error) {
	e := indexEntry{bytes: w.bytes, digest: w.digest}
	if w.a.Form == plugins.Ordered {
		e.first, e.last = w.first, w.last
	}
	p := &part{manifest.Part{Length: w.cur.size, Records: w.records}}
	if err := w.enter(e, p); err != nil {
		return nil, nil, err
	}
	b := w.cur
	w.cur, w.records, w.bytes, w.digest = w.newBuild(), 0, 0, plugins.Digest{}
	return b, p, nil
}

// enter adds a piece to the artifact.
func (w *recordWriter) enter(e indexEntry, p *part) error {
	n := len(w.index)
	w.index = appendEntry(w.index, e)
	if !w.u.s.index.add(len(w.index) - n) {
		return w.fail(fmt.Errorf("keys too long for so many pieces: %w: the boundary keys of the open artifacts exceed %d bytes", plugins.ErrData, manifest.MaxIndex))
	}
	w.indexHeld += len(w.index) - n
	w.parts = append(w.parts, p)
	w.total.Merge(e.digest)
	w.totalRecords += p.Records
	w.totalBytes += e.bytes
	return nil
}

// cut ends the current piece and has it stored, in the background if there is
// memory to go on meanwhile.
func (w *recordWriter) cut() error {
	w.mu.Lock()
	err := w.failed
	w.mu.Unlock()
	if err != nil {
		return w.fail(err)
	}
	b, p, err := w.finishPiece()
	if err != nil {
		return err
	}
	if b.sink != nil || !w.u.s.write.take() {
		// What is being spilled is finished here: memory is short.
		i, err := b.store()
		if err != nil {
			return w.fail(err)
		}
		p.Piece = i
		return nil
	}
	b.taken++
	w.background(b, p)
	return nil
}

func (w *recordWriter) background(b *build, p *part) {
	s := w.u.s
	s.write.fly()
	w.pending.Add(1)
	w.u.pending.Add(1)
	go func() {
		defer w.u.pending.Done()
		defer w.pending.Done()
		s.work <- struct{}{}
		i, err := b.store()
		<-s.work
		s.write.land(0)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil && w.failed == nil {
			w.failed = err
		}
		p.Piece = i
	}()
}

// Commit ends the artifact; it counts from now on.
func (w *recordWriter) Commit() error {
	if err := w.check(); err != nil {
		return err
	}
	if w.cur.size > 0 && len(w.parts) == 0 && w.cur.size <= smallPiece {
		return w.commitSmall()
	}
	if w.cur.size > 0 {
		cut := w.cut
		if w.a.Form == plugins.File {
			cut = w.cutFile
		}
		if err := cut(); err != nil {
			return err
		}
	}
	w.pending.Wait()
	if w.failed != nil {
		return w.fail(w.failed)
	}
	a := w.artifact()
	for _, p := range w.parts {
		a.Parts = append(a.Parts, p.Part)
	}
	return w.commit(a)
}

// commitSmall packs an artifact that is small as a whole.
func (w *recordWriter) commitSmall() error {
	if w.a.Form == plugins.File {
		w.endStretch()
	}
	b, p, err := w.finishPiece()
	if err != nil {
		return err
	}
	a := w.artifact()
	a.data, p.Part, err = w.u.pack(packData, b.chunks[0], p.Part)
	b.discard()
	if err != nil {
		return w.fail(err)
	}
	a.Parts = []manifest.Part{p.Part}
	return w.commit(a)
}

func (w *recordWriter) artifact() *artifact {
	return &artifact{Artifact: manifest.Artifact{
		Artifact: w.a, Records: w.totalRecords, Bytes: w.totalBytes,
		Check: manifest.DigestCheck(w.u.keys.ContentKey, w.total),
	}}
}

func (w *recordWriter) commit(a *artifact) error {
	blob := encodeIndex(w.total, len(w.parts), w.index)
	w.u.s.index.add(-w.indexHeld)
	w.indexHeld, w.index = 0, nil
	var err error
	if len(blob) <= smallPiece {
		a.index, a.Index, err = w.u.pack(packIndex, blob, manifest.Part{Length: int64(len(blob))})
	} else {
		b := w.u.newBuild()
		if err = b.add(blob); err == nil {
			a.Index.Length = int64(len(blob))
			a.Index.Piece, err = b.store()
		} else {
			b.discard()
		}
	}
	if err != nil {
		return w.fail(err)
	}
	w.end()
	w.u.commit(a)
	return nil
}

func (w *recordWriter) end() {
	w.done = true
	w.cur.discard()
	<-w.u.s.open
}

// Abort drops the artifact; what it stored is reclaimed later.
func (w *recordWriter) Abort() {
	if w.done {
		return
	}
	w.pending.Wait()
	w.u.s.index.add(-w.indexHeld)
	w.end()
	w.u.forget(w.a.Name)
}
