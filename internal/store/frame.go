package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Inside a piece, a record is: length of the key (unsigned varint), key,
// length of the value (unsigned varint), value.

func uvarintLen(n uint64) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

func framedLen(key, value []byte) int {
	return uvarintLen(uint64(len(key))) + len(key) + uvarintLen(uint64(len(value))) + len(value)
}

var errFraming = errors.New("record framing is broken")

// recordScanner reads records out of plaintext that arrives in stretches. Its
// memory is one record.
type recordScanner struct {
	src  io.Reader
	buf  []byte // unread bytes are buf[r:]
	r    int
	left int64 // plaintext bytes of src not yet in buf
}

func (s *recordScanner) reset(src io.Reader, length int64) {
	s.src, s.left, s.buf, s.r = src, length, s.buf[:0], 0
}

// fill makes n unread bytes available.
func (s *recordScanner) fill(n int) error {
	have := len(s.buf) - s.r
	if have >= n {
		return nil
	}
	if int64(n-have) > s.left {
		return errFraming
	}
	if s.r > 0 {
		copy(s.buf, s.buf[s.r:])
		s.buf, s.r = s.buf[:have], 0
	}
	want := int(min(int64(max(n, 128<<10)-have), s.left))
	if cap(s.buf) < have+want {
		s.buf = append(make([]byte, 0, have+want), s.buf...)
	}
	m, err := io.ReadAtLeast(s.src, s.buf[have:have+want], n-have)
	s.buf = s.buf[:have+m]
	s.left -= int64(m)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errFraming
	}
	return err
}

func (s *recordScanner) uvarint(limit uint64) (int, error) {
	for n := 1; n <= binary.MaxVarintLen64; n++ {
		if err := s.fill(n); err != nil {
			return 0, err
		}
		if s.buf[s.r+n-1] >= 0x80 {
			continue
		}
		v, k := binary.Uvarint(s.buf[s.r : s.r+n])
		if k != n || v > limit {
			return 0, errFraming
		}
		s.r += n
		return int(v), nil
	}
	return 0, errFraming
}

// next returns the next record, io.EOF after the last. The slices are valid
// until the next call.
func (s *recordScanner) next() (key, value []byte, err error) {
	if s.left == 0 && s.r == len(s.buf) {
		return nil, nil, io.EOF
	}
	k, err := s.uvarint(manifest.MaxKey)
	if err != nil {
		return nil, nil, err
	}
	// The key must stay in place while the length of the value is read, so both are taken together.
	if err := s.fill(k + 1); err != nil {
		return nil, nil, err
	}
	var v, n int
	for n = 1; ; n++ {
		if err := s.fill(k + n); err != nil {
			return nil, nil, err
		}
		if s.buf[s.r+k+n-1] < 0x80 {
			break
		}
		if n == binary.MaxVarintLen64 {
			return nil, nil, errFraming
		}
	}
	u, m := binary.Uvarint(s.buf[s.r+k : s.r+k+n])
	if m != n || u > manifest.MaxRecord {
		return nil, nil, errFraming
	}
	v = int(u)
	if err := s.fill(k + n + v); err != nil {
		return nil, nil, err
	}
	b := s.buf[s.r:]
	s.r += k + n + v
	return b[:k:k], b[k+n : k+n+v : k+n+v], nil
}

// indexEntry is what the index says about one part of an artifact.
type indexEntry struct {
	first, last []byte // Ordered only
	bytes       int64  // of keys and values
	digest      plugins.Digest
}

const indexVersion = 1

// appendDigest writes a digest: records (unsigned varint), then the sum, 32 bytes little-endian.
func appendDigest(b []byte, d plugins.Digest) []byte {
	b = binary.AppendUvarint(b, uint64(d.Records))
	for _, v := range d.Sum {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func appendEntry(b []byte, e indexEntry) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.first)))
	b = append(b, e.first...)
	b = binary.AppendUvarint(b, uint64(len(e.last)))
	b = append(b, e.last...)
	b = binary.AppendUvarint(b, uint64(e.bytes))
	return appendDigest(b, e.digest)
}

// encodeIndex writes the index of an artifact around its entries.
func encodeIndex(total plugins.Digest, entries int, body []byte) []byte {
	b := appendDigest([]byte{indexVersion}, total)
	b = binary.AppendUvarint(b, uint64(entries))
	return append(b, body...)
}

type indexParser struct {
	b   []byte
	err error
}

func (p *indexParser) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 || v > limit {
		p.err = errFraming
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *indexParser) bytes(n uint64) []byte {
	if p.err != nil || n > uint64(len(p.b)) {
		p.err = errFraming
		return nil
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out
}

func (p *indexParser) digest() (d plugins.Digest) {
	d.Records = int64(p.uvarint(1 << 62))
	if b := p.bytes(32); b != nil {
		for i := range d.Sum {
			d.Sum[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
	}
	return d
}

// decodeIndex reads what encodeIndex wrote; want is the number of parts. The
// entries' keys lie in b.
func decodeIndex(b []byte, want int) (plugins.Digest, []indexEntry, error) {
	if len(b) == 0 || b[0] != indexVersion {
		return plugins.Digest{}, nil, fmt.Errorf("index: %w", errFraming)
	}
	p := indexParser{b: b[1:]}
	total := p.digest()
	// An entry takes at least 36 bytes, so the count cannot ask for more memory than the data is worth.
	if n := p.uvarint(uint64(len(p.b) / 36)); p.err != nil || n != uint64(want) {
		return plugins.Digest{}, nil, fmt.Errorf("index: %w", errFraming)
	}
	out := make([]indexEntry, 0, want)
	var sum plugins.Digest
	for range want {
		var e indexEntry
		e.first = p.bytes(p.uvarint(manifest.MaxKey))
		e.last = p.bytes(p.uvarint(manifest.MaxKey))
		e.bytes = int64(p.uvarint(manifest.MaxPlain))
		e.digest = p.digest()
		if p.err != nil {
			return plugins.Digest{}, nil, fmt.Errorf("index: %w", p.err)
		}
		sum.Merge(e.digest)
		out = append(out, e)
	}
	if len(p.b) != 0 || sum != total {
		return plugins.Digest{}, nil, fmt.Errorf("index: %w", errFraming)
	}
	return total, out, nil
}
