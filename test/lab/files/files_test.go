package files

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

func member(t *testing.T, component string) (*Engine, []engine.Member) {
	t.Helper()
	e := New(component)
	ms := []engine.Member{{Component: component, Name: component + "-1", Dir: t.TempDir(), Options: map[string]string{}}}
	if err := e.Prepare(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(t.Context(), ms[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Root may remove what the modes forbid; others need the modes back first.
		_ = filepath.WalkDir(ms[0].Dir, func(p string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				return os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return e, ms
}

func fingerprint(t *testing.T, e *Engine, ms []engine.Member) string {
	t.Helper()
	var b bytes.Buffer
	if err := e.Fingerprint(t.Context(), ms, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestJudge corrupts one property of an entry after the other: each time the fingerprint must change.
func TestJudge(t *testing.T) {
	for _, component := range []string{"secrets", "certificates"} {
		t.Run(component, func(t *testing.T) {
			e, ms := member(t, component)
			if err := e.Fill(t.Context(), ms, 31, "small"); err != nil {
				t.Fatal(err)
			}
			first := fingerprint(t, e, ms)
			if len(strings.Split(first, "\n")) < 80 {
				t.Fatalf("too few lines:\n%s", first)
			}
			if fingerprint(t, e, ms) != first {
				t.Fatal("two fingerprints of the same content differ")
			}
			root := roots(ms[0])[0]
			at := func(p string) string { return filepath.Join(root, p) }
			// keepTime hides a change from whoever compares times.
			keepTime := func(p string, do func() error) error {
				var st unix.Stat_t
				if err := unix.Lstat(p, &st); err != nil {
					return err
				}
				if err := do(); err != nil {
					return err
				}
				return setTime(p, st.Mtim)
			}
			last := first
			for _, s := range []struct {
				name string
				do   func() error
			}{
				{"one bit of content", func() error {
					return keepTime(at("binary"), func() error {
						b, err := os.ReadFile(at("binary"))
						if err != nil {
							return err
						}
						b[len(b)-1] ^= 1
						return os.WriteFile(at("binary"), b, 0o600)
					})
				}},
				{"mode", func() error { return os.Chmod(at("empty"), 0o601) }},
				{"set-user-id bit", func() error { return unix.Chmod(at("setuid"), 0o755) }},
				{"sticky bit", func() error { return unix.Chmod(at("sticky"), 0o777) }},
				{"set-group-id bit", func() error { return unix.Chmod(at("setgid"), 0o770) }},
				{"owner", func() error { return unix.Lchown(at("empty"), 4242, -1) }},
				{"group", func() error { return unix.Lchown(at("empty"), -1, 4242) }},
				{"a link's owner", func() error { return unix.Lchown(at("dangling"), 4242, 4242) }},
				{"one nanosecond", func() error {
					var st unix.Stat_t
					if err := unix.Lstat(at("case"), &st); err != nil {
						return err
					}
					st.Mtim.Nsec ^= 1
					return setTime(at("case"), st.Mtim)
				}},
				{"a directory's time", func() error { return setTime(at("deep"), unix.Timespec{Sec: 1}) }},
				{"a link's time", func() error { return setTime(at("dangling"), unix.Timespec{Sec: 1}) }},
				{"a link's target", func() error {
					return keepTime(at("dangling"), func() error {
						if err := os.Remove(at("dangling")); err != nil {
							return err
						}
						if err := os.Symlink("nowhere", at("dangling")); err != nil {
							return err
						}
						return unix.Lchown(at("dangling"), 4242, 4242)
					})
				}},
				{"a file is gone", func() error { return keepTime(root, func() error { return os.Remove(at("Case")) }) }},
				{"an empty file appears", func() error { return keepTime(root, func() error { return os.WriteFile(at("Case"), nil, 0o600) }) }},
				{"an empty directory is gone", func() error { return keepTime(root, func() error { return os.Remove(at("empty directory")) }) }},
				{"the root's mode", func() error { return os.Chmod(root, 0o751) }},
				{"the single file", func() error { return os.Remove(roots(ms[0])[1]) }},
				{"the whole tree", func() error { return os.RemoveAll(root) }},
			} {
				if err := s.do(); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				now := fingerprint(t, e, ms)
				if now == last {
					t.Errorf("%s: not seen", s.name)
				}
				last = now
			}
			if err := e.Fill(t.Context(), ms, 31, "small"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, fingerprint(t, e, ms)); diff != "" {
				t.Errorf("equal seeds must give equal content:\n%s", diff)
			}
		})
	}
}

func TestWreckChangesDeletesAndAdds(t *testing.T) {
	e, ms := member(t, "secrets")
	if err := e.Fill(t.Context(), ms, 32, "small"); err != nil {
		t.Fatal(err)
	}
	before := lines(fingerprint(t, e, ms))
	for _, seed := range []int64{1, 1, 2} {
		if err := e.Wreck(t.Context(), ms, seed); err != nil {
			t.Fatal(err)
		}
	}
	after := lines(fingerprint(t, e, ms))
	var changed, gone, added int
	for path, v := range before {
		if now, ok := after[path]; !ok {
			gone++
		} else if now != v {
			changed++
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			added++
		}
	}
	if changed < 10 || gone < 3 || added < 10 {
		t.Errorf("%d changed, %d gone, %d added", changed, gone, added)
	}
}

func lines(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.SplitN(line, "\t", 3); len(f) == 3 {
			m[f[1]] = f[0] + f[2]
		}
	}
	return m
}

// TestCertificatesAreReal: the servers' certificates verify against the CA.
func TestCertificatesAreReal(t *testing.T) {
	e, ms := member(t, "certificates")
	if err := e.Fill(t.Context(), ms, 33, "small"); err != nil {
		t.Fatal(err)
	}
	root := roots(ms[0])[0]
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(root, "ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("the CA: %v", err)
	}
	servers, err := filepath.Glob(filepath.Join(root, "servers", "*.crt"))
	if err != nil || len(servers) == 0 {
		t.Fatalf("no certificates: %v", err)
	}
	for _, s := range servers {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		if block == nil {
			t.Fatalf("%s is not PEM", s)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
