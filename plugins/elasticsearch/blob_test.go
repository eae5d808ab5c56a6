package elasticsearch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// lucene is a file as Lucene writes them: header with a random id, content, footer with its checksum.
func lucene(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	binary.BigEndian.PutUint32(b, codecMagic)
	binary.BigEndian.PutUint32(b[size-footerSize:], footerMagic)
	binary.BigEndian.PutUint32(b[size-footerSize+4:], 0)
	binary.BigEndian.PutUint64(b[size-crcSize:], uint64(crc32.ChecksumIEEE(b[:size-crcSize])))
	return b
}

// TestIdentify: a large file is known by head and tail, a damaged one is refused when it is read, and what has no checksum is read at once.
func TestIdentify(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r := rand.New(rand.NewPCG(5, 6))
	put := func(name string, content []byte) blob {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return blob{path: name, size: int64(len(content))}
	}
	read := func(b blob) ([]byte, error) {
		f, err := root.Open(b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var out []byte
		err = b.read(t.Context(), f, func(p []byte) error { out = append(out, p...); return nil })
		return out, err
	}
	large := lucene(r, 3<<20+17)
	for _, c := range []struct {
		name    string
		content []byte
		cheap   bool
	}{
		{"__large", large, true},
		{"__small", lucene(r, 9000), false},
		{"__exact", lucene(r, 2<<20), true},
		{"__plain", bytes.Repeat([]byte("no magic"), 300<<10), false},
		{"__large.part0", large, false},
		{"meta", large, false},
	} {
		b := put(c.name, c.content)
		if err := b.identify(t.Context(), root); err != nil || b.cheap != c.cheap {
			t.Errorf("%s: cheap %v, %v", c.name, b.cheap, err)
		}
		if got, err := read(b); err != nil || !bytes.Equal(got, c.content) {
			t.Errorf("%s: %d bytes read, %v", c.name, len(got), err)
		}
	}
	first := put("__large", large)
	again := put("__other", large)
	moved := put("__moved", lucene(r, len(large)))
	for _, b := range []*blob{&first, &again, &moved} {
		if err := b.identify(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	if first.sum != again.sum || first.sum == moved.sum {
		t.Error("the same file under another path is not the same, or another file is")
	}
	for at, cheap := range map[int]bool{len(large) / 2: true, len(large) - 20: true, 300: true} {
		bad := bytes.Clone(large)
		bad[at] ^= 1
		b := put("__bad", bad)
		if err := b.identify(t.Context(), root); err != nil || b.cheap != cheap {
			t.Errorf("damage at %d: cheap %v, %v", at, b.cheap, err)
		}
		if _, err := read(b); !errors.Is(err, plugins.ErrCorrupt) {
			t.Errorf("damage at %d: %v, want ErrCorrupt", at, err)
		}
	}
	for _, size := range []int{len(large) - 1, len(large) - footerSize - 5, 4096} { // as while the server still writes it
		short := put("__short", large[:size])
		full := blob{path: "__short", size: int64(len(large))}
		if _, err := read(full); !errors.Is(err, plugins.ErrCorrupt) {
			t.Errorf("%d bytes instead of %d: %v, want ErrCorrupt", size, len(large), err)
		}
		if _, err := read(short); !errors.Is(err, plugins.ErrCorrupt) {
			t.Errorf("cut after %d bytes: %v, want ErrCorrupt", size, err)
		}
	}
	small := put("__small", lucene(r, 9000)[:8000])
	if err := small.identify(t.Context(), root); !errors.Is(err, plugins.ErrCorrupt) {
		t.Errorf("a damaged small file: %v, want ErrCorrupt", err)
	}
}
