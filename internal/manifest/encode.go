package manifest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Errors of reading a document.
var (
	// ErrFormat: written by a newer version of the program.
	ErrFormat = errors.New("format is newer than this program")
	// ErrDamaged: not a document of this kind, or with impossible values.
	ErrDamaged = errors.New("document is damaged")
	// ErrTampered: the seal does not fit the content.
	ErrTampered = errors.New("manifest was changed after it was sealed")
)

// The manifest ends with its MAC, which is computed over the whole file
// without these 64 digits.
var macTail = regexp.MustCompile(`"mac": "([0-9a-f]{64})"\n}\n$`)

const macIntro = "cso manifest v1\n"

// Encode writes the manifest and seals it with the manifest key.
func Encode(m Manifest, key keys.Key) ([]byte, error) {
	m.Format, m.MAC = Format, ""
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("manifest of %s: %w: %w", m.Backup, ErrDamaged, err)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", m.Backup, err)
	}
	b = append(b, '\n')
	mac := key.MAC([]byte(macIntro), b)
	end := []byte("\"\n}\n")
	b = append(b[:len(b)-len(end)], hex.EncodeToString(mac[:])...)
	b = append(b, end...)
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("manifest of %s: %d bytes: at most %d", m.Backup, len(b), MaxManifest)
	}
	return b, nil
}

// CheckMAC proves that the manifest is as it was sealed; ErrTampered if not.
func CheckMAC(b []byte, key keys.Key) error {
	i := macTail.FindSubmatchIndex(b[max(0, len(b)-100):])
	if i == nil {
		return fmt.Errorf("%w: it has no seal", ErrTampered)
	}
	off := max(0, len(b)-100)
	got, err := hex.DecodeString(string(b[off+i[2] : off+i[3]]))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	want := key.MAC([]byte(macIntro), b[:off+i[2]], b[off+i[3]:])
	if !hmac.Equal(got, want[:]) {
		return fmt.Errorf("%w, or sealed by another installation", ErrTampered)
	}
	return nil
}

// Decode reads manifest.json. It proves nothing about who wrote it; see CheckMAC.
func Decode(b []byte) (Manifest, error) {
	var m Manifest
	if err := decode(b, MaxManifest, &m); err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w", err)
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w: %w", ErrDamaged, err)
	}
	return m, nil
}

// EncodeUnit writes unit.json.
func EncodeUnit(u *UnitFile) ([]byte, error) {
	u.Format = Format
	if err := u.validate(); err != nil {
		return nil, fmt.Errorf("unit %s: %w: %w", u.UnitID, ErrDamaged, err)
	}
	b, err := json.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("unit %s: %w", u.UnitID, err)
	}
	b = append(b, '\n')
	if len(b) > MaxUnitFile {
		return nil, fmt.Errorf("unit %s: a list of %d bytes, at most %d: %w: the unit is too large for one backup", u.UnitID, len(b), MaxUnitFile, plugins.ErrData)
	}
	return b, nil
}

// DecodeUnit reads unit.json; every number and reference in it is within bounds afterwards.
func DecodeUnit(b []byte) (*UnitFile, error) {
	u := new(UnitFile)
	if err := decode(b, MaxUnitFile, u); err != nil {
		return nil, fmt.Errorf("unit: %w", err)
	}
	if err := u.validate(); err != nil {
		return nil, fmt.Errorf("unit: %w: %w", ErrDamaged, err)
	}
	return u, nil
}

func decode(b []byte, limit int, to interface{ format() int }) error {
	if len(b) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrDamaged, len(b), limit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			err = nil
		} else {
			err = errors.New("something follows its end")
		}
	}
	format := to.format()
	if err != nil {
		// A newer format may well have members unknown here: then that is the cause.
		var v struct {
			Format int `json:"format"`
		}
		if json.Unmarshal(b, &v) == nil {
			format = v.Format
		}
	}
	switch {
	case format > Format:
		return fmt.Errorf("format %d: %w, which reads up to %d: use the version that wrote it or a newer one", format, ErrFormat, Format)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case format < 1:
		return fmt.Errorf("%w: it has no format number", ErrDamaged)
	}
	return nil
}

func (m *Manifest) format() int { return m.Format }
func (u *UnitFile) format() int { return u.Format }

func (m *Manifest) validate() error {
	if err := m.Backup.Validate(); err != nil {
		return err
	}
	if len(m.Units) > MaxUnits || len(m.Files) > MaxSides {
		return fmt.Errorf("%d units and %d files: too many", len(m.Units), len(m.Files))
	}
	seen := map[UnitID]bool{}
	sum := Manifest{Units: m.Units}
	sum.Sum()
	for _, u := range m.Units {
		if u.Member == "" || seen[u.UnitID] {
			return fmt.Errorf("unit %s: without member, or twice", u.UnitID)
		}
		seen[u.UnitID] = true
		if err := u.UnitID.Validate(); err != nil {
			return err
		}
		if u.Artifacts < 0 || u.Records < 0 || u.Bytes < 0 || u.Stored < 0 || u.StoredNew < 0 {
			return fmt.Errorf("unit %s: a negative number", u.UnitID)
		}
	}
	if sum.Totals != m.Totals {
		return errors.New("totals differ from the sums over units")
	}
	names := map[string]bool{}
	for _, f := range m.Files {
		if err := ValidateSideFile(f); err != nil {
			return err
		}
		if names[f.Name] {
			return fmt.Errorf("file %q: twice", f.Name)
		}
		names[f.Name] = true
	}
	return nil
}

// SHA256 is the SHA-256 of b.
func SHA256(b []byte) Hash { return sha256.Sum256(b) }
