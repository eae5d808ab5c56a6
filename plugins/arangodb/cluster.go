package arangodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	// settle is how long requests that a coordinator has let in before it became read-only may take to reach the DB servers.
	settleFor   = 300 * time.Millisecond
	drainFor    = 20 * time.Second
	readOnlyFor = 2 * time.Minute // after which a read-only mode that was left on is undone by whoever looks
	modeRounds  = 10              // how often the coordinators are asked to change their mode
	leasePath   = "/_api/document/" + guardCollection + "/readonly"

	oneMoment = "one moment of the whole cluster: the snapshots of all DB servers were taken while every coordinator was read-only and no transaction ran; definitions as they were when the copy began"
)

// server is one row of the cluster's health:
// https://docs.arango.ai/arangodb/stable/develop/http-api/cluster/#get-the-cluster-health.
type server struct {
	ID       string
	Role     string
	Status   string
	Endpoint string
	Name     string `json:"ShortName"`
}

func (s *session) servers(ctx context.Context) ([]server, error) {
	var h struct{ Health map[string]server }
	if err := s.c.get(ctx, systemDB, "/_admin/cluster/health", nil, &h); err != nil {
		return nil, fmt.Errorf("health of the cluster: %w", s.hint(err))
	}
	var out []server
	for _, id := range sortedKeys(h.Health) {
		x := h.Health[id]
		x.ID = id
		out = append(out, x)
	}
	return out, nil
}

// clusterView opens a batch on every DB server. Frozen, every coordinator is read-only while the snapshots are taken:
// then they are of one moment.
func (s *session) clusterView(ctx context.Context, run plugins.Run, frozen bool) (v *view, err error) {
	all, err := s.servers(ctx)
	if err != nil {
		return nil, err
	}
	var dbservers []string
	var warn []string
	for _, x := range all {
		if x.Role != "DBServer" {
			continue
		}
		if x.Status == "FAILED" {
			warn = append(warn, fmt.Sprintf("DB server %s (%s) has failed and was not read; its shards come from other servers", x.Name, x.ID))
			continue
		}
		dbservers = append(dbservers, x.ID)
	}
	words := "one snapshot of each DB server, not of one moment: exact only while nobody writes"
	if frozen {
		undo, err := s.freeze(ctx, run, all)
		if err != nil {
			return nil, err
		}
		words = oneMoment
		defer func() {
			if uerr := undo(); uerr != nil && v != nil {
				v.drop(ctx)
				v, err = nil, errors.Join(err, uerr)
			}
		}()
	}
	if v, err = s.openView(ctx, run, dbservers); err != nil {
		return nil, err
	}
	v.words, v.warn = words, warn
	if err := v.takeSnapshots(ctx); err != nil {
		return nil, errors.Join(err, v.release(ctx))
	}
	if frozen && s.options(run, "dump") == "parallel" {
		if err := v.prepareDumps(ctx, run); err != nil {
			return nil, errors.Join(err, v.release(ctx))
		}
	}
	return v, nil
}

// takeSnapshots makes each server take the snapshot of its batch: it does so with the first reading
// (RocksDBReplicationContext::lazyCreateSnapshot). What is read is a shard of little, to its end.
func (v *view) takeSnapshots(ctx context.Context) error {
	var inv inventory
	if err := v.c.get(ctx, systemDB, "/_api/replication/clusterInventory", map[string]string{"includeSystem": "true"}, &inv); err != nil {
		return err
	}
	d := &database{name: systemDB, collections: map[string]*collection{}}
	for _, c := range inv.Collections {
		if err := d.addCollection(c.Parameters, nil); err != nil {
			return err
		}
	}
	// The server's own collections of the system database hold little, and every database server has shards of some.
	for _, n := range append([]string{"_queues", "_jobs", "_graphs", "_aqlfunctions"}, sortedKeys(d.collections)...) {
		c := d.collections[n]
		if c == nil {
			continue
		}
		for shard, servers := range c.shards {
			for _, id := range servers {
				if b := v.batches[id]; b != nil && !b.taken {
					if err := v.dump(ctx, systemDB, shard, b, nil); err == nil {
						b.taken = true
					} else if ctx.Err() != nil {
						return ctx.Err()
					}
				}
			}
		}
	}
	for id, b := range v.batches {
		if !b.taken {
			v.warn = append(v.warn, fmt.Sprintf("DB server %s holds no shard of database %s: its snapshot was taken with the first shard read from it", id, systemDB))
		}
	}
	return nil
}

