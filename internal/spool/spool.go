// Package spool holds many byte strings for the life of one process: in
// memory up to a bound, beyond it in an unlinked file, encrypted with a key
// that exists only in memory. What was held is gone, for everybody, with
// Close or with the process, and never lies in clear on a disk.
package spool

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Ref finds a byte string again. The zero Ref is the empty string.
type Ref struct {
	off    int64 // in the file; or index of the memory block
	length int32
	pos    int32 // position in the memory block
	disk   bool
}

// Len is the number of bytes the Ref stands for.
func (r Ref) Len() int { return int(r.length) }

const (
	blockSize = 256 << 10
	maxString = 64 << 20
)

// Spool is safe for concurrent use.
type Spool struct {
	dir   string
	bound int64

	mu      sync.Mutex
	blocks  [][]byte
	memory  int64
	file    *os.File
	aead    cipher.AEAD
	pending []byte // encrypted, not yet written
	written int64
	closed  bool
}

// New returns an empty spool that uses up to memory bytes of memory and then
// a file in dir (empty: the directory for temporary files).
func New(dir string, memory int64) *Spool { return &Spool{dir: dir, bound: memory} }

var errClosed = errors.New("spool is closed: what it held is gone")

// Put keeps a copy of p, which may hold up to 64 MiB.
func (s *Spool) Put(p []byte) (Ref, error) {
	if len(p) == 0 {
		return Ref{}, nil
	}
	if len(p) > maxString {
		return Ref{}, fmt.Errorf("spool: %d bytes in one piece, at most %d are possible", len(p), maxString)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Ref{}, errClosed
	}
	if s.memory+int64(len(p)) <= s.bound {
		return s.putMemory(p), nil
	}
	return s.putDisk(p)
}

func (s *Spool) putMemory(p []byte) Ref {
	n := len(s.blocks)
	if n == 0 || cap(s.blocks[n-1])-len(s.blocks[n-1]) < len(p) {
		s.blocks = append(s.blocks, make([]byte, 0, max(len(p), int(min(blockSize, s.bound)))))
		n++
	}
	b := s.blocks[n-1]
	r := Ref{off: int64(n - 1), pos: int32(len(b)), length: int32(len(p))}
	s.blocks[n-1] = append(b, p...)
	s.memory += int64(len(p))
	return r
}

func (s *Spool) putDisk(p []byte) (Ref, error) {
	if s.file == nil {
		if err := s.open(); err != nil {
			return Ref{}, err
		}
	}
	off := s.written + int64(len(s.pending))
	s.pending = s.aead.Seal(s.pending, nonce(off), p, nil)
	if len(s.pending) >= blockSize {
		if _, err := s.file.WriteAt(s.pending, s.written); err != nil {
			return Ref{}, fmt.Errorf("spool in %s: %w: free some space there", s.dir, err)
		}
		s.written += int64(len(s.pending))
		s.pending = s.pending[:0]
	}
	return Ref{off: off, length: int32(len(p)), disk: true}, nil
}

// nonce is the offset in the file: each is used once under a key that lives for one spool.
func nonce(off int64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), uint64(off))
}

func (s *Spool) open() error {
	key := make([]byte, 32)
	rand.Read(key) // never fails (crypto/rand)
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	f, err := os.CreateTemp(s.dir, ".spool-*")
	if err != nil {
		return fmt.Errorf("spool: %w: the scratch directory must be writable", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return fmt.Errorf("spool: %w", err)
	}
	s.file = f
	return nil
}

// Get returns the bytes of r. They are valid until the next Get with the same
// buf (nil: none to reuse), may share memory with the spool, and must not be changed.
func (s *Spool) Get(r Ref, buf *[]byte) ([]byte, error) {
	if r.length == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if !r.disk {
		return s.blocks[r.off][r.pos : r.pos+r.length : r.pos+r.length], nil
	}
	n := int(r.length) + s.aead.Overhead()
	if buf == nil {
		buf = new([]byte)
	}
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	b := (*buf)[:n]
	if r.off >= s.written {
		copy(b, s.pending[r.off-s.written:])
	} else if _, err := s.file.ReadAt(b, r.off); err != nil {
		return nil, fmt.Errorf("spool in %s: %w", s.dir, err)
	}
	out, err := s.aead.Open(b[:0], nonce(r.off), b, nil)
	if err != nil {
		return nil, fmt.Errorf("spool in %s: what was read is not what was written: check the disk: %w", s.dir, err)
	}
	return out, nil
}

// Close lets go of everything; safe to call twice.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed, s.blocks, s.pending = true, nil, nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
