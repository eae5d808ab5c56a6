package files_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/certificates"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/plugins/secrets"
)

func TestBothComponentsAreInTheTable(t *testing.T) {
	for _, p := range []plugins.Plugin{secrets.New(), certificates.New()} {
		if c, ok := plugins.Lookup(p.Info().Component); !ok || !c.Last {
			t.Errorf("%s: not a component that is switched last", p.Info().Component)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	base := t.TempDir()
	dir, single := filepath.Join(base, "tree"), filepath.Join(base, "single")
	fill(t, dir)
	must(t, os.WriteFile(single, []byte("one file as a path"), 0o600))
	s := open(t, dir, single)
	before, wrote := oracle(t, base+"/tree")+oracle(t, single), versions(t, dir)
	m := backup(t, s)
	if got := versions(t, dir); got != wrote {
		t.Error("the backup touched the trees")
	}
	wreck(t, dir)
	must(t, os.Remove(single))

	plan, err := s.(plugins.Planner).Plan(t.Context(), run(t, plugins.OpInspect), m)
	must(t, err)
	if len(plan.Add) == 0 || len(plan.Change) == 0 || len(plan.Remove) != 5 || len(plan.Refusals) != 0 || len(plan.Unchanged) == 0 {
		t.Errorf("plan %+v", plan)
	}
	r := run(t, plugins.OpRestore)
	rep, err := s.Restore(t.Context(), r, m)
	must(t, err)
	if rep.Artifacts != 2 || rep.Removed != 5 {
		t.Errorf("report %+v: want both artifacts changed and 5 removed", rep)
	}
	after := oracle(t, base+"/tree") + oracle(t, single)
	if d := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); d != "" {
		t.Errorf("restored trees differ:\n%s", d)
	}
	if d := plugins.DiffDigests(digest(t, s), m.Artifacts()); len(d) != 0 {
		t.Errorf("digests differ: %+v", d)
	}
	if d := differences(t, s, r, m); len(d) != 0 {
		t.Errorf("Compare: %+v", d)
	}

	wrote = versions(t, dir)
	rep, err = s.Restore(t.Context(), run(t, plugins.OpRestore), m)
	must(t, err)
	if versions(t, dir) != wrote || rep.Artifacts != 0 || rep.Records != 0 {
		t.Errorf("a second restore wrote: %+v", rep)
	}
}

func TestOnlyWhatDiffersIsTouched(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s := open(t, dir)
	m := backup(t, s)
	before := strings.Split(versions(t, dir), "\n")
	must(t, unix.Chmod(filepath.Join(dir, "keys/a!"), 0o777))
	_, err := s.Restore(t.Context(), run(t, plugins.OpRestore), m)
	must(t, err)
	touched := 0
	for i, l := range strings.Split(versions(t, dir), "\n") {
		if l != before[i] {
			touched++
		}
	}
	if touched != 2 { // the file, and its directory for the rename
		t.Errorf("%d entries touched, want 2", touched)
	}
}

func TestMissingAndForeign(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	s := open(t, dir)
	if _, err := s.Backup(t.Context(), run(t, plugins.OpBackup), plugintest.NewMemory()); !errors.Is(err, plugins.ErrNotFound) {
		t.Fatalf("backup of a missing path: %v, want ErrNotFound", err)
	}
	if h, err := s.Health(t.Context()); err != nil || h.Grade != plugins.Amber || !h.Empty {
		t.Fatalf("health %+v %v: want RED and empty", h, err)
	}
	safety := plugintest.NewMemory()
	_, err := s.Backup(t.Context(), run(t, plugins.OpSafety), safety)
	must(t, err)
	must(t, os.Mkdir(dir, 0o700))
	fill(t, dir)
	if h, err := s.Health(t.Context()); err != nil || h.Grade != plugins.Green || h.Empty || h.Estimate < 2_500_000 {
		t.Fatalf("health %+v %v: want GREEN", h, err)
	}
	m := backup(t, s)
	_, err = s.Restore(t.Context(), run(t, plugins.OpRollback), safety)
	must(t, err)
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the rollback left %s: %v", dir, err)
	}
	r := run(t, plugins.OpRestore)
	_, err = s.Restore(t.Context(), r, m)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
	must(t, os.Remove(filepath.Join(dir, "keys/a!")))
	must(t, os.Chmod(filepath.Join(dir, "password"), 0o777))
	d := differences(t, s, r, m)
	if len(d) != 3 {
		t.Fatalf("differences %+v, want missing, changed and extra", d)
	}
	for _, x := range d {
		if !x.Foreign || strings.Contains(x.Detail, "hunter2") {
			t.Errorf("%+v: want foreign, and no content", x)
		}
	}
	r.Scratch = t.TempDir()
	for _, x := range differences(t, s, r, m) {
		if x.Foreign {
			t.Errorf("%+v: foreign without a proof", x)
		}
	}
}

