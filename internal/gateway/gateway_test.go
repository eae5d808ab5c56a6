package gateway

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A VM without the store writes a whole unit, resumes, and sends nothing twice; the control role reads it all.
func TestWholeUnit(t *testing.T) {
	x := newSite(t)
	data := table(1, 20_000)
	a, ref := x.as("worker-vm-a"), x.next()
	sum, err := x.through(a, ref, unitA, data)
	x.check(err)
	x.seal(ref)
	got, err := x.read(ref, unitA)
	x.check(err)
	if !equal(data, got) {
		t.Fatal("what came through the gateway is something else")
	}
	if len(x.list(ref, unitA).Pieces) < 3 || sum.StoredNew != sum.Stored {
		t.Errorf("pieces %d, %+v", len(x.list(ref, unitA).Pieces), sum.UnitHead)
	}
	for _, o := range []store.VerifyOptions{{Full: true}, {Full: true, Reader: &x.r}} {
		if rep, err := x.store.Verify(t.Context(), ref, o, nil); err != nil || rep.Err() != nil {
			t.Error(err, rep.Err())
		}
	}

	second := x.next()
	sum, err = x.through(a, second, unitA, data)
	x.check(err)
	x.seal(second)
	if sum.StoredNew != 0 {
		t.Errorf("%d of %d bytes sent again although nothing changed", sum.StoredNew, sum.Stored)
	}

	// An attempt that ends in the middle: the next one sends the rest.
	third, more := x.next(), append(table(2, 12_000), data...)
	first := x.begin(a, third, unitA)
	p := manifest.Piece{Bytes: 100, Stored: 5, SHA256: manifest.SHA256([]byte("hello"))}
	p.ID[0] = 9
	have, err := first.Put(t.Context(), p, strings.NewReader("hello"))
	x.check(err)
	if !have.New || first.End(t.Context()) != nil {
		t.Error("the first attempt did not store, or did not end")
	}
	again := x.begin(a, third, unitA)
	if have, ok, err := again.Known(t.Context(), p.ID); err != nil || !ok || have.SHA256 != p.SHA256 {
		t.Errorf("a piece of the earlier attempt is not known: %+v %v %v", have, ok, err)
	}
	for i := range more {
		more[i][0] = append([]byte("z"), more[i][0]...)
	}
	more = more[:12_000]
	_, err = x.through(a, third, unitA, more) // takes over from the session that is still open
	x.check(err)
	if _, _, err := again.Known(t.Context(), p.ID); !errors.Is(err, ErrSession) {
		t.Errorf("the older attempt goes on: %v", err)
	}
	x.seal(third)
	if _, err := x.read(third, unitA); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(x.store.Dir(third), unitA.String(), p.FileName())); !errors.Is(err, os.ErrNotExist) {
		t.Error("a piece that the list does not name was left behind")
	}

	control := x.as("control")
	f, sha, err := control.List(t.Context(), ref, unitA)
	x.check(err)
	if want, err := os.ReadFile(filepath.Join(x.store.Dir(ref), unitA.String(), "unit.json")); err != nil || manifest.SHA256(want) != sha {
		t.Error("the list is not the stored one")
	}
	var b bytes.Buffer
	x.check(control.Piece(t.Context(), ref, unitA, f.Pieces[0].ID, &b))
	if manifest.SHA256(b.Bytes()) != f.Pieces[0].SHA256 {
		t.Error("control read another piece")
	}
}

