package arangodb

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// The server dumps documents in the order in which they were written. A
// sorter puts them in order of their keys: what fits in memory there, beyond
// it in sorted runs in an encrypted spool, merged at the end.
const (
	runBytes   = 8 << 20  // of records are sorted at once in memory
	blockBytes = 64 << 10 // of a run are read back at once
	maxRuns    = 64       // runs are merged into one when there are more
	inline     = 16 << 10 // a longer value lies in the spool by itself
)

type sorter struct {
	limit int // runBytes

	mu   sync.Mutex
	sp   *spool.Spool
	buf  []byte // records of the current run, one after another
	at   []span
	runs []run
	big  []spool.Ref // values that lie in the spool by themselves
}

// span is where a record of the current run lies: key, then value.
type span struct{ off, key, val int32 }

type run []spool.Ref

func newSorter(dir string) *sorter { return &sorter{limit: runBytes, sp: spool.New(dir, 1<<20)} }

func (s *sorter) close() {
	_ = s.sp.Close() // an unlinked file: there is nothing to lose
	s.buf, s.at, s.runs, s.big = nil, nil, nil, nil
}

// add keeps a copy of a record. It is safe for concurrent use.
func (s *sorter) add(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tag := []byte{0}
	if len(value) > inline {
		ref, err := s.sp.Put(value)
		if err != nil {
			return err
		}
		tag, value = []byte{1}, binary.AppendUvarint(nil, uint64(len(s.big)))
		s.big = append(s.big, ref)
	}
	if len(s.buf) > 0 && len(s.buf)+len(key)+len(value)+1 > s.limit {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if s.buf == nil {
		s.buf = make([]byte, 0, 64<<10)
	}
	s.at = append(s.at, span{int32(len(s.buf)), int32(len(key)), int32(len(value) + 1)})
	s.buf = append(append(append(s.buf, key...), tag...), value...)
	return nil
}

func (s *sorter) sortBuffer() {
	slices.SortFunc(s.at, func(a, b span) int {
		return bytes.Compare(s.buf[a.off:a.off+a.key], s.buf[b.off:b.off+b.key])
	})
}

// flush writes the current run into the spool.
func (s *sorter) flush() error {
	s.sortBuffer()
	w := runWriter{sp: s.sp}
	for _, a := range s.at {
		if err := w.put(s.buf[a.off:a.off+a.key], s.buf[a.off+a.key:a.off+a.key+a.val]); err != nil {
			return err
		}
	}
	r, err := w.end()
	if err != nil {
		return err
	}
	s.runs = append(s.runs, r)
	s.buf, s.at = s.buf[:0], s.at[:0]
	if len(s.runs) < maxRuns {
		return nil
	}
	w = runWriter{sp: s.sp}
	m, err := newMerge(s.sp, s.runs)
	if err != nil {
		return err
	}
	for {
		k, v, err := m.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.put(k, v)
		}
		if err != nil {
			return err
		}
	}
	if r, err = w.end(); err == nil {
		s.runs = []run{r}
	}
	return err
}

// rest ends the adding and holds nothing in memory any more.
func (s *sorter) rest() error {
	if len(s.at) > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.buf, s.at = nil, nil
	return nil
}

// stream reads the records of several sorters in order.
type stream struct {
	parts []*sorter
	lanes []*lane
	val   []byte
	last  []byte
	any   bool
	moved bool
}

// lane is where one sorter stands.
type lane struct {
	s        *sorter
	m        *merge // nil: all in memory
	at       int
	key, val []byte
}

func (h *lane) next() (err error) {
	if h.m != nil {
		h.key, h.val, err = h.m.next()
		return err
	}
	if h.at >= len(h.s.at) {
		return io.EOF
	}
	a := h.s.at[h.at]
	h.at++
	h.key, h.val = h.s.buf[a.off:a.off+a.key], h.s.buf[a.off+a.key:a.off+a.key+a.val]
	return nil
}

func (t *stream) begin() error {
	for _, s := range t.parts {
		h := &lane{s: s}
		if len(s.runs) == 0 {
			s.sortBuffer()
		} else {
			if err := s.rest(); err != nil {
				return err
			}
			m, err := newMerge(s.sp, s.runs)
			if err != nil {
				return err
			}
			h.m = m
		}
		if err := h.next(); err == nil {
			t.lanes = append(t.lanes, h)
		} else if !errors.Is(err, io.EOF) {
			return err
		}
	}
	heap.Init(t)
	return nil
}

