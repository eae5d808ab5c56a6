package cassandra

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// sources are the units of a backup that a node takes its files from: its own, or, when the ring
// is another one than in the backup (other tokens, more or fewer nodes) or the node was down, those of all
// nodes: the node then imports everything and drops what is not its own.
type sources struct {
	schema  schema
	ring    ring
	units   []*stored
	foreign bool
	moved   bool // foreign to all nodes, because the ring is laid out in another way
	leads   bool // compares for all nodes when moved
}

func (s *session) sources(ctx context.Context, r plugins.ArtifactReader) (*sources, error) {
	live, err := s.readRing(ctx)
	if err != nil {
		return nil, err
	}
	out := &sources{leads: s.cfg.self.Name == s.cfg.target.Members[0].Name}
	all, several := r.(plugins.InstanceReader)
	if len(r.Artifacts()) > 0 || !several {
		own, err := load(ctx, r)
		if err != nil {
			return nil, err
		}
		out.schema, out.ring, out.units = own.schema, own.ring, []*stored{own}
		if err := s.partitioner(live, out.ring); err != nil || live.same(out.ring) {
			return out, err
		}
	}
	if !several {
		return nil, fmt.Errorf("%s: node %s does not stand where it stood in the ring of the backup, and the other nodes' files cannot be read here: %w: give the ring its tokens back (initial_token)", s.cfg.target, s.cfg.self.Name, plugins.ErrUnsupported)
	}
	out.foreign, out.units = true, nil
	members, err := all.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		mr, err := all.Member(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("files of %s: %w", m, err)
		}
		u, err := load(ctx, mr)
		if err != nil {
			return nil, fmt.Errorf("files of %s: %w", m, err)
		}
		if out.units = append(out.units, u); len(out.ring.Nodes) == 0 {
			out.schema, out.ring = u.schema, u.ring
		}
	}
	if len(out.units) == 0 {
		return nil, fmt.Errorf("%s: the backup holds no unit of this cluster: %w", s.cfg.target, plugins.ErrNotFound)
	}
	out.moved = !live.alike(out.ring)
	return out, s.partitioner(live, out.ring)
}

func (s *session) partitioner(live, was ring) error {
	if live.Partitioner != was.Partitioner {
		return fmt.Errorf("%s: the backup was made with %s, the cluster has %s: %w: set the partitioner of the backup", s.cfg.target, was.Partitioner, live.Partitioner, plugins.ErrVersion)
	}
	return nil
}

// accounts is the artifact's reader: every unit holds all accounts of the cluster.
func (s *sources) accounts() plugins.ArtifactReader { return s.units[0].r }

// size is the bytes of the files a node has to import for a table.
func (s *sources) size(t tableName) (n int64) {
	for _, u := range s.units {
		n += u.size(t)
	}
	return n
}

// compare says whether a table of the node holds what it should. With a ring laid out in another way the
// leader answers for all nodes; a node that has changed its place in an equal ring, or that the
// backup has no files of, can only tell when there is nothing at all.
func (s *sources) compare(ctx context.Context, run plugins.Run, v *view, t tableName, seen func(int)) (how, error) {
	switch {
	case !s.foreign:
		return s.units[0].compare(ctx, run, v, t, seen)
	case s.moved && !s.leads:
		return byRows, nil
	case !s.moved && s.size(t)+v.size(t) == 0:
		return byFiles, nil
	case !s.moved:
		return unproven, nil
	}
	sum := &content{expiring: map[[32]byte]int64{}}
	for _, u := range s.units {
		c, err := loadContent(ctx, u.r, t)
		if err != nil || c == nil {
			return unproven, err
		}
		sum.lasting = append(sum.lasting, c.lasting...)
		for k, at := range c.expiring {
			sum.expiring[k] = at
		}
	}
	live, err := v.s.scan(ctx, run, t, v.ring.primary("", true))
	if err != nil {
		return v.s.scanned(ctx, run, t, err)
	}
	if sum.equal(live, time.Now()) {
		return byRows, nil
	}
	return rowsDiffer, nil
}

// newest is the highest server version of the backup's ring.
func (r ring) newest() string {
	out := ""
	for _, n := range r.Nodes {
		if out == "" || slices.Compare(versionNumbers(n.Version), versionNumbers(out)) > 0 {
			out = n.Version
		}
	}
	return out
}

// versionNumbers are the major and minor number, which decide about file formats.
func versionNumbers(v string) []int {
	var a, b int
	if _, err := fmt.Sscanf(v, "%d.%d", &a, &b); err != nil {
		return nil
	}
	return []int{a, b}
}
