package schedule

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFile_roundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "schedules")
	if es, err := List(dir); err != nil || len(es) != 0 {
		t.Fatalf("a missing directory: %v, %v", es, err)
	}
	want := Entry{Format: 1, Name: "DAILY", Cron: "30-2-*-*-*", Maintenance: true, Paused: true, Note: "paused by root", Changed: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for range 2 { // the second replaces the first
		if err := Save(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Entry{want}, got); d != "" {
		t.Error(d)
	}
	st, err := os.Stat(filepath.Join(dir, "DAILY.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := Remove(dir, "DAILY"); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir, "DAILY"); !errors.Is(err, ErrNone) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := Load(dir, "DAILY"); !errors.Is(err, ErrNone) {
		t.Errorf("load of a removed one: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSave_refuses(t *testing.T) {
	dir := t.TempDir()
	for _, e := range []Entry{{Name: "../x", Cron: "0-0-*-*-*"}, {Name: "", Cron: "0-0-*-*-*"}, {Name: ".hidden", Cron: "0-0-*-*-*"}, {Name: "A", Cron: "nonsense"}} {
		if err := Save(dir, e); err == nil {
			t.Errorf("saved %+v", e)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestList_hostileFiles(t *testing.T) {
	dir := t.TempDir()
	if err := Save(dir, Entry{Name: "GOOD", Cron: "0-0-*-*-*"}); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("EMPTY.json", "")
	put("UNKNOWN.json", `{"format":1,"name":"UNKNOWN","cron":"0-0-*-*-*","command":"rm -rf /"}`)
	put("OTHER.json", `{"format":1,"name":"GOOD","cron":"0-0-*-*-*"}`)
	put("NEWER.json", `{"format":2,"name":"NEWER","cron":"0-0-*-*-*"}`)
	put("CRON.json", `{"format":1,"name":"CRON","cron":"0-0-31-2-*"}`)
	put("HUGE.json", strings.Repeat(" ", maxFile+1))
	put(".hidden.json", "x")
	put("notes.txt", "x")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "LINK.json")); err != nil {
		t.Fatal(err)
	}
	es, err := List(dir)
	if len(es) != 1 || es[0].Name != "GOOD" {
		t.Errorf("read %+v", es)
	}
	for _, n := range []string{"EMPTY", "UNKNOWN", "OTHER", "NEWER", "CRON", "HUGE"} {
		if err == nil || !strings.Contains(err.Error(), "schedule "+n) {
			t.Errorf("%s is not reported in: %v", n, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "root:") {
		t.Error("the content of a linked file is in the error")
	}
}

func TestZone(t *testing.T) {
	env := func(tz string) func(string) string {
		return func(k string) string { return map[string]string{"TZ": tz}[k] }
	}
	etc := t.TempDir()
	check := func(what, tz, want string) {
		t.Helper()
		l, err := zone(env(tz), etc)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "timedatectl") {
				t.Errorf("%s: %v, %v", what, l, err)
			}
			return
		}
		if err != nil || l.String() != want {
			t.Errorf("%s: %v, %v, want %s", what, l, err, want)
		}
	}
	check("nothing set", "", "UTC")
	check("TZ", "Europe/Berlin", "Europe/Berlin")
	check("TZ with a colon", ":Europe/Berlin", "Europe/Berlin")
	check("TZ that does not exist", "Mars/Base", "")
	check("TZ out of the tree", "../../etc/passwd", "")
	if err := os.WriteFile(filepath.Join(etc, "localtime"), []byte("TZif"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a copy without a name", "", "")
	if err := os.WriteFile(filepath.Join(etc, "timezone"), []byte("Asia/Tokyo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("timezone", "", "Asia/Tokyo")
	zi := filepath.Join(etc, "zoneinfo", "America")
	if err := os.MkdirAll(zi, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(zi, "New_York"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(etc, "localtime")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(zi, "New_York"), filepath.Join(etc, "localtime")); err != nil {
		t.Fatal(err)
	}
	check("link", "", "America/New_York")
}
