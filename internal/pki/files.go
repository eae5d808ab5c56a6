package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// pair is a certificate and its private key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// lock takes the directory's lock, shared or exclusive, and returns what releases it. A reader that may not open the
// lock file for writing (a VM's read-only copy) still locks it, as flock(2) needs no write access.
func lock(dir string, exclusive bool) (unlock func(), err error) {
	path, flags, how := filepath.Join(dir, lockFile), os.O_RDONLY, syscall.LOCK_SH
	if exclusive {
		flags, how = os.O_RDWR|os.O_CREATE, syscall.LOCK_EX
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if !exclusive && errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil // nobody ever wrote here under the lock
	}
	if err != nil {
		return nil, fmt.Errorf("open the certificate lock: %w", err)
	}
	for {
		if err = syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func loadPair(dir, name string) (*pair, error) {
	c, err := tls.LoadX509KeyPair(certFile(dir, name), keyFile(dir, name))
	if err != nil {
		return nil, err
	}
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an ECDSA key", keyFile(dir, name))
	}
	return &pair{cert: c.Leaf, key: key}, nil
}

func loadCert(dir, name string) (*x509.Certificate, error) {
	data, err := os.ReadFile(certFile(dir, name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no PEM certificate; restore it from a copy", certFile(dir, name))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a copy", certFile(dir, name), err)
	}
	return cert, nil
}

func writePEM(path, kind string, der []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// writeFile replaces path in one step, mode 0600, and returns when file and name are on disk. The caller holds the
// lock, so the name of the temporary file is free or left over from a crash.
func writeFile(path string, data []byte) (err error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	// A left-over file keeps the mode it had.
	if err = errors.Join(f.Chmod(0o600), write(f, data), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func write(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
