package manifest

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Bounds of the data, for writers and readers alike.
const (
	MaxRecord   = 64 << 20       // bytes of key and value of one record
	MaxKey      = 2 << 20        // bytes of a key
	MaxPlain    = MaxRecord + 64 // bytes of a piece before compression
	MaxIndex    = 48 << 20       // bytes of the index of one artifact
	maxName     = 1 << 10        // bytes of an artifact's name
	maxOverhead = 1 << 20        // bytes that encryption and frames may add to a piece
	maxCut      = 1 << 36        // stretches of a file: more bytes than a file can have
)

// UnitFile is unit.json: what one unit stored.
type UnitFile struct {
	Format int `json:"format"`
	Backup Ref `json:"backup"`
	UnitHead
	Fingerprint string     `json:"fingerprint"` // of the recipients the pieces are encrypted to
	Pieces      []Piece    `json:"pieces"`
	Artifacts   []Artifact `json:"artifacts"` // ascending by name
}

// Find gives the artifact of a name. Artifacts are in ascending order of their names.
func (f *UnitFile) Find(name string) (*Artifact, bool) {
	i, ok := slices.BinarySearchFunc(f.Artifacts, name, func(a Artifact, n string) int { return strings.Compare(a.Name, n) })
	if !ok {
		return nil, false
	}
	return &f.Artifacts[i], true
}

// Piece is one stored object; its file is FileName.
type Piece struct {
	ID     Hash  `json:"id"`     // content id: HMAC of the plaintext
	SHA256 Hash  `json:"sha256"` // of the stored bytes
	Stored int64 `json:"stored"` // bytes as stored
	Bytes  int64 `json:"bytes"`  // bytes before compression
	New    bool  `json:"new,omitempty"`
	// Cut, of a piece that is one stretch of a file: which one, from 1. Its content id is then made of the stretch's
	// digest, so that its bytes are hashed once.
	Cut int64 `json:"cut,omitempty"`
}

// PieceSuffix ends the file name of every piece.
const PieceSuffix = ".zst.age"

// FileName is the name of the piece's file in the unit's directory.
func (p Piece) FileName() string { return p.ID.String() + PieceSuffix }

// Part is a stretch of a piece's plaintext.
type Part struct {
	Piece   int   `json:"p"`           // index in UnitFile.Pieces
	Offset  int64 `json:"o,omitempty"` // bytes
	Length  int64 `json:"l"`           // bytes
	Records int64 `json:"n,omitempty"`
	ID      *Hash `json:"i,omitempty"` // content id of the stretch alone, when it is not the whole piece
}

// Artifact is one artifact in unit.json.
type Artifact struct {
	plugins.Artifact
	Records int64  `json:"records"`
	Bytes   int64  `json:"bytes"`
	Check   Hash   `json:"check"`           // keyed digest; see DigestCheck
	Parts   []Part `json:"parts,omitempty"` // in order
	Index   Part   `json:"index"`           // digests and boundary keys, encrypted as data is
}

// DigestCheck is the keyed form of a digest that may stand in clear: equal
// digests have equal checks, and nobody without the content key can try guesses.
func DigestCheck(content keys.Key, d plugins.Digest) Hash {
	return content.MAC([]byte("cso digest v1\n"), []byte(d.String()))
}

// UnitDigest is the keyed digest of a unit: over name and check of each artifact.
func UnitDigest(content keys.Key, as []Artifact) Hash {
	parts := [][]byte{[]byte("cso unit digest v1\n")}
	for _, a := range as {
		parts = append(parts, []byte(a.Name), []byte{0}, []byte(a.Check.String()), []byte{'\n'})
	}
	return content.MAC(parts...)
}

// Summary is the unit as manifest.json names it; sum is the SHA-256 of unit.json.
func (u *UnitFile) Summary(sum Hash) Unit {
	return Unit{UnitHead: u.UnitHead, Artifacts: len(u.Artifacts), SHA256: sum}
}