// read returns the next record; io.EOF at the end. The slices are valid until the next call.
func (t *stream) read() (key, value []byte, err error) {
	if t.moved {
		t.moved = false
		switch err := t.lanes[0].next(); {
		case err == nil:
			heap.Fix(t, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(t)
		default:
			return nil, nil, err
		}
	}
	if len(t.lanes) == 0 {
		return nil, nil, io.EOF
	}
	t.moved = true
	h := t.lanes[0]
	if t.any && bytes.Equal(h.key, t.last) {
		return nil, nil, fmt.Errorf("key %q exists twice, on two shards: %w: remove one of the documents", h.key, plugins.ErrData)
	}
	t.last, t.any = append(t.last[:0], h.key...), true
	if h.val[0] == 0 {
		return h.key, h.val[1:], nil
	}
	n, _ := binary.Uvarint(h.val[1:])
	value, err = h.s.sp.Get(h.s.big[n], &t.val)
	return h.key, value, err
}

func (t *stream) close() {
	for _, s := range t.parts {
		s.close()
	}
}

func (t *stream) Len() int           { return len(t.lanes) }
func (t *stream) Less(i, j int) bool { return bytes.Compare(t.lanes[i].key, t.lanes[j].key) < 0 }
func (t *stream) Swap(i, j int)      { t.lanes[i], t.lanes[j] = t.lanes[j], t.lanes[i] }
func (t *stream) Push(x any)         { t.lanes = append(t.lanes, x.(*lane)) }
func (t *stream) Pop() any {
	n := len(t.lanes) - 1
	h := t.lanes[n]
	t.lanes = t.lanes[:n]
	return h
}

// runWriter puts records into blocks of a run.
type runWriter struct {
	sp    *spool.Spool
	block []byte
	run   run
}

func (w *runWriter) put(key, value []byte) error {
	w.block = append(binary.AppendUvarint(w.block, uint64(len(key))), key...)
	w.block = append(binary.AppendUvarint(w.block, uint64(len(value))), value...)
	if len(w.block) < blockBytes {
		return nil
	}
	return w.flush()
}

func (w *runWriter) flush() error {
	ref, err := w.sp.Put(w.block)
	w.run, w.block = append(w.run, ref), w.block[:0]
	return err
}

func (w *runWriter) end() (run, error) {
	if len(w.block) == 0 {
		return w.run, nil
	}
	err := w.flush()
	return w.run, err
}

// runReader reads a run.
type runReader struct {
	sp       *spool.Spool
	rest     run
	buf      []byte
	block    []byte
	key, val []byte
}

func (r *runReader) next() error {
	if len(r.block) == 0 {
		if len(r.rest) == 0 {
			return io.EOF
		}
		b, err := r.sp.Get(r.rest[0], &r.buf)
		if err != nil {
			return err
		}
		r.block, r.rest = b, r.rest[1:]
	}
	n, k := binary.Uvarint(r.block)
	r.key, r.block = r.block[k:k+int(n)], r.block[k+int(n):]
	n, k = binary.Uvarint(r.block)
	r.val, r.block = r.block[k:k+int(n)], r.block[k+int(n):]
	return nil
}

// merge is a heap of runs by their current key.
type merge struct {
	lanes []*runReader
	moved bool // the first one was handed out and must go on
}

func newMerge(sp *spool.Spool, runs []run) (*merge, error) {
	m := &merge{}
	for _, r := range runs {
		h := &runReader{sp: sp, rest: r}
		if err := h.next(); err == nil {
			m.lanes = append(m.lanes, h)
		} else if !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	heap.Init(m)
	return m, nil
}

func (m *merge) next() (key, value []byte, err error) {
	if m.moved {
		m.moved = false
		switch err := m.lanes[0].next(); {
		case err == nil:
			heap.Fix(m, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(m)
		default:
			return nil, nil, err
		}
	}
	if len(m.lanes) == 0 {
		return nil, nil, io.EOF
	}
	m.moved = true
	return m.lanes[0].key, m.lanes[0].val, nil
}

func (m *merge) Len() int           { return len(m.lanes) }
func (m *merge) Less(i, j int) bool { return bytes.Compare(m.lanes[i].key, m.lanes[j].key) < 0 }
func (m *merge) Swap(i, j int)      { m.lanes[i], m.lanes[j] = m.lanes[j], m.lanes[i] }
func (m *merge) Push(x any)         { m.lanes = append(m.lanes, x.(*runReader)) }
func (m *merge) Pop() any {
	n := len(m.lanes) - 1
	h := m.lanes[n]
	m.lanes = m.lanes[:n]
	return h
}
