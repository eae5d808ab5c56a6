package arangodb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// pin is a held view.
type pin struct {
	v     *view
	info  plugins.PinInfo
	marks map[string]string
}

func newPin(v *view, marks map[string]string) *pin {
	b := make([]byte, 8)
	rand.Read(b) // never fails (crypto/rand)
	return &pin{v, plugins.PinInfo{ID: "arangodb-" + hex.EncodeToString(b), At: v.at, Position: v.position()}, marks}
}

func (p *pin) Info() plugins.PinInfo { return p.info }

func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p.v.mu.Lock()
	freed := p.v.freed
	p.v.mu.Unlock()
	if freed {
		return plugins.Report{}, fmt.Errorf("pin %s was released: %w", p.info.ID, plugins.ErrPinLost)
	}
	return p.v.backup(ctx, run, p.info.ID, p.marks, w)
}

func (p *pin) Release(ctx context.Context) error { return p.v.release(ctx) }

// Pin holds a snapshot of the whole server by a replication batch.
func (s singleSession) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	marks, err := s.takeMarks(ctx, run.Parallel)
	if err != nil {
		return nil, ended(ctx, err)
	}
	words, warn, err := s.beside(ctx, run)
	if err != nil {
		return nil, err
	}
	take := s.plainView
	if s.options(run, "dump") == "parallel" {
		take = s.parallelView
	}
	v, err := take(ctx, run)
	if err != nil {
		return nil, ended(ctx, err)
	}
	v.tell(words, warn)
	return newPin(v, marks), nil
}

// tell adds to what the manifest says of a view.
func (v *view) tell(words, warn string) {
	v.words += words
	if warn != "" {
		v.warn = append(v.warn, warn)
	}
}

// snapshot is a view of now, without making writers wait.
func (s *session) snapshot(ctx context.Context, run plugins.Run) (*view, error) {
	if s.cluster {
		return s.clusterView(ctx, run, false)
	}
	return s.plainView(ctx, run)
}

// plainView is the view of a single server: one batch.
func (s *session) plainView(ctx context.Context, run plugins.Run) (*view, error) {
	v, err := s.openView(ctx, run, []string{""})
	if err != nil {
		return nil, err
	}
	v.words = "one snapshot of the whole server for all documents (a replication batch); definitions as they were when the copy began"
	// The server takes the snapshot when it is first used.
	var inv inventory
	q := map[string]string{"includeSystem": "true", "batchId": v.batches[""].id}
	if err := v.c.get(ctx, systemDB, "/_api/replication/inventory", q, &inv); err != nil {
		return nil, errors.Join(v.lost(err), v.release(ctx))
	}
	return v, nil
}

// copyNow pins and copies at once.
func copyNow(ctx context.Context, p plugins.Pinner, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	pin, err := p.Pin(ctx, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := pin.Backup(ctx, run, w)
	return rep, errors.Join(err, pin.Release(ctx))
}

// Backup pins and copies at once.
func (s singleSession) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	return copyNow(ctx, s, run, w)
}

// Backup pins and copies at once.
func (s clusterSession) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	return copyNow(ctx, s, run, w)
}

// Digest reads the live data.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	v, err := s.snapshot(ctx, run)
	if err != nil {
		return nil, ended(ctx, err)
	}
	d := plugins.NewDigester()
	_, err = v.backup(ctx, run, "digest", nil, d)
	if err = errors.Join(err, v.release(ctx)); err != nil {
		return nil, err
	}
	return d.Digests(), nil
}
