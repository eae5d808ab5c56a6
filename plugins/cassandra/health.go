package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Health looks at the node and at what it knows of the others.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	h := plugins.Health{Grade: plugins.Green, Version: s.version}
	worse := func(g plugins.Grade, format string, args ...any) {
		if h.Grade != plugins.Red {
			h.Grade = g
		}
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
	}
	r, err := s.readRing(ctx)
	if err != nil {
		return h, err
	}
	h.Members = len(r.Nodes)
	sc, err := s.readSchema(ctx)
	if err != nil {
		return h, err
	}
	h.Empty = len(sc.tables()) == 0
	if s.down != nil {
		missing, err := s.uncovered(ctx, r, sc)
		if err != nil {
			return h, err
		}
		if missing == "" {
			worse(plugins.Amber, "node %s is down; the others hold all data", s.cfg.self.Name)
		} else {
			worse(plugins.Red, "node %s is down: %s", s.cfg.self.Name, missing)
		}
		return h, nil
	}
	dead, err := s.dead(ctx, len(r.Nodes))
	if err != nil {
		if ctx.Err() != nil {
			return h, ctx.Err()
		}
		worse(plugins.Red, "JMX does not answer, which backup and restore need: %v", err)
	}
	for _, d := range dead {
		worse(plugins.Amber, "node %s", d)
	}
	versions := map[string]bool{}
	for _, q := range []string{"SELECT schema_version FROM system.local", "SELECT schema_version FROM system.peers_v2"} {
		it := s.c.Query(q).WithContext(ctx).Iter()
		var v gocql.UUID
		for it.Scan(&v) {
			versions[v.String()] = true
		}
		if err := it.Close(); err != nil {
			return h, s.cfg.wrap(ctx, "ask for schema versions", err)
		}
	}
	if len(versions) > 1 && len(dead) == 0 {
		worse(plugins.Amber, "the nodes hold %d versions of the schema", len(versions))
	}
	if n := s.pendingHints(ctx); n > 0 {
		worse(plugins.Amber, "%d files of hints wait for other nodes", n)
	}
	if err := s.disk(ctx, &h, worse); err != nil {
		worse(plugins.Red, "%v", err)
	}
	if left, err := s.fencedFor(ctx); err == nil && left > longFence {
		worse(plugins.Amber, "writes have been refused on this node for %s, by a restore that may be dead; its worker, or the next backup or restore, lets them in again", left.Round(time.Minute))
	}
	return h, ctx.Err()
}

// dead lists the nodes that this one takes for dead; the error says that JMX does not answer. A node that is alone
// knows of no other, and has answered if it did a moment ago: each call of nodetool costs the start of a JVM.
func (s *session) dead(ctx context.Context, nodes int) ([]string, error) {
	if nodes == 1 && s.seen.answers(s.place()) {
		return nil, nil
	}
	dead, err := s.admin.status(ctx)
	if err == nil {
		s.seen.heard(s.place())
	}
	return dead, err
}

// pendingHints counts the files of hints in the node's own directory. The server's view of them leaves out the one
// that is still being written, which is all there is while another node is down.
func (s *session) pendingHints(ctx context.Context) int {
	var dir string
	if s.c.Query("SELECT value FROM system_views.settings WHERE name = 'hints_directory'").WithContext(ctx).Scan(&dir) != nil || dir == "" {
		return 0
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.hints"))
	if err != nil {
		return 0
	}
	return len(files)
}

// scarce says whether so little is free that a copy of the tables would not fit: a restore of all stages one, and a compaction of
// all writes one. A share of the disk would say nothing: a tenth of a large one holds many small databases.
func scarce(free, total, tables int64) bool { return total > 0 && free < tables+room }

// disk adds up the files of user tables and looks at the space that is left.
func (s *session) disk(ctx context.Context, h *plugins.Health, worse func(plugins.Grade, string, ...any)) error {
	err := s.tableDirs(ctx, func(_ tableName, _, dir string) error {
		list, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range list {
			if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && wanted(e.Name()) {
				h.Estimate += fi.Size()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	dirs, err := s.dataDirs(ctx)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if free, total := space(d); scarce(free, total, h.Estimate/int64(len(dirs))) {
			worse(plugins.Amber, "%d MiB are free in %s: a restore or a compaction of all tables, %d MiB, may not fit", free>>20, d, h.Estimate>>20)
		}
	}
	if !h.Empty && h.Estimate == 0 {
		h.Estimate = 1 // all of it is still in memory
	}
	return nil
}

// uncovered says what a backup without the session's node would miss; empty: nothing, for every
// range of every keyspace some node that answers holds a copy.
func (s *session) uncovered(ctx context.Context, r ring, sc schema) (string, error) {
	alive, err := s.answering(ctx)
	if err != nil {
		return "", err
	}
	var dead []string
	for _, n := range r.Nodes {
		if !alive[n.HostID] {
			dead = append(dead, n.Address)
		}
	}
	var missing []string
	for _, ks := range sc.keyspaces() {
		var repl map[string]string
		if err := s.c.Query("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", ks).WithContext(ctx).Scan(&repl); err != nil {
			return "", s.cfg.wrap(ctx, "read replication", err)
		}
		if n, at := r.uncovered(repl, func(n *node) bool { return alive[n.HostID] }); n > 0 {
			missing = append(missing, fmt.Sprintf("%d of %d ranges of keyspace %s (the first ends with token %d)", n, len(r.walk()), ks, at))
		}
	}
	if len(missing) == 0 {
		return "", nil
	}
	return fmt.Sprintf("no node that answers has a copy of %s; %s do not answer", strings.Join(missing, ", "), strings.Join(dead, ", ")), nil
}

// answering are the host ids of the members that take connections.
func (s *session) answering(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	for _, m := range s.cfg.target.Members {
		c, err := s.cfg.connect(ctx, m)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		var id string
		err = c.Query("SELECT host_id FROM system.local").WithContext(ctx).Scan(&id)
		c.Close()
		if err != nil {
			return nil, s.cfg.wrap(ctx, "ask "+m.Name+" for its host id", err)
		}
		out[id] = true
	}
	return out, nil
}

// lookWithout is the view of a node that is down: it has no files, and others hold its data.
func (s *session) lookWithout(ctx context.Context) (*view, error) {
	v := &view{s: s}
	var err error
	if v.schema, err = s.readSchema(ctx); err != nil {
		return nil, err
	}
	if v.ring, err = s.readRing(ctx); err != nil {
		return nil, err
	}
	missing, err := s.uncovered(ctx, v.ring, v.schema)
	if err != nil {
		return nil, err
	}
	if missing != "" {
		return nil, fmt.Errorf("%s: node %s is down: %s: %w: %w: start it", s.cfg.target, s.cfg.self.Name, missing, plugins.ErrUnavailable, s.down)
	}
	v.gone = fmt.Sprintf("node %s is down: its files are not in this backup; the other nodes' files hold all its data, and a restore takes them from there", s.cfg.self.Name)
	v.info.ID, v.info.At = "down-"+s.cfg.self.Name, time.Now()
	return v, nil
}
