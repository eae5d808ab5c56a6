package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// Goldens of what is shown of a store, at a fixed time.
func TestCatalog_golden(t *testing.T) {
	dir := t.TempDir()
	root, state := filepath.Join(dir, "backups"), filepath.Join(dir, "state")
	for _, b := range [][2]string{
		{"DAILY/2026-03-08T04-00-07Z", "maintenance"}, {"DAILY/2026-03-09T04-00-07Z", "maintenance"},
		{"MAR01/2026-03-01T10-30-00Z", "broken"}, {"OLD/2019-03-10T10-30-00Z", "warning"}, {"RUNS/2026-03-09T14-04-00Z", "partial"},
	} {
		ref, err := manifest.ParseRef(b[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := makeBackup(root, filepath.Join(state, "keys"), ref, b[1]); err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		width int
		args  []string
	}{
		"list120.txt": {120, []string{"-b", "listbackups"}},
		"list80.txt":  {80, []string{"-b", "listbackups"}},
		"list40.txt":  {40, []string{"list"}},
		"info80.txt":  {80, []string{"-b", "backupdetails", "-s", "MAR01"}},
	} {
		a, b := testApp(t, x.width)
		a.paths.Root, a.paths.State = root, state
		if code := a.finish(a.dispatch(t.Context(), x.args)); code != 0 {
			t.Errorf("%s: exit %d", name, code)
		}
		out := b.String()
		m, err := manifestOf(root, "MAR01/2026-03-01T10-30-00Z")
		if err != nil {
			t.Fatal(err)
		}
		// Keys are new in every run, and with them fingerprint and digests.
		out = strings.NewReplacer(root, "/backups", shortDigest(m.Fingerprint), "<finger>").Replace(out)
		for _, u := range m.Units {
			out = strings.ReplaceAll(out, shortDigest(u.Digest.String()), "<digest>")
		}
		golden(t, name, out)
	}
}

func manifestOf(root, ref string) (manifest.Manifest, error) {
	b, err := os.ReadFile(filepath.Join(root, ref, "manifest.json"))
	if err != nil {
		return manifest.Manifest{}, err
	}
	return manifest.Decode(b)
}