// ValidateArtifact checks the description a plugin gives; an error wraps
// plugins.ErrData.
func ValidateArtifact(a plugins.Artifact) error {
	if a.Name == "" || len(a.Name) > maxName || !utf8.ValidString(a.Name) || strings.ContainsRune(a.Name, 0) {
		return fmt.Errorf("artifact name %.80q: %w: want 1 to %d bytes of UTF-8 without NUL", a.Name, plugins.ErrData, maxName)
	}
	switch a.Form {
	case plugins.Ordered, plugins.Unordered, plugins.File:
	default:
		return fmt.Errorf("artifact %q: form %q: %w", a.Name, a.Form, plugins.ErrData)
	}
	n := len(a.Identity) + len(a.Pin)
	for k, v := range a.Attributes {
		n += len(k) + len(v)
	}
	if n > 64<<10 {
		return fmt.Errorf("artifact %q: attributes, pin and identity of %d bytes: %w: at most 64 KiB", a.Name, n, plugins.ErrData)
	}
	return nil
}

// ValidatePiece checks that the sizes of a piece are within the bounds of the format.
func ValidatePiece(p Piece) error {
	if p.Cut != 0 && (p.Cut < 0 || p.Cut > maxCut || p.Bytes > plugins.FileCut) {
		return fmt.Errorf("piece of %d bytes, stretch %d of a file: out of bounds", p.Bytes, p.Cut)
	}
	if p.Bytes <= 0 || p.Bytes > MaxPlain || p.Stored <= 0 || p.Stored > p.Bytes+maxOverhead {
		return fmt.Errorf("piece of %d bytes, stored in %d: out of bounds", p.Bytes, p.Stored)
	}
	return nil
}

func (u *UnitFile) validate() error {
	if err := u.Backup.Validate(); err != nil {
		return err
	}
	if u.Member == "" {
		return fmt.Errorf("member: %w", ErrName)
	}
	if err := u.UnitID.Validate(); err != nil {
		return err
	}
	seen := make(map[Hash]bool, len(u.Pieces))
	var stored, storedNew int64
	for i, p := range u.Pieces {
		if ValidatePiece(p) != nil || seen[p.ID] {
			return fmt.Errorf("piece %d: sizes out of bounds, or twice", i)
		}
		seen[p.ID] = true
		stored += p.Stored
		if p.New {
			storedNew += p.Stored
		}
	}
	var records, bytes int64
	for i, a := range u.Artifacts {
		if err := ValidateArtifact(a.Artifact); err != nil {
			return err
		}
		if i > 0 && u.Artifacts[i-1].Name >= a.Name {
			return fmt.Errorf("artifact %q: not in ascending order of names", a.Name)
		}
		if err := u.validateArtifact(&a); err != nil {
			return fmt.Errorf("artifact %q: %w", a.Name, err)
		}
		records += a.Records
		bytes += a.Bytes
	}
	if records != u.Records || bytes != u.Bytes || stored != u.Stored || storedNew != u.StoredNew {
		return fmt.Errorf("sums over artifacts and pieces differ from the unit's own")
	}
	return nil
}

func (u *UnitFile) validateArtifact(a *Artifact) error {
	var records, length int64
	for i, p := range a.Parts {
		if err := u.validatePart(p); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
		if p.Records <= 0 || (a.Form != plugins.File && p.Records > p.Length/2) || (a.Form == plugins.File && p.Records != 1) {
			return fmt.Errorf("part %d: number of records out of bounds", i)
		}
		records += p.Records
		length += p.Length
	}
	if a.Bytes < 0 || a.Bytes > length || records != a.Records {
		return fmt.Errorf("sums over parts differ from the artifact's own")
	}
	if a.Index.Records != 0 || a.Index.Length > MaxIndex {
		return fmt.Errorf("index out of bounds")
	}
	return u.validatePart(a.Index)
}

func (u *UnitFile) validatePart(p Part) error {
	if p.Piece < 0 || p.Piece >= len(u.Pieces) {
		return fmt.Errorf("no piece %d", p.Piece)
	}
	b := u.Pieces[p.Piece].Bytes
	if p.Offset < 0 || p.Length <= 0 || p.Length > b || p.Offset > b-p.Length {
		return fmt.Errorf("outside its piece")
	}
	return nil
}
