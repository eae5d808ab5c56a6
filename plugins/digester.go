package plugins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"
)

// Digester is an ArtifactWriter that stores nothing and remembers the digest
// of each committed artifact: a live digest is a backup into a Digester. It
// also shows how a store must compute digests, File artifacts included: each
// stretch of FileCut bytes is a record whose key is its offset, 8 bytes
// big-endian.
type Digester struct {
	mu      sync.Mutex
	digests map[string]Digest
}

// NewDigester returns an empty Digester.
func NewDigester() *Digester { return &Digester{digests: map[string]Digest{}} }

// Digests returns what was committed so far, by artifact name.
func (d *Digester) Digests() map[string]Digest {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]Digest, len(d.digests))
	for k, v := range d.digests {
		out[k] = v
	}
	return out
}

// Create begins an artifact; Volatile ones are digested too.
func (d *Digester) Create(_ context.Context, a Artifact) (RecordWriter, error) {
	return &digestWriter{to: d, a: a}, nil
}

// Reuse is always false: live data must be read to be digested.
func (d *Digester) Reuse(context.Context, Artifact) (bool, error) { return false, nil }

type digestWriter struct {
	to   *Digester
	a    Artifact
	d    Digest
	last []byte
	file FileDigest
	done bool
}

func (w *digestWriter) Put(key, value []byte) error {
	if w.a.Form == Ordered {
		if w.d.Records > 0 && bytes.Compare(key, w.last) <= 0 {
			return fmt.Errorf("artifact %q: keys out of order: the plugin must write ascending unique keys", w.a.Name)
		}
		w.last = append(w.last[:0], key...)
	}
	w.d.Add(key, value)
	return nil
}

func (w *digestWriter) Write(p []byte) (int, error) { return w.file.Write(p) }

func (w *digestWriter) Commit() error {
	w.done = true
	if w.a.Form == File {
		w.d = w.file.Sum()
	}
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	if _, ok := w.to.digests[w.a.Name]; ok {
		return fmt.Errorf("artifact %q: written twice", w.a.Name)
	}
	w.to.digests[w.a.Name] = w.d
	return nil
}

func (w *digestWriter) Abort() {}

// FileDigest computes the digest of a File artifact from its bytes. The zero
// value is ready. An empty file has no record.
type FileDigest struct {
	d   Digest
	h   hash.Hash
	off uint64
	n   int
}

// Write adds bytes; it never fails.
func (f *FileDigest) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if f.h == nil {
			f.h = sha256.New()
			f.h.Write([]byte{8})
			f.h.Write(binary.BigEndian.AppendUint64(nil, f.off))
		}
		k := min(len(p), FileCut-f.n)
		f.h.Write(p[:k])
		f.n += k
		p = p[k:]
		if f.n == FileCut {
			f.flush()
		}
	}
	return total, nil
}

func (f *FileDigest) flush() {
	f.d.AddHash([sha256.Size]byte(f.h.Sum(nil)))
	f.off += uint64(f.n)
	f.h, f.n = nil, 0
}

// Sum is the digest of all bytes written so far; it ends the computation.
func (f *FileDigest) Sum() Digest {
	if f.h != nil {
		f.flush()
	}
	return f.d
}