func TestKilledAnywhereAndRunAgain(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s := open(t, dir)
	before := oracle(t, dir)
	m := backup(t, s)
	var total int64
	for _, a := range m.Artifacts() {
		total += a.Records
	}
	for k := range total {
		wreck(t, dir)
		broken := oracle(t, dir)
		_, err := s.Restore(t.Context(), run(t, plugins.OpRestore), m.Clone().KillAtRecord(int(k)))
		if !errors.Is(err, plugintest.ErrKilled) {
			t.Fatalf("killed at record %d: %v", k, err)
		}
		if oracle(t, dir) != broken {
			t.Fatalf("killed at record %d of %d: something was written before all was read", k, total)
		}
		_, err = s.Restore(t.Context(), run(t, plugins.OpRestore), m)
		must(t, err)
		if oracle(t, dir) != before {
			t.Fatalf("after a kill at record %d the next restore is not exact", k)
		}
	}
	if w := plugintest.NewMemory().KillAtRecord(5); true {
		if _, err := s.Backup(t.Context(), run(t, plugins.OpBackup), w); !errors.Is(err, plugintest.ErrKilled) || len(w.Unfinished()) != 0 {
			t.Errorf("killed backup: %v, unfinished %v", err, w.Unfinished())
		}
	}
}

// cancelAfter cancels the context at the n-th write of a restore.
func TestCancelledAtEveryWrite(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s := open(t, dir)
	before := oracle(t, dir)
	m := backup(t, s)
	for n := 1; ; n++ {
		wreck(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		r, seen := run(t, plugins.OpRestore), 0
		r.Progress = func(plugins.Status) {
			if seen++; seen == n {
				cancel()
			}
		}
		_, err := s.Restore(ctx, r, m)
		cancel()
		if seen < n {
			must(t, err)
			if n < 8 {
				t.Fatalf("only %d writes", n)
			}
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at write %d: %v", n, err)
		}
		_, err = s.Restore(t.Context(), run(t, plugins.OpRestore), m)
		must(t, err)
		if oracle(t, dir) != before {
			t.Fatalf("after a stop at write %d the next restore is not exact", n)
		}
	}
}

func TestCorruptIsRefusedBeforeAnyWrite(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s := open(t, dir)
	m := backup(t, s)
	wreck(t, dir)
	wrote := versions(t, dir)
	for _, name := range []string{"tree", "content"} {
		for i := range m.PieceCount(name) {
			c := m.Clone()
			if !c.Corrupt(name, i) {
				t.Fatalf("nothing to corrupt in piece %d of %s", i, name)
			}
			if _, err := s.Restore(t.Context(), run(t, plugins.OpRestore), c); !errors.Is(err, plugins.ErrCorrupt) {
				t.Errorf("piece %d of %s damaged: %v, want ErrCorrupt", i, name, err)
			}
		}
	}
	if versions(t, dir) != wrote {
		t.Error("something was written from a damaged backup")
	}
}

func TestAnAttemptThatWakesUpWritesNothing(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s := open(t, dir)
	before := oracle(t, dir)
	m := backup(t, s)
	wreck(t, dir)
	frozen, thaw, done := make(chan bool), make(chan bool), make(chan error)
	old, seen := run(t, plugins.OpRestore), 0
	old.Progress = func(plugins.Status) {
		if seen++; seen == 3 {
			close(frozen)
			<-thaw
		}
	}
	go func() {
		_, err := open(t, dir).Restore(t.Context(), old, m)
		done <- err
	}()
	<-frozen
	next := old
	next.Attempt, next.Progress = "successor", nil
	_, err := s.Restore(withTimeout(t, 10*time.Second), next, m)
	must(t, err)
	wrote := versions(t, dir)
	close(thaw)
	if err := <-done; !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("the frozen attempt ended with %v, want ErrFenced", err)
	}
	if versions(t, dir) != wrote || oracle(t, dir) != before {
		t.Error("the frozen attempt changed something")
	}
	old.Epoch, old.Attempt, old.Progress = old.Epoch-1, "lower epoch", nil
	if _, err := s.Restore(t.Context(), old, m); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("a lower epoch: %v, want ErrFenced", err)
	}
}

