package cassandra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// TestRefused: credentials that are wrong, and programs that are not there, are told apart.
func TestRefused(t *testing.T) {
	r := newRig(t, on(t, oneNode), "central")
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(t, os.WriteFile(wrong, []byte("wrong\n"), 0o600))
	for name, c := range map[string]struct {
		on   plugins.Target
		want error
	}{
		"password":     {option(r.on, "password_file", wrong), plugins.ErrAuth},
		"unknown user": {option(r.on, "user", "nobody"), plugins.ErrAuth},
		"no user":      {without(r.on, "user", "password_file"), plugins.ErrAuth},
		"port":         {plugins.Target{Component: "cassandra", Members: []plugins.Member{{Name: "n", Address: "127.0.0.1:1"}}}, plugins.ErrUnavailable},
		"address":      {plugins.Target{Component: "cassandra", Members: []plugins.Member{{Name: "n", Address: "127.0.0.1:x"}}}, plugins.ErrConfig},
		"prove_mb":     {option(r.on, "prove_mb", "many"), plugins.ErrConfig},
	} {
		s, err := New().Open(t.Context(), c.on)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil {
			must(t, s.Close())
		} else if strings.Contains(err.Error(), "wrong\n") {
			t.Errorf("%s: the error holds the password: %v", name, err)
		}
	}
	r.fill(t, r.on, 15)
	bad := newRig(t, r.bench, "central")
	bad.on = option(without(r.on, "jolokia"), "nodetool", "/nonexistent/nodetool")
	if _, _, err := bad.tryBackup(); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("without nodetool: %v, want ErrConfig", err)
	}
	if h := bad.health(); h.Grade != plugins.Red {
		t.Errorf("health without JMX: %+v", h)
	}
	bad.on = option(r.on, "jolokia", "http://127.0.0.1:1/jolokia/")
	if _, _, err := bad.tryBackup(); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("without Jolokia: %v, want ErrUnavailable", err)
	}
	bad.on = option(r.on, "data_dir", "/nonexistent")
	if _, _, err := bad.tryBackup(); err == nil || !strings.Contains(err.Error(), "option data_dir") {
		t.Errorf("without data directory: %v", err)
	}
	// A role without rights is told which page lists them.
	r.do(`CREATE ROLE IF NOT EXISTS powerless WITH PASSWORD = 'powerless' AND LOGIN = true`)
	must(t, os.WriteFile(wrong, []byte("powerless\n"), 0o600))
	bad.on = option(option(r.on, "user", "powerless"), "password_file", wrong)
	if _, _, err := bad.tryBackup(); !errors.Is(err, plugins.ErrAuth) || !strings.Contains(err.Error(), "README") {
		t.Errorf("without rights: %v, want ErrAuth", err)
	}
	r.do(`DROP ROLE powerless`)
}

// TestDamage: an SSTable that rotted on the server's disk is refused by a backup, taken as it is by a safety backup, and
// refused by a restore before anything is touched.
func TestDamage(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 21)
	sound := r.backup()
	want := r.print()
	r.do(`INSERT INTO zoo.empty (id) VALUES (5)`, `INSERT INTO zoo.empty (id) VALUES (6)`)
	r.nodetool("flush", "zoo", "empty")
	files, err := filepath.Glob(filepath.Join(r.on.Members[0].Options["data_dir"], "zoo", "empty-*", "*-Data.db"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no SSTable: %v", err)
	}
	file := files[len(files)-1]
	data, err := os.ReadFile(file)
	must(t, err)
	rotten := bytes.Clone(data)
	rotten[len(rotten)/2] ^= 1
	must(t, os.WriteFile(file, rotten, 0o600))
	if _, _, err := r.tryBackup(); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "zoo/empty") {
		t.Errorf("backup of a damaged SSTable: %v, want errDamaged", err)
	}
	bad := newMemory()
	must(t, r.with(func(s plugins.Session) error {
		rep, err := s.Backup(t.Context(), newRun(t, plugins.OpSafety), bad)
		if err == nil && !strings.Contains(fmt.Sprint(rep.Warnings), "damaged") {
			t.Errorf("safety backup of a damaged SSTable does not tell: %+v", rep)
		}
		return err
	}))
	r.restore(sound)
	r.same(want)
	b.wreck(t, r.on, 22)
	wrecked := r.print()
	if _, err := r.tryRestore(bad); !errors.Is(err, plugins.ErrCorrupt) {
		t.Errorf("restore of a damaged SSTable: %v, want ErrCorrupt", err)
	}
	r.same(wrecked)
	r.restore(sound)
	r.same(want)
}

