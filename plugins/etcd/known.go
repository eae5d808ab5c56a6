package etcd

import (
	"context"
	"errors"
	"sync"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A revision names one state of all keys: every transaction that writes raises
// it, and nothing else changes keys (https://etcd.io/docs/v3.4/learning/data_model/).
// So what a comparison of the keys with a backup has found need not be found
// again while the cluster is at the revision at which it was found.

// moment is a state of a cluster's keys. Term and index of its log tell a
// cluster that was made anew, and counts from the beginning, from the old one.
type moment struct {
	cluster  uint64
	revision int64
	term     uint64
}

// found is how the keys at a moment differ from the artifact with a digest.
type found struct {
	at    moment
	index uint64 // of the log, when it was found
	want  plugins.Digest
	keys  tally
	bytes int64
}

// memory keeps, for each target, what was found last. It outlives sessions.
type memory struct {
	mu   sync.Mutex
	last map[string]found
}

func (m *memory) note(target string, f found) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = map[string]found{}
	}
	m.last[target] = f
}

// recall gives what was found last, if that still holds for a view.
func (m *memory) recall(target string, v *view) (found, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.last[target]
	return f, ok && f.at == v.moment() && v.index >= f.index
}

func (v *view) moment() moment { return moment{v.cluster, v.revision, v.term} }

// walk shows visit where the live keys differ from those of a backup (see diffKeys), closes the view, and notes the outcome.
func (s *session) walk(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, v *view, visit func(key, want, live []byte)) (found, error) {
	f := found{at: v.moment(), index: v.index, want: keysOf(r)}
	err := diffKeys(ctx, v, run.Scratch, r, func(key, want, live []byte) error {
		f.keys.count(want, live)
		f.bytes += int64(len(want))
		visit(key, want, live)
		return nil
	})
	if err = errors.Join(err, v.close()); err != nil {
		return f, err
	}
	s.known.note(s.cfg.target.String(), f)
	return f, nil
}

// keysOf is the digest of a backup's keys.
func keysOf(r plugins.ArtifactReader) plugins.Digest {
	for _, a := range r.Artifacts() {
		if a.Name == artKeys {
			return a.Digest
		}
	}
	return plugins.Digest{}
}
