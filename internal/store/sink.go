package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
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
	dense bool  // compress only if much is to be gained
	first bool
}

// By how much the first chunk of a piece must shrink for the rest to be compressed, as a part of its size: what is
// compressed already often shrinks a little more, which is not worth the time.
const (
	worthwhile      = 32
	worthwhileDense = 4
)

func (u *UnitWriter) newSink(dense bool) (*sink, error) {
	k := &sink{u: u, tmp: u.tmpDir + "/" + fsutil.TempName(), sum: sha256.New(), dense: dense, first: true}
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
	if err := k.encode(p); err != nil {
		return fmt.Errorf("store piece: %w", spaceError(err))
	}
	return nil
}

func (k *sink) encode(p []byte) error {
	if k.raw {
		return rawFrame(k.age, p)
	}
	b := frames.Get().(*[]byte)
	defer frames.Put(b)
	*b = k.u.s.codec.frame((*b)[:0], p)
	gain := worthwhile
	if k.dense {
		gain = worthwhileDense
	}
	if k.first && len(*b) > len(p)-len(p)/gain {
		k.raw = true // and so is the rest of the piece
		return rawFrame(k.age, p)
	}
	k.first = false
	_, err := k.age.Write(*b)
	return err
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
	mac    hash.Hash // over what went into the sink; nil of a stretch of a file
	sink   *sink
	dense  bool // see plugins.Artifact

	file bool // a stretch of a file
	cut  int64
	sum  [sha256.Size]byte // digest of the stretch, once it is whole
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
		k, err := b.u.newSink(b.dense)
		if err != nil {
			return err
		}
		if b.sink = k; !b.file {
			b.mac = b.u.pieceMAC()
		}
	}
	for _, c := range b.chunks {
		if b.mac != nil {
			b.mac.Write(c)
		}
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
	id := b.id()
	if b.sink != nil {
		if err := b.drain(); err != nil {
			return 0, err
		}
	}
	return b.u.claim(manifest.Piece{ID: id, Bytes: b.size, Cut: b.cut}, func() (tmp string, sum manifest.Hash, n int64, err error) {
		if b.sink == nil {
			if b.sink, err = b.u.newSink(b.dense); err != nil {
				return "", manifest.Hash{}, 0, err
			}
			if err := b.drain(); err != nil {
				return "", manifest.Hash{}, 0, err
			}
		}
		sum, n, err = b.sink.finish()
		return b.sink.tmp, sum, n, err
	})
}

// id is the content id of the whole piece.
func (b *build) id() manifest.Hash {
	if b.file {
		return fileID(b.u.keys.ContentKey[:], b.u.intro, b.sum)
	}
	mac := b.mac
	if mac == nil {
		mac = b.u.pieceMAC()
	}
	for _, c := range b.chunks {
		mac.Write(c)
	}
	return manifest.Hash(mac.Sum(nil))
}

// drain moves what is held into the sink, and gives each chunk back at once: whoever reads ahead is waiting for it.
func (b *build) drain() error {
	for len(b.chunks) > 0 {
		c := b.chunks[0]
		if len(c) > 0 {
			if err := b.sink.chunk(c); err != nil {
				return err
			}
		}
		putChunk(c)
		if b.chunks = b.chunks[1:]; b.taken > len(b.chunks) {
			b.taken--
			b.u.s.write.give(1)
		}
	}
	return nil
}

// pieceMAC begins the content id: HMAC-SHA-256 with the content key over an
// introduction that binds it to recipients and unit, then the plaintext.
func (u *UnitWriter) pieceMAC() hash.Hash { return newPieceMAC(u.keys.ContentKey[:], u.intro) }

func newPieceMAC(key []byte, intro string) hash.Hash {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, intro)
	return h
}

const pieceTitle = "cso piece v1"

func pieceIntro(fingerprint string, u UnitID) string {
	return pieceTitle + "\n" + fingerprint + "\n" + u.String() + "\n"
}

// fileID is the content id of a stretch of a file: the MAC of the SHA-256 that the file's digest adds up, instead of
// one more pass over the bytes.
func fileID(key []byte, intro string, sum [sha256.Size]byte) manifest.Hash {
	mac := newPieceMAC(key, "cso file v1"+strings.TrimPrefix(intro, pieceTitle))
	mac.Write(sum[:])
	return manifest.Hash(mac.Sum(nil))
}

// newStretchHash begins the digest of the stretch that starts at this offset of a file: a record whose key is the
// offset (see plugins.Digester).
func newStretchHash(offset int64) hash.Hash {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64([]byte{8}, uint64(offset)))
	return h
}
