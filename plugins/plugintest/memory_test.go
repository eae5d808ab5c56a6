package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func put(t *testing.T, m *Memory, name string, form plugins.Form, n int) {
	t.Helper()
	w, err := m.Create(t.Context(), plugins.Artifact{Name: name, Form: form, Pin: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Put(fmt.Appendf(nil, "key-%06d", i), fmt.Appendf(nil, "value %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryGivesBackWhatItTook(t *testing.T) {
	m := NewMemory()
	put(t, m, "a", plugins.Ordered, 1000)
	ps, err := m.Pieces(t.Context(), "a")
	if err != nil || len(ps) < 20 {
		t.Fatalf("%d pieces, %v: want many", len(ps), err)
	}
	var d plugins.Digest
	n := 0
	for i := range ps {
		r, err := m.OpenPieces(t.Context(), "a", i, i+1)
		if err != nil {
			t.Fatal(err)
		}
		for {
			k, v, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil || string(k) != fmt.Sprintf("key-%06d", n) {
				t.Fatalf("record %d: %q, %v", n, k, err)
			}
			d.Add(k, v)
			n++
		}
	}
	if want := m.Artifacts()[0].Digest; d != want || n != 1000 {
		t.Fatalf("%d records, digest %s, want 1000 and %s", n, d, want)
	}
}

func TestMemoryRefuses(t *testing.T) {
	ctx := t.Context()
	m := NewMemory()
	put(t, m, "a", plugins.Unordered, 3)
	for _, a := range []plugins.Artifact{
		{Form: plugins.File, Pin: "p"}, {Name: "b", Form: "x", Pin: "p"}, {Name: "b", Form: plugins.File}, {Name: "a", Form: plugins.File, Pin: "p"},
	} {
		if _, err := m.Create(ctx, a); !errors.Is(err, plugins.ErrData) {
			t.Errorf("Create(%+v) = %v, want ErrData", a, err)
		}
	}
	w, err := m.Create(ctx, plugins.Artifact{Name: "o", Form: plugins.Ordered, Pin: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Put([]byte("b"), nil)); err != nil {
		t.Fatal(err)
	}
	if err := w.Put([]byte("b"), nil); !errors.Is(err, plugins.ErrData) {
		t.Errorf("repeated key: %v, want ErrData", err)
	}
	if w.Commit() == nil {
		t.Error("Commit after an error was accepted")
	}
	if got := m.Unfinished(); len(got) != 1 {
		t.Errorf("unfinished %v, want o", got)
	}
	w.Abort()
	if got := m.Unfinished(); len(got) != 0 {
		t.Errorf("unfinished %v after Abort", got)
	}
}

func TestMemoryFaults(t *testing.T) {
	m := NewMemory()
	put(t, m, "a", plugins.Ordered, 100)
	bad := m.Clone()
	if !bad.Corrupt("a", 0) {
		t.Fatal("nothing to corrupt")
	}
	r, err := bad.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); !errors.Is(err, plugins.ErrCorrupt) {
		t.Fatalf("damaged piece: %v, want ErrCorrupt", err)
	}
	for _, k := range []int{0, 1, 99} {
		r, err := m.Clone().KillAtRecord(k).Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; err == nil; n++ {
			_, _, err = r.Next()
		}
		if !errors.Is(err, ErrKilled) || n != k+1 {
			t.Errorf("killed at record %d: stopped at %d with %v", k, n-1, err)
		}
	}
	c := m.Clone().KillAtArtifact(1)
	if _, err := c.Open(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), "a"); !errors.Is(err, ErrKilled) {
		t.Errorf("second artifact: %v, want ErrKilled", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Open(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMemoryFile(t *testing.T) {
	m := NewMemory()
	w, err := m.Create(t.Context(), plugins.Artifact{Name: "f", Form: plugins.File, Pin: "p"})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, plugins.FileCut+5)
	want[plugins.FileCut] = 7
	for q := want; len(q) > 0; q = q[min(len(q), 1<<20):] {
		if _, err := w.Write(q[:min(len(q), 1<<20)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := m.PieceCount("f"); n != 2 {
		t.Fatalf("%d pieces, want 2", n)
	}
	r, err := m.Open(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	var d plugins.FileDigest
	if n, err := io.Copy(&d, io.MultiReader(readOnly{r})); err != nil || n != int64(len(want)) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if d.Sum() != m.Artifacts()[0].Digest {
		t.Fatal("digest differs")
	}
}

// readOnly hides Next.
type readOnly struct{ r plugins.RecordReader }

func (r readOnly) Read(p []byte) (int, error) { return r.r.Read(p) }
