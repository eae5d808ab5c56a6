package pki

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzRevoked: the list of revoked certificates is understood line by line, or
// refused as a whole; a serial number that stands in it is never let in.
func FuzzRevoked(f *testing.F) {
	f.Add("7f # worker-vm-a 2026-01-01T00:00:00Z\n\n# c\nAB\n", int64(0x7f))
	f.Add("not a number", int64(1))
	f.Add("-1\n+2\n0x3\n1_0", int64(3))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string, serial int64) {
		if err := os.Remove(filepath.Join(dir, revokedFile)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, revokedFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := new(big.Int).Abs(big.NewInt(serial))
		gone, err := NewRevocations(dir).Contains(n)
		for l := range strings.Lines(text) {
			if strings.TrimSpace(l) == n.Text(16) && err == nil && !gone {
				t.Errorf("%s stands in the list and is let in", n.Text(16))
			}
		}
	})
}

// FuzzCheckVM: a name of a VM is one element of a path, of a queue and of a certificate.
func FuzzCheckVM(f *testing.F) {
	f.Add("vm-1")
	f.Add("a-ctl")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, vm string) {
		if CheckVM(vm) == nil && (strings.ContainsAny(vm, "/\\:. \x00\n") || strings.HasSuffix(vm, "-ctl") || vm == "" || len(vm) > 63) {
			t.Errorf("%q is accepted", vm)
		}
	})
}
