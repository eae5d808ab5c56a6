package files_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/plugins/secrets"
)

func TestConformance(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	second := target(two)
	second.Instance = "east"
	at := func(on plugins.Target) string { return on.Members[0].Options["paths"] }
	empty := func(t testing.TB, on plugins.Target) {
		must(t, os.RemoveAll(at(on)))
		must(t, os.Mkdir(at(on), 0o700))
	}
	plugintest.Run(t, plugintest.Harness{
		Plugin: secrets.New(), Target: target(one), Second: &second, Versions: "the test machine's file system",
		Fill: func(t testing.TB, on plugins.Target, seed int64) {
			empty(t, on)
			fill(t, at(on))
			r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
			for i := range 40 {
				b := make([]byte, 10+i*100)
				r.Read(b)
				p := filepath.Join(at(on), fmt.Sprintf("pass-%d", i%10))
				must(t, os.MkdirAll(p, 0o755))
				must(t, os.WriteFile(filepath.Join(p, fmt.Sprint(i)), b, 0o600))
			}
		},
		Clear: empty,
		Wreck: func(t testing.TB, on plugins.Target, seed int64) {
			must(t, os.RemoveAll(filepath.Join(at(on), "later")))
			for i, n := range []string{"pass-1", "pass-3/3", "keys/zlink", "password", "todir", "empty", "keys/deep"} {
				if (seed+int64(i))%2 == 0 {
					must(t, os.RemoveAll(filepath.Join(at(on), n)))
				}
			}
			must(t, os.MkdirAll(filepath.Join(at(on), "later/sub"), 0o755))
			must(t, os.WriteFile(filepath.Join(at(on), "later/sub/file"), fmt.Append(nil, seed), 0o600))
			must(t, os.WriteFile(filepath.Join(at(on), "pass-2/2"), fmt.Append(nil, seed), 0o640))
		},
		Fingerprint: func(t testing.TB, on plugins.Target) string { return oracle(t, at(on)) },
		Position: func(t testing.TB, on plugins.Target) string {
			return fmt.Sprintf("%x", sha256.Sum256([]byte(versions(t, at(on)))))
		},
		Writer: func(t testing.TB, on plugins.Target) func() {
			end, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for i := 0; ; i++ {
					select {
					case <-end:
						return
					default:
					}
					tmp := at(on) + "/ledger.new"
					if os.WriteFile(tmp, bytes.Repeat([]byte{byte(i)}, 100_000), 0o600) == nil {
						_ = os.Rename(tmp, at(on)+"/ledger") // a restore may have taken it away
					}
				}
			}()
			return func() { close(end); <-done }
		},
		Invariant: func(t testing.TB, on plugins.Target) {
			b, err := os.ReadFile(at(on) + "/ledger")
			must(t, err)
			if len(b) != 100_000 || bytes.Count(b, b[:1]) != len(b) {
				t.Fatalf("a torn file of %d bytes", len(b))
			}
		},
		Large: func(t testing.TB, on plugins.Target) {
			r := rand.NewChaCha8([32]byte{1})
			b := make([]byte, 10<<20)
			for i := range 30 {
				r.Read(b)
				must(t, os.WriteFile(filepath.Join(at(on), fmt.Sprint("large-", i)), b, 0o600))
			}
		},
		MemoryLimit: 200 << 20,
	})
}
