package manifest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Format is the version of both documents that this program writes. It reads
// this one and all before it.
const Format = 2

// Bounds of the documents, checked before anything is allocated for them.
const (
	MaxManifest = 16 << 20  // bytes of manifest.json
	MaxUnitFile = 256 << 20 // bytes of unit.json: about a million pieces
	MaxUnits    = 4096      // units of one backup
	MaxSideFile = 16 << 20  // bytes of a file stored beside the manifest
	MaxSides    = 1024
)

// Hash is a SHA-256 or HMAC-SHA-256, 64 lower-case hexadecimal digits as text.
type Hash [32]byte

// String is the hexadecimal form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote and nothing else.
func (h *Hash) UnmarshalText(b []byte) error {
	var x Hash
	if len(b) != 2*len(x) {
		return fmt.Errorf("hash %.70q: want 64 hexadecimal digits", b)
	}
	if _, err := hex.Decode(x[:], b); err != nil || x.String() != string(b) {
		return fmt.Errorf("hash %.70q: want 64 lower-case hexadecimal digits", b)
	}
	*h = x
	return nil
}

// Triggers of a backup.
const (
	TriggerCLI      = "cli"
	TriggerSchedule = "schedule"
)

// NoConsistencyPoint is the sentence of a backup whose units may differ from
// each other in time.
const NoConsistencyPoint = "no consistency point"

// Manifest is the commit record of a backup: manifest.json.
type Manifest struct {
	Format      int               `json:"format"`
	Backup      Ref               `json:"backup"`
	ID          string            `json:"id"`        // unique, of the run that made it
	Tool        string            `json:"tool"`      // version of the program
	Operation   plugins.Operation `json:"operation"` // backup or safety
	Trigger     string            `json:"trigger"`   // cli or schedule
	Epoch       uint64            `json:"epoch"`
	Started     time.Time         `json:"started"`
	Pinned      time.Time         `json:"pinned"` // last pin held
	Ended       time.Time         `json:"ended"`  // all data stored
	Maintenance Maintenance       `json:"maintenance"`
	Consistent  bool              `json:"consistent"`  // one consistency point for all units
	Consistency string            `json:"consistency"` // in words: "consistency point …" or NoConsistencyPoint …
	PinSkewMS   int64             `json:"pinSkewMs"`   // from the first pin to the last, milliseconds
	Units       []Unit            `json:"units"`
	Totals      Totals            `json:"totals"`
	Warnings    []string          `json:"warnings,omitempty"`
	Inexact     []plugins.Inexact `json:"inexact,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"` // small facts that later versions of the program add
	Files       []SideFile        `json:"files"`                // stored beside the manifest, by name
	Recipients  []string          `json:"recipients"`
	Fingerprint string            `json:"fingerprint"` // of the recipients
	Keys        keys.Wrapped      `json:"keys"`
	MAC         string            `json:"mac"` // last member; see Encode
}

// Maintenance says whether maintenance mode was asked for, and whether it was
// held without a gap from enter to the last pin.
type Maintenance struct {
	Asked bool `json:"asked"`
	Held  bool `json:"held"`
}

// SideFile is a file stored in clear beside the manifest: the estate file,
// schedules, recipients.
type SideFile struct {
	Name   string `json:"name"` // below the directory "config" of the backup
	Size   int64  `json:"size"`
	SHA256 Hash   `json:"sha256"`
}

// Totals are sums over the units.
type Totals struct {
	Units     int   `json:"units"`
	Artifacts int   `json:"artifacts"`
	Records   int64 `json:"records"`
	Bytes     int64 `json:"bytes"`     // plaintext of keys and values
	Stored    int64 `json:"stored"`    // bytes of all pieces, as stored
	StoredNew int64 `json:"storedNew"` // of these, not shared with an earlier backup
}

// UnitHead is what manifest.json and unit.json both say about a unit.
type UnitHead struct {
	UnitID
	Scope         plugins.Scope `json:"scope"`
	VM            string        `json:"vm"`
	ServerVersion string        `json:"serverVersion,omitempty"`
	Position      string        `json:"position,omitempty"` // revision, zxid, GTID, … of the data
	Pin           string        `json:"pin"`                // id of the view it was read from
	PinnedAt      time.Time     `json:"pinnedAt,omitzero"`
	// CopiedInMaintenance: the unit could not be pinned and was copied before maintenance ended.
	CopiedInMaintenance bool              `json:"copiedInMaintenance,omitempty"`
	Consistency         string            `json:"consistency"` // in words
	Records             int64             `json:"records"`
	Bytes               int64             `json:"bytes"`
	Stored              int64             `json:"stored"`
	StoredNew           int64             `json:"storedNew"`
	Digest              Hash              `json:"digest"` // keyed, over all artifacts; see UnitDigest
	Warnings            []string          `json:"warnings,omitempty"`
	Inexact             []plugins.Inexact `json:"inexact,omitempty"`
}

// Unit is one unit in manifest.json.
type Unit struct {
	UnitHead
	Artifacts int  `json:"artifacts"`
	SHA256    Hash `json:"sha256"` // of unit.json
}

// Sum fills the totals from the units.
func (m *Manifest) Sum() {
	m.Totals = Totals{Units: len(m.Units)}
	for _, u := range m.Units {
		m.Totals.Artifacts += u.Artifacts
		m.Totals.Records += u.Records
		m.Totals.Bytes += u.Bytes
		m.Totals.Stored += u.Stored
		m.Totals.StoredNew += u.StoredNew
	}
}

// Unit finds a unit by its identity.
func (m *Manifest) Unit(id UnitID) (Unit, bool) {
	i := slices.IndexFunc(m.Units, func(u Unit) bool { return u.UnitID == id.Normal() })
	if i < 0 {
		return Unit{}, false
	}
	return m.Units[i], true
}

// ValidateSideFile checks name and size of a file stored beside the manifest.
func ValidateSideFile(f SideFile) error {
	if !elementForm.MatchString(f.Name) || f.Size < 0 || f.Size > MaxSideFile {
		return fmt.Errorf("file %.80q of %d bytes: %w, or too large", f.Name, f.Size, ErrName)
	}
	return nil
}
