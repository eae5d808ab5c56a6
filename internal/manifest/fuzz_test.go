package manifest

import (
	"path"
	"strings"
	"testing"
)

// FuzzRef: what is accepted as the name of a backup or unit stays below its directory and reads the same again.
func FuzzRef(f *testing.F) {
	f.Add("DAILY/2019-03-16T04-00-07Z", "etcd", "central", "cluster")
	f.Add("../x/2019-03-16T04-00-07Z", "..", ".", "a/b")
	f.Add("_safety/2019-02-30T04-00-07Z", "", "\x00", "a\n")
	f.Fuzz(func(t *testing.T, s, c, i, m string) {
		if r, err := ParseRef(s); err == nil {
			if r.String() != s || path.Clean(s) != s || strings.HasPrefix(s, ".") || strings.Count(s, "/") != 1 || strings.ContainsAny(s, "\x00\n\\ ") {
				t.Errorf("%q is accepted", s)
			}
		}
		if u := (UnitID{Component: c, Instance: i, Member: m}); u.Validate() == nil {
			if p := u.String(); path.Clean(p) != p || strings.Count(p, "/") != 2 || strings.Contains(p, "..") && (c == ".." || i == ".." || m == "..") || strings.ContainsAny(p, "\x00\n\\ ") {
				t.Errorf("%q is accepted", p)
			}
		}
	})
}
