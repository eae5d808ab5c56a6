package guard

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// FuzzOpen: a damaged file is an error; one that reads never lets a lower epoch in.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"epoch":7,"cluster":"c","run":"r","nonce":"n"}`))
	f.Add([]byte(`{"epoch":18446744073709551615}`))
	f.Add([]byte(`{"epoch":-1}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := Open(dir)
		if err != nil {
			return
		}
		defer g.dir.Close()
		if e := g.Current().Epoch; e > 0 {
			if err := g.Raise(epoch.Claim{Epoch: e - 1, Run: "older"}); !errors.Is(err, plugins.ErrFenced) {
				t.Errorf("epoch %d after %d: %v", e-1, e, err)
			}
		}
	})
}
