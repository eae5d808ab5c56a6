package zkfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/adler32"
	"io"

	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

// stream decodes Jute from a file and sums up what it read.
type stream struct {
	r   *bufio.Reader
	sum hash.Hash32
	err error
	b   [8]byte
}

func newStream(r io.Reader) *stream {
	return &stream{r: bufio.NewReaderSize(r, 1<<20), sum: adler32.New()}
}

func (s *stream) fill(p []byte) []byte {
	if s.err != nil {
		return p
	}
	if _, err := io.ReadFull(s.r, p); err != nil {
		s.err = fmt.Errorf("%w: %w", ErrFormat, err)
		clear(p)
		return p
	}
	s.sum.Write(p)
	return p
}

func (s *stream) int() int32  { return int32(binary.BigEndian.Uint32(s.fill(s.b[:4]))) }
func (s *stream) long() int64 { return int64(binary.BigEndian.Uint64(s.fill(s.b[:8]))) }

func (s *stream) bytes() []byte {
	n := s.int()
	if s.err != nil || n == -1 {
		return nil
	}
	if n < 0 || n > maxBuffer {
		s.err = fmt.Errorf("a field of %d bytes: %w", n, ErrFormat)
		return nil
	}
	return s.fill(make([]byte, n))
}

func (s *stream) string() string { return string(s.bytes()) }

func (s *stream) acls() []zkwire.ACL {
	n := s.int()
	var out []zkwire.ACL
	for i := int32(0); i < n && s.err == nil; i++ {
		out = append(out, zkwire.ACL{Perms: s.int(), Scheme: s.string(), ID: s.string()})
	}
	return out
}

func (s *stream) header(magic int32) error {
	if m, v := s.int(), s.int(); s.err == nil && (m != magic || v != version) {
		s.err = fmt.Errorf("magic %08x, version %d: %w", uint32(m), v, ErrFormat)
	}
	s.long() // database id
	return s.err
}
