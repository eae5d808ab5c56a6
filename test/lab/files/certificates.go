package files

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"time"
)

// certificates is a tree as an installation has it: a CA, server certificates
// with their keys, a bundle, links named by purpose. Ed25519 throughout,
// because its keys and signatures follow from the seed alone.
func certificates(r *mathrand.Rand, size string) ([]file, error) {
	servers := 8
	if size == "large" {
		servers = 400
	}
	caKey := newKey(r)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(r.Int64()), Subject: pkix.Name{CommonName: "CSO Root CA", Organization: []string{"CSO"}},
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(2_500_000_000, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caPEM, err := sign(ca, ca, caKey, caKey)
	if err != nil {
		return nil, err
	}
	caKeyPEM, err := keyPEM(caKey)
	if err != nil {
		return nil, err
	}
	fs := []file{directory("ca", 0o755), directory("private", 0o700), directory("servers", 0o755),
		plain("ca/ca.crt", 0o644, caPEM), plain("private/ca.key", 0o400, caKeyPEM), link("ca.pem", "ca/ca.crt")}
	bundle := caPEM
	for i := range servers {
		name := fmt.Sprintf("%s-%03d.cso.example", []string{"csp-central", "csp-regional", "haproxy", "etcd"}[r.IntN(4)], i)
		key := newKey(r)
		certificate, err := sign(&x509.Certificate{SerialNumber: big.NewInt(r.Int64()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(2_400_000_000, 0), KeyUsage: x509.KeyUsageDigitalSignature}, ca, key, caKey)
		if err != nil {
			return nil, err
		}
		private, err := keyPEM(key)
		if err != nil {
			return nil, err
		}
		bundle = append(bundle, certificate...)
		fs = append(fs, plain("servers/"+name+".crt", 0o644, certificate), plain("private/"+name+".key", 0o640, private), link(fmt.Sprintf("servers/%08x.0", r.Uint32()), name+".crt"))
	}
	return append(fs, plain("bundle.pem", 0o644, bundle)), nil
}

func newKey(r *mathrand.Rand) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	return ed25519.NewKeyFromSeed(seed)
}

func sign(template, parent *x509.Certificate, key, signer ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func keyPEM(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
