package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
)

// Change is what Rotate does to the recipients.
type Change struct {
	NewIdentity bool     // make a new identity; its recipient takes the place of the old identity's
	Add         []string // age recipients, for example of a copy held elsewhere
	Remove      []string
}

// Rotate changes who can open the backups made from now on. Backups that exist
// stay as they are: the old identity stays in the identity file, below the new
// one, because it alone opens them. The recipients file is written last, so a
// run that died in between changed nothing that counts. The copy of the
// identity is then unconfirmed again.
func Rotate(dir string, c Change) (Writer, error) {
	w, err := LoadWriter(dir)
	if err != nil {
		return Writer{}, err
	}
	root, unlock, err := openLocked(dir)
	if err != nil {
		return Writer{}, err
	}
	defer unlock()
	for _, list := range [][]string{c.Add, c.Remove} {
		for _, l := range list {
			if _, _, err := ParseRecipients([]byte(l + "\n")); err != nil {
				return Writer{}, err
			}
		}
	}
	have, err := identityFile(root)
	if err != nil {
		return Writer{}, err
	}
	lines := slices.Concat(w.Lines, c.Add)
	for _, l := range c.Remove {
		if !slices.Contains(lines, l) {
			return Writer{}, fmt.Errorf("recipients: %w: %s is not among them: see the file recipients in %s", ErrKeys, l, dir)
		}
		lines = slices.DeleteFunc(lines, func(x string) bool { return x == l })
	}
	mine := have.recipients()
	if c.NewIdentity {
		id, err := addIdentity(root)
		if err != nil {
			return Writer{}, err
		}
		lines = slices.DeleteFunc(lines, func(x string) bool { return slices.Contains(mine, x) && !slices.Contains(c.Add, x) })
		mine = []string{id.Recipient().String()}
		lines = append(lines, mine...)
	}
	if len(have.Identities) > 0 && !slices.ContainsFunc(lines, func(l string) bool { return slices.Contains(mine, l) }) {
		return Writer{}, fmt.Errorf("recipients: %w: the identity of this host would open no new backup: keep its recipient, or make a new identity with --rotate", ErrKeys)
	}
	text := recipientsHead + strings.Join(slices.Compact(slices.Sorted(slices.Values(lines))), "\n") + "\n"
	if _, _, err := ParseRecipients([]byte(text)); err != nil {
		return Writer{}, err
	}
	if err := fsutil.Replace(root, ".", fileRecipients, []byte(text)); err != nil {
		return Writer{}, fmt.Errorf("keys: %w", err)
	}
	return LoadWriter(dir)
}

// identityFile reads the identities of this host; none when the file is kept elsewhere.
func identityFile(root *os.Root) (Reader, error) {
	b, err := fsutil.ReadBounded(root, fileIdentity, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Reader{}, nil
	}
	if err != nil {
		return Reader{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return ParseIdentity(b)
}

// addIdentity puts a new identity on top of the identity file.
func addIdentity(root *os.Root) (*age.X25519Identity, error) {
	mk, err := readKey(root, fileManifest)
	if err != nil {
		return nil, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	text := identityText(id, mk)
	switch old, err := fsutil.ReadBounded(root, fileIdentity, maxFile); {
	case err == nil:
		text = fmt.Appendf(text, "\n# before %s, for the backups made until then:\n%s", time.Now().UTC().Format(time.RFC3339), bytes.TrimLeft(old, "\n"))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("keys: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("keys: %w: the identity file holds too many old identities: take out those of backups that are gone", ErrIdentity)
	}
	return id, fsutil.Replace(root, ".", fileIdentity, text)
}
