package store

import (
	"encoding/binary"
	"math/bits"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
)

const (
	averagePiece = 8 << 20  // bytes of plaintext of an Ordered piece, on average; of an Unordered one, exactly
	forcedPiece  = 32 << 20 // bytes after which a piece ends whatever its keys are
	smallPiece   = 256 << 10
	packSize     = 8 << 20
)

// cutter decides where a new piece of an Ordered artifact begins. The answer
// for a record depends on nothing but the content key, the record's key and
// its framed length, so equal stretches of data are cut equally wherever they
// stand, and a record that comes or goes moves no cut but its own.
type cutter struct{ k0, k1 uint64 }

func newCutter(content keys.Key) cutter {
	k := content.MAC([]byte("cso cut v1\n"))
	return cutter{binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:])}
}

// before says whether a piece begins with this record: for each byte of a
// record with a chance of one in averagePiece. size is the framed length.
func (c cutter) before(key []byte, size int) bool {
	hi, _ := bits.Mul64(c.hash(key), averagePiece)
	return hi < uint64(min(size, averagePiece))
}

// hash is SipHash-2-4 (Aumasson and Bernstein, 2012): a fast keyed hash, so
// that the sizes of pieces tell nothing about the keys.
func (c cutter) hash(p []byte) uint64 {
	v0, v1 := c.k0^0x736f6d6570736575, c.k1^0x646f72616e646f6d
	v2, v3 := c.k0^0x6c7967656e657261, c.k1^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	n := uint64(len(p))
	for ; len(p) >= 8; p = p[8:] {
		m := binary.LittleEndian.Uint64(p)
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	m := n << 56
	for i, b := range p {
		m |= uint64(b) << (8 * i)
	}
	v3 ^= m
	round()
	round()
	v0 ^= m
	v2 ^= 0xff
	round()
	round()
	round()
	round()
	return v0 ^ v1 ^ v2 ^ v3
}
