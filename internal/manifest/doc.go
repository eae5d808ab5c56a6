// Package manifest defines the two documents of a backup: manifest.json, the
// commit record, and unit.json, the list of what one unit stored. Both are
// strict JSON: an unknown member, a newer format or a value out of bounds is
// refused. docs/format.md is the specification.
package manifest