// TestDiskFull: a restore that does not fit is refused by plan and restore, and one whose disk fills
// on the way touches nothing.
func TestDiskFull(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 31)
	want := r.print()
	m := r.backup()
	b.wreck(t, r.on, 32)
	wrecked := r.print()
	small := filepath.Join(t.TempDir(), "small")
	must(t, os.Mkdir(small, 0o700))
	must(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=320m,mode=0700")) // as root, as the worker runs
	t.Cleanup(func() { must(t, unix.Unmount(small, 0)) })
	full := newRig(t, b, "central")
	full.on = option(r.on, "staging_dir", filepath.Join(small, "staging"))

	fill := func(leave int64) func() {
		free, _ := space(small)
		f, err := os.Create(filepath.Join(small, "filler"))
		must(t, err)
		must(t, unix.Fallocate(int(f.Fd()), 0, 0, free-leave))
		return func() { must(t, errors.Join(f.Close(), os.Remove(f.Name()))) }
	}
	empty := fill(1 << 20)
	if _, err := full.tryRestore(m); !errors.Is(err, plugins.ErrSpace) {
		t.Errorf("restore that does not fit: %v, want ErrSpace", err)
	}
	must(t, full.with(func(s plugins.Session) error {
		p, err := s.(plugins.Planner).Plan(t.Context(), newRun(t, plugins.OpInspect), m)
		if err == nil && !strings.Contains(fmt.Sprint(p.Refusals), "make room") {
			t.Errorf("plan of a restore that does not fit: %+v", p)
		}
		return err
	}))
	empty()
	r.same(wrecked)

	run := newRun(t, plugins.OpRestore)
	var once bool
	run.Parallel = 1
	run.Progress = func(st plugins.Status) {
		if st.Phase == "load" && !once {
			once = true
			empty = fill(4096)
		}
	}
	err := full.with(func(s plugins.Session) error {
		_, err := s.Restore(t.Context(), run, m)
		return err
	})
	if !once || !errors.Is(err, plugins.ErrSpace) {
		t.Errorf("disk full on the way: %v, want ErrSpace", err)
	}
	r.same(wrecked)
	empty()
	full.restore(m)
	r.same(want)
}

// misled imports from a place that is not the one asked for, as a server does that was told a wrong path: it finds nothing,
// and says nothing.
type misled struct {
	admin
	wrong func(dir string) string
}

func (m misled) load(ctx context.Context, keyspace, table, dir string, foreign bool) error {
	return m.admin.load(ctx, keyspace, table, m.wrong(dir), foreign)
}

// TestSilence: an import that the real server takes for done, though it found nothing, is noticed.
func TestSilence(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 11)
	want := r.print()
	m := r.backup()
	must(t, r.with(func(s plugins.Session) error { // the server really is silent, by both ways to reach it
		u := s.(*cluster).units[0]
		dir := filepath.Join(t.TempDir(), "zoo", "base")
		must(t, os.MkdirAll(dir, 0o700))
		return errors.Join(nodetool{u.cfg}.load(t.Context(), "zoo", "base", dir, false), u.admin.load(t.Context(), "zoo", "base", filepath.Dir(dir), false))
	}))
	for name, wrong := range map[string]func(string) string{
		"wrong shape": func(dir string) string { return filepath.Dir(dir) },
		"empty": func(dir string) string {
			other := filepath.Join(t.TempDir(), filepath.Base(filepath.Dir(dir)), filepath.Base(dir))
			must(t, os.MkdirAll(other, 0o700))
			return other
		},
	} {
		b.wreck(t, r.on, 12)
		run := newRun(t, plugins.OpRestore)
		err := r.with(func(s plugins.Session) error {
			u := s.(*cluster).units[0]
			u.admin = misled{u.admin, wrong}
			_, err := s.Restore(t.Context(), run, m)
			return err
		})
		if !errors.Is(err, plugins.ErrData) || !strings.Contains(err.Error(), "did not import") {
			t.Errorf("%s: %v, want that it is noticed", name, err)
		}
		r.restore(m)
		r.same(want)
	}
}

// TestLeftovers: the snapshot of a run that died is cleared by the next one, an operator's own is not.
func TestLeftovers(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 91)
	r.nodetool("snapshot", "-t", "mine", "zoo")
	tags := func() (out []string) {
		dirs, err := filepath.Glob(filepath.Join(r.on.Members[0].Options["data_dir"], "zoo", "base-*", "snapshots", "*"))
		must(t, err)
		for _, d := range dirs {
			tag := filepath.Base(d)
			if own := strings.HasPrefix(tag, "dropped-") || strings.HasPrefix(tag, "truncated-"); !own { // those the server makes by itself
				out = append(out, tag)
			}
		}
		return out
	}
	must(t, r.with(func(s plugins.Session) error {
		_, err := s.(plugins.Pinner).Pin(t.Context(), newRun(t, plugins.OpBackup))
		return err // and the process dies
	}))
	if got := tags(); len(got) != 2 {
		t.Fatalf("snapshots before: %q", got)
	}
	must(t, r.with(func(s plugins.Session) error { return s.PreHook(t.Context(), newRun(t, plugins.OpBackup)) }))
	if got := tags(); len(got) != 1 || got[0] != "mine" {
		t.Errorf("snapshots after: %q, want the operator's own", got)
	}
	r.nodetool("clearsnapshot", "-t", "mine")
}

// TestUnchanged: a second backup of the same files refers to them, and reads none.
func TestUnchanged(t *testing.T) {
	b := on(t, oneNode)
	r := newRig(t, b, "central")
	b.fill(t, r.on, 95)
	first := r.backup()
	second := newMemory().After(first)
	must(t, r.with(func(s plugins.Session) error {
		_, err := s.Backup(t.Context(), newRun(t, plugins.OpBackup), second)
		return err
	}))
	reused := map[string]bool{}
	for _, n := range second.Reused() {
		reused[n] = true
	}
	for _, a := range second.Artifacts() {
		if strings.Contains(a.Name, "/sstable/") && !reused[a.Name] {
			t.Errorf("%s was stored again", a.Name)
		}
		if strings.Contains(a.Name, "SAI") || strings.Contains(a.Name, "SI_") {
			t.Errorf("%s is rebuilt by an import", a.Name)
		}
	}
}
