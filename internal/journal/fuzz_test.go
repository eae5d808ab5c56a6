package journal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
)

// FuzzRead: a journal that was damaged is an error, or reads as what it says; it never passes for an empty one.
func FuzzRead(f *testing.F) {
	good, err := json.Marshal(State{Format: Format, Claim: epoch.Claim{Epoch: 7, Run: "r"}, Written: []string{"a"}, Lease: &Lease{Entered: true}, Hold: &Hold{Reason: "x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"format":99,"claim":{"epoch":1}}`))
	f.Add([]byte{})
	root := f.TempDir()
	j, err := At(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(root, ".cso", "journal", file), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := j.Read()
		if len(b) == 0 && err == nil {
			t.Fatal("an empty file passes for a journal that was never written")
		}
		if err != nil {
			if s.Open() {
				t.Fatal("an error, and a state")
			}
			return
		}
		if s.Format > Format {
			t.Fatalf("format %d is accepted", s.Format)
		}
		Summary(s)
		if s.Lease != nil {
			s.Lease.Deadline.Past(Now())
		}
	})
}
