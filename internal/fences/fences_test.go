package fences

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

func open(t *testing.T, dir string) *Table {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func entry(run string, n uint64, member string) Entry {
	return Entry{Claim: epoch.Claim{Epoch: n, Run: run}, Unit: manifest.UnitID{Component: "alpha", Instance: "central", Member: member}}
}

// TestOutlivesTheWorker: what one process has put on the list, the next one finds.
func TestOutlivesTheWorker(t *testing.T) {
	dir := t.TempDir()
	a, b := entry("one", 7, "alpha-1"), entry("one", 7, "alpha-2")
	first := open(t, dir)
	for _, e := range []Entry{a, b, a} {
		if err := first.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	second := open(t, dir)
	got, err := second.List()
	slices.SortFunc(got, func(x, y Entry) int { return strings.Compare(x.Unit.Member, y.Unit.Member) })
	if err != nil || !slices.Equal(got, []Entry{a, b}) {
		t.Fatalf("%+v, %v", got, err)
	}
	for range 2 {
		if err := second.Remove(a.Unit); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := open(t, dir).List(); err != nil || !slices.Equal(got, []Entry{b}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDamaged: a file that cannot be read hides no other.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	if err := f.Add(entry("one", 7, "alpha-1")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"x.json": "{", "y.json": strings.Repeat(" ", maxFile+1), "notes": "not ours"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.List()
	if len(got) != 1 || err == nil || !strings.Contains(err.Error(), "x.json") || !strings.Contains(err.Error(), "y.json") || strings.Contains(err.Error(), "notes") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestIdle: a run that is not known is as idle as this process is old.
func TestIdle(t *testing.T) {
	f := open(t, t.TempDir())
	f.start = time.Now().Add(-time.Hour)
	c := epoch.Claim{Epoch: 3, Run: "r"}
	if d := f.Idle(c); d < time.Hour || d > 2*time.Hour {
		t.Errorf("unknown run: %s", d)
	}
	f.Touch(c)
	if d := f.Idle(c); d > time.Minute {
		t.Errorf("run that was seen: %s", d)
	}
}