// Pin holds one moment of the whole cluster.
func (s clusterSession) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	marks, err := s.takeMarks(ctx, run.Parallel)
	if err != nil {
		return nil, ended(ctx, err)
	}
	if err := s.undoReadOnly(ctx, run); err != nil {
		return nil, err
	}
	words, warn, err := s.beside(ctx, run) // not while read-only: then only the super user may
	if err != nil {
		return nil, err
	}
	v, err := s.clusterView(ctx, run, s.options(run, "read_only") != "no")
	if err != nil {
		return nil, ended(ctx, err)
	}
	v.tell(words, warn)
	return newPin(v, marks), nil
}

// lease says who made the server read-only, why and until when; it is written before.
type lease struct {
	Key   string    `json:"_key"`
	Epoch uint64    `json:"epoch"`
	Why   string    `json:"why"`
	Until time.Time `json:"until"`
}

const forPin, forFence = "pin", "fence"

// stale says whether a run may end the read-only mode: who set it is dead, or has outlived its lease. Of one
// run only one attempt works on a unit, so that a pin which is still being taken is never another's.
func (l *lease) stale(run plugins.Run, now time.Time) bool {
	return now.After(l.Until) || l.Epoch < run.Epoch || l.Why == forPin && l.Epoch == run.Epoch
}

