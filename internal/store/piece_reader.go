package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// pieceStream decodes one piece from disk and proves at its end that every
// byte was right: the stored SHA-256, the number of bytes, the content id.
type pieceStream struct {
	r     *opener
	p     manifest.Piece
	f     *os.File
	sum   hash.Hash // of stored bytes
	in    io.Reader // stored bytes, hashed
	dec   *zstd.Decoder
	mac   hash.Hash // of the plaintext; of a stretch of a file its digest
	n     int64
	ended bool
}

// opener is what decoding the pieces of one unit needs.
type opener struct {
	s          *Store
	dir        *os.Root // of the unit
	identities []age.Identity
	key        []byte
	intro      string
}

func (o *opener) corrupt(p manifest.Piece, err error) error {
	return fmt.Errorf("piece %s: %w: %w", p.ID, plugins.ErrCorrupt, err)
}

func (o *opener) stream(p manifest.Piece) (*pieceStream, error) {
	f, fi, err := fsutil.OpenRegular(o.dir, p.FileName())
	if err != nil {
		return nil, o.corrupt(p, err)
	}
	s := &pieceStream{r: o, p: p, f: f, sum: sha256.New()}
	if p.Cut > 0 {
		s.mac = newStretchHash((p.Cut - 1) * plugins.FileCut)
	} else {
		s.mac = newPieceMAC(o.key, o.intro)
	}
	if fi.Size() != p.Stored {
		f.Close()
		return nil, o.corrupt(p, fmt.Errorf("%d bytes, want %d", fi.Size(), p.Stored))
	}
	s.in = io.TeeReader(f, s.sum)
	a, err := age.Decrypt(s.in, o.identities...)
	if err != nil {
		f.Close()
		return nil, o.corrupt(p, err)
	}
	if s.dec, err = o.s.codec.decoder(); err != nil {
		f.Close()
		return nil, err
	}
	if err := s.dec.Reset(a); err != nil {
		s.close()
		return nil, o.corrupt(p, err)
	}
	return s, nil
}

// Read returns plaintext that age has authenticated; io.EOF only when the
// whole piece is proven.
func (s *pieceStream) Read(b []byte) (int, error) {
	if s.ended {
		return 0, io.EOF
	}
	if left := s.p.Bytes - s.n; int64(len(b)) > left+1 {
		b = b[:left+1] // one more, to notice a piece that is too long
	}
	n, err := s.dec.Read(b)
	s.mac.Write(b[:n])
	s.n += int64(n)
	if s.n > s.p.Bytes {
		return 0, s.r.corrupt(s.p, errors.New("longer than recorded"))
	}
	if err == io.EOF {
		if err := s.proof(); err != nil {
			return 0, s.r.corrupt(s.p, err)
		}
		s.ended = true
		return n, io.EOF
	}
	if err != nil {
		return 0, s.r.corrupt(s.p, err)
	}
	return n, nil
}

func (s *pieceStream) proof() error {
	if _, err := io.Copy(io.Discard, s.in); err != nil {
		return err
	}
	switch {
	case s.n != s.p.Bytes:
		return fmt.Errorf("%d bytes of plaintext, want %d", s.n, s.p.Bytes)
	case manifest.Hash(s.sum.Sum(nil)) != s.p.SHA256:
		return errors.New("SHA-256 of the stored bytes differs")
	case s.id() != s.p.ID:
		return errors.New("content differs from its content id")
	}
	return nil
}

// id is the content id of what was read.
func (s *pieceStream) id() manifest.Hash {
	if s.p.Cut > 0 {
		return fileID(s.r.key, s.r.intro, [sha256.Size]byte(s.mac.Sum(nil)))
	}
	return manifest.Hash(s.mac.Sum(nil))
}

func (s *pieceStream) close() {
	if s.dec != nil {
		s.r.s.codec.putDecoder(s.dec)
		s.dec = nil
	}
	s.f.Close() // opened for reading only
}

// prove reads a stretch of a file to its end, and returns its digest.
func (o *opener) prove(ctx context.Context, p manifest.Piece) (sum [sha256.Size]byte, err error) {
	o.s.proof <- struct{}{}
	defer func() { <-o.s.proof }()
	s, err := o.stream(p)
	if err != nil {
		return sum, err
	}
	defer s.close()
	buf := getChunk()[:chunkSize]
	defer putChunk(buf)
	for !s.ended {
		if ctx.Err() != nil {
			return sum, context.Cause(ctx)
		}
		if _, err := s.Read(buf); err != nil && err != io.EOF {
			return sum, err
		}
	}
	return [sha256.Size]byte(s.mac.Sum(nil)), nil
}

// loaded is the proven plaintext of a piece: in memory when there was room,
// else to be decoded once more while it is read.
type loaded struct {
	o      *opener
	p      manifest.Piece
	chunks [][]byte
	shared *cachedPack // the chunks belong to it
	again  *pieceStream
	off    int64 // next byte
}

// load proves a piece; no byte of it is given out before.
func (o *opener) load(ctx context.Context, p manifest.Piece) (*loaded, error) {
	// A bounded number of pieces is proven at once: each takes a decoder's memory.
	o.s.proof <- struct{}{}
	defer func() { <-o.s.proof }()
	s, err := o.stream(p)
	if err != nil {
		return nil, err
	}
	defer s.close()
	l := &loaded{o: o, p: p}
	n := int((p.Bytes + chunkSize - 1) / chunkSize)
	keep := o.s.read.tryTake(n)
	buf := getChunk()[:chunkSize]
	for {
		if err := ctx.Err(); err != nil {
			err = context.Cause(ctx)
			return nil, l.drop(keep, n, buf, err)
		}
		k, err := io.ReadFull(s, buf)
		if keep && k > 0 {
			l.chunks = append(l.chunks, buf[:k])
			buf = getChunk()[:chunkSize]
		}
		if s.ended {
			break
		}
		if err != nil {
			return nil, l.drop(keep, n, buf, err)
		}
	}
	putChunk(buf)
	return l, nil
}

func (l *loaded) drop(kept bool, n int, buf []byte, err error) error {
	putChunk(buf)
	if kept {
		for _, c := range l.chunks {
			putChunk(c)
		}
		l.chunks = nil
		l.o.s.read.give(n)
	}
	return err
}

// behind says whether an offset cannot be reached any more.
func (l *loaded) behind(off int64) bool { return l.chunks == nil && off < l.off }

// seek moves to an offset: any one of a piece in memory, else forward only.
func (l *loaded) seek(off int64) error {
	if l.chunks != nil || off == l.off {
		l.off = off
		return nil
	}
	_, err := io.CopyN(io.Discard, l, off-l.off)
	return err
}

// Read gives plaintext from the current offset.
func (l *loaded) Read(b []byte) (int, error) {
	if l.off >= l.p.Bytes {
		return 0, io.EOF
	}
	if l.chunks != nil {
		n := copy(b, l.chunks[l.off/chunkSize][l.off%chunkSize:])
		l.off += int64(n)
		return n, nil
	}
	if l.again == nil {
		s, err := l.o.stream(l.p)
		if err != nil {
			return 0, err
		}
		l.again = s
	}
	n, err := l.again.Read(b)
	l.off += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}

func (l *loaded) close() {
	if l.shared != nil {
		l.shared.release()
		l.shared, l.chunks = nil, nil
	}
	if l.chunks != nil {
		n := len(l.chunks)
		for _, c := range l.chunks {
			putChunk(c[:0])
		}
		l.chunks = nil
		l.o.s.read.give(n)
	}
	if l.again != nil {
		l.again.close()
		l.again = nil
	}
}
