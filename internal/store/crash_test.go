package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const childEnv = "CSO_TEST_STORE_CHILD" // root, keys, reference, point, how often it is passed before the kill

// TestMain runs as the process to be killed when it is told so.
func TestMain(m *testing.M) {
	if arg := os.Getenv(childEnv); arg != "" {
		if err := child(strings.Split(arg, "|")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func crashData() data {
	return data{"t": table(4, 24_000, 1000), "f": {form: plugins.File, file: noise(4, 3<<20)}, "s": pairs("k", "v")}
}

// child makes one backup and dies by SIGKILL at the point it was given.
func child(a []string) error {
	s, err := Open(a[0])
	if err != nil {
		return err
	}
	w, err := keys.LoadWriter(a[1])
	if err != nil {
		return err
	}
	r, err := keys.LoadReader(a[1])
	if err != nil {
		return err
	}
	ref, err := manifest.ParseRef(a[2])
	if err != nil {
		return err
	}
	left, err := strconv.Atoi(a[4])
	if err != nil {
		return err
	}
	at := make(chan struct{}, 1)
	s.fault = func(point string) error {
		at <- struct{}{}
		defer func() { <-at }()
		if point == a[3] {
			if left--; left < 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		return nil
	}
	u, err := s.BeginUnit(context.Background(), ref, unitA, w, UnitOptions{})
	if err != nil && !errors.Is(err, ErrFinished) {
		return err
	}
	if err == nil {
		if err := fill(context.Background(), u, crashData()); err != nil {
			return err
		}
		if _, err := u.Finish(context.Background(), meta); err != nil {
			return err
		}
	}
	_, err = s.Seal(context.Background(), ref, manifest.Manifest{ID: "run", Consistency: manifest.NoConsistencyPoint}, SealOptions{Writer: w, ManifestKey: *r.ManifestKey})
	return err
}

func (x *site) child(ref Ref, point string, passes int) error {
	x.t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{x.root, x.keyDir, ref.String(), point, strconv.Itoa(passes)}, "|"))
	out, err := c.CombinedOutput()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("the child was to be killed at %s, pass %d: %v %s", point, passes, err, out)
}

// Wherever the process is killed, earlier backups stay whole, the broken one
// is never taken for complete, and a re-run brings it to the right end.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		point  string
		passes int
	}{{"piece", 0}, {"piece", 3}, {"sync", 0}, {"objects", 0}, {"link", 2}, {"unit", 0}, {"manifest", 0}} {
		t.Run(fmt.Sprint(k.point, k.passes), func(t *testing.T) {
			t.Parallel()
			x := newSite(t)
			old := data{"t": pairs("a", "1")}
			first, _ := x.backup("D", old)
			ref := x.next("D")
			if err := x.child(ref, k.point, k.passes); err != nil {
				t.Fatal(err)
			}
			if _, err := x.s.LoadManifest(ref, nil); !errors.Is(err, ErrIncomplete) {
				t.Fatal(err)
			}
			x.compare(first, old)
			// What a power failure does to data that was not synced yet.
			if k.point == "piece" && k.passes > 0 {
				x.tear(ref)
			}
			sums, err := x.s.Summaries(ref)
			if err != nil {
				t.Fatal(err)
			}
			if k.point != "manifest" {
				if len(sums) != 0 {
					t.Fatal("a unit that was not finished has a list")
				}
				x.unit(ref, unitA, crashData())
			}
			x.seal(ref)
			x.compare(ref, crashData())
			x.clean(ref)
			x.compare(first, old)
		})
	}
}

// tear overwrites every stored piece of an unfinished unit but keeps the sizes.
func (x *site) tear(ref Ref) {
	x.t.Helper()
	dir := x.s.Dir(ref) + "/" + unitA.String()
	es, err := os.ReadDir(dir)
	if err != nil || len(es) == 0 {
		x.t.Fatal("nothing to tear", err)
	}
	for _, e := range es {
		fi, err := e.Info()
		if err == nil {
			err = os.WriteFile(dir+"/"+e.Name(), make([]byte, fi.Size()), 0o600)
		}
		if err != nil {
			x.t.Fatal(err)
		}
	}
}

// clean runs Cleanup and checks that nothing is left that nobody uses, and
// that what is left is whole.
func (x *site) clean(refs ...Ref) {
	x.t.Helper()
	if _, err := x.s.Cleanup(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
	es, err := os.ReadDir(x.root + "/" + dirTmp)
	if err != nil || len(es) != 0 {
		x.t.Errorf("left in tmp: %v %v", es, err)
	}
	rep, err := x.s.Cleanup(x.t.Context())
	if err != nil || rep.Objects != 0 || rep.Temporary != 0 {
		x.t.Errorf("second cleanup: %+v %v", rep, err)
	}
	for _, r := range refs {
		rep, err := x.s.Verify(x.t.Context(), r, VerifyOptions{Full: true, Reader: &x.r}, nil)
		if err != nil || rep.Err() != nil {
			x.t.Error(err, rep.Err())
		}
	}
}

// A re-run takes over the pieces of the attempt that died.
func TestResumeSkipsStoredPieces(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	ref := x.next("D")
	if err := x.child(ref, "sync", 0); err != nil {
		t.Fatal(err)
	}
	u := x.begin(ref, unitA, UnitOptions{})
	if err := fill(t.Context(), u, crashData()); err != nil {
		t.Fatal(err)
	}
	pieces := 0
	x.s.fault = func(p string) error {
		if p == "piece" {
			pieces++
		}
		return nil
	}
	sum, err := u.Finish(t.Context(), meta)
	if err != nil {
		t.Fatal(err)
	}
	// Only packs, whose order depends on chance, may be stored again.
	if pieces > 2 || sum.StoredNew != sum.Stored {
		t.Errorf("%d pieces stored again; new %d of %d", pieces, sum.StoredNew, sum.Stored)
	}
	x.s.fault = nil
	x.seal(ref)
	x.compare(ref, crashData())
	x.clean(ref)
}

// A disk that fails at any step fails the unit, never silently.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"piece", "sync", "objects", "unit"} {
		x := newSite(t)
		ref := x.next("D")
		u := x.begin(ref, unitA, UnitOptions{})
		x.s.fault = func(p string) error {
			if p == point {
				return syscall.ENOSPC
			}
			return nil
		}
		err := fill(t.Context(), u, crashData())
		if err == nil {
			_, err = u.Finish(t.Context(), meta)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", point, err)
		}
		u.Abort()
		x.s.fault = nil
		x.unit(ref, unitA, crashData())
		x.seal(ref)
		x.compare(ref, crashData())
	}
}

// A removal that dies leaves an incomplete backup, and the others whole.
func TestKilledWhileRemoving(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := crashData()
	a, _ := x.backup("D", d)
	b, _ := x.backup("D", d)
	x.s.fault = func(string) error { return errors.New("killed") }
	if err := x.s.Remove(t.Context(), a); err == nil {
		t.Fatal("not killed")
	}
	x.s.fault = nil
	if _, err := x.s.LoadManifest(a, nil); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	x.clean(b)
	x.compare(b, d)
}
