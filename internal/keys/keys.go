package keys

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
)

// Errors of this package.
var (
	// ErrIdentity: the identity is missing, damaged, or another one than the backup was made for.
	ErrIdentity = errors.New("wrong or missing identity")
	// ErrKeys: a key file is missing or damaged.
	ErrKeys = errors.New("key file missing or damaged")
)

// Size is the length of content key and manifest key in bytes.
const Size = 32

const (
	fileIdentity   = "identity"
	fileRecipients = "recipients"
	fileContent    = "content.key"
	fileManifest   = "manifest.key"
	fileConfirmed  = "confirmed"
	fileLock       = ".lock"
	maxFile        = 1 << 20 // bytes of any key file
	checkPrefix    = "# manifest key check: "
)

// Key is a symmetric key. It never prints itself.
type Key [Size]byte

// String hides the key from logs.
func (Key) String() string { return "(key)" }

// GoString hides the key from logs.
func (Key) GoString() string { return "(key)" }

// MarshalText refuses: keys do not go into documents.
func (Key) MarshalText() ([]byte, error) {
	return nil, errors.New("a key is not written into a document")
}

// MAC is HMAC-SHA-256 over the parts, one after another.
func (k Key) MAC(parts ...[]byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, k[:])
	for _, p := range parts {
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Writer is what storing data needs: no identity, so it cannot read back.
type Writer struct {
	ContentKey Key
	Recipients []age.Recipient
	Lines      []string // the recipients as text, sorted, without duplicates
}

// Fingerprint names the set of recipients: the SHA-256, in hexadecimal, of
// the sorted recipients, each followed by a newline.
func (w Writer) Fingerprint() string { return Fingerprint(w.Lines) }

// Fingerprint is the fingerprint of recipients given as text; see Writer.
func Fingerprint(lines []string) string {
	s := slices.Compact(slices.Sorted(slices.Values(lines)))
	h := sha256.New()
	for _, l := range s {
		io.WriteString(h, l+"\n")
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Reader opens backups.
type Reader struct {
	Identities []age.Identity
	// ManifestKey is this host's own, under which manifests are checked. nil: the one in the manifest
	// is trusted, within what Check allows.
	ManifestKey *Key
	// ContentKey is this host's own, if it has one; complete backups carry theirs in the manifest.
	ContentKey *Key
	// Check is the SHA-256 that the identity file records of its manifest key; empty: none recorded.
	Check string
}

// LoadWriter reads what storing data needs.
func LoadWriter(dir string) (Writer, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Writer{}, fmt.Errorf("keys: %w: %w: run setup on the installer-vm", ErrKeys, err)
	}
	defer root.Close()
	var w Writer
	if w.ContentKey, err = readKey(root, fileContent); err != nil {
		return Writer{}, err
	}
	b, err := fsutil.ReadBounded(root, fileRecipients, maxFile)
	if err != nil {
		return Writer{}, fmt.Errorf("keys: %w: %w: run setup on the installer-vm", ErrKeys, err)
	}
	w.Recipients, w.Lines, err = ParseRecipients(b)
	return w, err
}

// ParseRecipients reads a recipients file.
func ParseRecipients(b []byte) ([]age.Recipient, []string, error) {
	var lines []string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	rs, err := age.ParseRecipients(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		return nil, nil, fmt.Errorf("recipients: %w: %w: write one age recipient (age1…) a line", ErrKeys, err)
	}
	return rs, lines, nil
}

// LoadReader reads the identity and this host's manifest key.
func LoadReader(dir string) (Reader, error) {
	r, err := LoadIdentity(filepath.Join(dir, fileIdentity))
	if err != nil {
		return Reader{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Reader{}, fmt.Errorf("keys: %w: %w", ErrKeys, err)
	}
	defer root.Close()
	k, err := readKey(root, fileManifest)
	if err != nil {
		return Reader{}, err
	}
	if r.Check != "" && r.Check != checkOf(k) {
		return Reader{}, fmt.Errorf("%w: manifest.key in %s does not belong to the identity beside it: put back the pair that belongs together", ErrKeys, dir)
	}
	r.ManifestKey = &k
	c, err := readKey(root, fileContent)
	if err != nil {
		return Reader{}, err
	}
	r.ContentKey = &c
	return r, nil
}

// LoadIdentity makes a Reader of an identity file alone; the other keys come
// out of each manifest.
func LoadIdentity(file string) (Reader, error) {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return Reader{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer root.Close()
	b, err := fsutil.ReadBounded(root, filepath.Base(file), maxFile)
	if err != nil {
		return Reader{}, fmt.Errorf("%w: %w", ErrIdentity, plainly(file, err))
	}
	return ParseIdentity(b)
}

// ParseIdentity is LoadIdentity for the content of the file.
func ParseIdentity(b []byte) (Reader, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		// The cause may quote the file, so it is left out.
		return Reader{}, fmt.Errorf("%w: this is not an age identity file (AGE-SECRET-KEY-1…)", ErrIdentity)
	}
	r := Reader{Identities: ids}
	for l := range strings.Lines(string(b)) {
		if c, ok := strings.CutPrefix(strings.TrimSpace(l), checkPrefix); ok {
			r.Check = c
		}
	}
	return r, nil
}

func readKey(root *os.Root, name string) (Key, error) {
	b, err := fsutil.ReadBounded(root, name, Size)
	if err == nil && len(b) != Size {
		err = fmt.Errorf("%s: %d bytes, want %d", name, len(b), Size)
	}
	if err != nil {
		return Key{}, fmt.Errorf("keys: %w: %w", ErrKeys, plainly(filepath.Join(root.Name(), name), err))
	}
	return Key(b), nil
}

// absent is a file that is not there, without the name of a system call.
type absent string

func (a absent) Error() string { return string(a) + " does not exist" }
func (absent) Unwrap() error   { return fs.ErrNotExist }

func plainly(file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return absent(file)
	}
	return err
}

func checkOf(k Key) string {
	s := sha256.Sum256(append([]byte("cso manifest key v1\n"), k[:]...))
	return hex.EncodeToString(s[:])
}