// freeze makes every coordinator read-only and waits until nothing runs any more. Undo ends it. What is read-only
// already, by a fence or an administrator, stays so.
func (s *session) freeze(ctx context.Context, run plugins.Run, all []server) (undo func() error, err error) {
	ro, others, err := s.isReadOnly(ctx)
	if err != nil {
		return nil, err
	}
	if len(ro) > 0 && others == 0 {
		return func() error { return nil }, s.drain(ctx)
	}
	if err := s.setLease(ctx, &lease{Key: "readonly", Epoch: run.Epoch, Why: forPin, Until: time.Now().Add(readOnlyFor)}); err != nil {
		return nil, err
	}
	undo = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return s.thaw(ctx)
	}
	if err = s.everyMode(ctx, "readonly", all); err == nil {
		err = s.drain(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// everyMode sets the mode of the single server or of every coordinator that is alive.
func (s *session) everyMode(ctx context.Context, mode string, all []server) error {
	alive := 0
	for _, x := range all {
		if x.Role == "Coordinator" && x.Status == "GOOD" {
			alive++
		}
	}
	done := map[string]bool{} // ids of coordinators
	told := make([]bool, len(s.c.conns))
	var errs []error
	for range modeRounds {
		errs = nil
		for i := range s.c.conns {
			if told[i] {
				continue
			}
			id, err := s.setMode(ctx, mode, i+1)
			if told[i] = err == nil; told[i] {
				done[id] = true
			} else {
				errs = append(errs, err)
			}
		}
		// A member that is known to be dead is not waited for: writers are.
		if len(done) > 0 && len(done) >= alive || plugins.Sleep(ctx, 200*time.Millisecond) != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The coordinators of a cluster learn of it from the agency, a heartbeat later.
	for i := range s.c.conns {
		if err := s.awaitMode(ctx, mode, i+1); err != nil {
			errs = append(errs, err)
			clear(done)
		}
	}
	if len(done) == 0 || s.cluster && len(done) < alive {
		return fmt.Errorf("only %d of %d coordinators are %s: %w: %w: name every coordinator in the estate file, or set read_only to no", len(done), alive, mode, plugins.ErrUnavailable, errors.Join(errs...))
	}
	return nil
}

// setMode sets the mode of one member, and says which server it is.
func (s *session) setMode(ctx context.Context, mode string, member int) (string, error) {
	var id struct{ ID string }
	if s.cluster {
		a, err := s.c.do(ctx, call{method: "GET", db: systemDB, path: "/_admin/server/id", member: member, once: true})
		if err == nil {
			err = a.decode(&id)
		}
		if err != nil {
			return "", err
		}
	}
	_, err := s.c.do(ctx, call{method: "PUT", db: systemDB, path: "/_admin/server/mode", body: map[string]string{"mode": mode}, member: member, once: true})
	return id.ID, err
}

// awaitMode waits until a member that answers says that it has a mode.
func (s *session) awaitMode(ctx context.Context, mode string, member int) error {
	deadline := time.Now().Add(drainFor)
	for {
		a, err := s.c.do(ctx, call{method: "GET", db: systemDB, path: "/_admin/server/mode", member: member, once: true})
		if err != nil {
			return ctx.Err() // a coordinator that does not answer lets nobody write
		}
		var m struct{ Mode string }
		if err := a.decode(&m); err != nil || strings.EqualFold(m.Mode, mode) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not %s after %s, but %s", s.c.addrs[member-1], mode, drainFor, m.Mode)
		}
		if err := plugins.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// drain waits until no stream transaction runs.
func (s *session) drain(ctx context.Context) error {
	deadline := time.Now().Add(drainFor)
	for {
		var t struct {
			Transactions []struct{ ID, State string }
		}
		if err := s.c.get(ctx, systemDB, "/_api/transaction", nil, &t); err != nil {
			return err
		}
		running := 0
		for _, x := range t.Transactions {
			if x.State == "running" {
				running++
			}
		}
		if running == 0 {
			return plugins.Sleep(ctx, settleFor)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d transactions still run after %s in read-only mode: %w: end them and try again", running, drainFor, plugins.ErrUnavailable)
		}
		if err := plugins.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *session) setLease(ctx context.Context, l *lease) error {
	if err := s.own(ctx); err != nil {
		return fmt.Errorf("note the read-only mode: %w", err)
	}
	return s.writeLease(ctx, l)
}

func (s *session) writeLease(ctx context.Context, l *lease) error {
	_, err := s.main.do(ctx, call{method: "POST", db: systemDB, path: "/_api/document/" + guardCollection, body: l, query: map[string]string{"overwriteMode": "replace", "waitForSync": "true"}})
	if numbered(err, errReadOnly) {
		return fmt.Errorf("the server is already read-only: %w: %w", plugins.ErrUnavailable, err)
	}
	if err != nil {
		return fmt.Errorf("note the read-only mode: %w", err)
	}
	return nil
}

// thaw ends the read-only mode and then removes the note.
func (s *session) thaw(ctx context.Context) error {
	var all []server
	if s.cluster {
		var err error
		if all, err = s.servers(ctx); err != nil {
			return err
		}
	}
	if err := s.everyMode(ctx, "default", all); err != nil {
		return fmt.Errorf("end the read-only mode: %w", err)
	}
	_, err := s.c.do(ctx, call{method: "DELETE", db: systemDB, path: leasePath})
	if err != nil && !statused(err, 404) {
		return fmt.Errorf("remove the note of the read-only mode: %w", err)
	}
	return nil
}

// readLease is the note of a read-only mode that this product has set, or nil.
func (s *session) readLease(ctx context.Context) (*lease, error) {
	var l lease
	err := s.main.get(ctx, systemDB, leasePath, nil, &l)
	if errors.Is(err, plugins.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &l, nil
}

// undoReadOnly ends a read-only mode that this product has set and that the run may end.
func (s *session) undoReadOnly(ctx context.Context, run plugins.Run) error {
	l, err := s.readLease(ctx)
	if err != nil || l == nil || !l.stale(run, time.Now()) {
		return ended(ctx, err)
	}
	return ended(ctx, s.thaw(ctx))
}

// isReadOnly asks every member for its mode: which are read-only, and how many others answer.
func (s *session) isReadOnly(ctx context.Context) (out []string, others int, err error) {
	for i, a := range s.c.addrs {
		ans, err := s.c.do(ctx, call{method: "GET", db: systemDB, path: "/_admin/server/mode", member: i + 1, once: true})
		if err != nil {
			if ctx.Err() != nil {
				return nil, 0, ctx.Err()
			}
			continue // health says so elsewhere
		}
		var m struct{ Mode string }
		if json.Unmarshal(ans.body, &m) == nil && strings.EqualFold(m.Mode, "readonly") {
			out = append(out, a)
		} else {
			others++
		}
	}
	return out, others, nil
}
