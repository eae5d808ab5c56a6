package plugins

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// Digest is a hash of a set of records that depends neither on their order
// nor on how they are stored: their number, and the sum modulo 2^256 of the
// SHA-256 of each. Digests of disjoint sets add up.
type Digest struct {
	Records int64
	Sum     [4]uint64 // little-endian limbs
}

// RecordHash is the SHA-256 of the canonical record: the key's length as an
// unsigned varint, the key, the value.
func RecordHash(key, value []byte) [sha256.Size]byte {
	var short [512]byte // most records fit, and then nothing is allocated
	if k := binary.PutUvarint(short[:], uint64(len(key))); k+len(key)+len(value) <= len(short) {
		k += copy(short[k:], key)
		k += copy(short[k:], value)
		return sha256.Sum256(short[:k])
	}
	h := sha256.New()
	var n [binary.MaxVarintLen64]byte
	h.Write(n[:binary.PutUvarint(n[:], uint64(len(key)))])
	h.Write(key)
	h.Write(value)
	return [sha256.Size]byte(h.Sum(nil))
}

// Add adds one record.
func (d *Digest) Add(key, value []byte) { d.AddHash(RecordHash(key, value)) }

// AddHash adds one record by its RecordHash.
func (d *Digest) AddHash(h [sha256.Size]byte) {
	var s [4]uint64
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(h[8*i:])
	}
	d.Merge(Digest{Records: 1, Sum: s})
}

// Merge adds another set of records.
func (d *Digest) Merge(o Digest) {
	d.Records += o.Records
	var c uint64
	for i := range d.Sum {
		d.Sum[i], c = bits.Add64(d.Sum[i], o.Sum[i], c)
	}
}

// String is the number of records, a colon, and 64 hexadecimal digits.
func (d Digest) String() string {
	var b [32]byte
	for i, v := range d.Sum {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return strconv.FormatInt(d.Records, 10) + ":" + hex.EncodeToString(b[:])
}

// MarshalText writes String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(p []byte) error {
	n, x, ok := strings.Cut(string(p), ":")
	b, err := hex.DecodeString(x)
	if !ok || err != nil || len(b) != 32 {
		return fmt.Errorf("digest %q: want RECORDS:64 hexadecimal digits", p)
	}
	if d.Records, err = strconv.ParseInt(n, 10, 64); err != nil || d.Records < 0 {
		return fmt.Errorf("digest %q: number of records: not a count", p)
	}
	for i := range d.Sum {
		d.Sum[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}

// Difference is one place where live data differs from a backup.
type Difference struct {
	Artifact string `json:"artifact"`
	Kind     string `json:"kind"`             // "missing", "extra" or "changed", of the live data
	Detail   string `json:"detail,omitempty"` // keys or names, bounded, never values
	// Foreign: shown by revision, zxid, GTID or sequence number to be somebody else's write after our
	// last one; a restore repairs it again. Otherwise our own write is not as it should be: a failure.
	Foreign bool `json:"foreign"`
}

// DiffDigests compares live digests with stored artifacts, Volatile ones apart.
func DiffDigests(live map[string]Digest, want []ArtifactInfo) []Difference {
	var out []Difference
	known := make(map[string]bool, len(want))
	for _, a := range want {
		known[a.Name] = true
		if a.Volatile {
			continue
		}
		switch d, ok := live[a.Name]; {
		case !ok:
			out = append(out, Difference{Artifact: a.Name, Kind: "missing"})
		case d != a.Digest:
			out = append(out, Difference{Artifact: a.Name, Kind: "changed",
				Detail: fmt.Sprintf("%d records live, %d in the backup", d.Records, a.Digest.Records)})
		}
	}
	for name := range live {
		if !known[name] {
			out = append(out, Difference{Artifact: name, Kind: "extra"})
		}
	}
	slices.SortFunc(out, func(a, b Difference) int { return strings.Compare(a.Artifact, b.Artifact) })
	return out
}
