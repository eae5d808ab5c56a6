package plugintest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// sample picks up to n of the numbers below total, the first and the last always.
func sample(rng *rand.Rand, total, n int) []int {
	if total <= n {
		out := make([]int, total)
		for i := range out {
			out[i] = i
		}
		return out
	}
	out := []int{0}
	for i := 1; i < n-1; i++ {
		lo, hi := i*total/n, (i+1)*total/n
		out = append(out, max(1, lo+rng.IntN(max(1, hi-lo))))
	}
	return append(out, total-1)
}

func (s *suite) rng(t testing.TB) *rand.Rand {
	t.Logf("seed %d", s.seed)
	return rand.New(rand.NewPCG(uint64(s.seed), 1))
}

func (s *suite) backupKilled(t *testing.T) {
	for _, n := range sample(s.rng(t), len(s.backup.Artifacts()), s.Kills) {
		m := NewMemory().KillAtArtifact(n)
		_, err := s.backUp(t, t.Context(), s.Target, m)
		for tries := 0; err == nil && len(m.Artifacts()) <= n && tries < 3; tries++ { // files were merged meanwhile: there are fewer now
			n = len(m.Artifacts()) - 1
			m = NewMemory().KillAtArtifact(n)
			_, err = s.backUp(t, t.Context(), s.Target, m)
		}
		if !errors.Is(err, ErrKilled) {
			t.Errorf("store died after %d artifacts: %v, want the store's error", n, err)
		}
		if u := m.Unfinished(); len(u) > 0 {
			t.Errorf("store died after %d artifacts: neither committed nor aborted: %q", n, u)
		}
	}
	m := NewMemory().KillAtRecord(1)
	if _, err := s.backUp(t, t.Context(), s.Target, m); !errors.Is(err, ErrKilled) || len(m.Unfinished()) > 0 {
		t.Errorf("store died after one record: %v, unfinished %q", err, m.Unfinished())
	}
	sameText(t, "fingerprint after killed backups", s.print, s.Fingerprint(t, s.Target))
}

// killed wrecks, restores from a store that dies, and lets a later attempt finish.
func (s *suite) killed(t *testing.T, what string, n int, dying *Memory) (died bool) {
	s.Wreck(t, s.Target, s.seed+int64(n)+10)
	run := s.run(t, plugins.OpRestore)
	_, err := s.restore(t, t.Context(), s.Target, run, dying)
	if err != nil && !errors.Is(err, ErrKilled) {
		t.Fatalf("store died after %d %s: %v, want the store's error", n, what, err)
	}
	s.mustRestore(t, s.Target, s.attempt(t, plugins.OpRestore, run.Epoch), s.backup, s.print)
	return err != nil
}

// everyBoundary is up to how many artifact boundaries each is tried; of more, a sample.
const everyBoundary = 12

func (s *suite) killedAtArtifacts(t *testing.T) {
	died := 0
	kills := s.Kills
	if kills > 1 {
		kills = max(kills, everyBoundary)
	}
	for _, n := range sample(s.rng(t), len(s.backup.Artifacts())+1, kills) {
		if s.killed(t, "artifacts", n, s.backup.Clone().KillAtArtifact(n)) {
			died++
		}
	}
	if died == 0 {
		t.Error("no restore was killed: nothing was tested")
	}
}

func (s *suite) killedAtRecords(t *testing.T) {
	rng := s.rng(t)
	var total int64
	for _, a := range s.backup.Artifacts() {
		total += max(1, a.Records)
	}
	died := 0
	for range s.Kills {
		// Most restores read only a part of the records: favour the early ones.
		n := int(float64(total) * rng.Float64() * rng.Float64())
		if s.killed(t, "records", n, s.backup.Clone().KillAtRecord(n)) {
			died++
		}
	}
	if s.killed(t, "records", 0, s.backup.Clone().KillAtRecord(0)) {
		died++
	}
	if died == 0 {
		t.Error("no restore was killed: nothing was tested")
	}
}

func (s *suite) corrupt(t *testing.T) {
	rng := s.rng(t)
	as := s.backup.Artifacts()
	met := 0
	for _, i := range sample(rng, len(as), s.Kills) {
		bad := s.backup.Clone()
		n := bad.PieceCount(as[i].Name)
		if n == 0 || !bad.Corrupt(as[i].Name, rng.IntN(n)) {
			continue
		}
		s.Wreck(t, s.Target, s.seed+int64(i)+50)
		run := s.run(t, plugins.OpRestore)
		_, err := s.restore(t, t.Context(), s.Target, run, bad)
		switch {
		case errors.Is(err, plugins.ErrCorrupt):
			met++
		case err != nil:
			t.Errorf("artifact %q with a damaged piece: %v, want ErrCorrupt", as[i].Name, err)
		default:
			// The damaged piece was not read: then what it holds must already be right.
			if d := s.compare(t, s.Target, run, s.backup); len(d) > 0 {
				t.Errorf("artifact %q with a damaged piece was restored without an error, and differs: %+v", as[i].Name, d)
			}
		}
		s.mustRestore(t, s.Target, s.attempt(t, plugins.OpRestore, run.Epoch), s.backup, s.print)
	}
	if met == 0 {
		t.Error("no damaged piece was met: nothing was tested")
	}
}

