package guard_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/guard"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

func TestGuard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "worker")
	g, err := guard.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := epoch.Claim{Epoch: 7, Run: "a", Nonce: "1"}, epoch.Claim{Epoch: 8, Run: "b", Nonce: "2"}
	if err := g.Check(a); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("a claim that was never raised may work: %v", err)
	}
	for _, c := range []epoch.Claim{a, a, b} {
		if err := g.Raise(c); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]epoch.Claim{"lower epoch": a, "same epoch, other nonce": {Epoch: 8, Run: "b", Nonce: "3"}} {
		if err := g.Raise(c); !errors.Is(err, plugins.ErrFenced) {
			t.Errorf("%s was raised: %v", name, err)
		}
		if err := g.Check(c); !errors.Is(err, plugins.ErrFenced) {
			t.Errorf("%s may work: %v", name, err)
		}
	}
	again, err := guard.Open(dir)
	if err != nil || again.Current() != b {
		t.Errorf("after a restart: %+v, %v", again.Current(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "claim.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := guard.Open(dir); err == nil {
		t.Error("a damaged guard was taken for none")
	}
}
