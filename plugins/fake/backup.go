package fake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// accountsArtifact holds the accounts; every other artifact is a table.
const accountsArtifact = "accounts"

func artifactName(table string) string {
	if table == Accounts {
		return accountsArtifact
	}
	return "table/" + table
}

func tableName(artifact string) (string, error) {
	if artifact == accountsArtifact {
		return Accounts, nil
	}
	const p = "table/"
	if len(artifact) < len(p) || artifact[:len(p)] != p {
		return "", fmt.Errorf("artifact %q is of no known kind: %w: this backup was made by another version", artifact, plugins.ErrData)
	}
	return artifact[len(p):], nil
}

// Pin links the table files into the scratch directory: an instant, and writers go on.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	id := rand.Text()
	dir := filepath.Join(run.Scratch, "pin-"+id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pin %s: %w", s.target, err)
	}
	view, root, err := s.db.View(ctx, dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pin %s: %w", s.target, err), os.RemoveAll(dir))
	}
	return &pin{s: s, view: view, root: root, info: plugins.PinInfo{ID: id, At: time.Now(), Position: strconv.FormatInt(root.Revision, 10)}}, nil
}

type pin struct {
	s    *session
	view *DB
	root Root
	info plugins.PinInfo
}

func (p *pin) Info() plugins.PinInfo { return p.info }

func (p *pin) Release(context.Context) error { return os.RemoveAll(p.view.dir) }

func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	if _, err := os.Stat(p.view.dir); err != nil {
		return plugins.Report{}, fmt.Errorf("%s: %w: %w", p.s.target, plugins.ErrPinLost, err)
	}
	rep, err := copyTables(ctx, run, p.view, p.root, p.info.ID, w)
	if err != nil {
		return rep, fmt.Errorf("back up %s: %w", p.s.target, err)
	}
	return rep, nil
}

// Backup pins and copies at once.
func (s *session) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p, err := s.Pin(ctx, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := p.Backup(ctx, run, w)
	// A cancelled backup still gives back what it holds.
	return rep, errors.Join(err, p.Release(context.WithoutCancel(ctx)))
}

// Digest is a backup of the live data into a Digester.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	d := plugins.NewDigester()
	if _, err := s.Backup(ctx, run, d); err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	return d.Digests(), nil
}

func copyTables(ctx context.Context, run plugins.Run, view *DB, root Root, pin string, w plugins.ArtifactWriter) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: "1", Position: strconv.FormatInt(root.Revision, 10), Consistency: "one revision of the whole database"}
	names := make([]string, 0, len(root.Tables))
	for n := range root.Tables {
		names = append(names, n)
	}
	slices.Sort(names)
	counts := make([]plugins.Report, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for i, n := range names {
		g.Go(func() error { return copyTable(ctx, run, view, root.Tables[n], n, pin, w, &counts[i]) })
	}
	if err := g.Wait(); err != nil {
		return rep, err
	}
	for _, c := range counts {
		rep.Artifacts++
		rep.Records += c.Records
		rep.Bytes += c.Bytes
	}
	return rep, nil
}

func copyTable(ctx context.Context, run plugins.Run, view *DB, t Table, name, pin string, w plugins.ArtifactWriter, rep *plugins.Report) error {
	a := plugins.Artifact{Name: artifactName(name), Form: plugins.Ordered, Pin: pin,
		Identity: fmt.Sprintf("revision %d", t.Revision)}
	if ok, err := w.Reuse(ctx, a); ok || err != nil {
		return err
	}
	out, err := w.Create(ctx, a)
	if err != nil {
		return err
	}
	defer out.Abort()
	err = view.Scan(ctx, t, func(k, v []byte) error {
		rep.Records++
		rep.Bytes += int64(len(k) + len(v))
		if rep.Records%1024 == 0 {
			run.Report(plugins.Status{Phase: "copy", Item: a.Name, Bytes: rep.Bytes})
		}
		return out.Put(k, v)
	})
	if err != nil {
		return fmt.Errorf("table %q: %w", name, err)
	}
	return out.Commit()
}

// size is the number of bytes in a table's file.
func (d *DB) size(t Table) (int64, error) {
	st, err := os.Stat(filepath.Join(d.dir, t.File))
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
