package journal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Journal is an open journal directory.
type Journal struct {
	dir  string
	root *os.Root
}

const (
	file    = "current.json"
	maxFile = 16 << 20 // bytes; a real one has a few KB
)

// At is the journal of a store root; the directory is made when missing.
func At(root string) (*Journal, error) {
	dir := filepath.Join(root, ".cso", "journal")
	r, err := fsutil.MakeRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &Journal{dir: dir, root: r}, nil
}

// Read is the state now; the zero State when no run was ever recorded.
func (j *Journal) Read() (State, error) {
	b, err := fsutil.ReadBounded(j.root, file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("journal: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("journal %s is damaged: %w: look at it before any other operation", j.file(), err)
	}
	if s.Format > Format {
		return State{}, fmt.Errorf("journal %s was written by a newer version: use that version", j.file())
	}
	return s, nil
}

func (j *Journal) file() string { return filepath.Join(j.dir, file) }

// lock serialises all writers of this host; it waits until ctx ends.
func (j *Journal) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(j.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("journal lock: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("journal lock: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (j *Journal) write(s State) error {
	s.Format = Format
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := fsutil.Replace(j.root, ".", file, append(b, '\n')); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Request is what a run claims the journal for.
type Request struct {
	Cluster, Workflow, Run string
	Operation, Backup      string
	Repairs                bool // resolve and restore may take over a hold
}

// Claim takes the journal for a run: the next epoch, a fresh nonce. The same
// run asking again gets the claim it has. A run that left maintenance on or
// units half written hands both on: the prior state of the switch is never
// read twice, and only a repairing run may claim after a hold.
func (j *Journal) Claim(ctx context.Context, r Request) (State, error) {
	unlock, err := j.lock(ctx)
	if err != nil {
		return State{}, err
	}
	defer unlock()
	old, err := j.Read()
	if err != nil {
		return State{}, err
	}
	if old.Open() && old.Claim.Run == r.Run && old.Claim.Cluster == r.Cluster {
		return old, nil
	}
	if !r.Repairs && old.Open() && (old.Hold != nil || old.Half()) {
		return State{}, problem.New(problem.Held,
			"type `cso_backupnrestore resolve retry`, `resolve rollback` or `resolve accept --confirm "+old.Backup+"`, or restore a backup",
			"%s of %s (epoch %d) ended half done and the estate is held in maintenance", old.Operation, old.Backup, old.Claim.Epoch)
	}
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return State{}, fmt.Errorf("nonce: %w", err)
	}
	next := old.Claim.Epoch + 1
	if old.Claim.Epoch == 0 {
		// A new store must not begin below what VMs and databases have seen of an older one.
		next = uint64(time.Now().Unix())
	}
	s := State{
		Claim:    epoch.Claim{Epoch: next, Cluster: r.Cluster, Run: r.Run, Nonce: hex.EncodeToString(nonce[:])},
		Workflow: r.Workflow, Operation: r.Operation, Backup: r.Backup, Opened: time.Now().UTC(), Phase: "fence",
	}
	if old.Open() {
		s.Written, s.Targets, s.Safety, s.Hold = old.Written, old.Targets, old.Safety, old.Hold
		if l := old.Lease; l != nil && l.Entered {
			s.Lease = &Lease{Prior: l.Prior, Known: l.Known, Entered: true}
		}
	}
	return s, j.write(s)
}

// Check is nil while the claim is the journal's and the run has not ended.
func (j *Journal) Check(c epoch.Claim) error {
	s, err := j.Read()
	if err != nil {
		return err
	}
	return s.owned(c)
}

func (s State) owned(c epoch.Claim) error {
	switch {
	case s.Claim != c:
		return fmt.Errorf("epoch %d has been superseded by epoch %d: %w", c.Epoch, s.Claim.Epoch, plugins.ErrFenced)
	case s.Closed:
		return fmt.Errorf("epoch %d has ended: %w", c.Epoch, plugins.ErrFenced)
	}
	return nil
}

// Update changes the state on behalf of a claim, under the lock, with fsync.
func (j *Journal) Update(ctx context.Context, c epoch.Claim, change func(*State) error) (State, error) {
	unlock, err := j.lock(ctx)
	if err != nil {
		return State{}, err
	}
	defer unlock()
	s, err := j.Read()
	if err != nil {
		return State{}, err
	}
	if err := s.owned(c); err != nil {
		return State{}, err
	}
	if err := change(&s); err != nil {
		return State{}, err
	}
	return s, j.write(s)
}

// BeginWrite records that units are about to be written.
func (j *Journal) BeginWrite(ctx context.Context, c epoch.Claim, units ...string) error {
	_, err := j.Update(ctx, c, func(s *State) error {
		for _, u := range units {
			if !slices.Contains(s.Written, u) {
				s.Written = append(s.Written, u)
			}
		}
		return nil
	})
	return err
}

// Proven records that units are equal to a backup again.
func (j *Journal) Proven(ctx context.Context, c epoch.Claim, units ...string) error {
	_, err := j.Update(ctx, c, func(s *State) error {
		for _, u := range units {
			s.Written = slices.DeleteFunc(s.Written, func(w string) bool { return w == u })
		}
		return nil
	})
	return err
}

// Close ends the run. It refuses while maintenance is entered, unless held.
func (j *Journal) Close(ctx context.Context, c epoch.Claim, outcome string) error {
	_, err := j.Update(ctx, c, func(s *State) error {
		if s.Lease != nil && s.Lease.Entered {
			return fmt.Errorf("maintenance is still on: leave it before the journal is closed")
		}
		s.Closed, s.Outcome, s.Phase, s.Hold, s.Written = true, outcome, "closed", nil, nil
		return nil
	})
	if errors.Is(err, plugins.ErrFenced) {
		if s, rerr := j.Read(); rerr == nil && s.Claim == c && s.Closed {
			return nil // a repeated close
		}
	}
	return err
}

// HoldEstate records that the run failed beyond repair: maintenance stays.
func (j *Journal) HoldEstate(ctx context.Context, c epoch.Claim, reason string) error {
	_, err := j.Update(ctx, c, func(s *State) error {
		s.Hold = &Hold{Reason: reason, Since: time.Now().UTC()}
		s.Phase = "held"
		return nil
	})
	return err
}

// Summary is the state in a few lines for an operator; empty when no run is open.
func Summary(s State) []string {
	if !s.Open() {
		return nil
	}
	out := []string{fmt.Sprintf("%s %s, epoch %d, phase %s, since %s", s.Operation, s.Backup, s.Claim.Epoch, s.Phase, s.Opened.Format(time.RFC3339))}
	if l := s.Lease; l != nil && l.Entered {
		out = append(out, "maintenance is on, entered by this run")
	}
	if s.Half() {
		out = append(out, fmt.Sprintf("half written: %v; what was there before: %s", s.Written, s.Safety))
	}
	if s.Hold != nil {
		out = append(out, "HELD: "+s.Hold.Reason)
	}
	return out
}