// Each role and each request: who may, and that who may not is told why.
func TestRoles(t *testing.T) {
	x := newSite(t)
	ref := x.next()
	_, err := x.through(x.as("worker-vm-a"), ref, unitA, table(1, 50))
	x.check(err)
	open := x.next() // being made
	id := x.list(ref, unitA).Pieces[0].ID
	ctx := t.Context()
	requests := map[string]func(c *Client) error{
		"begin": func(c *Client) error {
			u, err := c.Begin(ctx, open, unitA, Begin{Claim: x.inForce()})
			if err == nil {
				err = u.End(ctx)
			}
			return err
		},
		"known": func(c *Client) error { _, err := foreign(c, open).KnownAll(ctx, id); return err },
		"put": func(c *Client) error {
			_, err := foreign(c, open).Put(ctx, tiny(1), strings.NewReader("hello"))
			return err
		},
		"publish": func(c *Client) error { _, err := foreign(c, ref).Publish(ctx, x.list(ref, unitA)); return err },
		"list":    func(c *Client) error { _, _, err := c.List(ctx, ref, unitA); return err },
		"piece":   func(c *Client) error { return c.Piece(ctx, ref, unitA, id, &bytes.Buffer{}) },
		"end":     func(c *Client) error { return foreign(c, open).End(ctx) },
	}
	may := map[string][]string{
		"worker-vm-a": {"begin", "list"}, // and known, put, publish, end within a session of its own: TestWholeUnit
		"worker-vm-b": nil, "operator": nil, "ui": nil, "control": {"list", "piece"},
	}
	for name, allowed := range may {
		for what, do := range requests {
			err := do(x.as(name))
			want := false
			for _, w := range allowed {
				want = want || w == what
			}
			switch {
			case want && err != nil:
				t.Errorf("%s: %s: %v", name, what, err)
			case !want && name == "worker-vm-a" && what != "piece":
				if !errors.Is(err, ErrSession) {
					t.Errorf("%s: %s without a session: %v", name, what, err)
				}
			case !want && !errors.Is(err, ErrRefused):
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
	if !strings.Contains(x.logged.String(), `role=worker:vm-b`) {
		t.Error("refusals are not logged")
	}
	// A server's certificate, or none, is no role at all.
	for _, name := range []string{"server", "gateway"} {
		if err := requests["list"](x.as(name)); err == nil {
			t.Errorf("%s reads", name)
		}
	}
	anonymous := NewClient(x.address, noCertificate(t, x))
	defer anonymous.Close()
	if err := requests["list"](anonymous); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("without a certificate: %v", err)
	}
}

// Nothing is deleted or replaced: not by any role, not by any method, not by sending again.
func TestNothingIsDeletedOrReplaced(t *testing.T) {
	x := newSite(t)
	ctx, a := t.Context(), x.as("worker-vm-a")
	ref := x.next()
	_, err := x.through(a, ref, unitA, table(1, 3000))
	x.check(err)
	f := x.list(ref, unitA)
	base := "/v1/" + ref.String() + "/" + unitA.String()
	before := tree(t, x.store.Path())
	for _, name := range []string{"worker-vm-a", "worker-vm-b", "control", "operator", "ui"} {
		for _, method := range []string{"DELETE", "PATCH", "POST", "MOVE", "PUT"} {
			for _, path := range []string{"", "/pieces/" + f.Pieces[0].ID.String(), "/unit.json", "/pieces", "/../../manifest.json", "/../../../../.cso/objects"} {
				if status, body := x.status(name, method, base+path, nil, ""); status < 300 {
					t.Errorf("%s %s %s: %d %s", name, method, path, status, body)
				}
			}
		}
	}
	// In a session of its own, in a backup that is not sealed: other bytes for what is stored.
	u, err := a.Begin(ctx, ref, unitA, Begin{Claim: x.inForce(), Pin: "p"})
	if !errors.Is(err, store.ErrFinished) {
		t.Fatalf("a finished unit is begun again: %v %v", u, err)
	}
	next := x.next()
	u = x.begin(a, next, unitA)
	have, err := u.Put(ctx, manifest.Piece{ID: f.Pieces[0].ID, Bytes: f.Pieces[0].Bytes, Stored: 5, SHA256: manifest.SHA256([]byte("hello"))}, strings.NewReader("hello"))
	if err != nil || have.SHA256 != f.Pieces[0].SHA256 || have.New {
		t.Errorf("the stored piece gave way: %+v %v", have, err)
	}
	p := tiny(3)
	_, err = u.Put(ctx, p, strings.NewReader("hello"))
	x.check(err)
	other := p
	other.SHA256 = manifest.SHA256([]byte("HELLO"))
	if have, err := u.Put(ctx, other, strings.NewReader("HELLO")); err != nil || have.SHA256 != p.SHA256 {
		t.Errorf("a piece of the same session gave way: %+v %v", have, err)
	}
	x.check(u.End(ctx))
	after := tree(t, x.store.Path())
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was changed", name)
		}
	}
	x.seal(ref)
	if _, err := a.Begin(ctx, ref, unitA, Begin{Claim: x.inForce(), Pin: "other"}); !errors.Is(err, store.ErrSealed) {
		t.Errorf("something is added to a complete backup: %v", err)
	}
}

