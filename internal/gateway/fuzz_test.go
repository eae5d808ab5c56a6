package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/store"
)

// deadlines lets a recorder have deadlines, as a connection has.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error  { return nil }
func (deadlines) SetWriteDeadline(time.Time) error { return nil }

// FuzzRequest: any request of a worker's certificate is answered, with success
// only in its own unit, and never with a failure of the server's own.
func FuzzRequest(f *testing.F) {
	keyDir := f.TempDir()
	if _, err := keys.Ensure(keyDir); err != nil {
		f.Fatal(err)
	}
	st, err := store.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { st.Close() })
	s := &Server{Store: st, Writer: func() (keys.Writer, error) { return keys.LoadWriter(keyDir) }, Revoked: pki.NewRevocations(keyDir), Log: slog.New(slog.DiscardHandler),
		Rules: Rules{
			Owns: func(vm string, u manifest.UnitID) (bool, error) { return owner[u] == vm, nil },
			Open: func(context.Context, manifest.Ref, epoch.Claim) error { return nil },
		}}
	f.Cleanup(func() { s.dismiss(time.Time{}) })
	h := s.Handler()
	at := "/v1/D/2019-03-16T04-00-07Z/alpha/central/cluster"
	f.Add("POST", at+"/begin", "", `{"claim":{"epoch":1},"pin":"p"}`)
	f.Add("POST", at+"/known", "x", `{"ids":[]}`)
	f.Add("PUT", at+"/pieces/"+strings.Repeat("0", 64), "x", "hello")
	f.Add("PUT", at+"/unit.json", "x", `{"format":1}`)
	f.Add("DELETE", at+"/unit.json", "", "")
	f.Add("GET", "/v1/D/2019-03-16T04-00-07Z/beta/central/vm-b/unit.json", "", "")
	f.Fuzz(func(t *testing.T, method, path, session, body string) {
		if _, err := url.ParseRequestURI(path); err != nil || !strings.HasPrefix(path, "/") || method == "" || strings.ContainsAny(method, " \t\r\n\x00()<>@,;:\\\"/[]?={}") {
			return
		}
		r, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		if err != nil {
			return
		}
		cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{OrganizationalUnit: []string{"worker:vm-a"}}}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
		r.Header[headerSession] = []string{session}
		s.mu.Lock()
		for _, x := range s.sessions {
			if session == "x" {
				r.Header[headerSession] = []string{x.id}
			}
		}
		s.mu.Unlock()
		w := httptest.NewRecorder()
		h.ServeHTTP(deadlines{w}, r)
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%s %q: %s", method, path, w.Body)
		}
		if w.Code < 300 && !strings.Contains(path, "/alpha/central/cluster/") {
			t.Fatalf("%s %q: %d", method, path, w.Code)
		}
	})
}
