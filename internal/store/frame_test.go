package store

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func appendRecord(b, key, value []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

func TestRecordFraming(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want [][2][]byte
		var b []byte
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			k := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "k")
			v := bytes.Repeat([]byte{'v'}, rapid.SampledFrom([]int{0, 1, 127, 128, 129, 300_000}).Draw(t, "v"))
			if n := len(b); framedLen(k, v) != len(appendRecord(b, k, v))-n {
				t.Fatal("framedLen is wrong")
			}
			b = appendRecord(b, k, v)
			want = append(want, [2][]byte{k, v})
		}
		var s recordScanner
		s.reset(iotest.OneByteReader(bytes.NewReader(b)), int64(len(b)))
		for i, r := range want {
			k, v, err := s.next()
			if err != nil || !bytes.Equal(k, r[0]) || !bytes.Equal(v, r[1]) {
				t.Fatal(i, err)
			}
		}
		if _, _, err := s.next(); err != io.EOF {
			t.Fatal(err)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, []byte("a"), []byte("b")), nil, nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s recordScanner
		s.reset(bytes.NewReader(b), int64(len(b)))
		n := 0
		for {
			k, v, err := s.next()
			if err != nil {
				if err == io.EOF && n != len(b) && n > len(b) {
					t.Fatal("read more than there is")
				}
				break
			}
			n += len(k) + len(v)
		}
		if n > len(b) || cap(s.buf) > len(b)+256<<10 {
			t.Fatalf("%d bytes of records and %d of memory out of %d", n, cap(s.buf), len(b))
		}
	})
}

func FuzzIndex(f *testing.F) {
	var d plugins.Digest
	d.Add([]byte("a"), []byte("b"))
	f.Add(encodeIndex(d, 1, appendEntry(nil, indexEntry{first: []byte("a"), last: []byte("a"), bytes: 2, digest: d})), 1)
	f.Add(encodeIndex(plugins.Digest{}, 0, nil), 0)
	f.Fuzz(func(t *testing.T, b []byte, want int) {
		total, es, err := decodeIndex(b, want)
		if err != nil {
			return
		}
		var body []byte
		for _, e := range es {
			body = appendEntry(body, e)
		}
		got, again, err := decodeIndex(encodeIndex(total, len(es), body), len(es))
		if err != nil || got != total || len(again) != len(es) {
			t.Fatal(err)
		}
	})
}

// Our own frames of stored blocks are what zstd says they are.
func TestRawFrame(t *testing.T) {
	t.Parallel()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, n := range []int{1, 127, 1 << 17, 1<<17 + 1, chunkSize - 1, chunkSize} {
		in := noise(1, n)
		out, err := d.DecodeAll(stored(in), nil)
		if err != nil || !bytes.Equal(in, out) {
			t.Error(n, err)
		}
	}
}

// Any set of artifacts comes back as it was, whatever its shape.
func TestAnyDataRoundTrip(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	rapid.Check(t, func(rt *rapid.T) {
		d := data{}
		for _, name := range rapid.SliceOfNDistinct(rapid.StringN(1, 20, 60).Filter(func(s string) bool {
			return manifest.ValidateArtifact(plugins.Artifact{Name: s, Form: plugins.File}) == nil
		}), 0, 5, rapid.ID).Draw(rt, "names") {
			c := content{form: rapid.SampledFrom([]plugins.Form{plugins.Ordered, plugins.Unordered, plugins.File}).Draw(rt, "form")}
			size := rapid.SampledFrom([]int{0, 1, 1000, smallPiece - 10, smallPiece + 10, chunkSize}).Draw(rt, "size")
			n := rapid.IntRange(0, 4).Draw(rt, "n")
			if c.form == plugins.File {
				c.file = noise(uint64(n), size)
			} else {
				for i := range n {
					c.records = append(c.records, [2][]byte{{byte(i)}, noise(uint64(i), size)})
				}
			}
			d[name] = c
		}
		ref, _ := x.backup("R", d)
		x.compare(ref, d)
	})
}
