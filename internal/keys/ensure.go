package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
)

// Ensure makes the keys of a new installation and says whether it did. It is
// safe to run at any time and by several processes at once: what exists is
// never replaced. The recipients file is written last, so a run that died is
// completed by the next; once it exists, a missing identity is left alone (the
// operator may keep it elsewhere) and a missing key is an error.
func Ensure(dir string) (created bool, err error) {
	root, unlock, err := openLocked(dir)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := root.Lstat(fileRecipients); err == nil {
		for _, n := range []string{fileContent, fileManifest} {
			if _, err := readKey(root, n); err != nil {
				return false, fmt.Errorf("%w: put the copy back, or adopt the keys from a backup with the identity", err)
			}
		}
		return false, nil
	}
	for _, n := range []string{fileContent, fileManifest} {
		var k Key
		rand.Read(k[:])
		if err := publishIfAbsent(root, n, k[:]); err != nil {
			return false, err
		}
	}
	mk, err := readKey(root, fileManifest)
	if err != nil {
		return false, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return false, fmt.Errorf("keys: %w", err)
	}
	if err := publishIfAbsent(root, fileIdentity, identityText(id, mk)); err != nil {
		return false, err
	}
	return true, writeRecipients(root)
}

func openLocked(dir string) (*os.Root, func(), error) {
	root, err := fsutil.MakeRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("keys: %w", err)
	}
	l, err := fsutil.WaitLock(root, fileLock)
	if err != nil {
		root.Close()
		return nil, nil, fmt.Errorf("keys: %w", err)
	}
	return root, func() { l.Unlock(); root.Close() }, nil
}

const recipientsHead = "# who can open the backups: one age recipient a line; a change starts new pieces\n"

// writeRecipients derives the recipients from the identity file.
func writeRecipients(root *os.Root) error {
	b, err := fsutil.ReadBounded(root, fileIdentity, maxFile)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	r, err := ParseIdentity(b)
	if err != nil {
		return err
	}
	out := []byte(recipientsHead)
	for _, l := range r.recipients() {
		out = append(out, l+"\n"...)
	}
	return publishIfAbsent(root, fileRecipients, out)
}

func publishIfAbsent(root *os.Root, name string, data []byte) error {
	err := fsutil.Publish(root, ".", name, data)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keys: %w", err)
	}
	return nil
}

func identityText(id *age.X25519Identity, mk Key) []byte {
	return fmt.Appendf(nil, "# opens every backup of this installation; keep a copy elsewhere\n# created: %s\n# public key: %s\n%s%s\n%s\n",
		time.Now().UTC().Format(time.RFC3339), id.Recipient(), checkPrefix, checkOf(mk), id)
}

// recipients are the public halves of the identities, as text.
func (r Reader) recipients() []string {
	var out []string
	for _, id := range r.Identities {
		switch id := id.(type) {
		case *age.X25519Identity:
			out = append(out, id.Recipient().String())
		case *age.HybridIdentity:
			out = append(out, id.Recipient().String())
		}
	}
	return out
}

// ConfirmCopy takes the copy of the identity that the operator shows, and
// remembers that it exists. ErrIdentity when it opens nothing of this host.
func ConfirmCopy(dir string, copied io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(copied, maxFile))
	if err != nil {
		return fmt.Errorf("confirm key: %w", err)
	}
	r, err := ParseIdentity(b)
	if err != nil {
		return err
	}
	w, err := LoadWriter(dir)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.recipients(), func(s string) bool { return slices.Contains(w.Lines, s) }) {
		return fmt.Errorf("%w: the copy shown belongs to another installation or is older than the last --rotate: none of its public keys is in the recipients file", ErrIdentity)
	}
	root, unlock, err := openLocked(dir)
	if err != nil {
		return err
	}
	defer unlock()
	return fsutil.Replace(root, ".", fileConfirmed, []byte(w.Fingerprint()+"\n"))
}

// Confirmed says whether the operator has shown a copy of the identity, for
// the recipients in use now.
func Confirmed(dir string) bool {
	w, err := LoadWriter(dir)
	if err != nil {
		return false
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	b, err := fsutil.ReadBounded(root, fileConfirmed, maxFile)
	return err == nil && string(b) == w.Fingerprint()+"\n"
}
