package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// change is what a restore has to do to one table.
type change struct {
	table string
	kind  string // "missing", "changed", "extra", "" when equal
	want  plugins.ArtifactInfo
}

// changes compares live tables with artifacts. The accounts are looked at only on request.
func (s *session) changes(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, data, accounts bool) ([]change, error) {
	live, err := s.Digest(ctx, run)
	if err != nil {
		return nil, err
	}
	chosen := func(artifact string) bool {
		return artifact == accountsArtifact && accounts || artifact != accountsArtifact && data
	}
	var out []change
	for _, a := range r.Artifacts() {
		if !chosen(a.Name) {
			continue
		}
		t, err := tableName(a.Name)
		if err != nil {
			return nil, err
		}
		c := change{table: t, want: a}
		if d, ok := live[a.Name]; !ok {
			c.kind = "missing"
		} else if d != a.Digest {
			c.kind = "changed"
		}
		delete(live, a.Name)
		out = append(out, c)
	}
	for name := range live {
		if chosen(name) {
			t, err := tableName(name)
			if err != nil {
				return nil, err
			}
			out = append(out, change{table: t, kind: "extra"})
		}
	}
	return out, nil
}

// Plan says what Restore and RestoreAccounts would change.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	cs, err := s.changes(ctx, run, r, true, true)
	if err != nil {
		return plugins.Plan{}, fmt.Errorf("plan %s: %w", s.target, err)
	}
	p := plugins.Plan{Inexact: []plugins.Inexact{}}
	for _, c := range cs {
		name := artifactName(c.table)
		switch c.kind {
		case "":
			p.Unchanged = append(p.Unchanged, name)
		case "changed":
			p.Change = append(p.Change, name)
			p.Write += c.want.Bytes
		case "missing":
			p.Add = append(p.Add, name)
			p.Write += c.want.Bytes
		case "extra":
			p.Remove = append(p.Remove, name)
		}
	}
	p.Space = p.Write
	return p, nil
}

// Restore makes the tables equal, accounts apart.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	return s.restore(ctx, run, r, true, false)
}

// AccountArtifact is true for the one artifact of accounts.
func (s *session) AccountArtifact(name string) bool { return name == accountsArtifact }

// RestoreAccounts makes the accounts equal.
func (s *session) RestoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep, err := s.restore(ctx, run, r, false, true)
	if err != nil {
		return rep, err
	}
	return rep, os.WriteFile(filepath.Join(run.Scratch, accountsFile), nil, 0o600)
}

// accountsFile, in the scratch directory, says that RestoreAccounts has ended.
const accountsFile = "accounts-restored"

func (s *session) restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, data, accounts bool) (plugins.Report, error) {
	var rep plugins.Report
	// The claim is not a write to any table: from here on an attempt of a lower
	// epoch is refused by the database, even if this one finds nothing to write.
	if err := s.db.Update(ctx, run.Epoch, func(*Root) error { return nil }); err != nil {
		return rep, fmt.Errorf("restore %s: %w", s.target, err)
	}
	cs, err := s.changes(ctx, run, r, data, accounts)
	if err != nil {
		return rep, fmt.Errorf("restore %s: %w", s.target, err)
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for _, c := range cs {
		if c.kind == "" {
			mu.Lock()
			rep.Unchanged++
			mu.Unlock()
			continue
		}
		if c.kind == "extra" {
			continue
		}
		g.Go(func() error {
			one, err := s.load(gctx, run, r, c)
			mu.Lock()
			defer mu.Unlock()
			rep.Artifacts++
			rep.Records += one.Records
			rep.Bytes += one.Bytes
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return rep, fmt.Errorf("restore %s: %w", s.target, err)
	}
	// What appeared later goes last: until then the restore has only added.
	for _, c := range cs {
		if c.kind == "extra" {
			if err := s.db.Drop(ctx, run.Epoch, c.table); err != nil {
				return rep, fmt.Errorf("restore %s: remove %q: %w", s.target, c.table, err)
			}
			rep.Removed++
		}
	}
	root, err := s.db.Root()
	rep.ServerVersion, rep.Position = "1", strconv.FormatInt(root.Revision, 10)
	rep.Consistency = "each table appears in one step"
	return rep, err
}

// load replaces one table by the artifact. Nothing of it is visible before
// all of it was read and verified.
func (s *session) load(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, c change) (plugins.Report, error) {
	var rep plugins.Report
	in, err := r.Open(ctx, c.want.Name)
	if err != nil {
		return rep, err
	}
	err = s.db.Replace(ctx, run.Epoch, c.table, func(put func(k, v []byte) error) error {
		for {
			k, v, err := in.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			rep.Records++
			rep.Bytes += int64(len(k) + len(v))
			if rep.Records%1024 == 0 {
				run.Report(plugins.Status{Phase: "load", Item: c.want.Name, Bytes: rep.Bytes, Total: c.want.Bytes})
			}
			if err := put(k, v); err != nil {
				return err
			}
		}
	})
	if err = errors.Join(err, in.Close()); err != nil {
		return rep, fmt.Errorf("artifact %q: %w", c.want.Name, err)
	}
	return rep, nil
}

// Compare names the tables that differ. A table last written or dropped by
// anyone but this epoch is somebody else's doing.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	live, err := s.Digest(ctx, run)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", s.target, err)
	}
	root, err := s.db.Root()
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", s.target, err)
	}
	want := r.Artifacts()
	if run.Operation == plugins.OpRestore || run.Operation == plugins.OpRollback {
		// Between Restore and RestoreAccounts the accounts are still the old ones, as they should be.
		if _, err := os.Stat(filepath.Join(run.Scratch, accountsFile)); errors.Is(err, os.ErrNotExist) {
			want = slices.DeleteFunc(want, func(a plugins.ArtifactInfo) bool { return a.Name == accountsArtifact })
			delete(live, accountsArtifact)
		}
	}
	out := plugins.DiffDigests(live, want)
	for i := range out {
		t, err := tableName(out[i].Artifact)
		if err != nil {
			return nil, err
		}
		at, ok := root.Tables[t]
		if !ok {
			at = root.Dropped[t]
		}
		out[i].Foreign = at.By != run.Epoch
	}
	return out, nil
}
