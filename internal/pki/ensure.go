package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// leaf is what the certificate called name must say.
type leaf struct {
	name, role, authority string
	usage                 []x509.ExtKeyUsage
	dns                   []string
	ips                   []net.IP
}

func leaves(vms []string) []leaf {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	want := []leaf{
		{name: Server, authority: CA, usage: []x509.ExtKeyUsage{server}, dns: []string{ServerName}, ips: []net.IP{net.IPv4(127, 0, 0, 1)}},
		{name: Internode, authority: InternodeCA, usage: []x509.ExtKeyUsage{server, client}, dns: []string{InternodeName}},
	}
	for _, name := range []string{Control, Operator, UI} {
		want = append(want, leaf{name: name, role: name, authority: CA, usage: []x509.ExtKeyUsage{client}})
	}
	want = append(want, leaf{name: Gateway, authority: CA, usage: []x509.ExtKeyUsage{server}, dns: []string{GatewayName}, ips: []net.IP{net.IPv4(127, 0, 0, 1)}})
	for _, vm := range vms {
		want = append(want, leaf{name: Worker(vm), role: "worker:" + vm, authority: CA, usage: []x509.ExtKeyUsage{client}})
	}
	return want
}

// Ensure creates in dir whatever is missing: both authorities, the certificates server, gateway,
// internode, control, operator and ui, one worker certificate for each of vms, and the token key. What exists is kept; a certificate that expires
// within 180 days is renewed with its key, one that was revoked or no longer fits its authority is replaced. It may be
// called by several processes at once and again at any time.
//
// In a directory that holds ca.crt without ca.key it creates nothing and fails if a worker certificate of vms is missing.
func Ensure(dir string, vms ...string) error {
	for _, vm := range vms {
		if err := CheckVM(vm); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the certificate directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("protect the certificate directory: %w; run as its owner", err)
	}
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()

	if member, err := isMember(dir); err != nil || member {
		if err != nil {
			return err
		}
		return checkMember(dir, vms)
	}
	now := time.Now()
	authorities := map[string]*pair{}
	for _, name := range []string{CA, InternodeCA} {
		if authorities[name], err = ensureCA(dir, name, now); err != nil {
			return err
		}
	}
	revoked := NewRevocations(dir)
	for _, want := range leaves(vms) {
		if err := ensureLeaf(dir, want, authorities[want.authority], revoked, now); err != nil {
			return err
		}
	}
	return ensureTokenKey(dir)
}

// isMember tells a VM's directory, which was copied there, from the installer's, which can sign. ca.key is written
// before ca.crt, so a crash in between never looks like a member.
func isMember(dir string) (bool, error) {
	crt, err := exists(certFile(dir, CA))
	if err != nil || !crt {
		return false, err
	}
	key, err := exists(keyFile(dir, CA))
	return !key, err
}

func checkMember(dir string, vms []string) error {
	for _, vm := range vms {
		p, err := loadPair(dir, Worker(vm))
		if err != nil {
			return fmt.Errorf("this VM has no usable certificate %s, and no ca.key to make one: %w; "+
				"copy ca.crt, %[1]s.crt and %[1]s.key from %s of the installer-vm", Worker(vm), err, dir)
		}
		ca, err := loadCert(dir, CA)
		if err != nil {
			return err
		}
		if err := verify(p.cert, ca, time.Now()); err != nil {
			return fmt.Errorf("certificate %s: %w; copy %[1]s.crt, %[1]s.key and ca.crt again from the installer-vm", Worker(vm), err)
		}
	}
	return nil
}

func ensureCA(dir, name string, now time.Time) (*pair, error) {
	present, err := exists(certFile(dir, name))
	if err != nil {
		return nil, err
	}
	if present {
		p, err := loadPair(dir, name)
		if err != nil {
			return nil, fmt.Errorf("certificate authority %s: %w; restore both its files from a copy, "+
				"or delete them and give every VM new certificates", name, err)
		}
		if now.After(p.cert.NotAfter) {
			return nil, fmt.Errorf("certificate authority %s expired on %s; delete its .crt and .key in %s and give every VM new certificates",
				name, p.cert.NotAfter.Format(time.DateOnly), dir)
		}
		return p, nil
	}
	key, err := newKey(dir, name)
	if err != nil {
		return nil, err
	}
	tmpl, err := template(name, now, caLife)
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return issue(dir, name, tmpl, key, nil)
}

func ensureLeaf(dir string, want leaf, ca *pair, revoked *Revocations, now time.Time) error {
	old, err := loadPair(dir, want.name)
	fits := err == nil && verify(old.cert, ca.cert, now) == nil
	if fits {
		gone, err := revoked.Contains(old.cert.SerialNumber)
		if err != nil {
			return err
		}
		fits = !gone
	}
	// An authority that itself ends soon cannot give a longer life: renewing then would be repeated at every start.
	longest := min(leafLife, ca.cert.NotAfter.Sub(now))
	if fits && (old.cert.NotAfter.Sub(now) > renewBefore || longest <= renewBefore) {
		return nil
	}
	var key *ecdsa.PrivateKey
	if fits {
		key = old.key // only the .crt changes, in one step: no reader can see a certificate beside another's key
	} else if key, err = newKey(dir, want.name); err != nil {
		return err
	}
	tmpl, err := template(want.name, now, longest)
	if err != nil {
		return err
	}
	if want.role != "" {
		tmpl.Subject.OrganizationalUnit = []string{want.role}
	}
	tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, want.usage
	tmpl.DNSNames, tmpl.IPAddresses = want.dns, want.ips
	_, err = issue(dir, want.name, tmpl, key, ca)
	return err
}

func template(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"cso_backupnrestore"}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(life),
	}, nil
}

func newKey(dir, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of %s: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key of %s: %w", name, err)
	}
	return key, writePEM(keyFile(dir, name), "PRIVATE KEY", der)
}

// issue signs tmpl for key and writes the certificate. A nil authority signs with key itself.
func issue(dir, name string, tmpl *x509.Certificate, key *ecdsa.PrivateKey, ca *pair) (*pair, error) {
	parent, signer := tmpl, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate %s: %w", name, err)
	}
	return &pair{cert: cert, key: key}, writePEM(certFile(dir, name), "CERTIFICATE", der)
}

func verify(cert, ca *x509.Certificate, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func ensureTokenKey(dir string) error {
	_, err := TokenKey(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key := make([]byte, TokenKeySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make the token key: %w", err)
	}
	return writeFile(filepath.Join(dir, tokenKeyFile), key)
}

// TokenKey returns the key, [TokenKeySize] bytes, with which the Temporal server signs the task tokens it gives out.
// Attempts that run when the key is lost cannot report their result.
func TokenKey(dir string) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(dir, tokenKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read the token key: %w", err)
	}
	if len(key) != TokenKeySize {
		return nil, fmt.Errorf("%s has %d bytes instead of %d; delete it, a new one is made at the next start (attempts in progress then run again)",
			filepath.Join(dir, tokenKeyFile), len(key), TokenKeySize)
	}
	return key, nil
}
