package zookeeper

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzText: the texts that come out of a backup and from servers: access
// lists, statistics, status, configuration files.
func FuzzText(f *testing.F) {
	for _, s := range []string{`[["rwcda","world","anyone"]]`, `[["r","digest","a:b"]]`, "1 2 3 4 5 6 7 8", "Mode: leader\nZookeeper version: 3.8.0-x, built on", "dataDir=/x\n#c\nclientPort = 2181"} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, s string) {
		acls := newACLTable()
		if i, err := acls.parse(s); err == nil {
			if acls.text[i] != s || formatACL(acls.list[i]) != s {
				t.Errorf("access list %q became %q", s, acls.text[i])
			}
		}
		if r, err := parseStats([]byte(s)); err == nil {
			again, err := parseStats(r.append(nil))
			if err != nil || again != r {
				t.Errorf("statistics %q: %+v, then %+v, %v", s, r, again, err)
			}
		}
		parseStatus(s)
		p := filepath.Join(dir, "zoo.cfg")
		if err := os.WriteFile(p, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readConf(p); err != nil {
			t.Error(err)
		}
	})
}
