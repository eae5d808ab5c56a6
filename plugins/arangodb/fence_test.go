package arangodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	simulator "github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// TestSimulatedFenceOvertaken: behind a fence an attempt writes as the super user, until another attempt claims the
// server: then it gets no new token, and the old one expires.
func TestSimulatedFenceOvertaken(t *testing.T) {
	dir := t.TempDir()
	sim, err := simulator.Start(simulator.Config{Dir: dir, Auth: true, Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() }) // after the sessions
	on := plugins.Target{Component: "arangodb", Members: []plugins.Member{{Name: "a", Address: sim.Endpoints()[0],
		Options: map[string]string{"jwt_secret_file": filepath.Join(dir, "jwt.secret")}}}}
	open := func() superSingle {
		t.Helper()
		s, err := New().Open(t.Context(), on)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s.(superSingle)
	}
	run := plugins.Run{Epoch: 7, Operation: plugins.OpRestore, Attempt: "first", Parallel: 1, Scratch: dir, Log: slog.New(slog.DiscardHandler)}
	first := open()
	if err := first.Fence(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if err := first.claim(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	write := func(s superSingle) error {
		_, err := s.singleSession.c.do(t.Context(), call{method: "POST", db: systemDB, path: "/_api/collection", body: map[string]any{"name": fmt.Sprint("c", time.Now().UnixNano())}, once: true})
		return err
	}
	if err := write(first); err != nil {
		t.Fatalf("behind its fence: %v", err)
	}
	second, next := open(), run
	next.Attempt = "second"
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	begin := time.Now()
	if err := second.claim(ctx, next); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) < time.Second {
		t.Errorf("a successor does not wait for the tokens of the one before: %v after %s", err, time.Since(begin))
	}
	k := first.singleSession.holds
	k.super.made = time.Now().Add(-tokenLife) // the time has passed
	if err := write(first); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("an overtaken attempt got a new token: %v", err)
	}
	secret := first.singleSession.cred.secret
	for exp, want := range map[time.Duration]error{time.Minute: nil, -2 * time.Second: plugins.ErrAuth} {
		first.singleSession.c.token = func(context.Context) (string, error) {
			return superJWT(secret, fmt.Sprintf(`,"exp":%d`, time.Now().Add(exp).Unix())), nil
		}
		if err := write(first); !errors.Is(err, want) {
			t.Errorf("a token that expires in %s: %v, want %v", exp, err, want)
		}
	}
	third := open()
	later := run
	later.Epoch, later.Attempt = 8, "third"
	if err := third.PreHook(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if ro, _, err := third.isReadOnly(t.Context()); err != nil || len(ro) > 0 {
		t.Errorf("a later run did not end the fence: %v, %v", ro, err)
	}
}
