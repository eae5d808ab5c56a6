package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// readEverything opens the unit and reads all of it; the first error is returned.
func (x *site) readEverything(ref Ref) error {
	u, err := x.s.OpenUnit(x.t.Context(), ref, unitA, x.r)
	if err != nil {
		return err
	}
	defer u.Close()
	for _, a := range u.Artifacts() {
		r, err := u.Open(x.t.Context(), a.Name)
		if err != nil {
			return err
		}
		if _, err := readAll(r, a.Form); err != nil {
			return err
		}
	}
	return nil
}

// unlinkCopy gives a file its own inode, so that damage stays in one backup.
func unlinkCopy(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.Remove(file)
	}
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every kind of damage to a piece is found by reading and by both kinds of
// verification, and never gives wrong data.
func TestDamagedPieces(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref, _ := x.backup("D", data{"t": table(1, 3000, 500), "s": pairs("a", "b")})
	seal := func(plain []byte) []byte {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, x.w.Recipients...)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(plain)
		w.Close()
		return b.Bytes()
	}
	zeros, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := seal(zeros.EncodeAll(make([]byte, 512<<20), nil))
	for _, p := range x.list(ref).Pieces {
		file := x.pieceFile(ref, p)
		good := unlinkCopy(t, file)
		flip := func(i int) []byte {
			b := bytes.Clone(good)
			b[i] ^= 1
			return b
		}
		for name, bad := range map[string][]byte{
			"first bit": flip(0), "header": flip(60), "middle": flip(len(good) / 2), "last": flip(len(good) - 1),
			"cut": good[:len(good)-1], "empty": {}, "longer": append(bytes.Clone(good), 0),
			"another's": seal(zeros.EncodeAll([]byte("\x01a\x01z"), nil)), "bomb": bomb, "no zstd": seal(bytes.Repeat([]byte("x"), 1000)),
		} {
			write(t, file, bad)
			if err := x.readEverything(ref); !errors.Is(err, plugins.ErrCorrupt) {
				t.Errorf("%s: read: %v", name, err)
			}
			for _, r := range []*keys.Reader{nil, &x.r} {
				rep, err := x.s.Verify(t.Context(), ref, VerifyOptions{Full: true, Reader: r}, nil)
				if err != nil || !errors.Is(rep.Err(), plugins.ErrCorrupt) || len(rep.Damage) != 1 || rep.Damage[0].Piece != p.ID {
					t.Errorf("%s: verify: %v %v", name, err, rep.Damage)
				}
			}
		}
		write(t, file, good)
	}
	if err := x.readEverything(ref); err != nil {
		t.Fatal(err)
	}
	others := VerifyOptions{Full: true, Of: func(id UnitID) bool { return id != unitA }}
	if rep, err := x.s.Verify(t.Context(), ref, others, nil); err != nil || rep.Full || rep.Pieces != 0 {
		t.Errorf("verify of other units: %+v %v", rep, err)
	}
	if st, err := x.s.State(ref); err != nil || !st.Damaged {
		t.Errorf("damage is not remembered: %+v %v", st, err)
	}
	if rep, err := x.s.Verify(t.Context(), ref, VerifyOptions{Full: true}, nil); err != nil || rep.Err() != nil {
		t.Error(err, rep.Err())
	}
	if st, err := x.s.State(ref); err != nil || st.Damaged || st.LastFull.IsZero() {
		t.Errorf("a good full read does not end it: %+v %v", st, err)
	}
}

// A piece that decodes well, encrypted to the right recipients, is still refused when its SHA-256 in an
// equally forged list fits but its content is not what the content id says.
func TestForgedContent(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref, _ := x.backup("D", data{"t": table(1, 3000, 500)})
	f := x.list(ref)
	p := f.Pieces[f.Artifacts[0].Parts[0].Piece]
	plain := make([]byte, p.Bytes)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, x.w.Recipients...)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(stored(plain[:min(len(plain), chunkSize)]))
	w.Write(stored(plain[min(len(plain), chunkSize):]))
	w.Close()
	file := x.pieceFile(ref, p)
	unlinkCopy(t, file)
	write(t, file, b.Bytes())
	forged := p
	forged.Stored, forged.SHA256 = int64(b.Len()), manifest.SHA256(b.Bytes())
	dir, err := x.s.openUnitDir(ref, unitA)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	o := &opener{s: x.s, dir: dir, identities: x.r.Identities, key: x.w.ContentKey[:], intro: pieceIntro(f.Fingerprint, unitA)}
	if _, err := o.load(t.Context(), forged); !errors.Is(err, plugins.ErrCorrupt) || !strings.Contains(err.Error(), "content id") {
		t.Error(err)
	}
}

