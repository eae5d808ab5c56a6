package catalog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

type site struct {
	t    *testing.T
	s    *store.Store
	root string
	w    keys.Writer
	r    keys.Reader
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	x := &site{t: t, root: filepath.Join(dir, "root")}
	var err error
	if _, err = keys.Ensure(dir + "/keys"); err != nil {
		t.Fatal(err)
	}
	if x.w, err = keys.LoadWriter(dir + "/keys"); err != nil {
		t.Fatal(err)
	}
	if x.r, err = keys.LoadReader(dir + "/keys"); err != nil {
		t.Fatal(err)
	}
	if x.s, err = store.Open(x.root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.s.Close() })
	return x
}

func (x *site) add(ref string, seal bool) store.Ref {
	x.t.Helper()
	r, err := manifest.ParseRef(ref)
	if err != nil {
		x.t.Fatal(err)
	}
	u, err := x.s.BeginUnit(x.t.Context(), r, store.UnitID{Component: "beta", Instance: "central"}, x.w, store.UnitOptions{})
	if err != nil {
		x.t.Fatal(err)
	}
	w, err := u.Create(x.t.Context(), plugins.Artifact{Name: "kv", Form: plugins.Ordered})
	if err = errors.Join(err, w.Put([]byte("k"), []byte("v")), w.Commit()); err != nil {
		x.t.Fatal(err)
	}
	if _, err := u.Finish(x.t.Context(), store.UnitMeta{Scope: plugins.ScopeCluster}); err != nil {
		x.t.Fatal(err)
	}
	if seal {
		if _, err := x.s.Seal(x.t.Context(), r, manifest.Manifest{ID: ref, Consistent: true, Consistency: "consistency point", Warnings: []string{"w"}},
			store.SealOptions{Writer: x.w, ManifestKey: *x.r.ManifestKey}); err != nil {
			x.t.Fatal(err)
		}
	}
	return r
}

