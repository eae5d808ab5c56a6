package manifest

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
)

// ErrName means that a name does not have the form it must have.
var ErrName = errors.New("not a valid name")

// SafetyName stands where a backup's name stands, for safety backups.
const SafetyName = "_safety"

// ClusterMember stands where a member's name stands, for units of a whole cluster.
const ClusterMember = "cluster"

const timestampLayout = "2006-01-02T15-04-05Z"

var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	elementForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

// Ref names one backup: NAME/TIMESTAMP.
type Ref struct {
	Name      string
	Timestamp string // as Timestamp writes it
}

// String is NAME/TIMESTAMP, also the path below the root.
func (r Ref) String() string { return r.Name + "/" + r.Timestamp }

// Safety says whether this is a safety backup.
func (r Ref) Safety() bool { return r.Name == SafetyName }

// Time is the moment in the timestamp.
func (r Ref) Time() (time.Time, error) { return time.Parse(timestampLayout, r.Timestamp) }

// Validate checks both parts; an error wraps ErrName.
func (r Ref) Validate() error {
	if !ValidName(r.Name) && !r.Safety() {
		return fmt.Errorf("backup name %q: %w: use letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit", r.Name, ErrName)
	}
	if t, err := r.Time(); err != nil || Timestamp(t) != r.Timestamp {
		return fmt.Errorf("backup time %q: %w: it looks like 2019-03-16T04-00-07Z", r.Timestamp, ErrName)
	}
	return nil
}

// MarshalText writes NAME/TIMESTAMP.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads and validates NAME/TIMESTAMP.
func (r *Ref) UnmarshalText(b []byte) error {
	p, err := ParseRef(string(b))
	*r = p
	return err
}

// ParseRef reads NAME/TIMESTAMP; an error wraps ErrName.
func ParseRef(s string) (Ref, error) {
	n, t, ok := strings.Cut(s, "/")
	if !ok {
		return Ref{}, fmt.Errorf("backup %q: %w: it looks like NAME/2019-03-16T04-00-07Z", s, ErrName)
	}
	r := Ref{Name: n, Timestamp: t}
	return r, r.Validate()
}

// ValidName says whether a backup can have this name.
func ValidName(s string) bool { return nameForm.MatchString(s) }

// Timestamp is the moment as it stands in a backup's path, in UTC, to the second.
func Timestamp(t time.Time) string { return t.UTC().Format(timestampLayout) }

// UnitID names one unit of an estate.
type UnitID struct {
	Component string `json:"component"`
	Instance  string `json:"instance"`
	Member    string `json:"member"` // ClusterMember for a unit of a whole cluster
}

// Normal fills in the defaults: an empty Member is ClusterMember.
func (u UnitID) Normal() UnitID {
	if u.Member == "" {
		u.Member = ClusterMember
	}
	return u
}

// String is component/instance/member, also the path below the backup.
func (u UnitID) String() string { return path.Join(u.Component, u.Instance, u.Normal().Member) }

// Validate checks that each part can be the name of a directory.
func (u UnitID) Validate() error {
	for _, e := range u.Path() {
		if !elementForm.MatchString(e) {
			return fmt.Errorf("unit %q: part %q: %w: use letters, digits, '.', '_' and '-', beginning with a letter or digit", u, e, ErrName)
		}
	}
	return nil
}

// Path is the unit's place below the backup, element by element.
func (u UnitID) Path() []string {
	u = u.Normal()
	return []string{u.Component, u.Instance, u.Member}
}
