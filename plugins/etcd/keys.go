package etcd

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
)

// sortMemory bounds what is held while keys are brought into order: a snapshot
// is ordered by revision, an artifact by key. A row held takes rowMemory beside its key.
const (
	sortMemory = 24 << 20
	rowMemory  = 96
)

// row is one revision of a key, with its place in the snapshot: 8 bytes revision, "_", 8 bytes sub-revision, and "t" for a deletion.
type row struct {
	key, at []byte
	data    []byte // what the snapshot holds there; nil of a row that was spilled
}

func (a row) compare(b row) int {
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c
	}
	return bytes.Compare(a.at, b.at)
}

// keyIter gives the live keys of a snapshot in order. Use next until io.EOF, then close.
type keyIter struct {
	v      *view
	tx     *bolt.Tx
	bucket *bolt.Bucket
	files  []*os.File
	heads  sources
	buf    []byte
}

// keys sorts the snapshot's rows; runs that exceed sortMemory go to files in dir.
func (v *view) keys(ctx context.Context, dir string) (_ *keyIter, err error) {
	tx, err := v.db.Begin(false)
	if err != nil {
		return nil, err
	}
	it := &keyIter{v: v, tx: tx, bucket: tx.Bucket(bucketKey)}
	defer func() {
		if err != nil {
			err = errors.Join(err, it.close())
		}
	}()
	var rows []row
	var names chunks
	err = each(tx, bucketKey, func(k, b []byte) error {
		kv, err := parseKeyValue(b)
		if err != nil {
			return err
		}
		// The row that disaster recovery adds to raise the revision has no key.
		if len(kv.key) == 0 || v.cfg.own(kv.key) {
			return nil
		}
		rows = append(rows, row{names.hold(kv.key), names.hold(k), b}) // b is the file's, and stays while tx is open
		if len(rows)*rowMemory+names.size >= v.sortMemory {
			if err := it.spill(rows, dir); err != nil {
				return err
			}
			rows, names = rows[:0], chunks{}
		}
		return errors.Join(v.mapped.pass(len(b)), ctx.Err())
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, row.compare)
	it.heads = append(it.heads, &source{rows: rows})
	for _, f := range it.files {
		it.heads = append(it.heads, &source{in: bufio.NewReaderSize(f, 256<<10)})
	}
	for i := 0; i < len(it.heads); {
		if ok, err := it.heads[i].advance(); err != nil {
			return nil, err
		} else if !ok {
			it.heads = slices.Delete(it.heads, i, i+1)
		} else {
			i++
		}
	}
	heap.Init(&it.heads)
	return it, nil
}

// chunks hold copies of the rows' keys: to compare those of the file would bring all of it into memory.
type chunks struct {
	last []byte
	size int
}

func (c *chunks) hold(b []byte) []byte {
	if cap(c.last)-len(c.last) < len(b) {
		c.last = make([]byte, 0, max(len(b), 256<<10))
	}
	c.size += len(b)
	from := len(c.last)
	c.last = append(c.last, b...)
	return c.last[from:len(c.last):len(c.last)]
}

func (it *keyIter) spill(rows []row, dir string) error {
	slices.SortFunc(rows, row.compare)
	f, err := os.CreateTemp(dir, "keys-*")
	if err != nil {
		return err
	}
	it.files = append(it.files, f)
	// The name is not needed, and a killed process then leaves nothing.
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	for _, r := range rows {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(r.key)))
		for _, p := range [][]byte{n[:], r.key, {byte(len(r.at))}, r.at} {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// next gives a key and its record; the slices are valid until the next call.
func (it *keyIter) next() (key, record []byte, err error) {
	for len(it.heads) > 0 {
		// Of all rows of a key the last one counts.
		var last row
		for len(it.heads) > 0 && (last.key == nil || bytes.Equal(it.heads[0].cur.key, last.key)) {
			last = it.heads[0].cur
			ok, err := it.heads[0].advance()
			if err != nil {
				return nil, nil, err
			}
			if ok {
				heap.Fix(&it.heads, 0)
			} else {
				heap.Pop(&it.heads)
			}
		}
		if last.at[len(last.at)-1] == 't' && len(last.at) == 18 {
			continue
		}
		if last.data == nil {
			last.data = it.bucket.Get(last.at)
		}
		kv, err := parseKeyValue(last.data)
		if err != nil {
			return nil, nil, err
		}
		it.buf = it.v.record(kv, it.buf)
		return kv.key, it.buf, it.v.mapped.pass(len(last.data) + rowReach)
	}
	return nil, nil, io.EOF
}

// keyValue is what is needed of a mvccpb.KeyValue. The slices are those of the bytes it was parsed from: to copy
// every value twice is what takes the time.
type keyValue struct {
	key, value []byte
	lease      int64
}

// Fields of mvccpb.KeyValue (go.etcd.io/etcd/api/v3/mvccpb/kv.proto).
const (
	fieldKey   = 1
	fieldValue = 5
	fieldLease = 6
)

func parseKeyValue(b []byte) (kv keyValue, err error) {
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return kv, protowire.ParseError(n)
		}
		if !field.IsValid() {
			return kv, fmt.Errorf("a key's row has field number %d", field)
		}
		b = b[n:]
		switch {
		case typ == protowire.BytesType && field == fieldKey:
			kv.key, n = protowire.ConsumeBytes(b)
		case typ == protowire.BytesType && field == fieldValue:
			kv.value, n = protowire.ConsumeBytes(b)
		case typ == protowire.VarintType && field == fieldLease:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			kv.lease = int64(v)
		default:
			n = protowire.ConsumeFieldValue(field, typ, b)
		}
		if n < 0 {
			return kv, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return kv, nil
}

func (it *keyIter) close() error {
	errs := []error{it.tx.Rollback()}
	for _, f := range it.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// source is one sorted run: in memory, or in a file.
type source struct {
	cur  row
	rows []row
	in   *bufio.Reader
}

func (s *source) advance() (bool, error) {
	if s.in == nil {
		if len(s.rows) == 0 {
			return false, nil
		}
		s.cur, s.rows = s.rows[0], s.rows[1:]
		return true, nil
	}
	var n [4]byte
	if _, err := io.ReadFull(s.in, n[:]); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	key := make([]byte, binary.BigEndian.Uint32(n[:])+1)
	if _, err := io.ReadFull(s.in, key); err != nil {
		return false, err
	}
	at := make([]byte, key[len(key)-1])
	if _, err := io.ReadFull(s.in, at); err != nil {
		return false, err
	}
	s.cur = row{key: key[:len(key)-1], at: at}
	return true, nil
}

// sources is a heap of runs by their current row.
type sources []*source

func (s sources) Len() int           { return len(s) }
func (s sources) Less(i, j int) bool { return s[i].cur.compare(s[j].cur) < 0 }
func (s sources) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *sources) Push(x any)        { *s = append(*s, x.(*source)) }
func (s *sources) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}
