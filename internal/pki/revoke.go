package pki

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Revoke makes the certificate called name worthless: its serial number goes to the file "revoked" of dir, which the
// Temporal server reads at every call, also on connections that are already open. The next [Ensure] that is asked for
// this certificate makes a new one with a new key.
func Revoke(dir, name string) error {
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	cert, err := loadCert(dir, name)
	if err != nil {
		return fmt.Errorf("revoke %s: %w", name, err)
	}
	gone, err := NewRevocations(dir).Contains(cert.SerialNumber)
	if err != nil || gone {
		return err
	}
	path := filepath.Join(dir, revokedFile)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("revoke %s: %w", name, err)
	}
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	return writeFile(path, fmt.Appendf(old, "%s # %s %s\n", cert.SerialNumber.Text(16), name, time.Now().UTC().Format(time.RFC3339)))
}

// Revocations answers whether a certificate was revoked. It follows changes of the file and is safe for concurrent use.
type Revocations struct {
	path string

	mu      sync.Mutex
	seen    os.FileInfo
	serials map[string]bool
}

// NewRevocations returns the revocations of dir. The file is read when asked, so it need not exist.
func NewRevocations(dir string) *Revocations {
	return &Revocations{path: filepath.Join(dir, revokedFile)}
}

// Contains reports whether the certificate with this serial number was revoked. If the file cannot be read or
// understood it returns an error, and the caller must refuse: a list that is there was put there for a reason.
func (r *Revocations) Contains(serial *big.Int) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		r.seen, r.serials = nil, nil
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the revoked certificates: %w", err)
	}
	// Each change by Revoke is a new file, so a change within the clock's granularity is seen too.
	if r.seen == nil || !os.SameFile(r.seen, info) || r.seen.Size() != info.Size() || !r.seen.ModTime().Equal(info.ModTime()) {
		serials, err := readSerials(r.path)
		if err != nil {
			return false, err
		}
		r.seen, r.serials = info, serials
	}
	return r.serials[serial.Text(16)], nil
}

func readSerials(path string) (map[string]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the revoked certificates: %w", err)
	}
	serials := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		serial, ok := new(big.Int).SetString(text, 16)
		if !ok {
			return nil, fmt.Errorf("%s line %d: %q is not a serial number in hexadecimal; correct the line", path, n, text)
		}
		serials[serial.Text(16)] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the revoked certificates: %w", err)
	}
	return serials, nil
}
