package zkwire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ACL is one entry of an access list.
type ACL struct {
	Perms      int32 // bits: 1 read, 2 write, 4 create, 8 delete, 16 admin
	Scheme, ID string
}

// Stat is a znode's metadata as a client sees it.
type Stat struct {
	Czxid, Mzxid, Ctime, Mtime  int64
	Version, Cversion, Aversion int32
	EphemeralOwner              int64 // session id; 0 for all that is not ephemeral, container and TTL nodes included
	DataLength, NumChildren     int32
	Pzxid                       int64
}

// Creates is the number of children ever created, which is the next sequence
// number. The server shows 2 × creates − children as cversion (DataNode.copyStat).
func (s Stat) Creates() uint32 { return (uint32(s.Cversion) + uint32(s.NumChildren)) >> 1 }

// Encoder builds messages of ZooKeeper's wire format (Jute).
type Encoder struct{ B []byte }

// Int appends a 32-bit number.
func (e *Encoder) Int(v int32) { e.B = binary.BigEndian.AppendUint32(e.B, uint32(v)) }

// Long appends a 64-bit number.
func (e *Encoder) Long(v int64) { e.B = binary.BigEndian.AppendUint64(e.B, uint64(v)) }

// Bool appends a truth value.
func (e *Encoder) Bool(v bool) {
	if v {
		e.B = append(e.B, 1)
	} else {
		e.B = append(e.B, 0)
	}
}

// String appends a string.
func (e *Encoder) String(s string) {
	e.Int(int32(len(s)))
	e.B = append(e.B, s...)
}

// Bytes appends a buffer; nil is not the same as empty.
func (e *Encoder) Bytes(p []byte) {
	if p == nil {
		e.Int(-1)
		return
	}
	e.Int(int32(len(p)))
	e.B = append(e.B, p...)
}

// ACLs appends an access list.
func (e *Encoder) ACLs(l []ACL) {
	e.Int(int32(len(l)))
	for _, a := range l {
		e.Int(a.Perms)
		e.String(a.Scheme)
		e.String(a.ID)
	}
}

// Decoder reads messages. After an error everything it returns is zero.
type Decoder struct {
	B   []byte
	Err error
}

var errShort = errors.New("message ends early")

func (d *Decoder) take(n int) []byte {
	if d.Err != nil || n < 0 || n > len(d.B) {
		if d.Err == nil {
			d.Err = errShort
		}
		return nil
	}
	p := d.B[:n:n]
	d.B = d.B[n:]
	return p
}

// Int reads a 32-bit number.
func (d *Decoder) Int() int32 {
	if p := d.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

// Long reads a 64-bit number.
func (d *Decoder) Long() int64 {
	if p := d.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

// Bool reads a truth value.
func (d *Decoder) Bool() bool {
	p := d.take(1)
	return p != nil && p[0] != 0
}

// Bytes reads a buffer that shares memory with the message; nil for a null buffer.
func (d *Decoder) Bytes() []byte {
	n := d.Int()
	if n == -1 {
		return nil
	}
	return d.take(int(n))
}

// String reads a string.
func (d *Decoder) String() string { return string(d.Bytes()) }

// count reads the length of a list whose entries take at least size bytes each.
func (d *Decoder) count(size int) int {
	n := int(d.Int())
	if n == -1 {
		return 0
	}
	if n < 0 || n > len(d.B)/size {
		if d.Err == nil {
			d.Err = fmt.Errorf("list of %d entries in %d bytes", n, len(d.B))
		}
		return 0
	}
	return n
}

// Strings reads a list of strings.
func (d *Decoder) Strings() []string {
	out := make([]string, d.count(4))
	for i := range out {
		out[i] = d.String()
	}
	return out
}

// ACLs reads an access list.
func (d *Decoder) ACLs() []ACL {
	out := make([]ACL, d.count(12))
	for i := range out {
		out[i] = ACL{Perms: d.Int(), Scheme: d.String(), ID: d.String()}
	}
	return out
}

// Stat reads a znode's metadata.
func (d *Decoder) Stat() Stat {
	return Stat{
		Czxid: d.Long(), Mzxid: d.Long(), Ctime: d.Long(), Mtime: d.Long(),
		Version: d.Int(), Cversion: d.Int(), Aversion: d.Int(),
		EphemeralOwner: d.Long(), DataLength: d.Int(), NumChildren: d.Int(), Pzxid: d.Long(),
	}
}
