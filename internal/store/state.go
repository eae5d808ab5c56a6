package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
)

// Kinds of Event.
const (
	EventVerify  = "verify"
	EventDamaged = "damaged"
)

// Event is something learned about a backup after it was sealed. Events are
// appended to a file beside the backups; the manifest is never rewritten.
type Event struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	OK       bool      `json:"ok"`
	Full     bool      `json:"full,omitempty"` // everything was read
	Keys     bool      `json:"keys,omitempty"` // and decoded
	Read     int64     `json:"read,omitempty"` // stored bytes read
	Problems []string  `json:"problems,omitempty"`
}

// State is what the events say, taken together.
type State struct {
	Damaged  bool
	Problems []string  // of the event that found the damage
	LastFull time.Time // end of the last full read; zero: never
}

const (
	maxEventTail = 256 << 10 // bytes of the newest events that are read
	maxProblems  = 20
)

func statePath(ref Ref) string { return dirState + "/" + ref.String() }

func (s *Store) appendEvent(ref Ref, e Event) error {
	e.At = time.Now().UTC()
	e.Problems = e.Problems[:min(len(e.Problems), maxProblems)]
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := fsutil.MkdirAll(s.root, dirState+"/"+ref.Name); err != nil {
		return fmt.Errorf("state of %s: %w", ref, spaceError(err))
	}
	f, err := s.root.OpenFile(statePath(ref), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("state of %s: %w", ref, spaceError(err))
	}
	// The newline comes first too, so that a line cut off by a crash spoils no other.
	_, err = f.Write(append(append([]byte{'\n'}, b...), '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("state of %s: %w", ref, spaceError(err))
	}
	return fsutil.SyncDir(s.root, dirState+"/"+ref.Name)
}

// State reads what is known of a backup beside its manifest.
func (s *Store) State(ref Ref) (State, error) {
	f, fi, err := fsutil.OpenRegular(s.root, statePath(ref))
	if notExist(err) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("state of %s: %w", ref, err)
	}
	defer f.Close()
	n := min(fi.Size(), maxEventTail)
	b := make([]byte, n)
	if _, err := f.ReadAt(b, fi.Size()-n); err != nil && err != io.EOF {
		return State{}, fmt.Errorf("state of %s: %w", ref, err)
	}
	var st State
	for l := range bytes.Lines(b) {
		var e Event
		if len(bytes.TrimSpace(l)) == 0 || json.Unmarshal(l, &e) != nil {
			continue
		}
		switch {
		case !e.OK:
			st.Damaged, st.Problems = true, e.Problems
		case e.Kind == EventVerify && e.Full:
			st.Damaged, st.Problems = false, nil
		}
		if e.Kind == EventVerify && e.Full {
			st.LastFull = e.At
		}
	}
	return st, nil
}
