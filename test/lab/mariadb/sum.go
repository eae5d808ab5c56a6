package mariadb

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// sum256 is a number modulo 2^256, most significant word first.
type sum256 [4]uint64

// add adds a hash. Unlike exclusive or, two equal rows do not cancel out.
func (s *sum256) add(h [32]byte) {
	var carry uint64
	for i := 3; i >= 0; i-- {
		s[i], carry = bits.Add64(s[i], binary.BigEndian.Uint64(h[i*8:]), carry)
	}
}

func (s sum256) String() string { return fmt.Sprintf("%016x%016x%016x%016x", s[0], s[1], s[2], s[3]) }
