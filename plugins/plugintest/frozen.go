package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// childEnv names the job file of the child process: an attempt at a restore that
// stops itself (SIGSTOP), is overtaken, and is woken up again.
const childEnv = "CSO_PLUGINTEST_CHILD"

type childJob struct {
	Target  plugins.Target
	Epoch   uint64
	Scratch string
	Store   string // file written by save
	Freeze  int    // the call of the reader (Open, Next) before which to stop
}

// child is the process that is frozen. Its exit code is of no interest: what
// counts is that the live data does not change.
func child(p plugins.Plugin, file string) int {
	err := func() error {
		var job childJob
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &job); err != nil {
			return err
		}
		m, err := load(job.Store)
		if err != nil {
			return err
		}
		ctx := context.Background()
		ses, err := p.Open(ctx, job.Target)
		if err != nil {
			return err
		}
		defer ses.Close()
		run := plugins.Run{Epoch: job.Epoch, Operation: plugins.OpRestore, Backup: "TEST/2026-01-02T03-04-05Z", Attempt: "frozen",
			Parallel: 4, Scratch: job.Scratch, Log: slog.New(slog.DiscardHandler)}
		f := &freezing{Memory: m}
		f.left = int64(job.Freeze)
		if _, err := ses.Restore(ctx, run, f); err != nil {
			return err
		}
		if as, ok := ses.(plugins.AccountSwitcher); ok {
			_, err = as.RestoreAccounts(ctx, run, f)
		}
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "frozen attempt:", err)
		return 1
	}
	return 0
}

// freezing is a reader that stops the whole process once.
type freezing struct {
	*Memory
	mu   sync.Mutex
	left int64
}

// tick counts a call. The stop reaches the other threads a moment after it was
// asked for: none may pass in between.
func (f *freezing) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == -1 {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
		time.Sleep(50 * time.Millisecond)
	}
}

func (f *freezing) wrap(r plugins.RecordReader, err error) (plugins.RecordReader, error) {
	if err != nil {
		return nil, err
	}
	return freezingRecords{r, f}, nil
}

func (f *freezing) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	f.tick()
	return f.wrap(f.Memory.Open(ctx, name))
}

func (f *freezing) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	f.tick()
	return f.wrap(f.Memory.OpenPieces(ctx, name, from, to))
}

type freezingRecords struct {
	plugins.RecordReader
	f *freezing
}

func (r freezingRecords) Next() ([]byte, []byte, error) { r.f.tick(); return r.RecordReader.Next() }

func (r freezingRecords) Read(p []byte) (int, error) { r.f.tick(); return r.RecordReader.Read(p) }

// freeze starts an attempt at restoring m in a child process, waits until it
// is frozen, and returns what thaws it and waits for its end. An attempt that ends
// before it would freeze returns false.
func (s *suite) freeze(t *testing.T, m *Memory, at int) (thaw func() string, frozen bool) {
	t.Helper()
	run := s.run(t, plugins.OpRestore)
	dir := t.TempDir()
	job := childJob{Target: s.Target, Epoch: run.Epoch, Scratch: run.Scratch, Store: filepath.Join(dir, "store"), Freeze: at}
	if err := m.save(job.Store); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "job.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+file)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if i := strings.LastIndex(string(stat), ") "); i > 0 && stat[i+2] == 'T' {
			break
		}
		select {
		case <-done:
			return func() string { return out.String() }, false
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the attempt neither froze nor ended within a minute: %s", out.String())
		}
	}
	return func() string {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		select {
		case <-done:
		case <-time.After(2 * time.Minute):
			t.Fatalf("the thawed attempt did not end: %s", out.String())
		}
		return strings.TrimSpace(out.String())
	}, true
}

// frozen: an attempt at restoring another backup freezes in the middle, its
// successor restores this one, the first wakes up: nothing changes.
func (s *suite) frozen(t *testing.T) {
	s.Fill(t, s.Target, s.seed+90)
	other := s.mustBackup(t, s.Target)
	var total int64
	for _, a := range other.Artifacts() {
		total += 2 + a.Records
	}
	n := 0
	for _, at := range sample(s.rng(t), int(total), max(4, s.Kills/2)) {
		s.Wreck(t, s.Target, s.seed+91)
		thaw, ok := s.freeze(t, other, at)
		if !ok {
			continue
		}
		n++
		run := s.run(t, plugins.OpRestore)
		s.mustRestore(t, s.Target, run, s.backup, s.print)
		pos := s.position(t)
		said := thaw()
		s.mustEqual(t, s.Target, run, s.backup, s.print)
		if now := s.position(t); now != pos {
			t.Errorf("frozen before call %d: the woken attempt moved the position from %s to %s (%s)", at, pos, now, said)
		}
	}
	if n == 0 {
		t.Error("no attempt froze: nothing was tested")
	}
}

// frozenIdle: as frozen, but the successor finds all as it should be and has nothing to write.
func (s *suite) frozenIdle(t *testing.T) {
	s.Fill(t, s.Target, s.seed+92)
	other := s.mustBackup(t, s.Target)
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
	thaw, ok := s.freeze(t, other, 0)
	if !ok {
		t.Fatal("the attempt did not freeze before its first read")
	}
	run := s.run(t, plugins.OpRestore)
	if rep := s.mustRestore(t, s.Target, run, s.backup, s.print); rep.Artifacts != 0 {
		t.Fatalf("the successor was not idle: %+v", rep)
	}
	said := thaw()
	if d := s.compare(t, s.Target, run, s.backup); len(d) > 0 {
		t.Errorf("the woken attempt changed the data: %+v (%s)", d, said)
	}
	sameText(t, "fingerprint", s.print, s.Fingerprint(t, s.Target))
}