// promptly is how soon a call must return after its context was cancelled.
const promptly = 2 * time.Second

// stalling is a store that cancels the context at the n-th call and then answers nothing until it has ended.
type stalling struct {
	*Memory
	n      *atomic.Int64
	cancel context.CancelFunc
	at     chan time.Time
}

func newStalling(m *Memory, n int, cancel context.CancelFunc) *stalling {
	s := &stalling{Memory: m, n: new(atomic.Int64), cancel: cancel, at: make(chan time.Time, 1)}
	s.n.Store(int64(n))
	return s
}

func (s *stalling) stall(ctx context.Context) error {
	if s.n.Add(-1) != 0 {
		return ctx.Err()
	}
	s.at <- time.Now()
	s.cancel()
	select {
	case <-ctx.Done():
	case <-time.After(2 * promptly): // a plugin that handed on another context
	}
	return ctx.Err()
}

func (s *suite) cancelled(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.with(t, s.Target, func(ses plugins.Session) error {
		run := s.run(t, plugins.OpInspect)
		calls := map[string]func(ctx context.Context) error{
			"Health":  func(ctx context.Context) error { _, err := ses.Health(ctx); return err },
			"Backup":  func(ctx context.Context) error { _, err := ses.Backup(ctx, run, NewMemory()); return err },
			"Restore": func(ctx context.Context) error { _, err := ses.Restore(ctx, run, s.backup); return err },
			"Digest":  func(ctx context.Context) error { _, err := ses.Digest(ctx, run); return err },
			"Compare": func(ctx context.Context) error { _, err := ses.Compare(ctx, run, s.backup); return err },
		}
		if p, ok := ses.(plugins.Pinner); ok {
			calls["Pin"] = func(ctx context.Context) error {
				pin, err := p.Pin(ctx, run)
				if err == nil {
					err = pin.Release(t.Context())
				}
				return err
			}
		}
		for name, call := range calls {
			start := time.Now()
			if err := call(gone); !errors.Is(err, context.Canceled) {
				t.Errorf("%s with a cancelled context: %v, want context.Canceled", name, err)
			}
			if d := time.Since(start); d > promptly {
				t.Errorf("%s returned %s after the cancellation", name, d)
			}
			// And cancelled at a random moment of its work.
			ctx, cancel := context.WithCancel(t.Context())
			timer := time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, cancel)
			_ = call(ctx)
			if d := time.Since(start); d > promptly && ctx.Err() != nil {
				t.Errorf("%s returned %s after the cancellation", name, d)
			}
			timer.Stop()
			cancel()
		}
		return nil
	})
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
	for n := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		st := newStalling(NewMemory(), n+1, cancel)
		_, err := s.backUp(t, ctx, s.Target, stallingWriter{st})
		s.checkStall(t, "backup", st, err)
		cancel()
		if u := st.Unfinished(); len(u) > 0 {
			t.Errorf("cancelled backup left artifacts unfinished: %q", u)
		}

		s.Wreck(t, s.Target, s.seed+int64(n)+70)
		ctx, cancel = context.WithCancel(t.Context())
		run := s.run(t, plugins.OpRestore)
		st = newStalling(s.backup.Clone(), n+1, cancel)
		_, err = s.restore(t, ctx, s.Target, run, stallingReader{st})
		s.checkStall(t, "restore", st, err)
		cancel()
		s.mustRestore(t, s.Target, s.attempt(t, plugins.OpRestore, run.Epoch), s.backup, s.print)
	}
}

func (s *suite) checkStall(t *testing.T, what string, st *stalling, err error) {
	t.Helper()
	select {
	case at := <-st.at:
		if d := time.Since(at); d > promptly {
			t.Errorf("%s returned %s after the cancellation", what, d)
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled %s: %v, want context.Canceled", what, err)
		}
	default:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

type stallingWriter struct{ *stalling }

func (s stallingWriter) Create(ctx context.Context, a plugins.Artifact) (plugins.RecordWriter, error) {
	w, err := s.Memory.Create(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := s.stall(ctx); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

type stallingReader struct{ *stalling }

func (s stallingReader) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	if err := s.stall(ctx); err != nil {
		return nil, err
	}
	return s.Memory.Open(ctx, name)
}

func (s stallingReader) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	if err := s.stall(ctx); err != nil {
		return nil, err
	}
	return s.Memory.OpenPieces(ctx, name, from, to)
}
