package keys

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

func recipient(t *testing.T) (string, *age.X25519Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String(), id
}

func TestRotate(t *testing.T) {
	dir := ensure(t)
	before, reader := load(t, dir)
	old, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if err != nil {
		t.Fatal(err)
	}
	if err := ConfirmCopy(dir, bytes.NewReader(old)); err != nil || !Confirmed(dir) {
		t.Fatal(err)
	}
	sealed, err := Wrap(before, *reader.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}

	after, err := Rotate(dir, Change{NewIdentity: true})
	if err != nil {
		t.Fatal(err)
	}
	if after.Fingerprint() == before.Fingerprint() || len(after.Lines) != 1 || after.ContentKey != before.ContentKey {
		t.Errorf("recipients %v after %v", after.Lines, before.Lines)
	}
	if Confirmed(dir) {
		t.Error("a copy of the old identity still counts as one of the new")
	}
	if err := ConfirmCopy(dir, bytes.NewReader(old)); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "older") {
		t.Errorf("the copy of the old identity: %v", err)
	}
	_, both := load(t, dir)
	if len(both.Identities) != 2 || both.Check != checkOf(*reader.ManifestKey) {
		t.Errorf("%d identities", len(both.Identities))
	}
	if _, err := Unwrap(both, sealed); err != nil {
		t.Errorf("an old backup cannot be opened: %v", err)
	}
	alone := Reader{Identities: both.Identities[:1]}
	if _, err := Unwrap(alone, sealed); !errors.Is(err, ErrIdentity) {
		t.Errorf("the new identity opens an old backup: %v", err)
	}
	fresh, err := Wrap(after, *reader.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unwrap(alone, fresh); err != nil {
		t.Errorf("the new identity alone does not open a new backup: %v", err)
	}
	if _, err := Unwrap(reader, fresh); !errors.Is(err, ErrIdentity) {
		t.Errorf("the old identity opens a new backup: %v", err)
	}
	for _, f := range []string{fileIdentity, fileRecipients} {
		if fi, err := os.Stat(filepath.Join(dir, f)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Error(f, fi.Mode(), err)
		}
	}
	if created, err := Ensure(dir); created || err != nil {
		t.Error(created, err)
	}
}

func TestRecipientsChange(t *testing.T) {
	dir := ensure(t)
	before, _ := load(t, dir)
	escrow, id := recipient(t)
	w, err := Rotate(dir, Change{Add: []string{escrow}})
	if err != nil || len(w.Lines) != 2 || !slices.Contains(w.Lines, escrow) {
		t.Fatal(w.Lines, err)
	}
	again, err := Rotate(dir, Change{Add: []string{escrow}})
	if err != nil || again.Fingerprint() != w.Fingerprint() {
		t.Errorf("adding what is there changes something: %v %v", again.Lines, err)
	}
	k, err := Wrap(w, Key{1})
	if err != nil {
		t.Fatal(err)
	}
	if o, err := Unwrap(Reader{Identities: []age.Identity{id}}, k); err != nil || o.Content != w.ContentKey {
		t.Error(err)
	}
	rotated, err := Rotate(dir, Change{NewIdentity: true})
	if err != nil || len(rotated.Lines) != 2 || !slices.Contains(rotated.Lines, escrow) || slices.Contains(rotated.Lines, before.Lines[0]) {
		t.Errorf("a new identity and the other recipient: %v %v", rotated.Lines, err)
	}
	w, err = Rotate(dir, Change{Remove: []string{escrow}})
	if err != nil || len(w.Lines) != 1 {
		t.Errorf("%v %v", w.Lines, err)
	}
	other, _ := recipient(t)
	for name, c := range map[string]Change{
		"not a recipient": {Add: []string{"age1nonsense"}},
		"a secret":        {Add: []string{id.String()}},
		"two lines":       {Add: []string{escrow + "\n" + other + "\nx"}},
		"not among them":  {Remove: []string{other}},
		"the last":        {Remove: w.Lines},
		"our own":         {Remove: w.Lines, Add: []string{other}},
	} {
		_, err := Rotate(dir, c)
		if !errors.Is(err, ErrKeys) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), id.String()) {
			t.Errorf("%s: the error tells a secret", name)
		}
		if now, _ := load(t, dir); now.Fingerprint() != w.Fingerprint() {
			t.Fatalf("%s: refused, and yet changed", name)
		}
	}
}

// A lost identity: new backups get a new one, old ones stay closed.
func TestRotateWithoutIdentity(t *testing.T) {
	dir := ensure(t)
	if err := os.Remove(filepath.Join(dir, fileIdentity)); err != nil {
		t.Fatal(err)
	}
	old, err := LoadWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Rotate(dir, Change{NewIdentity: true, Remove: old.Lines})
	if err != nil || len(w.Lines) != 1 || w.Lines[0] == old.Lines[0] {
		t.Fatal(w.Lines, err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileIdentity), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(dir, Change{NewIdentity: true}); !errors.Is(err, ErrIdentity) {
		t.Errorf("a damaged identity is buried under a new one: %v", err)
	}
}
