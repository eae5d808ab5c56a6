package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

var (
	unitA = manifest.UnitID{Component: "alpha", Instance: "central", Member: "cluster"} // of vm-a
	unitB = manifest.UnitID{Component: "beta", Instance: "central", Member: "vm-b"}     // of vm-b
	owner = map[manifest.UnitID]string{unitA: "vm-a", unitB: "vm-b"}
)

// site is an installer-vm with a store behind a gateway.
type site struct {
	t       *testing.T
	pki     string
	keyDir  string
	store   *store.Store
	server  *Server
	address string
	w       keys.Writer
	r       keys.Reader
	clock   time.Time
	logged  *lockedBuffer

	mu    sync.Mutex
	claim epoch.Claim // in force
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	x := &site{t: t, pki: filepath.Join(dir, "pki"), keyDir: filepath.Join(dir, "keys"), clock: time.Date(2019, 3, 16, 4, 0, 7, 0, time.UTC),
		logged: &lockedBuffer{}, claim: epoch.Claim{Epoch: 7, Run: "run-7", Nonce: "n"}}
	x.check(pki.Ensure(x.pki, "vm-a", "vm-b"))
	_, err := keys.Ensure(x.keyDir)
	x.check(err)
	x.w, err = keys.LoadWriter(x.keyDir)
	x.check(err)
	x.r, err = keys.LoadReader(x.keyDir)
	x.check(err)
	x.store, err = store.Open(filepath.Join(dir, "root"))
	x.check(err)
	x.server = &Server{Store: x.store, Writer: func() (keys.Writer, error) { return keys.LoadWriter(x.keyDir) },
		Revoked: pki.NewRevocations(x.pki), Log: slog.New(slog.NewTextHandler(x.logged, nil)), Idle: 10 * time.Second,
		Rules: Rules{
			Owns: func(vm string, u manifest.UnitID) (bool, error) { return owner[u] == vm, nil },
			Open: func(_ context.Context, _ manifest.Ref, c epoch.Claim) error {
				if x.inForce() != c {
					return fmt.Errorf("epoch %d: %w", c.Epoch, plugins.ErrFenced)
				}
				return nil
			},
		}}
	config, err := pki.ServerTLS(x.pki, pki.Gateway, pki.CA)
	x.check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	x.check(err)
	x.address = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- x.server.Serve(ctx, l, config) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		x.store.Close()
	})
	return x
}

func (x *site) inForce() epoch.Claim {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.claim
}

func (x *site) check(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// as is a client with the certificate called name.
func (x *site) as(name string) *Client {
	x.t.Helper()
	config, err := pki.GatewayTLS(x.pki, name)
	x.check(err)
	c := NewClient(x.address, config)
	x.t.Cleanup(c.Close)
	return c
}

// status sends a request as it stands and returns the answer.
func (x *site) status(name, method, path string, header map[string]string, body string) (int, string) {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.t.Context(), method, "https://"+x.address+path, strings.NewReader(body))
	x.check(err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := x.as(name).http.Do(req)
	x.check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	x.check(err)
	return resp.StatusCode, string(b)
}

func (x *site) next() manifest.Ref {
	x.clock = x.clock.Add(time.Hour)
	return manifest.Ref{Name: "D", Timestamp: manifest.Timestamp(x.clock)}
}

func (x *site) begin(c *Client, ref manifest.Ref, u manifest.UnitID) *Unit {
	x.t.Helper()
	b, err := c.Begin(x.t.Context(), ref, u, Begin{Claim: x.inForce(), Pin: "p"})
	x.check(err)
	return b
}

// through stores a unit as a VM does: pieces made in a store of its own on their way through the gateway.
func (x *site) through(c *Client, ref manifest.Ref, u manifest.UnitID, records [][2][]byte) (store.UnitSummary, error) {
	x.t.Helper()
	ctx := x.t.Context()
	scratch, err := store.Open(filepath.Join(x.t.TempDir(), "scratch"))
	x.check(err)
	defer scratch.Close()
	shelf, err := c.Begin(ctx, ref, u, Begin{Claim: x.inForce(), Pin: "p"})
	if err != nil {
		return store.UnitSummary{}, err
	}
	w, err := scratch.BeginShelf(ctx, shelf, ref, u, x.w, store.UnitOptions{Pin: "p"})
	x.check(err)
	defer w.Abort()
	for name, form := range map[string]plugins.Form{"table": plugins.Ordered, "small": plugins.Ordered} {
		a, err := w.Create(ctx, plugins.Artifact{Name: name, Form: form, Pin: "p"})
		x.check(err)
		for i, r := range records {
			if name == "small" && i == 3 {
				break
			}
			if err := a.Put(r[0], r[1]); err != nil {
				a.Abort()
				return store.UnitSummary{}, err
			}
		}
		if err := a.Commit(); err != nil {
			return store.UnitSummary{}, err
		}
	}
	return w.Finish(ctx, store.UnitMeta{Scope: plugins.ScopeCluster, VM: owner[u], Pin: "p", Consistency: "one snapshot"})
}

func (x *site) seal(ref manifest.Ref) {
	x.t.Helper()
	_, err := x.store.Seal(x.t.Context(), ref, manifest.Manifest{ID: "run-" + ref.Timestamp, Tool: "test", Operation: plugins.OpBackup, Trigger: manifest.TriggerCLI,
		Started: x.clock, Pinned: x.clock, Ended: x.clock, Consistency: manifest.NoConsistencyPoint}, store.SealOptions{Writer: x.w, ManifestKey: *x.r.ManifestKey})
	x.check(err)
}

// read reads the artifact "table" back.
func (x *site) read(ref manifest.Ref, u manifest.UnitID) ([][2][]byte, error) {
	r, err := x.store.OpenUnit(x.t.Context(), ref, u, x.r)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	a, err := r.Open(x.t.Context(), "table")
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var out [][2][]byte
	for {
		k, v, err := a.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
	}
}

// table makes n records of about a kilobyte that hardly compress.
func table(seed byte, n int) [][2][]byte {
	out := make([][2][]byte, n)
	s := uint64(seed) + 1
	for i := range out {
		v := make([]byte, 1000)
		for j := range v {
			s = s*6364136223846793005 + 1442695040888963407
			v[j] = byte(s >> 56)
		}
		out[i] = [2][]byte{fmt.Appendf(nil, "key-%08d", i), v}
	}
	return out
}

// list is the list of a unit as it stands in the store.
func (x *site) list(ref manifest.Ref, u manifest.UnitID) *manifest.UnitFile {
	x.t.Helper()
	f, _, err := x.store.List(ref, u)
	x.check(err)
	return f
}

func equal(a, b [][2][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y [2][]byte) bool { return bytes.Equal(x[0], y[0]) && bytes.Equal(x[1], y[1]) })
}
