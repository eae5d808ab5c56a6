package gateway

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// tiny is the piece "hello".
func tiny(n byte) manifest.Piece {
	p := manifest.Piece{Bytes: 100, Stored: 5, SHA256: manifest.SHA256([]byte("hello"))}
	p.ID[0] = n
	return p
}

// foreign is a unit that was not begun.
func foreign(c *Client, ref manifest.Ref) *Unit {
	return &Unit{c: c, path: ref.String() + "/" + unitA.String(), head: map[string][]string{headerSession: {"GUESSED"}}}
}

func noCertificate(t *testing.T, x *site) *tls.Config {
	t.Helper()
	config, err := pki.GatewayTLS(x.pki, "control")
	x.check(err)
	config.Certificates = nil
	return config
}

// tree is every file of the store with its SHA-256.
func tree(t *testing.T, root string) map[string]manifest.Hash {
	t.Helper()
	out := map[string]manifest.Hash{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = manifest.SHA256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRevokedAtTheNextRequest(t *testing.T) {
	x := newSite(t)
	a := x.as("worker-vm-a")
	u := x.begin(a, x.next(), unitA) // the connection stays open
	x.check(pki.Revoke(x.pki, "worker-vm-a"))
	if _, err := u.KnownAll(t.Context(), tiny(1).ID); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked worker asks on: %v", err)
	}
	x.check(os.WriteFile(filepath.Join(x.pki, "revoked"), []byte("not a number\n"), 0o600))
	if _, _, err := x.as("control").List(t.Context(), x.next(), unitA); !errors.Is(err, ErrRefused) {
		t.Errorf("an unreadable list of revoked certificates lets in: %v", err)
	}
}

// Names, paths, headers and bodies that nobody honest sends.
func TestHostileRequests(t *testing.T) {
	x := newSite(t)
	ref := x.next()
	a := x.as("worker-vm-a")
	u := x.begin(a, ref, unitA)
	outside := tree(t, filepath.Dir(x.store.Path()))
	at := "/v1/" + ref.String() + "/" + unitA.String()
	session := u.head.Get(headerSession)
	id := tiny(1).ID.String()
	put := map[string]string{headerSession: session, headerSHA256: tiny(1).SHA256.String(), headerBytes: "100"}
	with := func(k, v string) map[string]string {
		m := map[string]string{}
		for a, b := range put {
			m[a] = b
		}
		m[k] = v
		return m
	}
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		body         string
	}{
		"dots":               {"PUT", "/v1/../../../etc/x/y/z/w/pieces/" + id, put, "hello"},
		"encoded dots":       {"PUT", "/v1/%2e%2e/" + ref.Timestamp + "/alpha/central/cluster/pieces/" + id, put, "hello"},
		"encoded slash":      {"PUT", "/v1/D%2f..%2f..%2fetc/" + ref.Timestamp + "/alpha/central/cluster/pieces/" + id, put, "hello"},
		"null":               {"PUT", "/v1/D%00/" + ref.Timestamp + "/alpha/central/cluster/pieces/" + id, put, "hello"},
		"member dots":        {"PUT", "/v1/" + ref.String() + "/alpha/central/%2e%2e/pieces/" + id, put, "hello"},
		"the safety backups": {"POST", "/v1/_safety/../D/alpha/central/cluster/begin", nil, "{}"},
		"time":               {"POST", "/v1/D/yesterday/alpha/central/cluster/begin", nil, "{}"},
		"id short":           {"PUT", at + "/pieces/00", put, "hello"},
		"id upper case":      {"PUT", at + "/pieces/" + strings.ToUpper(strings.Replace(id, "01", "AB", 1)), put, "hello"},
		"id path":            {"PUT", at + "/pieces/..%2f..%2f" + id, put, "hello"},
		"no hash":            {"PUT", at + "/pieces/" + id, with(headerSHA256, ""), "hello"},
		"wrong hash":         {"PUT", at + "/pieces/" + id, with(headerSHA256, strings.Repeat("0", 64)), "hello"},
		"no size":            {"PUT", at + "/pieces/" + id, with(headerBytes, ""), "hello"},
		"negative size":      {"PUT", at + "/pieces/" + id, with(headerBytes, "-1"), "hello"},
		"a bomb announced":   {"PUT", at + "/pieces/" + id, with(headerBytes, "9223372036854775807"), "hello"},
		"empty":              {"PUT", at + "/pieces/" + id, put, ""},
		"another session":    {"PUT", at + "/pieces/" + id, with(headerSession, "x"), "hello"},
		"known: not JSON":    {"POST", at + "/known", put, "{{{{"},
		"known: bad id":      {"POST", at + "/known", put, `{"ids":["../../x"]}`},
		"known: more fields": {"POST", at + "/known", put, `{"ids":[],"role":"control"}`},
		"known: too many":    {"POST", at + "/known", put, `{"ids":["` + strings.Repeat(id+`","`, MaxKnown) + id + `"]}`},
		"known: too long":    {"POST", at + "/known", put, `{"ids":["` + strings.Repeat("x", 2*maxRequest) + `"]}`},
		"list: not JSON":     {"PUT", at + "/unit.json", put, "["},
		"list: newer":        {"PUT", at + "/unit.json", put, `{"format":99}`},
		"list: empty":        {"PUT", at + "/unit.json", put, "{}"},
	} {
		status, body := x.status("worker-vm-a", c.method, c.path, c.header, c.body)
		if status < 400 || status >= 500 || !strings.Contains(body, `"hint"`) && !strings.Contains(body, "refused") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	// More bytes than announced, and fewer.
	for _, body := range []string{"hello, world", "hel"} {
		p := tiny(1)
		if _, err := u.Put(t.Context(), p, strings.NewReader(body)); err == nil {
			t.Errorf("%d bytes taken for 5", len(body))
		}
	}
	if err := u.c.Piece(t.Context(), ref, unitA, tiny(1).ID, &strings.Builder{}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	x.check(u.End(t.Context()))
	for name, sum := range tree(t, filepath.Dir(x.store.Path())) {
		if strings.HasSuffix(name, ".age") || (outside[name] != sum && !strings.Contains(name, ".cso/tmp")) {
			t.Errorf("%s appeared or changed", name)
		}
	}
	// After all that the session's unit can still be stored.
	if _, err := x.through(a, ref, unitA, table(1, 10)); err != nil {
		t.Error(err)
	}
	if _, _, err := x.as("control").List(t.Context(), x.next(), unitA); !errors.Is(err, plugins.ErrNotFound) {
		t.Error(err)
	}
}
