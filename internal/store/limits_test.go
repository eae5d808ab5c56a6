package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func contextFor(t *testing.T, ms int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), time.Duration(ms)*time.Millisecond)
}

// peak watches the heap while do runs, and returns its largest size in MiB. It
// sets the memory limit that the worker sets: what is garbage does not count for long.
func peak(do func()) uint64 {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(208 << 20))
	runtime.GC()
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		var top uint64
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			top = max(top, m.HeapAlloc)
			select {
			case <-stop:
				done <- top >> 20
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	do()
	close(stop)
	return <-done
}

// One goroutine that writes to all artifacts in turn, more data than may be
// held: nothing blocks, memory stays bounded, the data is right.
func TestMemoryIsBounded(t *testing.T) {
	defer goleak.VerifyNone(t)
	x := newSite(t)
	ref := x.next("D")
	chunk := noise(1, 1<<20)
	const each = 4 // MiB of every artifact: together more than is held
	top := peak(func() {
		u := x.begin(ref, unitA, UnitOptions{})
		var ws []plugins.RecordWriter
		for i := range maxOpen {
			w, err := u.Create(t.Context(), plugins.Artifact{Name: fmt.Sprint("f", i), Form: plugins.File})
			if err != nil {
				t.Fatal(err)
			}
			ws = append(ws, w)
		}
		ctx, cancel := contextFor(t, 50)
		defer cancel()
		if _, err := u.Create(ctx, plugins.Artifact{Name: "one more", Form: plugins.File}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for range each {
			for _, w := range ws {
				chunk[0]++
				if _, err := w.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, w := range ws {
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := u.Finish(t.Context(), meta); err != nil {
			t.Fatal(err)
		}
	})
	if top > 256 {
		t.Errorf("heap of %d MiB while writing", top)
	}
	if x.s.write.free != heldWrite || x.s.write.inflight != 0 || len(x.s.open) != 0 {
		t.Errorf("not given back: %d %d %d", x.s.write.free, x.s.write.inflight, len(x.s.open))
	}
	x.seal(ref)
	// Many readers at once, one goroutine, each in the middle of its data.
	const readers = 24
	top = peak(func() {
		u := x.open(ref)
		var rs []plugins.RecordReader
		buf := make([]byte, 1<<20)
		for _, a := range u.Artifacts()[:readers] {
			r, err := u.Open(t.Context(), a.Name)
			if err != nil {
				t.Fatal(err)
			}
			rs = append(rs, r)
			if _, err := r.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		var n int64
		for _, r := range rs {
			for {
				k, err := r.Read(buf)
				n += int64(k)
				if err != nil {
					break
				}
			}
			r.Close()
		}
		u.Close()
		if want := int64(readers * each << 20); n < want-readers<<20 || n > want {
			t.Errorf("%d bytes read of %d", n, want)
		}
	})
	if top > 256 {
		t.Errorf("heap of %d MiB while reading", top)
	}
	if x.s.read.free != heldRead {
		t.Errorf("not given back: %d", x.s.read.free)
	}
}

// Many goroutines, in two units, with aborts in between.
func TestConcurrentWriters(t *testing.T) {
	defer goleak.VerifyNone(t)
	x := newSite(t)
	ref := x.next("D")
	ids := []UnitID{unitA, {Component: "beta", Instance: "central", Member: "cluster"}}
	var wg sync.WaitGroup
	for n, id := range ids {
		wg.Go(func() {
			u := x.begin(ref, id, UnitOptions{})
			var in sync.WaitGroup
			for i := range 40 {
				in.Go(func() {
					w, err := u.Create(t.Context(), plugins.Artifact{Name: fmt.Sprint("t", i), Form: plugins.Ordered})
					if err != nil {
						t.Error(err)
						return
					}
					c := table(uint64(i%5), 500, 100*(i%7))
					if i%9 == n {
						if err := w.Put([]byte("x"), nil); err != nil {
							t.Error(err)
						}
						w.Abort()
						return
					}
					if err := put(w, c); err != nil {
						t.Error(err)
					}
				})
			}
			in.Wait()
			if _, err := u.Finish(t.Context(), meta); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	x.seal(ref)
	for _, id := range ids {
		u, err := x.s.OpenUnit(t.Context(), ref, id, x.r)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range u.Artifacts() {
			var i int
			fmt.Sscanf(a.Name, "t%d", &i)
			r, err := u.Open(t.Context(), a.Name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(r, a.Form)
			if err := errors.Join(err, same(table(uint64(i%5), 500, 100*(i%7)), got)); err != nil {
				t.Error(a.Name, err)
			}
		}
		u.Close()
	}
	x.clean(ref)
}

func TestCancelledContext(t *testing.T) {
	defer goleak.VerifyNone(t)
	x := newSite(t)
	d := data{"t": table(1, 20_000, 1000)}
	ref, _ := x.backup("D", d)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stop")
	u := x.open(ref)
	r, err := u.Open(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	w := x.begin(x.next("D"), unitA, UnitOptions{})
	defer w.Abort()
	rw, err := w.Create(ctx, plugins.Artifact{Name: "t", Form: plugins.Ordered})
	if err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	for err == nil {
		_, _, err = r.Next()
	}
	if !errors.Is(err, cause) {
		t.Error(err)
	}
	r.Close()
	if err := rw.Put([]byte("k"), nil); !errors.Is(err, cause) {
		t.Error(err)
	}
	rw.Abort()
	if _, err := x.s.Verify(ctx, ref, VerifyOptions{Full: true, Reader: &x.r}, nil); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := w.Finish(ctx, meta); err != nil && !errors.Is(err, cause) {
		t.Error(err)
	}
}

// Readers of parts of an artifact give together what a reader of the whole gives.
func TestOpenPieces(t *testing.T) {
	x := newSite(t)
	c := table(1, 60_000, 1000)
	ref, _ := x.backup("D", data{"t": c, "s": pairs("a", "1", "b", "2"), "e": {form: plugins.Ordered}, "f": {form: plugins.File}})
	u := x.open(ref)
	ps, err := u.Pieces(t.Context(), "t")
	if err != nil || len(ps) < 3 {
		t.Fatal(len(ps), err)
	}
	var got content
	var sum plugins.Digest
	for i, p := range ps {
		r, err := u.OpenPieces(t.Context(), "t", i, i+1)
		if err != nil {
			t.Fatal(err)
		}
		part, err := readAll(r, plugins.Ordered)
		n := len(part.records)
		if err != nil || int64(n) != p.Records || string(part.records[0][0]) != string(p.First) || string(part.records[n-1][0]) != string(p.Last) {
			t.Fatal(i, p, err)
		}
		got.records = append(got.records, part.records...)
		sum.Merge(p.Digest)
	}
	if err := same(content{records: c.records}, got); err != nil {
		t.Error(err)
	}
	if sum != u.Artifacts()[3].Digest {
		t.Error("digests of the pieces do not add up")
	}
	if ps, err := u.Pieces(t.Context(), "s"); err != nil || len(ps) != 1 || string(ps[0].First) != "a" || string(ps[0].Last) != "b" || ps[0].Bytes != 4 {
		t.Error(ps, err)
	}
	if ps, err := u.Pieces(t.Context(), "e"); err != nil || len(ps) != 0 {
		t.Error(ps, err)
	}
	if _, err := u.Pieces(t.Context(), "f"); !errors.Is(err, plugins.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := u.Open(t.Context(), "none"); !errors.Is(err, plugins.ErrNotFound) {
		t.Error(err)
	}
	if _, err := u.OpenPieces(t.Context(), "s", 0, 2); !errors.Is(err, plugins.ErrNotFound) {
		t.Error(err)
	}
}

// Ten thousand small tables are few pieces, and are read without decoding a
// pack for each.
func TestManySmallArtifacts(t *testing.T) {
	x := newSite(t)
	d := data{}
	for i := range 10_000 {
		c := content{form: plugins.Ordered}
		if i%3 > 0 {
			c = pairs(fmt.Sprint("key", i), fmt.Sprint("value ", i))
		}
		d[fmt.Sprintf("db/table-%05d", i)] = c
	}
	ref, m := x.backup("D", d)
	if n := len(x.list(ref).Pieces); n > 4 {
		t.Errorf("%d pieces", n)
	}
	if _, m2 := x.backup("D", d); m2.Totals.StoredNew != 0 || m2.Units[0].Digest != m.Units[0].Digest {
		t.Error("stored again", m2.Totals)
	}
	before := cpuSeconds()
	x.compare(ref, d)
	u := x.open(ref)
	for _, a := range u.Artifacts() {
		if _, err := u.Pieces(t.Context(), a.Name); err != nil {
			t.Fatal(err)
		}
	}
	u.Close()
	rep, err := x.s.Verify(t.Context(), ref, VerifyOptions{Full: true, Reader: &x.r}, nil)
	if err != nil || rep.Err() != nil {
		t.Error(err, rep.Err())
	}
	if s := cpuSeconds() - before; s > 5 {
		t.Errorf("%.1f CPU seconds", s)
	}
	if x.s.read.free != heldRead {
		t.Errorf("memory not given back: %d", x.s.read.free)
	}
}
