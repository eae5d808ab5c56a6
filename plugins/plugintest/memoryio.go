package plugintest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// cutHere says whether a piece ends before this key: a function of the key
// alone, so that the same data gives the same pieces.
func cutHere(key []byte) bool {
	h := fnv.New32a()
	h.Write(key)
	return h.Sum32()%16 == 0
}

type writer struct {
	m     *Memory
	ctx   context.Context
	s     *stored
	cur   piece
	spare []byte // where the next piece grows, when pieces go to disk
	n     int    // records in cur
	last  []byte
	any   bool
	file  plugins.FileDigest
	err   error
	done  bool
}

func (w *writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

func (w *writer) check() error {
	if w.err != nil {
		return fmt.Errorf("artifact %q used after an error: %w", w.s.info.Name, w.err)
	}
	if w.done {
		return fmt.Errorf("artifact %q used after its end: %w", w.s.info.Name, plugins.ErrData)
	}
	if err := w.ctx.Err(); err != nil {
		return w.fail(err)
	}
	return nil
}

func (w *writer) Put(key, value []byte) error {
	if err := w.check(); err != nil {
		return err
	}
	a := w.s.info
	if a.Form == plugins.File {
		return w.fail(fmt.Errorf("artifact %q: Put on a file: %w", a.Name, plugins.ErrData))
	}
	if a.Form == plugins.Ordered && w.any && bytes.Compare(key, w.last) <= 0 {
		return w.fail(fmt.Errorf("artifact %q: key %q does not follow %q: keys must ascend and be unique: %w", a.Name, key, w.last, plugins.ErrData))
	}
	if err := w.m.spend(1); err != nil {
		return w.fail(err)
	}
	w.last, w.any = append(w.last[:0], key...), true
	if w.n > 0 && (w.n == maxPiece || len(w.cur.data) >= maxPieceBytes || a.Form == plugins.Ordered && cutHere(key)) {
		w.cut()
	}
	if w.n == 0 {
		w.cur.info.First = bytes.Clone(key)
	}
	w.n++
	w.cur.info.Last = append(w.cur.info.Last[:0], key...)
	w.cur.info.Records++
	w.cur.info.Bytes += int64(len(key) + len(value))
	w.cur.info.Digest.Add(key, value)
	w.cur.data = append(binary.AppendUvarint(w.cur.data, uint64(len(key))), key...)
	w.cur.data = append(binary.AppendUvarint(w.cur.data, uint64(len(value))), value...)
	return nil
}

// SharePieces implements plugins.PieceSharer with the store given to After.
func (w *writer) SharePieces(d plugins.Digest, pieces []plugins.PieceInfo, from, to int) (bool, error) {
	if err := w.check(); err != nil {
		return false, err
	}
	if w.s.info.Form != plugins.Ordered || from < 0 || to > len(pieces) || from >= to || w.any && bytes.Compare(pieces[from].First, w.last) <= 0 {
		return false, w.fail(fmt.Errorf("artifact %q: pieces %d to %d: %w", w.s.info.Name, from, to, plugins.ErrData))
	}
	if w.m.previous == nil || w.m.spill != nil || w.m.previous.spill != nil {
		return false, nil
	}
	w.m.previous.mu.Lock()
	old := w.m.previous.artifacts[w.s.info.Name]
	w.m.previous.mu.Unlock()
	if old == nil || old.info.Form != plugins.Ordered || old.info.Digest != d || len(old.pieces) != len(pieces) {
		return false, nil
	}
	w.cut()
	for i, p := range old.pieces[from:to] {
		if p.info.Digest != pieces[from+i].Digest {
			return false, w.fail(fmt.Errorf("artifact %q: piece %d is another: %w", w.s.info.Name, from+i, plugins.ErrData))
		}
		w.s.pieces = append(w.s.pieces, p)
		w.s.info.Records += p.info.Records
		w.s.info.Bytes += p.info.Bytes
		w.s.info.Digest.Merge(p.info.Digest)
	}
	w.last, w.any = append(w.last[:0], pieces[to-1].Last...), true
	w.s.shared += to - from
	return true, nil
}

func (w *writer) cut() {
	if w.n == 0 {
		return
	}
	w.cur.want = w.cur.info.Digest
	w.store()
	w.s.info.Records += w.cur.info.Records
	w.s.info.Bytes += w.cur.info.Bytes
	w.s.info.Digest.Merge(w.cur.info.Digest)
	w.cur, w.n = piece{data: w.spare}, 0
}

// store keeps the finished piece, in memory or on disk.
func (w *writer) store() {
	w.cur.size = len(w.cur.data)
	if w.m.spill != nil {
		w.m.mu.Lock()
		w.cur.at = w.m.spilled
		w.m.spilled += int64(w.cur.size)
		w.m.mu.Unlock()
		if _, err := w.m.spill.WriteAt(w.cur.data, w.cur.at); err != nil {
			w.err = err
		}
		w.cur.data, w.spare = nil, w.cur.data[:0]
	}
	w.s.pieces = append(w.s.pieces, w.cur)
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	if w.s.info.Form != plugins.File {
		return 0, w.fail(fmt.Errorf("artifact %q: Write on records: %w", w.s.info.Name, plugins.ErrData))
	}
	if err := w.m.spend((len(p) + 1<<16 - 1) >> 16); err != nil {
		return 0, w.fail(err)
	}
	w.file.Write(p)
	w.s.info.Bytes += int64(len(p))
	for q := p; len(q) > 0; {
		n := min(len(q), plugins.FileCut-len(w.cur.data))
		w.cur.data = append(w.cur.data, q[:n]...)
		if q = q[n:]; len(w.cur.data) == plugins.FileCut {
			w.cutFile()
		}
	}
	return len(p), nil
}

func (w *writer) cutFile() {
	if len(w.cur.data) == 0 {
		return
	}
	w.cur.want.Add(nil, w.cur.data)
	w.store()
	w.cur = piece{data: w.spare}
}

func (w *writer) Commit() error {
	if err := w.check(); err != nil {
		return err
	}
	if w.s.info.Form == plugins.File {
		w.cutFile()
		w.s.info.Digest = w.file.Sum()
		w.s.info.Records = w.s.info.Digest.Records
	} else {
		w.cut()
	}
	if w.err != nil {
		return w.err
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if err := w.m.boundary(true); err != nil {
		return w.fail(err)
	}
	w.done = true
	w.m.artifacts[w.s.info.Name] = w.s
	delete(w.m.open, w.s.info.Name)
	return nil
}

func (w *writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	delete(w.m.open, w.s.info.Name)
}

type reader struct {
	m      *Memory
	ctx    context.Context
	name   string
	form   plugins.Form
	pieces []piece
	i      int    // next piece
	data   []byte // rest of the current piece
}

// load verifies the next piece as a whole before anything of it is given out.
func (r *reader) load() error {
	if r.i >= len(r.pieces) {
		return io.EOF
	}
	p := r.pieces[r.i]
	if p.data == nil && p.size > 0 {
		p.data = make([]byte, p.size)
		if _, err := r.m.spill.ReadAt(p.data, p.at); err != nil {
			return err
		}
	}
	var d plugins.Digest
	if r.form == plugins.File {
		d.Add(nil, p.data)
	} else {
		for rest := p.data; len(rest) > 0; {
			k, v, next, ok := record(rest)
			if !ok {
				return fmt.Errorf("artifact %q, piece %d: %w", r.name, r.i, plugins.ErrCorrupt)
			}
			d.Add(k, v)
			rest = next
		}
	}
	if d != p.want {
		return fmt.Errorf("artifact %q, piece %d: %w", r.name, r.i, plugins.ErrCorrupt)
	}
	r.data = p.data
	r.i++
	return nil
}

func (r *reader) Next() (key, value []byte, err error) {
	if err := r.ready(r.form != plugins.File); err != nil {
		return nil, nil, err
	}
	if err := r.m.spend(1); err != nil {
		return nil, nil, err
	}
	k, v, rest, _ := record(r.data)
	r.data = rest
	// The caller may only use the slices until the next call: hand out copies that
	// are its own, so that a write into them cannot damage the store.
	return bytes.Clone(k), bytes.Clone(v), nil
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ready(r.form == plugins.File); err != nil {
		return 0, err
	}
	if err := r.m.spend((min(len(p), len(r.data)) + 1<<16 - 1) >> 16); err != nil {
		return 0, err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// ready makes sure that data of the current piece is left; io.EOF at the end.
func (r *reader) ready(right bool) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if !right {
		return fmt.Errorf("artifact %q is of form %q: read it with the other call: %w", r.name, r.form, plugins.ErrData)
	}
	for len(r.data) == 0 {
		if err := r.load(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) Close() error { return nil }

// record takes the first record off b.
func record(b []byte) (key, value, rest []byte, ok bool) {
	take := func() []byte {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			ok = false
			return nil
		}
		out := b[k : k+int(n)]
		b = b[k+int(n):]
		return out
	}
	ok = true
	key = take()
	if ok {
		value = take()
	}
	return key, value, b, ok
}
