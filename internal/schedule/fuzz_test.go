package schedule

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzLoad: a schedule file that reads can be written again, and reads the same.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"format":1,"name":"N","cron":"0-13-*-*-0","paused":true}`))
	f.Add([]byte(`{"name":"../../etc/cron.d/x","cron":"* * * * *"}`))
	f.Add([]byte(`{}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, "N"+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := Load(dir, "N")
		if err != nil {
			return
		}
		if err := Save(dir, e); err != nil {
			t.Fatalf("read, and cannot be written: %v", err)
		}
		again, err := Load(dir, "N")
		if err != nil || again.Name != "N" || again.Cron != e.Cron || again.Paused != e.Paused {
			t.Errorf("%+v became %+v, %v", e, again, err)
		}
	})
}
