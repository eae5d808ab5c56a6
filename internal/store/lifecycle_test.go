package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func TestSealedIsNeverChanged(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref, m := x.backup("D", data{"t": pairs("a", "b")})
	if _, err := x.s.BeginUnit(t.Context(), ref, unitA, x.w, UnitOptions{Redo: true}); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
	o := SealOptions{Writer: x.w, ManifestKey: *x.r.ManifestKey}
	if got, err := x.s.Seal(t.Context(), ref, manifest.Manifest{ID: m.ID}, o); err != nil || got.MAC != m.MAC {
		t.Error("sealing again with the same id:", err)
	}
	if _, err := x.s.Seal(t.Context(), ref, manifest.Manifest{ID: "other"}, o); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
	ref2 := x.next("D")
	sum := x.unit(ref2, unitA, data{"t": pairs("a", "b")})
	sum.SHA256[0] ^= 1
	if _, err := x.s.Seal(t.Context(), ref2, manifest.Manifest{ID: "x", Units: []UnitSummary{sum}}, o); err == nil {
		t.Error("sealed a unit that is not the one reported")
	}
	x.begin(ref2, UnitID{Component: "beta", Instance: "central"}, UnitOptions{}).Abort()
	if _, err := x.s.Seal(t.Context(), ref2, manifest.Manifest{ID: "x"}, o); err == nil {
		t.Error("sealed with an unfinished unit")
	}
}

