package plugintest

import (
	"errors"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// leakGrace is how long goroutines may take to end: a driver's may sit out a pause before it tries a server again.
const leakGrace = 10 * time.Second

// noLeak notes the goroutines of now; the function it returns fails the test if there are others.
func noLeak(t *testing.T) func() {
	now := goleak.IgnoreCurrent()
	return func() {
		err := goleak.Find(now)
		for deadline := time.Now().Add(leakGrace); err != nil && time.Now().Before(deadline); {
			err = goleak.Find(now)
		}
		if err != nil {
			t.Errorf("goroutines left behind: %v", err)
		}
	}
}

// olderEpoch: once a run has restored, an attempt of an older one is refused.
func (s *suite) olderEpoch(t *testing.T) {
	old := s.run(t, plugins.OpRestore)
	s.Wreck(t, s.Target, s.seed+93)
	run := s.run(t, plugins.OpRestore)
	s.mustRestore(t, s.Target, run, s.backup, s.print)
	s.Wreck(t, s.Target, s.seed+94)
	want := s.Fingerprint(t, s.Target)
	if _, err := s.restore(t, t.Context(), s.Target, old, s.backup); !errors.Is(err, plugins.ErrFenced) {
		t.Errorf("restore of epoch %d after epoch %d: %v, want ErrFenced", old.Epoch, run.Epoch, err)
	}
	sameText(t, "fingerprint after a refused restore", want, s.Fingerprint(t, s.Target))
	s.mustRestore(t, s.Target, s.attempt(t, plugins.OpRestore, run.Epoch), s.backup, s.print)
}

// pinUnderWriter: what a pin copies is one moment, however long the copy takes.
func (s *suite) pinUnderWriter(t *testing.T) {
	if s.Writer == nil || s.Invariant == nil {
		notRun(t, "the harness has no Writer and Invariant")
		return
	}
	ses, err := s.Plugin.Open(t.Context(), s.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	p, ok := ses.(plugins.Pinner)
	if !ok {
		notRun(t, "the session is no Pinner")
		return
	}
	stop := s.Writer(t, s.Target)
	var taken []*Memory
	run := s.run(t, plugins.OpBackup)
	for range 3 {
		time.Sleep(100 * time.Millisecond)
		pin, err := p.Pin(t.Context(), run)
		if err != nil {
			stop()
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		m := NewMemory()
		if _, err := pin.Backup(t.Context(), run, m); err != nil {
			t.Error(err)
		}
		for _, a := range m.Artifacts() {
			if a.Pin != pin.Info().ID {
				t.Errorf("artifact %q names pin %q, taken under %q", a.Name, a.Pin, pin.Info().ID)
			}
		}
		for range 2 {
			if err := pin.Release(t.Context()); err != nil {
				t.Errorf("release: %v", err)
			}
		}
		taken = append(taken, m)
	}
	stop()
	for i, m := range taken {
		run := s.run(t, plugins.OpRestore)
		if _, err := s.restore(t, t.Context(), s.Target, run, m); err != nil {
			t.Fatal(err)
		}
		if d := s.compare(t, s.Target, run, m); len(d) > 0 {
			t.Errorf("pin %d: after its restore the data differs: %+v", i, d)
		}
		s.Invariant(t, s.Target)
	}
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
}

// writerDuringRestore: a writer that ignores maintenance is told apart from a failure of our own.
func (s *suite) writerDuringRestore(t *testing.T) {
	if s.Writer == nil {
		notRun(t, "the harness has no Writer")
		return
	}
	s.Wreck(t, s.Target, s.seed+95)
	stop := s.Writer(t, s.Target)
	run := s.run(t, plugins.OpRestore)
	_, err := s.restore(t, t.Context(), s.Target, run, s.backup)
	time.Sleep(300 * time.Millisecond)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	diff := s.compare(t, s.Target, run, s.backup)
	if len(diff) == 0 {
		t.Error("Compare does not see what somebody wrote during and after the restore")
	}
	for _, d := range diff {
		if !d.Foreign {
			t.Errorf("somebody else's write is taken for our failure: %+v", d)
		}
	}
	s.mustRestore(t, s.Target, s.attempt(t, plugins.OpRestore, run.Epoch), s.backup, s.print)
}

// memory: the heap stays bounded while much data moves.
func (s *suite) memory(t *testing.T) {
	if s.Large == nil {
		notRun(t, "the harness has no Large")
		return
	}
	s.Large(t, s.Target)
	m, err := NewMemory().OnDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.bounded(t, "backup", func() error { _, err := s.backUp(t, t.Context(), s.Target, m); return err })
	s.Wreck(t, s.Target, s.seed+96)
	run := s.run(t, plugins.OpRestore)
	s.bounded(t, "restore", func() error { _, err := s.restore(t, t.Context(), s.Target, run, m); return err })
	s.bounded(t, "compare", func() error {
		return s.with(t, s.Target, func(ses plugins.Session) error {
			d, err := ses.Compare(t.Context(), run, m)
			if err == nil && len(d) > 0 {
				t.Errorf("large data differs after its restore: %+v", d)
			}
			return err
		})
	})
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
}

// bounded samples the heap while do works. The collector is told the limit, as a worker's is: what is seen
// beyond it is held, not garbage that has not been collected yet.
func (s *suite) bounded(t *testing.T, what string, do func() error) {
	t.Helper()
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	// A quarter is left for what is allocated while it works.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(before.Sys - before.HeapReleased - before.HeapIdle + s.MemoryLimit*3/4)))
	var peak atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				if m.HeapAlloc > peak.Load() {
					peak.Store(m.HeapAlloc)
				}
			}
		}
	}()
	start := time.Now()
	err := do()
	close(stop)
	<-done
	if err != nil {
		t.Fatalf("%s of large data: %v", what, err)
	}
	used := peak.Load() - min(peak.Load(), before.HeapAlloc)
	t.Logf("%s of large data: %.1f s, heap at most %d MiB", what, time.Since(start).Seconds(), used>>20)
	if used > s.MemoryLimit {
		t.Errorf("%s of large data took %d MiB of heap, allowed are %d MiB", what, used>>20, s.MemoryLimit>>20)
	}
}
