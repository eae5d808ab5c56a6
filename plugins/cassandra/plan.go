package cassandra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

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
	src, err := s.sources(ctx, r)
	if errors.Is(err, plugins.ErrUnsupported) || errors.Is(err, plugins.ErrVersion) {
		p.Refusals = append(p.Refusals, err.Error())
		return p, nil
	} else if err != nil {
		return p, err
	}
	if v := src.ring.newest(); slices.Compare(versionNumbers(v), versionNumbers(s.version)) > 0 {
		p.Refusals = append(p.Refusals, fmt.Sprintf("the backup was made with Cassandra %s, this node runs %s, which cannot read its files: upgrade it", v, s.version))
	}
	if err := s.complete(ctx); err != nil {
		if !errors.Is(err, plugins.ErrUnavailable) || ctx.Err() != nil {
			return p, err
		}
		p.Refusals = append(p.Refusals, err.Error())
	}
	switch {
	case src.moved:
		p.Warnings = append(p.Warnings, "the ring is not the one of the backup: every node imports the files of all nodes and drops what is not its own")
	case src.foreign:
		p.Warnings = append(p.Warnings, fmt.Sprintf("the backup has no files of the place in the ring that node %s has: it imports the files of all nodes and drops what is not its own", s.cfg.self.Name))
	}
	v, err := s.look(ctx, run, tagLook)
	if err != nil {
		return p, err
	}
	differ, err := s.differing(ctx, run, v, src, nil)
	if err = errors.Join(err, v.Release(context.WithoutCancel(ctx))); err != nil {
		return p, err
	}
	ch := src.schema.changes(v.schema)
	p.Add, p.Change, p.Remove = ch.names.add, ch.names.change, ch.names.remove
	o := s.orderFor(src.schema, v.schema, differ)
	for _, t := range src.schema.tables() {
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
		if src.schema.table(t) == nil {
			p.Remove = append(p.Remove, contentArtifact(t))
		}
	}
	diff, why, err := s.planAccounts(ctx, src.accounts())
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
	dirs, err := s.dataDirs(ctx)
	if err != nil {
		return p, err
	}
	at := s.stagingBase(dirs)
	for at != "/" && !exists(at) {
		at = filepath.Dir(at)
	}
	if p.Free, _ = space(at); p.Free > 0 && p.Free < p.Space+room {
		p.Refusals = append(p.Refusals, fmt.Sprintf("%d MiB are free in %s, %d MiB are needed: make room", p.Free>>20, at, (p.Space+room)>>20))
	}
	return p, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
