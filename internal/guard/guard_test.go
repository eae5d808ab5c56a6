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
	if err := again.End(a); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("a claim that is not in force was ended: %v", err)
	}
	for range 2 { // an activity may be done twice
		if err := again.End(b); err != nil {
			t.Fatal(err)
		}
	}
	if again, err = guard.Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := again.Check(b); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("a claim that has ended may work: %v", err)
	}
	if err := again.Raise(b); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("a claim that has ended was raised again: %v", err)
	}
	if err := again.Raise(epoch.Claim{Epoch: 9, Run: "c"}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "claim.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := guard.Open(dir); err == nil {
		t.Error("a damaged guard was taken for none")
	}
}
