package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

var frames = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize+chunkSize/8); return &b }}

// sink compresses and encrypts one piece into a temporary file, chunk by chunk.
type sink struct {
	u     *UnitWriter
	f     *os.File
	tmp   string
	age   io.WriteCloser
	sum   hash.Hash
	n     int64 // stored bytes
	raw   bool  // stop trying to compress
	first bool
}

func (u *UnitWriter) newSink() (*sink, error) {
	k := &sink{u: u, tmp: u.tmpDir + "/" + fsutil.TempName(), sum: sha256.New(), first: true}
	var err error
	if k.f, err = u.s.root.OpenFile(k.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, fmt.Errorf("store piece: %w", spaceError(err))
	}
	if k.age, err = age.Encrypt(k, u.keys.Recipients...); err != nil {
		k.discard()
		return nil, fmt.Errorf("store piece: encrypt: %w", spaceError(err))
	}
	return k, nil
}

// Write takes the encrypted bytes from age.
func (k *sink) Write(p []byte) (int, error) {
	k.sum.Write(p)
	n, err := k.f.Write(p)
	k.n += int64(n)
	return n, err
}

func (k *sink) chunk(p []byte) error {
	b := frames.Get().(*[]byte)
	defer frames.Put(b)
	*b = k.u.s.codec.frame((*b)[:0], p, k.raw)
	if k.first && len(*b) > len(p)-len(p)/32 {
		// The first chunk did not shrink by 3 %: the rest of the piece is stored as it is.
		k.raw = true
		*b = k.u.s.codec.frame((*b)[:0], p, true)
	}
	k.first = false
	if _, err := k.age.Write(*b); err != nil {
		return fmt.Errorf("store piece: %w", spaceError(err))
	}
	return nil
}

// finish ends the temporary file; its name stays k.tmp.
func (k *sink) finish() (manifest.Hash, int64, error) {
	err := k.age.Close()
	// A hint only: let the disk begin now, so that the sync at the unit's end has little left to do.
	_ = unix.SyncFileRange(int(k.f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	if err := errors.Join(err, k.f.Close()); err != nil {
		return manifest.Hash{}, 0, fmt.Errorf("store piece: %w", spaceError(err))
	}
	return manifest.Hash(k.sum.Sum(nil)), k.n, nil
}

func (k *sink) discard() {
	k.f.Close() // may be closed already; what is thrown away needs no result
	if err := k.u.s.root.Remove(k.tmp); err != nil && !notExist(err) {
		k.u.log.Warn("temporary file left for the next cleanup", "file", k.tmp, "err", err)
	}
}

// build is the plaintext of one piece on its way into the store: held in
// chunks, so that a piece that exists already is never compressed, and handed
// to a sink early when memory is short.
type build struct {
	u      *UnitWriter
	chunks [][]byte
	taken  int // chunks that count against the budget
	size   int64
	mac    hash.Hash // over what went into the sink
	sink   *sink
}

func (u *UnitWriter) newBuild() *build { return &build{u: u} }

// add appends plaintext.
func (b *build) add(p []byte) error {
	b.size += int64(len(p))
	for len(p) > 0 {
		if n := len(b.chunks); n > 0 {
			c := b.chunks[n-1]
			k := min(len(p), chunkSize-len(c))
			if k > 0 && cap(c) < chunkSize {
				c = growChunk(c, k)
			}
			b.chunks[n-1] = append(c, p[:k]...)
			if p = p[k:]; len(p) == 0 {
				return nil
			}
		}
		if len(b.chunks) == 0 {
			// The first chunk belongs to the open artifact and starts small: most artifacts are small.
			b.chunks = append(b.chunks, growChunk(nil, min(len(p), chunkSize)))
			continue
		}
		if b.u.s.write.take() {
			b.taken++
			b.chunks = append(b.chunks, getChunk())
			continue
		}
		if err := b.spill(); err != nil {
			return err
		}
	}
	return nil
}

func growChunk(c []byte, more int) []byte {
	need := len(c) + more
	if need <= cap(c) {
		return c
	}
	if need > chunkSize/4 {
		return append(getChunk(), c...)
	}
	return append(make([]byte, 0, max(need, 2*cap(c), 512)), c...)
}

// spill moves what is held into the sink and keeps one empty chunk.
func (b *build) spill() error {
	if b.sink == nil {
		k, err := b.u.newSink()
		if err != nil {
			return err
		}
		b.sink, b.mac = k, b.u.pieceMAC()
	}
	for _, c := range b.chunks {
		b.mac.Write(c)
		if err := b.sink.chunk(c); err != nil {
			return err
		}
	}
	b.release(1)
	if len(b.chunks) > 0 {
		b.chunks[0] = b.chunks[0][:0]
	}
	return nil
}

// release gives back all chunks but the first keep.
func (b *build) release(keep int) {
	keep = min(keep, len(b.chunks))
	for _, c := range b.chunks[keep:] {
		putChunk(c)
	}
	b.chunks = b.chunks[:keep]
	b.u.s.write.give(b.taken)
	b.taken = 0
}

func (b *build) discard() {
	b.release(0)
	if b.sink != nil {
		b.sink.discard()
		b.sink = nil
	}
}

// store puts the piece into the unit and returns its index there. It consumes
// the build.
func (b *build) store() (int, error) {
	defer b.discard()
	mac := b.mac
	if b.sink == nil {
		mac = b.u.pieceMAC()
	}
	if b.sink != nil {
		for _, c := range b.chunks {
			if len(c) > 0 {
				mac.Write(c)
				if err := b.sink.chunk(c); err != nil {
					return 0, err
				}
			}
		}
		b.release(0)
	}
	for _, c := range b.chunks {
		mac.Write(c)
	}
	id := manifest.Hash(mac.Sum(nil))
	return b.u.claim(id, b.size, func() (string, manifest.Hash, int64, error) {
		if b.sink == nil {
			k, err := b.u.newSink()
			if err != nil {
				return "", manifest.Hash{}, 0, err
			}
			b.sink = k
			for _, c := range b.chunks {
				if err := k.chunk(c); err != nil {
					return "", manifest.Hash{}, 0, err
				}
			}
		}
		sum, n, err := b.sink.finish()
		return b.sink.tmp, sum, n, err
	})
}

// pieceMAC begins the content id: HMAC-SHA-256 with the content key over an
// introduction that binds it to recipients and unit, then the plaintext.
func (u *UnitWriter) pieceMAC() hash.Hash { return newPieceMAC(u.keys.ContentKey[:], u.intro) }

func newPieceMAC(key []byte, intro string) hash.Hash {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, intro)
	return h
}

func pieceIntro(fingerprint string, u UnitID) string {
	return "cso piece v1\n" + fingerprint + "\n" + u.String() + "\n"
}
