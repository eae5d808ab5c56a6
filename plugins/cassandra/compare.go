package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// memory is what a restore leaves in the scratch directory for the comparison after it: how many
// writes each table had seen when it was exact. Writes above that are somebody else's.
type memory struct {
	Work       string           `json:"work"`
	Generation int64            `json:"generation"` // of the server process: counters begin anew with it
	Schema     string           `json:"schema"`     // version when the restore had ended its definitions
	Writes     map[string]int64 `json:"writes"`
}

func memoryFile(run plugins.Run) string { return filepath.Join(run.Scratch, "restored.json") }

func work(run plugins.Run) string {
	return fmt.Sprintf("%d %s %s", run.Epoch, run.Operation, run.Backup)
}

// moment reads which process this is, and the version of its schema.
func (s *session) moment(ctx context.Context) (generation int64, version string, err error) {
	var g int
	err = s.c.Query("SELECT gossip_generation, schema_version FROM system.local").WithContext(ctx).Scan(&g, &version)
	return int64(g), version, s.cfg.wrap(ctx, "ask the node for its generation", err)
}

// remember notes the counters of writes; counts overrides those of now.
func (s *session) remember(ctx context.Context, run plugins.Run, tables []tableName, counts map[tableName]int64) error {
	g, version, err := s.moment(ctx)
	if err != nil {
		return err
	}
	now, err := s.countWrites(ctx)
	if err != nil {
		return err
	}
	m := memory{Work: work(run), Generation: g, Schema: version, Writes: map[string]int64{}}
	for _, t := range tables {
		m.Writes[t.String()] = now[t]
		if n, ok := counts[t]; ok {
			m.Writes[t.String()] = n
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	tmp := memoryFile(run) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("scratch directory: %w", err)
	}
	return os.Rename(tmp, memoryFile(run))
}

// recall reads the memory of this restore; without one, or after the server was started anew, it is empty.
func (s *session) recall(ctx context.Context, run plugins.Run) (m memory, now map[tableName]int64, sameSchema bool, err error) {
	b, err := os.ReadFile(memoryFile(run))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil, true, nil
	} else if err != nil {
		return m, nil, true, fmt.Errorf("scratch directory: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil || m.Work != work(run) {
		return memory{}, nil, true, nil
	}
	g, version, err := s.moment(ctx)
	if err != nil || g != m.Generation {
		return memory{}, nil, true, err
	}
	now, err = s.countWrites(ctx)
	return m, now, version == m.Schema, err
}

// Compare says where the node's data, its definitions and the accounts differ from the backup.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	out, err := s.compare(ctx, run, r)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	return out, nil
}

func (s *session) compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	if s.down != nil {
		return nil, fmt.Errorf("%s: node %s is down: %w", s.cfg.target, s.cfg.self.Name, s.down)
	}
	src, err := s.sources(ctx, r)
	if err != nil {
		return nil, err
	}
	var out []plugins.Difference
	if !run.AccountsOnly {
		v, err := s.look(ctx, run, tagLook)
		if err != nil {
			return nil, err
		}
		out, err = s.compareView(ctx, run, v, src)
		if err = errors.Join(err, v.Release(context.WithoutCancel(ctx))); err != nil {
			return nil, err
		}
		if out, err = s.shared(ctx, run, out); err != nil {
			return nil, err
		}
	}
	accounts, err := s.compareAccounts(ctx, src.accounts())
	if err != nil {
		return nil, err
	}
	out = append(out, accounts...)
	slices.SortStableFunc(out, func(a, b plugins.Difference) int { return strings.Compare(a.Artifact, b.Artifact) })
	return out, nil
}

func (s *session) compareView(ctx context.Context, run plugins.Run, v *view, src *sources) ([]plugins.Difference, error) {
	m, now, sameSchema, err := s.recall(ctx, run)
	if err != nil {
		return nil, err
	}
	var out []plugins.Difference
	for _, ks := range src.schema.keyspaces() {
		live, ok := v.schema[ks]
		switch {
		case !ok:
			out = append(out, plugins.Difference{Artifact: schemaArtifact(ks), Kind: "missing", Foreign: !sameSchema})
		case !reflect.DeepEqual(live, src.schema[ks]):
			out = append(out, plugins.Difference{Artifact: schemaArtifact(ks), Kind: "changed", Foreign: !sameSchema,
				Detail: firstDifference(schema{ks: src.schema[ks]}, v.schema)})
		}
	}
	for _, ks := range v.schema.keyspaces() {
		if _, ok := src.schema[ks]; !ok {
			out = append(out, plugins.Difference{Artifact: schemaArtifact(ks), Kind: "extra", Foreign: !sameSchema})
		}
	}
	var seen int64
	for _, t := range src.schema.tables() {
		if v.schema.table(t) == nil {
			out = append(out, plugins.Difference{Artifact: contentArtifact(t), Kind: "missing", Foreign: !sameSchema})
			continue
		}
		h, err := src.compare(ctx, run, v, t, func(n int) {
			seen += int64(n)
			run.Report(plugins.Status{Phase: "digest", Item: t.String(), Bytes: seen})
		})
		if err != nil {
			return nil, err
		}
		before, known := m.Writes[t.String()]
		wrote := known && now[t] > before
		if h == byFiles || h == byRows || h == unproven && known && !wrote {
			continue
		}
		d := plugins.Difference{Artifact: contentArtifact(t), Kind: "changed", Foreign: wrote, Detail: "its rows differ"}
		switch h {
		case unreadable:
			d.Detail, d.Foreign = "the server cannot read it; see its system.log", false
		case unproven:
			d.Detail = "its files differ, and the backup holds no digest of its rows"
		}
		if wrote {
			d.Detail += fmt.Sprintf("; %d writes since the restore", now[t]-before)
		}
		out = append(out, d)
	}
	return out, nil
}
