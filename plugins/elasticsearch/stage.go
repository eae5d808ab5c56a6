package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// stage puts the needed part of the repository back and has the server read its listing: a damaged piece
// ends the restore here, before anything was touched.
func (s *session) stage(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, b *content, d *delta, rep *plugins.Report) (_ *repository, err error) {
	repo, err := s.newRepository(ctx, run.Epoch)
	if errors.Is(err, errNoPlace) {
		return nil, fmt.Errorf("%s: this backup is a snapshot, and %w: %w: set path.repo on every node to a shared directory", s.target, err, plugins.ErrConfig)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, repo.remove(ctx))
		}
	}()
	if free := repo.free(); free > 0 && free < d.bytes {
		return nil, fmt.Errorf("%s: %d bytes are needed in path.repo and %d are free: %w: make room there", s.target, d.bytes, free, plugins.ErrSpace)
	}
	want, err := wantedFiles(ctx, r, b, d)
	if err != nil {
		return nil, err
	}
	n, err := repo.load(ctx, run, want, r)
	if err != nil {
		return nil, err
	}
	rep.Bytes += n
	if err := repo.again(ctx); err != nil {
		return nil, err
	}
	var a struct {
		Snapshots []struct {
			State   string   `json:"state"`
			Indices []string `json:"indices"`
		} `json:"snapshots"`
	}
	if err := s.c.get(ctx, "/_snapshot/"+repo.name+"/"+snapshot, &a); err != nil {
		return nil, err
	}
	if len(a.Snapshots) != 1 || a.Snapshots[0].State != "SUCCESS" {
		return nil, fmt.Errorf("%s: the server does not find a whole snapshot in what was stored: %w", s.target, plugins.ErrCorrupt)
	}
	for name := range b.indices {
		if !slices.Contains(a.Snapshots[0].Indices, name) {
			return nil, fmt.Errorf("%s: index %s is not in the stored snapshot: %w", s.target, name, plugins.ErrCorrupt)
		}
	}
	return repo, nil
}

// wantedFiles says which files a restore of these indices needs: all at the root, and the directory of each
// index, whose name the listing at the root tells.
func wantedFiles(ctx context.Context, r plugins.ArtifactReader, b *content, d *delta) (func(string) bool, error) {
	names := d.restore()
	dirs := map[string]bool{}
	found := false
	err := entries(ctx, r, repositoryName, func(k, v []byte) error {
		if !strings.HasPrefix(string(k), "index-") || len(v) < 2 {
			return nil
		}
		var l struct {
			Indices map[string]struct {
				ID string `json:"id"`
			} `json:"indices"`
		}
		if err := json.Unmarshal(v[1:], &l); err != nil {
			return fmt.Errorf("artifact %s: %s: %w: %w", repositoryName, k, plugins.ErrCorrupt, err)
		}
		found = true
		for name, x := range l.Indices {
			if slices.Contains(names, unitOf(b.streams, &state{}, name)) {
				dirs[x.ID] = true
			}
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("artifact %s has no listing: %w", repositoryName, plugins.ErrCorrupt)
	}
	return func(path string) bool {
		rest, below := strings.CutPrefix(path, "indices/")
		id, _, _ := strings.Cut(rest, "/")
		return !below || dirs[id]
	}, err
}