func TestPinsAreNeverMixed(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref := x.next("D")
	d := data{"t": table(1, 2000, 500)}
	u := x.begin(ref, unitA, UnitOptions{Pin: "pin-1"})
	if _, err := x.s.BeginUnit(t.Context(), ref, unitA, x.w, UnitOptions{}); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := fill(t.Context(), u, d); err != nil {
		t.Fatal(err)
	}
	sum, err := u.Finish(t.Context(), meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.s.BeginUnit(t.Context(), ref, unitA, x.w, UnitOptions{Pin: "pin-1"}); !errors.Is(err, ErrFinished) {
		t.Error(err)
	}
	if got, err := x.s.Summaries(ref); err != nil || len(got) != 1 || got[0].SHA256 != sum.SHA256 {
		t.Error(got, err)
	}
	u = x.begin(ref, unitA, UnitOptions{Pin: "pin-2"}) // the pin was lost; the same data enters by content id
	w, err := u.Create(t.Context(), plugins.Artifact{Name: "t", Form: plugins.Ordered, Pin: "pin-2"})
	if err = errors.Join(err, put(w, d["t"])); err != nil {
		t.Fatal(err)
	}
	if _, stored := u.Stats(); stored > 4096 {
		t.Errorf("%d bytes stored again", stored)
	}
	m := meta
	m.Pin = "pin-2"
	again, err := u.Finish(t.Context(), m)
	if err != nil || again.StoredNew != again.Stored {
		t.Fatal(again, err)
	}
	x.seal(ref)
	x.compare(ref, d)
}

func TestReuse(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := data{
		"f": {form: plugins.File, identity: "i1", file: noise(1, 5<<20)},
		"g": {form: plugins.File, identity: "i2", file: []byte("small")},
		"e": {form: plugins.File, identity: "i3"},
		"t": {form: plugins.Ordered, identity: "i4", records: table(1, 100, 5000).records},
	}
	ref, _ := x.backup("D", d)
	for round := range 2 {
		next := x.next("E")
		u := x.begin(next, unitA, UnitOptions{})
		for name, c := range d {
			if ok, err := u.Reuse(t.Context(), plugins.Artifact{Name: name, Form: c.form, Pin: "p2", Identity: c.identity}); err != nil || !ok {
				t.Fatal(round, name, ok, err)
			}
		}
		for _, a := range []plugins.Artifact{{Name: "x", Form: plugins.File, Identity: "i1"}, {Name: "f2", Form: plugins.File}} {
			if ok, err := u.Reuse(t.Context(), a); err != nil || ok {
				t.Error(a.Name, ok, err)
			}
		}
		if ok, err := u.Reuse(t.Context(), plugins.Artifact{Name: "f", Form: plugins.File, Identity: "i1"}); ok || !errors.Is(err, plugins.ErrData) {
			t.Error("twice:", ok, err)
		}
		sum, err := u.Finish(t.Context(), meta)
		if err != nil || sum.StoredNew != 0 {
			t.Fatal(sum, err)
		}
		x.seal(next)
		x.compare(next, d)
		if err := x.s.Remove(t.Context(), ref); err != nil { // the next round reuses from the copy
			t.Fatal(err)
		}
		ref = next
	}
	x.clean(ref)
	// A piece that is gone is not reused.
	p := x.list(ref).Pieces[x.list(ref).Artifacts[1].Parts[0].Piece]
	if err := os.Remove(filepath.Join(x.root, objectPath(p.ID))); err != nil {
		t.Fatal(err)
	}
	u := x.begin(x.next("E"), unitA, UnitOptions{})
	defer u.Abort()
	if ok, err := u.Reuse(t.Context(), plugins.Artifact{Name: "f", Form: plugins.File, Identity: "i1"}); ok || err != nil {
		t.Error(ok, err)
	}
}

// What is known to hold the same is stored by reference, and only that.
func TestShare(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := data{"t": table(1, 3000, 500), "u": table(2, 10, 500)}
	ref, _ := x.backup("D", d)
	r, err := x.s.OpenUnit(t.Context(), ref, unitA, x.r)
	if err != nil {
		t.Fatal(err)
	}
	have := r.Artifacts()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	next := x.next("E")
	u := x.begin(next, unitA, UnitOptions{})
	for i, a := range have {
		art := plugins.Artifact{Name: a.Name, Form: a.Form, Pin: "p2"}
		if ok, err := u.Share(t.Context(), art, have[1-i].Digest); ok || err != nil {
			t.Error("another digest:", ok, err)
		}
		other := art
		other.Form = plugins.Unordered
		if ok, err := u.Share(t.Context(), other, a.Digest); ok || err != nil {
			t.Error("another form:", ok, err)
		}
		if ok, err := u.Share(t.Context(), art, a.Digest); !ok || err != nil {
			t.Error(a.Name, ok, err)
		}
	}
	if sum, err := u.Finish(t.Context(), meta); err != nil || sum.StoredNew != 0 {
		t.Fatal(sum, err)
	}
	x.seal(next)
	x.compare(next, d)
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := data{"t": table(1, 2000, 500)}
	a, _ := x.backup("D", d)
	b, _ := x.backup("E", d)
	p := x.list(a).Pieces[0]
	f, err := os.OpenFile(x.pieceFile(a, p), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("damage"), p.Stored/2)
	f.Close()
	if rep, err := x.s.Verify(t.Context(), a, VerifyOptions{}, nil); err != nil || rep.Err() != nil {
		t.Error("sizes alone show nothing:", err, rep.Err())
	}
	rep, err := x.s.Verify(t.Context(), a, VerifyOptions{Full: true, Quarantine: true}, nil)
	if err != nil || len(rep.Damage) != 1 || !slices.Equal(rep.Marked, []Ref{a, b}) {
		t.Fatalf("%+v %v", rep, err)
	}
	for _, r := range []Ref{a, b} {
		if st, err := x.s.State(r); err != nil || !st.Damaged || len(st.Problems) == 0 {
			t.Errorf("%s: %+v %v", r, st, err)
		}
	}
	c, m := x.backup("D", d) // stored anew
	if m.Totals.StoredNew == 0 {
		t.Error("the damaged piece was linked again")
	}
	x.compare(c, d)
	e, m := x.backup("D", d) // and shared from then on
	if m.Totals.StoredNew != 0 {
		t.Error("not shared with the healthy one")
	}
	x.clean(c, e)
	if es, err := os.ReadDir(filepath.Join(x.root, dirQuarantine)); err != nil || len(es) != 1 {
		t.Error(es, err)
	}
	if st, err := x.s.State(c); err != nil || st.Damaged {
		t.Error(st, err)
	}
}

func TestRemoveAndCleanup(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d, e := data{"t": table(1, 2000, 500)}, data{"t": table(2, 2000, 500)}
	a, _ := x.backup("D", d)
	b, _ := x.backup("D", d)
	c, _ := x.backup("D", e)
	u := x.open(a)
	if err := x.s.Remove(t.Context(), a); !errors.Is(err, ErrInUse) {
		t.Error("removed while it is read:", err)
	}
	u.Close()
	for _, r := range []Ref{a, c} {
		if err := x.s.Remove(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.s.Remove(t.Context(), a); !errors.Is(err, ErrNoSuchBackup) {
		t.Error(err)
	}
	rep, err := x.s.Cleanup(t.Context())
	if err != nil || rep.Objects == 0 || rep.Bytes == 0 {
		t.Errorf("%+v %v", rep, err)
	}
	x.compare(b, d)
	dead, kept := x.next("D"), x.next("K")
	x.unit(dead, unitA, e)
	x.unit(kept, unitA, e)
	writing := x.begin(x.next("D"), unitA, UnitOptions{})
	ctx, cancel := contextFor(t, 100)
	defer cancel()
	if _, err := x.s.Cleanup(ctx); !errors.Is(err, ErrInUse) {
		t.Error("cleaned while a unit is written:", err)
	}
	writing.Abort()
	rep, err = x.s.Cleanup(t.Context(), kept)
	if err != nil || len(rep.Incomplete) != 2 || rep.Objects != 0 {
		t.Errorf("%+v %v", rep, err)
	}
	x.seal(kept)
	x.compare(kept, e)
	if err := x.s.Remove(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(x.root, "K")); !os.IsNotExist(err) {
		t.Error("empty directory of the name is left:", err)
	}
	x.clean(b)
}

func TestImport(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := mixedSmall()
	ref, _ := x.backup("D", d)
	away := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", x.s.Dir(ref), away).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	// Another host has the directory and a copy of the identity, nothing else.
	y := newSite(t)
	alone, err := keys.LoadIdentity(filepath.Join(x.keyDir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.s.Import(t.Context(), away, y.r); !errors.Is(err, manifest.ErrTampered) {
		t.Error("with the wrong keys:", err)
	}
	got, err := y.s.Import(t.Context(), away, alone)
	if err != nil || got != ref {
		t.Fatal(got, err)
	}
	y.r = alone
	y.compare(ref, d)
	y.clean(ref)
	if _, err := y.s.Import(t.Context(), away, alone); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
	// Copied straight into its place: adopted there, and shared with what the store has.
	if err := y.s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkdir", "-p", filepath.Dir(y.s.Dir(ref))).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if out, err := exec.Command("cp", "-a", away, y.s.Dir(ref)).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if _, err := y.s.Import(t.Context(), y.s.Dir(ref), alone); err != nil {
		t.Fatal(err)
	}
	for _, p := range x.list(ref).Pieces {
		a, err1 := os.Stat(y.pieceFile(ref, p))
		b, err2 := os.Stat(filepath.Join(y.root, objectPath(p.ID)))
		if err := errors.Join(err1, err2); err != nil || !os.SameFile(a, b) {
			t.Error("not one file:", err)
		}
	}
	// A damaged copy is refused and does not become a backup.
	z := newSite(t)
	p := x.list(ref).Pieces[0]
	file := filepath.Join(away, unitA.String(), p.FileName())
	b := unlinkCopy(t, file)
	b[len(b)/2] ^= 1
	write(t, file, b)
	if _, err := z.s.Import(t.Context(), away, alone); !errors.Is(err, plugins.ErrCorrupt) {
		t.Error(err)
	}
	if _, err := z.s.LoadManifest(ref, nil); !errors.Is(err, ErrIncomplete) {
		t.Error(err)
	}
}

func mixedSmall() data {
	return data{"t": table(1, 2000, 500), "s": pairs("a", "b"), "e": {form: plugins.File}, "f": {form: plugins.File, file: noise(1, 1<<20)}}
}

func TestTooManyLinks(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := mixedSmall()
	x.backup("D", d)
	x.s.fault = func(p string) error {
		if p == "link" {
			return unix.EMLINK
		}
		return nil
	}
	ref := x.next("D")
	u := x.begin(ref, unitA, UnitOptions{})
	if err := fill(t.Context(), u, d); err != nil {
		t.Fatal(err)
	}
	u.pending.Wait()
	x.s.fault = nil
	sum, err := u.Finish(t.Context(), meta)
	if err != nil || sum.StoredNew == 0 {
		t.Fatal(sum, err)
	}
	x.seal(ref)
	x.compare(ref, d)
	x.clean(ref)
}

func TestChangeOfRecipientsStartsNewObjects(t *testing.T) {
	t.Parallel()
	x, y := newSite(t), newSite(t)
	d := mixedSmall()
	x.backup("D", d)
	all := append(slices.Clone(x.w.Lines), y.w.Lines...)
	var err error
	if x.w.Recipients, x.w.Lines, err = keys.ParseRecipients([]byte(all[0] + "\n" + all[1])); err != nil {
		t.Fatal(err)
	}
	ref, m := x.backup("D", d)
	if m.Totals.StoredNew != m.Totals.Stored {
		t.Error("old objects were shared with a recipient who cannot open them")
	}
	x.compare(ref, d)
	x.r = keys.Reader{Identities: y.r.Identities}
	x.compare(ref, d)
}

// Packs of which little is in use are left behind, so that they cannot pile up.
func TestSparsePacksAreLeft(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := data{}
	for i := range 40 {
		d[fmt.Sprint("n", i)] = content{form: plugins.File, file: noise(uint64(i), 1000)}
	}
	x.backup("D", d)
	for i := range 38 {
		delete(d, fmt.Sprint("n", i))
	}
	x.backup("D", d)
	_, m := x.backup("D", d)
	if m.Totals.Stored > 8000 {
		t.Errorf("two small files keep %d bytes", m.Totals.Stored)
	}
}

// Data that comes back after several backups without it is stored anew, under a content id that an older
// backup has another file for; whoever shares it later shares the right one.
func TestTwoFilesOfOneContent(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d, other := data{"t": table(1, 2000, 500)}, data{"t": pairs("a", "b")}
	first, _ := x.backup("D", d)
	for range maxPast + 1 {
		x.backup("D", other)
	}
	second, m := x.backup("D", d)
	if m.Totals.StoredNew == 0 {
		t.Fatal("no second file was made: the test shows nothing")
	}
	third, m := x.backup("D", d)
	if m.Totals.StoredNew != 0 {
		t.Errorf("%d bytes stored, although the newest backup has them", m.Totals.StoredNew)
	}
	x.clean(first, second, third)
	for _, r := range []Ref{first, second, third} {
		x.compare(r, d)
	}
}

// Recipients that change while a backup runs would leave units that different identities open.
func TestRecipientsChangedInTheMiddle(t *testing.T) {
	t.Parallel()
	x, y := newSite(t), newSite(t)
	ref := x.next("D")
	x.unit(ref, unitA, mixedSmall())
	x.w.Recipients, x.w.Lines = y.w.Recipients, y.w.Lines
	_, err := x.s.Seal(t.Context(), ref, manifest.Manifest{ID: "run", Operation: plugins.OpBackup}, SealOptions{Writer: x.w, ManifestKey: *x.r.ManifestKey})
	if !errors.Is(err, keys.ErrKeys) || !strings.Contains(err.Error(), "start it again") {
		t.Error(err)
	}
}
