package pins_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/pins"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

type view struct {
	plugins.Pin
	plugins.Session
	id       string
	released atomic.Int32
	closed   atomic.Int32
}

func (v *view) Info() plugins.PinInfo         { return plugins.PinInfo{ID: v.id} }
func (v *view) Release(context.Context) error { v.released.Add(1); return nil }
func (v *view) Backup(context.Context, plugins.Run, plugins.ArtifactWriter) (plugins.Report, error) {
	return plugins.Report{}, nil
}
func (v *view) Close() error { v.closed.Add(1); return nil }

func TestPins(t *testing.T) {
	tab := pins.New(time.Hour)
	one, two := epoch.Claim{Epoch: 1, Nonce: "a"}, epoch.Claim{Epoch: 2, Nonce: "b"}
	a, b := &view{id: "a"}, &view{id: "b"}
	tab.Put(one, a, a)
	tab.Put(two, b, b)
	if h, err := tab.Get(one, "a"); err != nil || h.Pin != plugins.Pin(a) {
		t.Fatalf("%v, %v", h, err)
	}
	for _, c := range []struct {
		claim epoch.Claim
		id    string
	}{{two, "a"}, {one, "b"}, {two, "c"}} {
		if _, err := tab.Get(c.claim, c.id); !errors.Is(err, plugins.ErrPinLost) {
			t.Errorf("pin %s of epoch %d: %v", c.id, c.claim.Epoch, err)
		}
	}
	if err := tab.Release(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if a.released.Load() != 1 || a.closed.Load() != 1 || b.released.Load() != 0 {
		t.Errorf("released a %d times, closed %d times, b %d times", a.released.Load(), a.closed.Load(), b.released.Load())
	}
	if _, err := tab.Get(one, "a"); !errors.Is(err, plugins.ErrPinLost) {
		t.Errorf("a released pin: %v", err)
	}
}

func TestForgottenPinIsLetGo(t *testing.T) {
	tab := pins.New(50 * time.Millisecond)
	v := &view{id: "x"}
	tab.Put(epoch.Claim{Epoch: 1}, v, v)
	for range 8 {
		time.Sleep(20 * time.Millisecond)
		tab.Touch("x")
	}
	if v.released.Load() != 0 {
		t.Fatal("a pin in use was let go of")
	}
	for deadline := time.Now().Add(5 * time.Second); v.closed.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a forgotten pin is held for ever")
		}
	}
}
