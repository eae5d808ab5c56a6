package cassandra

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// sources are the units of a backup that a node takes its files from: its own, or, when the ring
// is another one than in the backup (other tokens, more or fewer nodes), those of all nodes:
// every node then imports everything and drops what is not its own.
type sources struct {
	schema  schema
	units   []*stored
	foreign bool
	leads   bool // compares for all nodes when foreign
}

func (s *session) sources(ctx context.Context, st *stored, r plugins.ArtifactReader) (*sources, error) {
	live, err := s.readRing(ctx)
	if err != nil {
		return nil, err
	}
	out := &sources{schema: st.schema, units: []*stored{st}, leads: s.cfg.self.Name == s.cfg.target.Members[0].Name}
	if len(st.ring.Nodes) > 0 && live.Partitioner != st.ring.Partitioner {
		return nil, fmt.Errorf("%s: the backup was made with %s, the cluster has %s: %w: set the partitioner of the backup", s.cfg.target, st.ring.Partitioner, live.Partitioner, plugins.ErrVersion)
	}
	if live.same(st.ring) {
		return out, nil
	}
	all, ok := r.(plugins.InstanceReader)
	if !ok {
		return nil, fmt.Errorf("%s: node %s does not own the tokens it had in the backup, and the other nodes' files cannot be read here: %w: give the ring its tokens back (initial_token)", s.cfg.target, s.cfg.self.Name, plugins.ErrUnsupported)
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
		out.units = append(out.units, u)
	}
	return out, nil
}

// size is the bytes of the files a node has to import for a table.
func (s *sources) size(t tableName) (n int64) {
	for _, u := range s.units {
		n += u.size(t)
	}
	return n
}

// compare says whether a table of the node holds what it should; with another ring the leader answers for all.
func (s *sources) compare(ctx context.Context, run plugins.Run, v *view, t tableName, seen func(int)) (how, error) {
	if !s.foreign {
		return s.units[0].compare(ctx, run, v, t, seen)
	}
	if !s.leads {
		return byRows, nil
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
		return unproven, err
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
