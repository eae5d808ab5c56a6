package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
)

// Wrapped holds the symmetric keys encrypted to the recipients: each an age
// file of the 32 bytes of the key, in base64.
type Wrapped struct {
	Content  string `json:"content"`
	Manifest string `json:"manifest"`
}

// Opened are the symmetric keys out of a manifest.
type Opened struct{ Content, Manifest Key }

// Wrap encrypts content key and manifest key to the recipients.
func Wrap(w Writer, manifest Key) (Wrapped, error) {
	c, err := wrap(w.Recipients, w.ContentKey)
	if err != nil {
		return Wrapped{}, err
	}
	m, err := wrap(w.Recipients, manifest)
	return Wrapped{Content: c, Manifest: m}, err
}

func wrap(to []age.Recipient, k Key) (string, error) {
	var b bytes.Buffer
	e, err := age.Encrypt(&b, to...)
	if err != nil {
		return "", fmt.Errorf("wrap key: %w", err)
	}
	_, err = e.Write(k[:])
	if err = errors.Join(err, e.Close()); err != nil {
		return "", fmt.Errorf("wrap key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

// Unwrap opens the keys of a manifest; ErrIdentity when the identity is not
// the one the backup was made for.
func Unwrap(r Reader, w Wrapped) (Opened, error) {
	c, err := unwrap(r.Identities, w.Content)
	if err != nil {
		return Opened{}, err
	}
	m, err := unwrap(r.Identities, w.Manifest)
	return Opened{Content: c, Manifest: m}, err
}

func unwrap(ids []age.Identity, s string) (Key, error) {
	if len(ids) == 0 {
		return Key{}, fmt.Errorf("%w: none is given", ErrIdentity)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return Key{}, fmt.Errorf("unwrap key: %w: %w", ErrKeys, err)
	}
	d, err := age.Decrypt(bytes.NewReader(b), ids...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return Key{}, fmt.Errorf("%w: the backup was made for other recipients: give the identity it was made for", ErrIdentity)
	}
	if err != nil {
		return Key{}, fmt.Errorf("unwrap key: %w: %w", ErrKeys, err)
	}
	p, err := io.ReadAll(io.LimitReader(d, Size+1))
	if err == nil && len(p) != Size {
		err = fmt.Errorf("%d bytes, want %d", len(p), Size)
	}
	if err != nil {
		return Key{}, fmt.Errorf("unwrap key: %w: %w", ErrKeys, err)
	}
	return Key(p), nil
}

// ManifestKeyFor is the key under which a manifest is checked: this host's
// own, or, for an identity alone, the one wrapped in the manifest, which must
// be the one that the identity file records, when it records one.
func (r Reader) ManifestKeyFor(o Opened) (Key, error) {
	if r.ManifestKey != nil {
		return *r.ManifestKey, nil
	}
	if r.Check != "" && r.Check != checkOf(o.Manifest) {
		return Key{}, fmt.Errorf("%w: the manifest is sealed with another key than the identity file records", ErrKeys)
	}
	return o.Manifest, nil
}

// Bare says whether the directory holds an identity and no other key: a new
// host on which somebody has put the copy.
func Bare(dir string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	if _, err := root.Lstat(fileIdentity); err != nil {
		return false
	}
	for _, n := range []string{fileContent, fileManifest, fileRecipients} {
		if _, err := root.Lstat(n); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// Adopt sets up the keys of a new host from a copy of the identity and the
// keys wrapped in any manifest. What exists is never replaced; the same
// identity may be at its place already.
func Adopt(dir string, identity []byte, w Wrapped) error {
	r, err := ParseIdentity(identity)
	if err != nil {
		return err
	}
	o, err := Unwrap(r, w)
	if err != nil {
		return err
	}
	mk, err := r.ManifestKeyFor(o)
	if err != nil {
		return err
	}
	root, unlock, err := openLocked(dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, f := range []struct {
		name string
		data []byte
	}{{fileContent, o.Content[:]}, {fileManifest, mk[:]}, {fileIdentity, identity}} {
		err := fsutil.Publish(root, ".", f.name, f.data)
		if f.name == fileIdentity && errors.Is(err, fs.ErrExist) {
			if have, rerr := fsutil.ReadBounded(root, fileIdentity, maxFile); rerr == nil && bytes.Equal(have, identity) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("adopt keys: %w: this host has keys already; move %s away first", err, dir)
		}
	}
	return writeRecipients(root)
}