func TestPinHoldsTheViewAndNoticesWriters(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s := open(t, dir)
	want := digest(t, s)
	p, err := s.(plugins.Pinner).Pin(t.Context(), run(t, plugins.OpBackup))
	must(t, err)
	wreck(t, dir)
	d := plugins.NewDigester()
	_, err = p.Backup(t.Context(), run(t, plugins.OpBackup), d)
	must(t, err)
	if diff := cmp.Diff(want, d.Digests()); diff != "" {
		t.Errorf("the view moved: %s", diff)
	}
	must(t, p.Release(t.Context()))
	must(t, p.Release(t.Context()))
	if _, err := p.Backup(t.Context(), run(t, plugins.OpBackup), plugins.NewDigester()); !errors.Is(err, plugins.ErrPinLost) {
		t.Errorf("a released pin: %v, want ErrPinLost", err)
	}

	stop, stopped := make(chan bool), make(chan error)
	go func() { // a writer that replaces a file in one step, for ever
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			b := []byte(strings.Repeat(string(rune('a'+i%26)), 5000))
			if err := os.WriteFile(dir+"/w", b, 0o600); err != nil {
				stopped <- err
				return
			}
			if err := os.Rename(dir+"/w", dir+"/busy"); err != nil {
				stopped <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	time.Sleep(5 * time.Millisecond)
	m := plugintest.NewMemory()
	rep, err := s.Backup(t.Context(), run(t, plugins.OpBackup), m)
	close(stop)
	must(t, <-stopped)
	must(t, err)
	if len(rep.Warnings) != 1 || !strings.Contains(rep.Warnings[0], "/busy") || strings.Contains(rep.Consistency, "one moment") {
		t.Errorf("a busy tree was reported as %+v", rep)
	}
}

func TestPathsOfTheProductAreRefused(t *testing.T) {
	state := os.Getenv("CSO_BACKUP_STATE")
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(state, link))
	for _, p := range []string{state, state + "/pki", filepath.Dir(state), link, link + "/keys", "/backups/x", "/", "relative", "", state + "/../" + filepath.Base(state)} {
		if _, err := secrets.New().Open(t.Context(), target(p)); !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("paths %q: %v, want ErrConfig", p, err)
		}
	}
}

func TestSpecialFilesAreReportedAndSpared(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	s := open(t, dir)
	m := plugintest.NewMemory()
	rep, err := s.Backup(t.Context(), run(t, plugins.OpBackup), m)
	must(t, err)
	if len(rep.Inexact) != 1 || !strings.Contains(rep.Inexact[0].What, dir+"/fifo") {
		t.Errorf("%+v does not name the FIFO", rep.Inexact)
	}
	_, err = s.Restore(t.Context(), run(t, plugins.OpRestore), m)
	must(t, err)
	if _, err := os.Lstat(dir + "/fifo"); err != nil {
		t.Errorf("the FIFO is gone: %v", err)
	}
}

