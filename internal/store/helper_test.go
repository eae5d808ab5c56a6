package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// site is a store with its keys.
type site struct {
	t      testing.TB
	s      *Store
	root   string
	keyDir string
	w      keys.Writer
	r      keys.Reader
	clock  time.Time
}

func newSite(t testing.TB) *site {
	t.Helper()
	dir := t.TempDir()
	x := &site{t: t, root: filepath.Join(dir, "root"), keyDir: filepath.Join(dir, "keys"), clock: time.Date(2019, 3, 16, 4, 0, 7, 0, time.UTC)}
	// A known content key makes the cuts the same in every run.
	if err := errors.Join(os.Mkdir(x.keyDir, 0o700), os.WriteFile(filepath.Join(x.keyDir, "content.key"), bytes.Repeat([]byte{7}, keys.Size), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Ensure(x.keyDir); err != nil {
		t.Fatal(err)
	}
	var err error
	if x.w, err = keys.LoadWriter(x.keyDir); err != nil {
		t.Fatal(err)
	}
	if x.r, err = keys.LoadReader(x.keyDir); err != nil {
		t.Fatal(err)
	}
	if x.s, err = Open(x.root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.s.Close() })
	return x
}

// next is the reference of the next backup.
func (x *site) next(name string) Ref {
	x.clock = x.clock.Add(time.Hour)
	return Ref{Name: name, Timestamp: manifest.Timestamp(x.clock)}
}

var unitA = UnitID{Component: "alpha", Instance: "central", Member: "cluster"}

// data is what a test stores: artifacts by name.
type data map[string]content

type content struct {
	form     plugins.Form
	identity string
	records  [][2][]byte
	file     []byte
}

func pairs(kv ...string) content {
	c := content{form: plugins.Ordered}
	for i := 0; i < len(kv); i += 2 {
		c.records = append(c.records, [2][]byte{[]byte(kv[i]), []byte(kv[i+1])})
	}
	return c
}

// table makes n ordered records with values of about size bytes that compress about fourfold.
func table(seed uint64, n, size int) content {
	c := content{form: plugins.Ordered}
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		c.records = append(c.records, [2][]byte{fmt.Appendf(nil, "key-%09d", i*10), value(r, size)})
	}
	return c
}

func value(r *rand.Rand, size int) []byte {
	v := make([]byte, 0, size+16)
	for len(v) < size {
		v = fmt.Appendf(v, "%08x........", r.Uint32()&0xffff)
	}
	return v[:size]
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		v := r.Uint64()
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
	}
	return b[:n]
}

