package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	idleDefault = time.Minute
	pieceTime   = 10 * time.Minute // for one piece, 64 MiB, also over a slow line
	askTime     = time.Minute
)

// Server is the gateway. Its fields are set before the first request.
type Server struct {
	Rules   Rules
	Store   *store.Store
	Writer  func() (keys.Writer, error) // the recipients in force
	Revoked *pki.Revocations
	Log     *slog.Logger
	Idle    time.Duration // a session nobody uses is let go of; 0: a minute

	mu       sync.Mutex
	sessions map[place]*session
	lists    sync.Mutex // one list is decoded at a time: it may be large
}

// place is a unit of a backup.
type place struct {
	ref  manifest.Ref
	unit manifest.UnitID
}

// Serve answers requests on l until ctx ends. config comes from [pki.ServerTLS].
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	h := &http.Server{
		Handler: s.Handler(), TLSConfig: config, MaxHeaderBytes: 16 << 10, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(s.idle() / 4)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				h.Close()
				return
			case <-tick.C:
				s.dismiss(time.Now().Add(-s.idle()))
			}
		}
	}()
	err := h.ServeTLS(l, "", "")
	if ctx.Err() != nil {
		<-ended
		s.dismiss(time.Time{})
		return nil
	}
	return fmt.Errorf("store gateway: %w", err)
}

func (s *Server) idle() time.Duration {
	if s.Idle > 0 {
		return s.Idle
	}
	return idleDefault
}

// call is one request that has passed the rules.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	role string
	at   place
	id   manifest.Hash // of the piece, where there is one
}

// Handler answers the requests of the package comment.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, h := range []struct {
		pattern string
		do      action
		answer  func(call) error
	}{
		{"POST %s/begin", add, s.begin},
		{"POST %s/known", add, s.inSession(s.known)},
		{"PUT %s/pieces/{id}", add, s.inSession(s.put)},
		{"PUT %s/unit.json", add, s.inSession(s.publish)},
		{"POST %s/end", add, s.end},
		{"GET %s/pieces/{id}", readPiece, s.piece},
		{"GET %s/unit.json", readList, s.list},
	} {
		mux.HandleFunc(fmt.Sprintf(h.pattern, "/v1/{name}/{time}/{component}/{instance}/{member}"), func(w http.ResponseWriter, r *http.Request) {
			if err := s.serve(w, r, h.do, h.answer); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	// Whatever else is asked, DELETE among it: told who asked, in the same words.
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		who, err := role(r.TLS, s.Revoked)
		if err == nil {
			err = fmt.Errorf("%w: %s may not %s %s: stored objects are added and read here, never deleted or replaced", ErrRefused, who, r.Method, r.URL.Path)
		}
		s.fail(w, r, err)
	})
	return mux
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, do action, answer func(call) error) error {
	who, err := role(r.TLS, s.Revoked)
	if err != nil {
		return err
	}
	c := call{w: w, r: r, role: who}
	c.at.ref = manifest.Ref{Name: r.PathValue("name"), Timestamp: r.PathValue("time")}
	c.at.unit = manifest.UnitID{Component: r.PathValue("component"), Instance: r.PathValue("instance"), Member: r.PathValue("member")}
	if err := errors.Join(c.at.ref.Validate(), c.at.unit.Validate()); err != nil {
		return err
	}
	if id := r.PathValue("id"); id != "" {
		if err := c.id.UnmarshalText([]byte(id)); err != nil {
			return fmt.Errorf("%w: %w", manifest.ErrName, err)
		}
	}
	if err := s.Rules.may(who, do, c.at.unit); err != nil {
		return err
	}
	limit := askTime
	if c.id != (manifest.Hash{}) {
		limit = pieceTime
	}
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Now().Add(limit)), control.SetWriteDeadline(time.Now().Add(limit))); err != nil {
		return err
	}
	return answer(c)
}

func (s *Server) known(c call, r *store.Receiver) error {
	var q knownRequest
	if err := decode(c, &q); err != nil {
		return err
	}
	if len(q.IDs) > MaxKnown {
		return fmt.Errorf("%d content ids at once: at most %d: %w", len(q.IDs), MaxKnown, plugins.ErrData)
	}
	var out knownAnswer
	for _, id := range q.IDs {
		p, ok, err := r.Known(id)
		if err != nil {
			return err
		}
		if ok {
			out.Pieces = append(out.Pieces, p)
		}
	}
	return reply(c, http.StatusOK, out)
}

func (s *Server) put(c call, r *store.Receiver) error {
	p := manifest.Piece{ID: c.id, Stored: c.r.ContentLength}
	if err := p.SHA256.UnmarshalText([]byte(c.r.Header.Get(headerSHA256))); err != nil {
		return fmt.Errorf("header %s: %w: %w", headerSHA256, plugins.ErrData, err)
	}
	var err error
	if p.Bytes, err = strconv.ParseInt(c.r.Header.Get(headerBytes), 10, 64); err != nil {
		return fmt.Errorf("header %s: %w: %w", headerBytes, plugins.ErrData, err)
	}
	if v := c.r.Header.Get(headerCut); v != "" {
		if p.Cut, err = strconv.ParseInt(v, 10, 64); err != nil {
			return fmt.Errorf("header %s: %w: %w", headerCut, plugins.ErrData, err)
		}
	}
	have, err := r.Put(c.r.Context(), p, c.r.Body)
	if errors.Is(err, store.ErrExists) {
		return existing{err, have}
	}
	if err != nil {
		return err
	}
	return reply(c, http.StatusOK, have)
}

func (s *Server) publish(c call, r *store.Receiver) error {
	s.lists.Lock()
	defer s.lists.Unlock()
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, manifest.MaxUnitFile))
	if err != nil {
		return fmt.Errorf("receive the list: %w: %w", plugins.ErrData, err)
	}
	f, err := manifest.DecodeUnit(b)
	if err != nil {
		return fmt.Errorf("%w: %w", plugins.ErrData, err)
	}
	if f.VM != vmOf(c.role) {
		return fmt.Errorf("the list says that VM %q made it, the certificate says %s: %w", f.VM, c.role, plugins.ErrData)
	}
	sum, err := r.Finish(c.r.Context(), f)
	if err != nil {
		return err
	}
	s.forget(c.at)
	s.Log.Info("unit received", "role", c.role, "backup", c.at.ref, "unit", c.at.unit, "stored", sum.Stored, "new", sum.StoredNew)
	return reply(c, http.StatusCreated, sum)
}

func (s *Server) piece(c call) error {
	f, size, err := s.Store.OpenStored(c.at.ref, c.at.unit, c.id)
	if err != nil {
		return err
	}
	defer f.Close()
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, err = io.Copy(c.w, f)
	if err != nil {
		s.Log.Warn("a piece was not sent to its end", "role", c.role, "piece", c.id, "err", err)
	}
	return nil
}

func (s *Server) list(c call) error {
	f, _, err := s.Store.List(c.at.ref, c.at.unit)
	if err != nil {
		return err
	}
	return reply(c, http.StatusOK, f)
}

func decode(c call, to any) error {
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("the request is not what this gateway understands: %w: %w", plugins.ErrData, err)
	}
	return nil
}

func reply(c call, status int, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	c.w.Write(append(b, '\n')) //nolint:errcheck // the caller is gone: it asks again
	return nil
}

// log tells of a refusal; nothing secret is in it.
func (s *Server) log(r *http.Request, who string, err error) {
	s.Log.Warn("gateway refuses", "role", who, "method", r.Method, "path", r.URL.Path, "reason", err)
}

func notFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrNoSuchBackup) || errors.Is(err, plugins.ErrNotFound)
}
