package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
)

// Server is a running simulator.
type Server struct {
	cfg    Config
	store  *store.Store
	log    *slog.Logger
	routes routes
	nodes  []*node
	jwtKey []byte

	readOnly    atomic.Bool
	batchIDs    atomic.Uint64 // begins at the time of start: a batch of before a restart is unknown
	users       userCache
	batches     holders[*batch]
	dumps       holders[*parallelDump]
	cursors     holders[*cursor]
	streams     holders[*stream]
	locks       keyLocks
	faults      faults
	queries     queryLog
	jobs        jobs
	maintenance maintenance
	backups     sync.Mutex

	stop func()
	done sync.WaitGroup
}

// Start opens the directory and listens. Close ends all of it.
func Start(cfg Config) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the simulator's directory: %w", err)
	}
	s := &Server{cfg: cfg, log: slog.New(slog.NewTextHandler(io.Discard, nil)), routes: routes{}}
	if os.Getenv("ARANGOSIM_LOG") != "" {
		s.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s.batchIDs.Store(uint64(time.Now().UnixMicro())) // a batch of before a restart stays unknown
	if s.jwtKey, err = secret(filepath.Join(cfg.Dir, "jwt.secret")); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(cfg.Dir); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	s.register()
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Add(1)
	go s.sweep(ctx)
	return s, nil
}

// secret keeps the key that signs tokens, so that they outlive a restart.
func secret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(rand.Text())
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("the simulator's token secret: %w", err)
	}
	return b, nil
}

// Close ends listeners, snapshots and the file.
func (s *Server) Close() error {
	if s.stop != nil {
		s.stop()
	}
	s.jobs.close()
	var err error
	for _, n := range s.nodes {
		err = errors.Join(err, n.close())
	}
	s.done.Wait()
	s.batches.closeAll()
	s.dumps.closeAll()
	return errors.Join(err, s.store.Close())
}

// Endpoints are the URLs that clients use: the single server's, or the coordinators'.
func (s *Server) Endpoints() []string {
	var out []string
	for _, n := range s.nodes {
		if n.role == roleSingle || n.role == roleCoordinator {
			out = append(out, n.url())
		}
	}
	return out
}

// node is one server process of the real thing: its listener and whether it lives.
type node struct {
	id, name, role string
	listener       net.Listener
	http           *http.Server
	down           atomic.Bool
	holder         atomic.Int64 // which request holds it up (see control.go)
	inSyncAt       atomic.Int64 // Unix milliseconds; a DB server that came back is out of sync until then
}

// Roles as /_admin/server/role and the health report spell them.
const (
	roleSingle      = "SINGLE"
	roleCoordinator = "COORDINATOR"
	rolePrimary     = "PRIMARY"
	roleAgent       = "AGENT"
)

func (n *node) up() bool    { return !n.down.Load() }
func (n *node) url() string { return "http://" + n.listener.Addr().String() }

func (n *node) close() error {
	err := n.http.Close()
	// By itself the server closes a listener only once it serves it.
	if again := n.listener.Close(); !errors.Is(again, net.ErrClosed) {
		err = errors.Join(err, again)
	}
	return err
}

func (s *Server) listen() error {
	nodes, err := s.plan()
	if err != nil {
		return err
	}
	for i, n := range nodes {
		address := "127.0.0.1:0"
		switch {
		case i == 0:
			address = s.cfg.Listen
		case n.role == roleCoordinator && i-1 < len(s.cfg.ListenMore):
			address = s.cfg.ListenMore[i-1]
		}
		if n.listener, err = net.Listen("tcp", address); err != nil {
			return fmt.Errorf("listen for %s: %w", n.name, err)
		}
		protocols := &http.Protocols{}
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true) // the driver speaks HTTP/2 with prior knowledge
		n.http = &http.Server{
			Protocols:         protocols,
			ReadHeaderTimeout: time.Minute,
			Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(n, w, r) }),
		}
		s.nodes = append(s.nodes, n)
	}
	// Not before all are there: requests look at the list.
	for _, n := range s.nodes {
		s.done.Add(1)
		go func() {
			defer s.done.Done()
			if err := n.http.Serve(n.listener); !errors.Is(err, http.ErrServerClosed) {
				s.log.Error("listener ended", "node", n.name, "error", err)
			}
		}()
	}
	return nil
}

// sweep ends what has a time to live: ttl indexes' documents, batches, dumps, cursors, transactions.
func (s *Server) sweep(ctx context.Context) {
	defer s.done.Done()
	ttl := time.NewTicker(s.cfg.TTLInterval)
	defer ttl.Stop()
	leases := time.NewTicker(200 * time.Millisecond)
	defer leases.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-leases.C:
			s.batches.expire(now)
			s.dumps.expire(now)
			s.cursors.expire(now)
			s.expireStreams(now)
		case now := <-ttl.C:
			s.removeExpired(now)
		}
	}
}

// nodeByID finds a server by id or name, nil when there is none.
func (s *Server) nodeByID(id string) *node {
	for _, n := range s.nodes {
		if n.id == id || n.name == id {
			return n
		}
	}
	return nil
}

// trimURL is an endpoint as clusters list it.
func tcp(url string) string { return "tcp" + strings.TrimPrefix(url, "http") }