func put(w plugins.RecordWriter, c content) error {
	for _, r := range c.records {
		if err := w.Put(r[0], r[1]); err != nil {
			return err
		}
	}
	if c.form == plugins.File {
		for p := c.file; len(p) > 0; {
			n := min(len(p), 100_003)
			if _, err := w.Write(p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
	}
	return w.Commit()
}

func (x *site) begin(ref Ref, id UnitID, o UnitOptions) *UnitWriter {
	x.t.Helper()
	u, err := x.s.BeginUnit(x.t.Context(), ref, id, x.w, o)
	if err != nil {
		x.t.Fatal(err)
	}
	return u
}

func fill(ctx context.Context, u *UnitWriter, d data) error {
	for name, c := range d {
		w, err := u.Create(ctx, plugins.Artifact{Name: name, Form: c.form, Pin: "pin-1", Identity: c.identity})
		if err != nil {
			return err
		}
		if err := put(w, c); err != nil {
			w.Abort()
			return err
		}
	}
	return nil
}

var meta = UnitMeta{Scope: plugins.ScopeCluster, VM: "vm-1", Pin: "pin-1", Consistency: "one snapshot"}

func (x *site) unit(ref Ref, id UnitID, d data) UnitSummary {
	x.t.Helper()
	u := x.begin(ref, id, UnitOptions{})
	if err := fill(x.t.Context(), u, d); err != nil {
		x.t.Fatal(err)
	}
	sum, err := u.Finish(x.t.Context(), meta)
	if err != nil {
		x.t.Fatal(err)
	}
	return sum
}

func (x *site) seal(ref Ref) manifest.Manifest {
	x.t.Helper()
	m, err := x.s.Seal(x.t.Context(), ref, manifest.Manifest{ID: "run-" + ref.Timestamp, Tool: "test", Operation: plugins.OpBackup, Trigger: manifest.TriggerCLI,
		Started: x.clock, Pinned: x.clock, Ended: x.clock, Consistency: manifest.NoConsistencyPoint},
		SealOptions{Writer: x.w, ManifestKey: *x.r.ManifestKey, Files: map[string][]byte{"estate.yaml": []byte("vms: []\n")}})
	if err != nil {
		x.t.Fatal(err)
	}
	return m
}

// backup stores one sealed backup of one unit.
func (x *site) backup(name string, d data) (Ref, manifest.Manifest) {
	x.t.Helper()
	ref := x.next(name)
	x.unit(ref, unitA, d)
	return ref, x.seal(ref)
}

func (x *site) open(ref Ref) *UnitReader {
	x.t.Helper()
	u, err := x.s.OpenUnit(x.t.Context(), ref, unitA, x.r)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { u.Close() })
	return u
}

func readAll(r plugins.RecordReader, form plugins.Form) (content, error) {
	c := content{form: form}
	defer r.Close()
	if form == plugins.File {
		b, err := io.ReadAll(r)
		c.file = b
		return c, err
	}
	for {
		k, v, err := r.Next()
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return c, err
		}
		c.records = append(c.records, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
	}
}

// compare checks that a backup holds exactly d.
func (x *site) compare(ref Ref, d data) {
	x.t.Helper()
	u := x.open(ref)
	defer u.Close()
	if n := len(u.Artifacts()); n != len(d) {
		x.t.Fatalf("%d artifacts, want %d", n, len(d))
	}
	dg := plugins.NewDigester()
	for name, c := range d {
		w, err := dg.Create(x.t.Context(), plugins.Artifact{Name: name, Form: c.form})
		if err = errors.Join(err, put(w, c)); err != nil {
			x.t.Fatal(err)
		}
	}
	if diff := plugins.DiffDigests(dg.Digests(), u.Artifacts()); len(diff) > 0 {
		x.t.Fatalf("digests differ: %v", diff)
	}
	for name, c := range d {
		rd, err := u.Open(x.t.Context(), name)
		if err != nil {
			x.t.Fatal(err)
		}
		got, err := readAll(rd, c.form)
		if err != nil {
			x.t.Fatalf("%s: %v", name, err)
		}
		if err := same(c, got); err != nil {
			x.t.Fatalf("%s: %v", name, err)
		}
	}
}

func same(want, got content) error {
	if !bytes.Equal(want.file, got.file) {
		return fmt.Errorf("bytes differ: %d and %d", len(want.file), len(got.file))
	}
	if len(want.records) != len(got.records) {
		return fmt.Errorf("%d records, want %d", len(got.records), len(want.records))
	}
	for i, r := range want.records {
		if !bytes.Equal(r[0], got.records[i][0]) || !bytes.Equal(r[1], got.records[i][1]) {
			return fmt.Errorf("record %d differs", i)
		}
	}
	return nil
}

func (x *site) list(ref Ref) *manifest.UnitFile {
	x.t.Helper()
	f, _, err := x.s.readUnit(ref, unitA)
	if err != nil {
		x.t.Fatal(err)
	}
	return f
}

// stored is a frame that is not compressed.
func stored(p []byte) []byte {
	var b bytes.Buffer
	if err := rawFrame(&b, p); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// pieceFile is the path of a piece of a backup.
func (x *site) pieceFile(ref Ref, p manifest.Piece) string {
	return filepath.Join(x.s.Dir(ref), unitA.String(), p.FileName())
}