// Garbage under the content id that another unit's data will have: that unit
// does not meet it, and who sent it is found out.
func TestGarbageHarmsItsOwnUnitOnly(t *testing.T) {
	x := newSite(t)
	ctx, data := t.Context(), table(1, 3000)
	first := x.next()
	_, err := x.through(x.as("worker-vm-a"), first, unitA, data)
	x.check(err)
	x.seal(first)
	want := x.list(first, unitA)

	// vm-b guesses the ids of all that vm-a will store, and names them in a list of its own.
	planted := x.next()
	u := x.begin(x.as("worker-vm-b"), planted, unitB)
	garbage := bytes.Repeat([]byte("garbage!"), 200)
	f := &manifest.UnitFile{Backup: planted, Fingerprint: x.w.Fingerprint(), UnitHead: manifest.UnitHead{UnitID: unitB, Scope: plugins.ScopeNode, VM: "vm-b", Pin: "p", Consistency: "none"}}
	for _, p := range want.Pieces {
		got, err := u.Put(ctx, manifest.Piece{ID: p.ID, Bytes: p.Bytes, Stored: int64(len(garbage)), SHA256: manifest.SHA256(garbage)}, bytes.NewReader(garbage))
		x.check(err)
		if !got.New {
			t.Fatal("vm-b was given what vm-a stored")
		}
		f.Pieces = append(f.Pieces, got)
		f.Stored += got.Stored
		f.StoredNew += got.Stored
	}
	f.Artifacts = want.Artifacts
	f.Records, f.Bytes = want.Records, want.Bytes
	for i := range f.Artifacts {
		f.Artifacts[i].Pin = "p"
	}
	f.Digest = manifest.UnitDigest(x.w.ContentKey, f.Artifacts)
	_, err = u.Publish(ctx, f)
	x.check(err)

	// The check before the seal finds it. Sealed in spite of it, verify does, with keys and names the unit.
	rep, err := x.store.Verify(ctx, planted, store.VerifyOptions{NewOnly: true, Unsealed: true, Reader: &x.r}, nil)
	if err != nil || !errors.Is(rep.Err(), plugins.ErrCorrupt) || rep.Damage[0].Unit != unitB {
		t.Errorf("garbage passes before the seal: %v %+v", err, rep)
	}
	x.seal(planted)
	rep, err = x.store.Verify(ctx, planted, store.VerifyOptions{Full: true, Reader: &x.r}, nil)
	if err != nil || !errors.Is(rep.Err(), plugins.ErrCorrupt) || rep.Damage[0].Unit != unitB {
		t.Errorf("verify does not find garbage: %v %+v", err, rep)
	}

	// vm-a: its earlier backup is whole, its next one too.
	second := x.next()
	_, err = x.through(x.as("worker-vm-a"), second, unitA, data)
	x.check(err)
	x.seal(second)
	for _, ref := range []manifest.Ref{first, second} {
		if got, err := x.read(ref, unitA); err != nil || !equal(got, data) {
			t.Errorf("%s: unit A is harmed: %v", ref, err)
		}
		if rep, err := x.store.Verify(ctx, ref, store.VerifyOptions{Full: true, Reader: &x.r}, nil); err != nil || rep.Err() != nil {
			t.Error(err, rep.Err())
		}
	}
}

// Lists that do not fit what was sent.
func TestForgedLists(t *testing.T) {
	x := newSite(t)
	ctx, a := t.Context(), x.as("worker-vm-a")
	ref := x.next()
	_, err := x.through(a, ref, unitA, table(1, 500))
	x.check(err)
	next := x.next()
	good := x.list(ref, unitA)
	var ids []manifest.Hash
	for _, p := range good.Pieces {
		ids = append(ids, p.ID)
	}
	u := x.begin(a, next, unitA)
	have, err := u.KnownAll(ctx, ids...)
	x.check(err)
	fresh := func() *manifest.UnitFile {
		f := *good
		f.Backup, f.Pieces, f.StoredNew = next, append([]manifest.Piece(nil), have...), 0
		return &f
	}
	for name, forge := range map[string]func(*manifest.UnitFile){
		"another unit":     func(f *manifest.UnitFile) { f.UnitID = unitB },
		"another backup":   func(f *manifest.UnitFile) { f.Backup = ref },
		"another VM":       func(f *manifest.UnitFile) { f.VM = "vm-b" },
		"another pin":      func(f *manifest.UnitFile) { f.Pin = "q" },
		"other recipients": func(f *manifest.UnitFile) { f.Fingerprint = strings.Repeat("0", 64) },
		"digest":           func(f *manifest.UnitFile) { f.Digest[0] ^= 1 },
		"never sent":       func(f *manifest.UnitFile) { f.Pieces[0].ID[0] ^= 1 },
		"other bytes":      func(f *manifest.UnitFile) { f.Pieces[0].SHA256[0] ^= 1 },
		"called new":       func(f *manifest.UnitFile) { f.Pieces[0].New = true; f.StoredNew = f.Pieces[0].Stored },
	} {
		f := fresh()
		forge(f)
		if _, err := u.Publish(ctx, f); !errors.Is(err, plugins.ErrData) && !errors.Is(err, plugins.ErrPinLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := u.Publish(ctx, fresh()); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// A run that is over writes nothing more, not even in a session that is open.
func TestFence(t *testing.T) {
	x := newSite(t)
	ctx, a, ref := t.Context(), x.as("worker-vm-a"), x.next()
	u := x.begin(a, ref, unitA)
	old := x.inForce()
	x.mu.Lock()
	x.claim = epoch.Claim{Epoch: 8, Run: "run-8", Nonce: "m"}
	x.mu.Unlock()
	if _, err := u.Put(ctx, tiny(1), strings.NewReader("hello")); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("an old run writes: %v", err)
	}
	if _, err := a.Begin(ctx, ref, unitA, Begin{Claim: old}); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("an old run begins: %v", err)
	}
	x.begin(a, ref, unitA)
}

// A worker that vanished does not hold its unit for ever.
func TestIdleSessionIsLetGo(t *testing.T) {
	x := newSite(t)
	u := x.begin(x.as("worker-vm-a"), x.next(), unitA)
	x.server.dismiss(time.Now().Add(-time.Minute))
	if _, err := u.KnownAll(t.Context()); err != nil {
		t.Errorf("a session in use was ended: %v", err)
	}
	x.server.dismiss(time.Now().Add(time.Minute))
	if _, err := u.KnownAll(t.Context()); !errors.Is(err, ErrSession) {
		t.Errorf("an idle session goes on: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := x.as("worker-vm-a").Begin(ctx, x.next(), unitA, Begin{Claim: x.inForce()}); err != nil {
		t.Error(err)
	}
}
