package gateway

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/internal/store"
)

// session is one attempt at one unit.
type session struct {
	id    string
	role  string
	claim epoch.Claim
	recv  *store.Receiver
	use   sync.RWMutex // requests read-lock it; whoever ends the session locks it
	ended bool         // under use
	last  time.Time    // under Server.mu
}

// end waits for the session's requests and lets go of the unit.
func (x *session) end() {
	x.use.Lock()
	defer x.use.Unlock()
	if !x.ended {
		x.ended = true
		x.recv.Abort()
	}
}

func vmOf(role string) string {
	vm, _ := strings.CutPrefix(role, "worker:")
	return vm
}

// begin starts a session and ends an older one for the same unit: the newest attempt writes.
func (s *Server) begin(c call) error {
	var q Begin
	if err := decode(c, &q); err != nil {
		return err
	}
	if err := s.Rules.Open(c.r.Context(), c.at.ref, q.Claim); err != nil {
		return err
	}
	w, err := s.Writer()
	if err != nil {
		return err
	}
	s.mu.Lock()
	old := s.sessions[c.at]
	delete(s.sessions, c.at)
	s.mu.Unlock()
	if old != nil {
		old.end()
	}
	r, err := s.Store.Receive(c.r.Context(), c.at.ref, c.at.unit, w, store.UnitOptions{Pin: q.Pin, Redo: q.Redo, Log: s.Log})
	if err != nil {
		return err
	}
	x := &session{id: rand.Text(), role: c.role, claim: q.Claim, recv: r, last: time.Now()}
	s.mu.Lock()
	if s.sessions == nil {
		s.sessions = map[place]*session{}
	}
	s.sessions[c.at] = x
	s.mu.Unlock()
	out := Begun{Session: x.id, Fingerprint: w.Fingerprint()}
	for _, f := range r.Past() {
		if f.Backup != c.at.ref { // its own list is gone already
			out.Past = append(out.Past, f.Backup)
		}
	}
	return reply(c, http.StatusCreated, out)
}

// inSession calls answer while the session of the request is alive and its claim in force.
func (s *Server) inSession(answer func(call, *store.Receiver) error) func(call) error {
	return func(c call) error {
		x, err := s.find(c)
		if err != nil {
			return err
		}
		if err := s.Rules.Open(c.r.Context(), c.at.ref, x.claim); err != nil {
			return err
		}
		x.use.RLock()
		defer x.use.RUnlock()
		if x.ended {
			return ErrSession
		}
		return answer(c, x.recv)
	}
}

func (s *Server) find(c call) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[c.at]
	if x == nil || x.id != c.r.Header.Get(headerSession) || x.role != c.role {
		return nil, fmt.Errorf("%w: begin again; what was stored stays", ErrSession)
	}
	x.last = time.Now()
	return x, nil
}

func (s *Server) end(c call) error {
	x, err := s.find(c)
	if err != nil {
		return err
	}
	s.forget(c.at)
	x.end()
	return reply(c, http.StatusOK, struct{}{})
}

func (s *Server) forget(at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, at)
}

// dismiss ends the sessions last used before a moment; zero: all.
func (s *Server) dismiss(before time.Time) {
	var gone []*session
	s.mu.Lock()
	for at, x := range s.sessions {
		if before.IsZero() || x.last.Before(before) {
			gone = append(gone, x)
			delete(s.sessions, at)
		}
	}
	s.mu.Unlock()
	for _, x := range gone {
		x.end()
	}
}