func TestHostileRecordsAreRefused(t *testing.T) {
	base := t.TempDir()
	dir, outside := base+"/in", base+"/out"
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Mkdir(outside, 0o700))
	must(t, os.WriteFile(outside+"/victim", []byte("whole"), 0o600))
	sum := `"sha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="`
	file := `{"type":"file",` + sum + `}`
	root := [2]string{dir, `{"type":"dir","mode":448}`}
	cases := map[string][][2]string{
		"outside":              {root, {outside + "/x", file}},
		"dots":                 {root, {dir + "/../out/x", file}},
		"relative":             {{"x", file}},
		"sibling with prefix":  {root, {dir + "side", file}},
		"below a symlink":      {root, {dir + "/l", `{"type":"symlink","target":"` + "Li4vb3V0" + `"}`}, {dir + "/l/victim", file}},
		"no parent":            {root, {dir + "/a/b", file}},
		"link to outside":      {root, {dir + "/l", `{"type":"link","target":"L2V0Yy9wYXNzd2Q="}`}},
		"device":               {root, {dir + "/d", `{"type":"device"}`}},
		"mode":                 {root, {dir + "/f", `{"type":"file","mode":65535,` + sum + `}`}},
		"negative owner":       {root, {dir + "/f", `{"type":"file","uid":-1,` + sum + `}`}},
		"foreign attribute":    {root, {dir + "/f", `{"type":"file","xattrs":{"trusted.overlay.opaque":"eQ=="},` + sum + `}`}},
		"unknown field":        {root, {dir + "/f", `{"type":"file","exec":"x",` + sum + `}`}},
		"temporary name":       {root, {dir + "/.cso-backup-1-x.tmp", file}},
		"size without content": {root, {dir + "/f", `{"type":"file","size":5,` + sum + `}`}},
		"absent below root":    {root, {dir + "/f", `{"type":"absent"}`}},
	}
	s := open(t, dir)
	before := versions(t, base)
	for name, records := range cases {
		m := plugintest.NewMemory()
		for _, a := range []string{"tree", "content"} {
			w, err := m.Create(t.Context(), plugins.Artifact{Name: a, Form: plugins.Ordered, Pin: "p"})
			must(t, err)
			if a == "tree" {
				for _, r := range records {
					must(t, w.Put([]byte(r[0]), []byte(r[1])))
				}
			}
			must(t, w.Commit())
		}
		_, err := s.Restore(t.Context(), run(t, plugins.OpRestore), m)
		if !errors.Is(err, plugins.ErrData) && !errors.Is(err, plugins.ErrConfig) && !errors.Is(err, plugins.ErrCorrupt) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
		if versions(t, base) != before {
			t.Fatalf("%s: something was written", name)
		}
	}
}

// TestSymlinkPutInTheWay: a directory becomes a link to elsewhere after the restore has looked.
func TestSymlinkPutInTheWay(t *testing.T) {
	base := t.TempDir()
	dir, outside := base+"/in", base+"/out"
	must(t, os.MkdirAll(dir+"/a/sub", 0o700))
	must(t, os.MkdirAll(outside+"/sub", 0o700))
	must(t, os.WriteFile(dir+"/a/sub/f", []byte("secret"), 0o600))
	must(t, os.WriteFile(dir+"/a/sub/g", []byte("secret"), 0o600))
	s := open(t, dir)
	m := backup(t, s)
	must(t, os.Remove(dir+"/a/sub/f"))
	must(t, os.Remove(dir+"/a/sub/g"))
	r, n := run(t, plugins.OpRestore), 0
	r.Progress = func(plugins.Status) {
		if n++; n == 3 { // directory, f, before g
			must(t, os.Rename(dir+"/a", base+"/moved"))
			must(t, os.Symlink(outside, dir+"/a"))
		}
	}
	if _, err := s.Restore(t.Context(), r, m); err == nil {
		t.Error("the restore wrote through a symbolic link")
	}
	if left, err := os.ReadDir(outside + "/sub"); err != nil || len(left) != 0 {
		t.Errorf("outside the paths: %v %v", left, err)
	}
}

func TestRecordsAreReadableByHand(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	m := backup(t, open(t, dir))
	rr, err := m.Open(t.Context(), "tree")
	must(t, err)
	n := 0
	for ; ; n++ {
		_, v, err := rr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		var any map[string]any
		must(t, json.Unmarshal(v, &any))
		if strings.Contains(string(v), "hunter2") {
			t.Error("content in the tree")
		}
	}
	if n < 15 {
		t.Errorf("%d records", n)
	}
}
