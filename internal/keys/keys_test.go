package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func ensure(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if created, err := Ensure(dir); err != nil || !created {
		t.Fatal(created, err)
	}
	return dir
}

func load(t *testing.T, dir string) (Writer, Reader) {
	t.Helper()
	w, err := LoadWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := LoadReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	return w, r
}

func TestEnsureOnceAmongMany(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var mu sync.Mutex
	made := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			created, err := Ensure(dir)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if created {
				made++
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Fatalf("made %d times", made)
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 5 { // four files and the lock
		t.Error(es, err)
	}
	for _, e := range es {
		if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 {
			t.Error(e.Name(), fi.Mode(), err)
		}
	}
}

// A run that died in the middle is completed; what was there stays.
func TestEnsureCompletes(t *testing.T) {
	full := ensure(t)
	for n := range 4 {
		dir := filepath.Join(t.TempDir(), "keys")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{fileContent, fileManifest, fileIdentity}[:n] {
			b, err := os.ReadFile(filepath.Join(full, f))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, f), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if created, err := Ensure(dir); err != nil || !created {
			t.Fatal(n, created, err)
		}
		w, r := load(t, dir)
		wf, rf := load(t, full)
		if (n > 0) != (w.ContentKey == wf.ContentKey) || (n > 1) != (*r.ManifestKey == *rf.ManifestKey) || (n > 2) != (w.Fingerprint() == wf.Fingerprint()) {
			t.Errorf("%d files there: not kept, or not made", n)
		}
	}
}

func TestMissingKeysAreNotReplaced(t *testing.T) {
	dir := ensure(t)
	if err := os.Remove(filepath.Join(dir, fileIdentity)); err != nil {
		t.Fatal(err)
	}
	if created, err := Ensure(dir); created || err != nil {
		t.Error("an identity kept elsewhere:", created, err)
	}
	if _, err := LoadReader(dir); !errors.Is(err, ErrIdentity) {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, fileManifest)); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir); !errors.Is(err, ErrKeys) {
		t.Error(err)
	}
}

func TestWrapAndAdopt(t *testing.T) {
	dir := ensure(t)
	w, r := load(t, dir)
	wrapped, err := Wrap(w, *r.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Unwrap(r, wrapped)
	if err != nil || o.Content != w.ContentKey || o.Manifest != *r.ManifestKey {
		t.Fatal(err)
	}
	_, other := load(t, ensure(t))
	if _, err := Unwrap(other, wrapped); !errors.Is(err, ErrIdentity) {
		t.Error(err)
	}
	if _, err := Unwrap(Reader{}, wrapped); !errors.Is(err, ErrIdentity) {
		t.Error(err)
	}
	for _, bad := range []Wrapped{{}, {Content: "!", Manifest: "!"}, {Content: wrapped.Content[:40], Manifest: wrapped.Manifest}} {
		if _, err := Unwrap(r, bad); !errors.Is(err, ErrKeys) {
			t.Error(err)
		}
	}
	id, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "new")
	if err := Adopt(fresh, id, wrapped); err != nil {
		t.Fatal(err)
	}
	w2, r2 := load(t, fresh)
	if w2.ContentKey != w.ContentKey || *r2.ManifestKey != *r.ManifestKey || w2.Fingerprint() != w.Fingerprint() {
		t.Error("adopted other keys")
	}
	if err := Adopt(fresh, id, wrapped); err == nil {
		t.Error("adopted over existing keys")
	}
	// Keys wrapped by somebody else for these recipients are not adopted.
	forged, err := Wrap(w, *other.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := Adopt(filepath.Join(t.TempDir(), "x"), id, forged); !errors.Is(err, ErrKeys) {
		t.Error(err)
	}
}

func TestConfirm(t *testing.T) {
	dir := ensure(t)
	if Confirmed(dir) {
		t.Error("confirmed before")
	}
	id, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(ensure(t), fileIdentity))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "nonsense", string(other)} {
		if err := ConfirmCopy(dir, strings.NewReader(bad)); !errors.Is(err, ErrIdentity) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	if err := ConfirmCopy(dir, strings.NewReader(string(id))); err != nil || !Confirmed(dir) {
		t.Error(err)
	}
	w, _ := load(t, dir)
	two := w.Lines[0] + "\n" + mustLine(t, ensure(t)) + "\n"
	if err := os.WriteFile(filepath.Join(dir, fileRecipients), []byte("# two\n"+two), 0o600); err != nil {
		t.Fatal(err)
	}
	if Confirmed(dir) {
		t.Error("still confirmed after the recipients changed")
	}
	if w2, _ := load(t, dir); len(w2.Recipients) != 2 || w2.Fingerprint() == w.Fingerprint() {
		t.Error("second recipient is not seen")
	}
}

func mustLine(t *testing.T, dir string) string {
	w, _ := load(t, dir)
	return w.Lines[0]
}

func TestKeysDoNotPrintThemselves(t *testing.T) {
	dir := ensure(t)
	w, r := load(t, dir)
	raw, err := os.ReadFile(filepath.Join(dir, fileContent))
	if err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprintf("%v %+v %#v %s", w.ContentKey, w.ContentKey, w.ContentKey, r.ManifestKey)
	if strings.Contains(s, fmt.Sprint(raw[0])+" "+fmt.Sprint(raw[1])) || strings.Contains(s, string(raw)) {
		t.Error(s)
	}
	if _, err := json.Marshal(w.ContentKey); err == nil {
		t.Error("a key became JSON")
	}
}
