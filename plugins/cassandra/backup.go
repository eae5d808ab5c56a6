package cassandra

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const consistency = "one snapshot of the node, flushed; the nodes' snapshots are taken at the same time"

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
	v, err := s.look(ctx, run, tagLook)
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	_, err = v.Backup(ctx, run, d)
	if err = errors.Join(err, v.Release(context.WithoutCancel(ctx))); err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	return d.Digests(), nil
}

// Backup writes definitions, ring, accounts, what the tables hold row by row where that can be told,
// and the files.
func (v *view) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: v.s.version, Position: v.info.Position, Consistency: consistency}
	if v.gone != "" {
		rep.Consistency = "the node was down and is not in the backup; other nodes hold its data"
		rep.Warnings = append(rep.Warnings, v.gone)
	}
	if err := v.lost(); err != nil {
		return rep, err
	}
	fail := func(what string, err error) (plugins.Report, error) {
		if lerr := v.lost(); lerr != nil && ctx.Err() == nil {
			err = errors.Join(lerr, err)
		}
		return rep, fmt.Errorf("back up %s: %s: %w", v.s.cfg.target, what, err)
	}
	if v.gone == "" {
		if err := v.awake(ctx); err != nil {
			return fail("connect", err)
		}
	}
	n, err := writeSchema(ctx, w, v.schema, v.info.ID)
	if err != nil {
		return fail("definitions", err)
	}
	rep.Artifacts += n
	if err := writeRing(ctx, w, v.ring, v.info.ID); err != nil {
		return fail("ring", err)
	}
	accounts, err := v.s.readAccounts(ctx)
	if err != nil {
		return fail("accounts", err)
	}
	if err := writeRecords(ctx, w, plugins.Artifact{Name: accountsArtifact, Form: plugins.Ordered, Pin: v.info.ID}, accounts.records()); err != nil {
		return fail("accounts", err)
	}
	rep.Artifacts += 2
	rep.Records += int64(len(accounts))
	var mu sync.Mutex
	var bytes atomic.Int64
	var total int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for _, t := range v.schema.tables() {
		total += v.size(t)
	}
	for _, t := range v.schema.tables() {
		g.Go(func() error {
			proven, rows, err := v.writeContent(gctx, run, w, t)
			mu.Lock()
			defer mu.Unlock()
			rep.Records += rows
			if proven {
				rep.Artifacts++
			}
			return err
		})
		for _, f := range v.files[t] {
			g.Go(func() error {
				err := v.copyFile(gctx, w, f, func(n int) {
					run.Report(plugins.Status{Phase: "copy", Item: f.artifact(), Bytes: bytes.Add(int64(n)), Total: total})
				})
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, errDamaged) && run.Operation == plugins.OpSafety { // it is copied as it is
					rep.Warnings = append(rep.Warnings, err.Error())
					err = nil
				}
				rep.Artifacts++
				rep.Bytes += f.size
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return fail("files", err)
	}
	return rep, nil
}

// errDamaged: the bytes of an SSTable are not those that the server wrote.
var errDamaged = errors.New("damaged on the server's disk")

// copyFile stores one file, or refers to it where the last backup holds it: an SSTable is never written twice.
// Of data it checks the server's checksum; damaged data is stored, and errDamaged returned.
func (v *view) copyFile(ctx context.Context, w plugins.ArtifactWriter, f file, seen func(int)) error {
	a := plugins.Artifact{Name: f.artifact(), Form: plugins.File, Pin: v.info.ID, Identity: f.stamp, Volatile: true}
	if f.data() {
		_, err := os.Stat(filepath.Join(filepath.Dir(f.path), generation(f.name)+"-CompressionInfo.db"))
		a.Dense = err == nil
		h, err := header(filepath.Join(filepath.Dir(f.path), generation(f.name)+"-Statistics.db"))
		if err != nil {
			return fmt.Errorf("%s: %w", f.artifact(), err)
		}
		a.Attributes = map[string]string{"header": h}
	}
	if ok, err := w.Reuse(ctx, a); ok || err != nil {
		seen(int(f.size))
		return err
	}
	in, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("%s: %w", f.artifact(), err)
	}
	defer in.Close()
	out, err := w.Create(ctx, a)
	if err != nil {
		return err
	}
	defer out.Abort()
	buf := make([]byte, 1<<20)
	var size int64
	var sum uint32
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if f.data() {
				sum = crc32.Update(sum, crc32.IEEETable, buf[:n])
			}
			if _, werr := out.Write(buf[:n]); werr != nil {
				return werr
			}
			size += int64(n)
			seen(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.artifact(), err)
		}
	}
	if size != f.size {
		return fmt.Errorf("%s: %d bytes, the snapshot had %d: %w", f.artifact(), size, f.size, plugins.ErrPinLost)
	}
	if err := out.Commit(); err != nil || !f.data() {
		return err
	}
	want, known, err := checksum(digestOf(f.path))
	if err == nil && known && want != sum {
		err = fmt.Errorf("SSTable %s of %s: %w: checksum %d, written with %d: run `nodetool scrub` or restore the table", f.name, f.table, errDamaged, sum, want)
	}
	return err
}

// fingerprints hashes the SSTables of one table, those that are not known, and sorts what came out.
func (v *view) fingerprints(ctx context.Context, t tableName, known map[string]string, seen func(int)) ([]string, error) {
	var out []string
	for _, f := range v.files[t] {
		if !f.data() {
			continue
		}
		if p, ok := known[f.artifact()+"\x00"+f.stamp]; ok {
			out = append(out, p)
			continue
		}
		h, err := header(filepath.Join(filepath.Dir(f.path), generation(f.name)+"-Statistics.db"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.artifact(), err)
		}
		d, err := hashFile(ctx, f.path, seen)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.artifact(), err)
		}
		out = append(out, fingerprint(d, h))
	}
	slices.Sort(out)
	return out, nil
}