func TestListAndResolve(t *testing.T) {
	x := newSite(t)
	a := x.add("DAILY/2019-03-16T04-00-07Z", true)
	b := x.add("DAILY/2019-03-17T04-00-07Z", true)
	c := x.add("DAILY/2019-03-17T05-00-07Z", true)
	bad := x.add("DAILY/2019-03-18T04-00-07Z", true)
	inc := x.add("DAILY/2019-03-19T04-00-07Z", false)
	w := x.add("WEEKLY/2019-03-10T00-00-00Z", true)
	saf := x.add("_safety/2019-03-20T00-00-00Z", true)
	run := x.add("RUN/2019-03-20T00-00-00Z", false)
	mf := filepath.Join(x.s.Dir(bad), "manifest.json")
	good, err := os.ReadFile(mf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mf, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, junk := range []string{"lost+found", "DAILY/notes", ".hidden/2019-03-10T00-00-00Z"} {
		if err := os.MkdirAll(filepath.Join(x.root, junk), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("WEEKLY", filepath.Join(x.root, "LINK")); err != nil {
		t.Fatal(err)
	}
	got, err := List(x.s, Filter{Safety: true})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range got {
		lines = append(lines, e.Ref.String()+" "+string(e.Status))
	}
	want := []string{inc.String() + " incomplete", bad.String() + " damaged", c.String() + " complete", b.String() + " complete", a.String() + " complete",
		run.String() + " incomplete", w.String() + " complete", saf.String() + " complete"}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
	e := got[2]
	if e.Totals.Units != 1 || e.Totals.Records != 1 || !e.Consistent || e.Warnings != 1 || !slices.Equal(e.Components, []string{"beta"}) || !e.LastFull.IsZero() || e.Path != x.s.Dir(c) {
		t.Errorf("%+v", e)
	}
	if err := os.WriteFile(mf, []byte(strings.Replace(string(good), `"w"`, `"x"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := Load(x.s, bad, &x.r); err != nil || e.Status != Damaged {
		t.Error("tampered:", e.Status, err)
	}
	if err := os.WriteFile(mf, good[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]any{
		"DAILY": c, "DAILY/": c, "WEEKLY": w, "DAILY/2019-03-16": a, "DAILY/2019-03-17T04": b, a.String(): a, bad.String(): bad,
		"DAILY/2019-03-17": ErrAmbiguous, "DAILY/2019-03-1": ErrAmbiguous, "DAILY/2019-03-18": store.ErrNoSuchBackup, "DAILY/2020": store.ErrNoSuchBackup,
		"DAIL": store.ErrNoSuchBackup, "daily": store.ErrNoSuchBackup, inc.String(): store.ErrIncomplete, "DAILY/2019-03-19": store.ErrIncomplete, "RUN": store.ErrIncomplete,
		"_safety": store.ErrNoSuchBackup, "_safety/2019": store.ErrNoSuchBackup, saf.String(): saf, x.s.Dir(saf): saf,
		x.s.Dir(a): a, x.s.Dir(a) + "/": a, x.root + "/DAILY/../DAILY/" + a.Timestamp: a, x.root + "/DAILY": c,
		x.root: store.ErrNoSuchBackup, "/": store.ErrNoSuchBackup, "/etc": store.ErrNoSuchBackup, x.root + "/none": store.ErrNoSuchBackup,
		x.s.Dir(a) + "/beta": store.ErrNoSuchBackup, "": store.ErrNoSuchBackup, "../x": store.ErrNoSuchBackup, "DAILY/../WEEKLY": store.ErrNoSuchBackup,
		"LINK": store.ErrNoSuchBackup, "LINK/2019-03-10T00-00-00Z": store.ErrNoSuchBackup,
	} {
		e, err := Resolve(x.s, arg)
		switch want := want.(type) {
		case store.Ref:
			if err != nil || e.Ref != want {
				t.Errorf("%q: %v %v, want %v", arg, e.Ref, err, want)
			}
		case error:
			if !errors.Is(err, want) {
				t.Errorf("%q: %v %v, want %v", arg, e.Ref, err, want)
			}
		}
	}
	for arg, say := range map[string]string{"DAILY/2019-03-17": c.Timestamp, "DAILY/2020": "2019-03-18T04-00-07Z (damaged)", "DAIL": "DAILY, RUN, WEEKLY"} {
		if _, err := Resolve(x.s, arg); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v does not name %s", arg, err, say)
		}
	}
}

// cpu is the processor time used so far: unlike wall time it does not depend
// on what else the machine does.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// A thousand backups are listed within half a second of processor time.
func TestListIsFast(t *testing.T) {
	x := newSite(t)
	first := x.add("N/2019-01-01T00-00-00Z", true)
	if _, err := x.s.Verify(t.Context(), first, store.VerifyOptions{Full: true}, nil); err != nil {
		t.Fatal(err)
	}
	event, err := os.ReadFile(filepath.Join(x.root, ".cso/state", first.String()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := x.s.LoadManifest(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	for len(m.Units) < 12 {
		u := m.Units[0]
		u.Member = fmt.Sprint("m", len(m.Units))
		m.Units = append(m.Units, u)
	}
	m.Sum()
	for i := range 1000 {
		m.Backup.Timestamp = manifest.Timestamp(time.Date(2020, 1, 1, i, 0, 0, 0, time.UTC))
		b, err := manifest.Encode(m, *x.r.ManifestKey)
		dir := x.s.Dir(m.Backup)
		if err = errors.Join(err, os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/manifest.json", b, 0o600), os.WriteFile(filepath.Join(x.root, ".cso/state", m.Backup.String()), event, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	best := time.Hour
	for range 3 {
		start := cpu(t)
		es, err := List(x.s, Filter{Reader: &x.r})
		best = min(best, cpu(t)-start)
		if err != nil || len(es) != 1001 || es[0].Status != Complete || es[0].LastFull.IsZero() {
			t.Fatal(len(es), err)
		}
	}
	if best > 500*time.Millisecond {
		t.Errorf("%v for 1001 backups", best)
	}
	t.Log(best)
}