func TestLinksAndPipesInsteadOfFiles(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref, _ := x.backup("D", data{"t": table(1, 30, 500)})
	p := x.list(ref).Pieces[0]
	file := x.pieceFile(ref, p)
	b := unlinkCopy(t, file)
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, b)
	inside := filepath.Join(x.root, "inside")
	write(t, inside, b)
	for name, do := range map[string]func() error{
		"link outside": func() error { return os.Symlink(outside, file) },
		"link inside":  func() error { return os.Symlink("../../../../../inside", file) },
		"pipe":         func() error { return syscall.Mkfifo(file, 0o600) },
		"directory":    func() error { return os.Mkdir(file, 0o700) },
		"missing":      func() error { return nil },
	} {
		os.RemoveAll(file)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if err := x.readEverything(ref); !errors.Is(err, plugins.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	os.RemoveAll(file)
	write(t, file, b)
	unit := filepath.Dir(file)
	if err := errors.Join(os.Rename(unit, unit+"-moved"), os.Symlink(filepath.Base(unit)+"-moved", unit)); err != nil {
		t.Fatal(err)
	}
	if err := x.readEverything(ref); !errors.Is(err, plugins.ErrCorrupt) {
		t.Errorf("unit behind a link: %v", err)
	}
	if _, err := x.s.BeginUnit(t.Context(), Ref{Name: "D", Timestamp: "../../x"}, unitA, x.w, UnitOptions{}); !errors.Is(err, manifest.ErrName) {
		t.Error(err)
	}
	if _, err := x.s.BeginUnit(t.Context(), x.next("D"), UnitID{Component: "..", Instance: "a", Member: "b"}, x.w, UnitOptions{}); !errors.Is(err, manifest.ErrName) {
		t.Error(err)
	}
}

// Each byte of the manifest and the list is covered by the seal.
func TestTamperedDocuments(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref, _ := x.backup("D", data{"t": pairs("a", "b")})
	mf := filepath.Join(x.s.Dir(ref), fileManifest)
	good, err := os.ReadFile(mf)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		write(t, mf, b)
		if _, err := x.s.LoadManifest(ref, &x.r); err == nil {
			t.Fatalf("byte %d (%q) can be changed", i, good[max(0, i-10):i+1])
		}
	}
	write(t, mf, good)
	uf := filepath.Join(x.s.Dir(ref), unitA.String(), fileUnit)
	list, err := os.ReadFile(uf)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		b := bytes.Clone(list)
		b[i] ^= 1
		write(t, uf, b)
		if _, err := x.s.OpenUnit(t.Context(), ref, unitA, x.r); !errors.Is(err, plugins.ErrCorrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	write(t, uf, list)
	// A whole manifest sealed by somebody else is refused, also by an identity alone.
	other := newSite(t)
	m, err := manifest.Decode(good)
	if err != nil {
		t.Fatal(err)
	}
	if m.Keys, err = keys.Wrap(x.w, *other.r.ManifestKey); err != nil {
		t.Fatal(err)
	}
	forged, err := manifest.Encode(m, *other.r.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, mf, forged)
	if _, err := x.s.LoadManifest(ref, &x.r); !errors.Is(err, manifest.ErrTampered) {
		t.Error(err)
	}
	alone, err := keys.LoadIdentity(filepath.Join(x.keyDir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.s.LoadManifest(ref, &alone); !errors.Is(err, keys.ErrKeys) {
		t.Error(err)
	}
	write(t, mf, good)
	if _, err := x.s.LoadManifest(ref, &alone); err != nil {
		t.Error(err)
	}
	if _, err := x.s.OpenUnit(t.Context(), ref, unitA, keys.Reader{Identities: other.r.Identities, ManifestKey: x.r.ManifestKey}); !errors.Is(err, keys.ErrIdentity) {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	u := x.begin(x.next("D"), unitA, UnitOptions{Pin: "p"})
	defer u.Abort()
	create := func(name string, f plugins.Form, pin string) (plugins.RecordWriter, error) {
		return u.Create(t.Context(), plugins.Artifact{Name: name, Form: f, Pin: pin})
	}
	for _, name := range []string{"", "a\x00b", "\xff", strings.Repeat("x", 1025)} {
		if _, err := create(name, plugins.Ordered, "p"); !errors.Is(err, plugins.ErrData) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := create("a", plugins.Ordered, "q"); !errors.Is(err, plugins.ErrPinLost) {
		t.Error(err)
	}
	w, err := create("a", plugins.Ordered, "p")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create("a", plugins.Ordered, "p"); !errors.Is(err, plugins.ErrData) {
		t.Error(err)
	}
	if _, err := u.Finish(t.Context(), UnitMeta{Pin: "p"}); err == nil {
		t.Error("finished with an open artifact")
	}
	w.Abort()
	w.Abort()
	for name, do := range map[string]func(plugins.RecordWriter) error{
		"order": func(w plugins.RecordWriter) error {
			return errors.Join(w.Put([]byte("b"), nil), w.Put([]byte("a"), nil))
		},
		"equal": func(w plugins.RecordWriter) error {
			return errors.Join(w.Put([]byte("b"), nil), w.Put([]byte("b"), nil))
		},
		"long key":  func(w plugins.RecordWriter) error { return w.Put(make([]byte, manifest.MaxKey+1), nil) },
		"too large": func(w plugins.RecordWriter) error { return w.Put([]byte("k"), make([]byte, manifest.MaxRecord)) },
		"bytes":     func(w plugins.RecordWriter) error { _, err := io.WriteString(w, "x"); return err },
	} {
		u := x.begin(x.next("D"), unitA, UnitOptions{})
		w, err := u.Create(t.Context(), plugins.Artifact{Name: "a", Form: plugins.Ordered})
		if err != nil {
			t.Fatal(err)
		}
		if err := do(w); !errors.Is(err, plugins.ErrData) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.Commit(); err == nil {
			t.Errorf("%s: committed after an error", name)
		}
		w.Abort()
		u.Abort()
	}
}
