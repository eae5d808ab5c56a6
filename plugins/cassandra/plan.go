package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plan says what Restore and RestoreAccounts would change on this node.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	p, err := s.plan(ctx, run, r)
	if err != nil {
		return p, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

func (s *session) plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	var p plugins.Plan
	if s.down != nil {
		p.Refusals = append(p.Refusals, fmt.Sprintf("node %s is down: a restore needs all nodes; start it", s.cfg.self.Name))
		return p, nil
	}
	st, err := load(ctx, r)
	if err != nil {
		return p, err
	}
	src, err := s.sources(ctx, st, r)
	if errors.Is(err, plugins.ErrUnsupported) || errors.Is(err, plugins.ErrVersion) {
		p.Refusals = append(p.Refusals, err.Error())
		return p, nil
	} else if err != nil {
		return p, err
	}
	if v := st.ring.newest(); slices.Compare(versionNumbers(v), versionNumbers(s.version)) > 0 {
		p.Refusals = append(p.Refusals, fmt.Sprintf("the backup was made with Cassandra %s, this node runs %s, which cannot read its files: upgrade it", v, s.version))
	}
	if err := s.complete(ctx); err != nil {
		if !errors.Is(err, plugins.ErrUnavailable) || ctx.Err() != nil {
			return p, err
		}
		p.Refusals = append(p.Refusals, err.Error())
	}
	if src.foreign {
		p.Warnings = append(p.Warnings, "the ring is not the one of the backup: every node imports the files of all nodes and drops what is not its own")
	}
	v, err := s.look(ctx, run, tagLook)
	if err != nil {
		return p, err
	}
	differ, err := s.differing(ctx, run, v, st, src)
	if err = errors.Join(err, v.Release(context.WithoutCancel(ctx))); err != nil {
		return p, err
	}
	ch := st.schema.changes(v.schema)
	p.Add, p.Change, p.Remove = ch.names.add, ch.names.change, ch.names.remove
	o := s.orderFor(st.schema, v.schema, differ)
	for _, t := range st.schema.tables() {
		name := contentArtifact(t)
		switch {
		case !slices.Contains(o.Replace, t.String()):
			p.Unchanged = append(p.Unchanged, name)
			continue
		case v.schema.table(t) == nil:
			p.Add = append(p.Add, name)
		default:
			p.Change = append(p.Change, name)
		}
		p.Write += src.size(t)
	}
	for _, t := range v.schema.tables() {
		if st.schema.table(t) == nil {
			p.Remove = append(p.Remove, contentArtifact(t))
		}
	}
	diff, why, err := s.planAccounts(ctx, r)
	if err != nil {
		return p, err
	}
	if diff {
		p.Change = append(p.Change, accountsArtifact)
	} else {
		p.Unchanged = append(p.Unchanged, accountsArtifact)
	}
	if why != "" {
		p.Refusals = append(p.Refusals, why)
	}
	p.Space = p.Write
	if dirs, err := s.dataDirs(ctx); err == nil {
		p.Free, _ = space(dirs[0])
		if p.Free > 0 && p.Free < p.Space+room {
			p.Refusals = append(p.Refusals, fmt.Sprintf("%d MiB are free in %s, %d MiB are needed: make room", p.Free>>20, strings.TrimSuffix(dirs[0], "/"), (p.Space+room)>>20))
		}
	}
	return p, nil
}
