package store

import (
	"errors"
	"slices"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// TestInstance: a unit gives the way to its siblings, also where the backup does not have the unit itself.
func TestInstance(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref := x.next("DAILY")
	one, two := UnitID{Component: "alpha", Instance: "east", Member: "n1"}, UnitID{Component: "alpha", Instance: "east", Member: "n2"}
	x.unit(ref, one, data{"a": pairs("k", "1")})
	x.unit(ref, two, data{"b": pairs("k", "2")})
	x.unit(ref, unitA, data{"c": pairs("k", "3")})
	x.seal(ref)
	for _, c := range []struct {
		member string
		own    string
	}{{"n1", "a"}, {"n2", "b"}, {"n3", ""}} {
		r, err := x.s.OpenInstance(t.Context(), ref, UnitID{Component: "alpha", Instance: "east", Member: c.member}, x.r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Artifacts(); c.own == "" && len(got) > 0 || c.own != "" && (len(got) != 1 || got[0].Name != c.own) {
			t.Errorf("%s holds %+v, want %q", c.member, got, c.own)
		}
		names, err := r.Members(t.Context())
		if err != nil || !slices.Equal(names, []string{"n1", "n2"}) {
			t.Errorf("%s: siblings %q, %v", c.member, names, err)
		}
		for range 2 {
			o, err := r.Member(t.Context(), "n2")
			if err != nil || len(o.Artifacts()) != 1 || o.Artifacts()[0].Name != "b" {
				t.Fatalf("%s: unit n2: %v", c.member, err)
			}
			in, err := o.Open(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := readAll(in, plugins.Ordered); err != nil || string(got.records[0][1]) != "2" {
				t.Errorf("%s: n2 reads %+v, %v", c.member, got, err)
			}
		}
		if _, err := r.Member(t.Context(), "n4"); !errors.Is(err, plugins.ErrNotFound) {
			t.Errorf("unknown sibling: %v", err)
		}
		if _, err := r.Open(t.Context(), "nothing"); !errors.Is(err, plugins.ErrNotFound) {
			t.Errorf("unknown artifact: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []UnitID{{Component: "alpha", Instance: "west", Member: "n1"}, {Component: "alpha", Instance: "east"}} {
		if _, err := x.s.OpenInstance(t.Context(), ref, id, x.r); !errors.Is(err, plugins.ErrNotFound) {
			t.Errorf("unit %s: %v, want ErrNotFound", id, err)
		}
	}
	if err := x.s.Remove(t.Context(), ref); err != nil {
		t.Errorf("a closed instance still holds the backup: %v", err)
	}
}
